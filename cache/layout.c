// SPDX-License-Identifier: Apache-2.0
#include "cache/layout.h"

#include "cache/beneath.h"
#include "cache/blobs.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

// To open things in, to list, and to read. O_NONBLOCK: opening a FIFO must not wait for its writer.
#define DIR_FLAGS (O_PATH | O_DIRECTORY)
#define LIST_FLAGS (O_RDONLY | O_DIRECTORY)
#define FILE_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY)

#define REST_SIZE (NAMES_COMMIT_SIZE + 4096) // "<commit>/<path>" of a path that names_path_ok() lets pass, and the NUL
#define REPO_PATH_SIZE (NAMES_FOLDER_SIZE + 16 + REST_SIZE) // "<folder>/<directory>/" before that

#define REF_WAIT_MS 50
#define REF_STEP_NS 2000000

struct layout {
    char *path;   // absolute, no slash at its end
    char *parent; // the directory that it lies in
};

// Opens the cache's directory.
static int open_cache(const struct layout *layout, int *ret_fd)
{
    int fd = open(layout->path, DIR_FLAGS | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno != ELOOP && errno != ENOTDIR)
        return -errno;
    if (fd < 0) {
        _cleanup_close_ int parent = open(layout->parent, DIR_FLAGS | O_CLOEXEC);
        if (parent < 0)
            return -errno;
        return beneath_open_trusted(parent, strrchr(layout->path, '/') + 1, DIR_FLAGS, ret_fd);
    }
    *ret_fd = fd;
    return 0;
}

// Opens `rest` in the repo's directory `dir`, which may be a link as the repo may; `rest` may be "" for `dir` itself,
// and both for the repo. The usual case, no links, is one system call.
static int open_in_repo(int cache, const struct repo *repo, const char *dir, const char *rest, int flags, int *ret_fd)
{
    char folder[NAMES_FOLDER_SIZE];
    names_repo_folder(repo, folder);
    char path[REPO_PATH_SIZE];
    int len = snprintf(path, sizeof path, "%s%s%s%s%s", folder, *dir ? "/" : "", dir, *rest ? "/" : "", rest);
    if (len < 0 || (size_t) len >= sizeof path)
        return -ENAMETOOLONG;
    int r = beneath_open(cache, path, flags, ret_fd);
    if (r != -EPERM)
        return r;

    _cleanup_close_ int repo_fd = -1;
    r = beneath_open_trusted(cache, folder, *dir ? DIR_FLAGS : flags, &repo_fd);
    if (r < 0)
        return r;
    _cleanup_close_ int dir_fd = -1;
    if (*dir) {
        r = beneath_open_trusted(repo_fd, dir, *rest ? DIR_FLAGS : flags, &dir_fd);
        if (r < 0)
            return r;
    }
    if (*rest)
        return beneath_open(dir_fd, rest, flags, ret_fd);
    *ret_fd = util_take_fd(*dir ? &dir_fd : &repo_fd);
    return 0;
}

// As open_in_repo(), but from the cache on.
static int open_in_cache(const struct layout *layout, const struct repo *repo, const char *dir, const char *rest,
                         int flags, int *ret_fd)
{
    _cleanup_close_ int cache = -1;
    int r = open_cache(layout, &cache);
    return r < 0 ? r : open_in_repo(cache, repo, dir, rest, flags, ret_fd);
}

int layout_open(const char *path, struct layout **ret_layout)
{
    _cleanup_free_ char *here = *path == '/' ? strdup("") : getcwd(NULL, 0);
    if (!here)
        return -errno;
    char *absolute = NULL;
    if (asprintf(&absolute, "%s/%s", here, path + strspn(path, "/")) < 0)
        return -ENOMEM;
    // With a slash at the end, O_NOFOLLOW would follow.
    for (size_t len = strlen(absolute); len > 1 && absolute[len - 1] == '/'; len--)
        absolute[len - 1] = '\0';

    struct layout *layout = malloc(sizeof *layout);
    char *slash = strrchr(absolute, '/');
    char *parent = slash > absolute ? strndup(absolute, (size_t) (slash - absolute)) : strdup("/");
    if (!layout || !parent) {
        free(absolute);
        free(parent);
        free(layout);
        return -ENOMEM;
    }
    *layout = (struct layout){ .path = absolute, .parent = parent };

    _cleanup_close_ int cache = -1;
    int r = open_cache(layout, &cache);
    if (r == 0 && faccessat(cache, ".", R_OK | X_OK, AT_EACCESS) < 0)
        r = -errno;
    if (r < 0 && r != -ENOENT) {
        layout_close(layout);
        return r;
    }
    *ret_layout = layout;
    return 0;
}

void layout_close(struct layout *layout)
{
    if (!layout)
        return;
    free(layout->path);
    free(layout->parent);
    free(layout);
}

const char *layout_path(const struct layout *layout)
{
    return layout->path;
}

bool layout_exists(const struct layout *layout)
{
    _cleanup_close_ int cache = -1;
    return open_cache(layout, &cache) == 0;
}

// Opens the cache or the nearest of its parents that exists.
static int open_nearest(const struct layout *layout, int *ret_fd)
{
    int r = open_cache(layout, ret_fd);
    if (r != -ENOENT)
        return r;
    _cleanup_free_ char *path = strdup(layout->parent);
    if (!path)
        return -ENOMEM;
    for (;;) {
        int fd = open(path, DIR_FLAGS | O_CLOEXEC);
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (errno != ENOENT)
            return -errno;
        char *slash = strrchr(path, '/');
        slash[slash == path] = '\0';
    }
}

int layout_statvfs(const struct layout *layout, struct statvfs *ret_stat)
{
    _cleanup_close_ int fd = -1;
    int r = open_nearest(layout, &fd);
    if (r < 0)
        return r;
    return fstatvfs(fd, ret_stat) < 0 ? -errno : 0;
}

bool layout_on_overlay(const struct layout *layout)
{
    _cleanup_close_ int fd = -1;
    struct statfs st;
    if (open_nearest(layout, &fd) < 0 || fstatfs(fd, &st) < 0)
        return false;
    return (uint32_t) st.f_type == OVERLAYFS_SUPER_MAGIC;
}

// ---- repos, refs, commits ----

// A directory stream from a descriptor, which is gone either way. NULL and errno on failure.
static DIR *open_stream(int fd)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int error = errno;
        close(fd);
        errno = error;
    }
    return dir;
}

// The next entry other than "." and "..". NULL at the end, or on failure with *ret_error = -errno.
static const struct dirent *next_entry(DIR *dir, int *ret_error)
{
    for (;;) {
        errno = 0;
        const struct dirent *d = readdir(dir);
        if (d && (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0))
            continue;
        if (!d && errno)
            *ret_error = -errno;
        return d;
    }
}

// S_IFDIR, S_IFREG, …; 0 if it is gone. Not every file system fills in d_type.
static mode_t entry_type(int dir_fd, const struct dirent *d)
{
    if (d->d_type != DT_UNKNOWN)
        return DTTOIF(d->d_type);
    struct stat st;
    return fstatat(dir_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : st.st_mode & S_IFMT;
}

int layout_repos(const struct layout *layout, layout_repo_fn *fn, void *userdata)
{
    _cleanup_close_ int cache = -1;
    int r = open_cache(layout, &cache);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    int list = openat(cache, ".", LIST_FLAGS | O_CLOEXEC);
    if (list < 0)
        return -errno;
    _cleanup_closedir_ DIR *dir = open_stream(list);
    if (!dir)
        return -errno;
    for (const struct dirent *d; (d = next_entry(dir, &r));) {
        struct repo repo;
        if (!names_repo_from_folder(d->d_name, &repo))
            continue;
        mode_t type = entry_type(cache, d);
        if (type == S_IFLNK) {
            _cleanup_close_ int fd = -1;
            if (beneath_open_trusted(cache, d->d_name, DIR_FLAGS, &fd) < 0)
                continue;
        } else if (type != S_IFDIR) {
            continue;
        }
        r = fn(userdata, &repo);
        if (r != 0)
            return r;
    }
    return r;
}

bool layout_has_repo(const struct layout *layout, const struct repo *repo)
{
    _cleanup_close_ int fd = -1;
    return open_in_cache(layout, repo, "", "", DIR_FLAGS, &fd) == 0;
}

// Reads the commit that the open ref file holds. While there is less in it, somebody may be writing it: it is looked at
// again until `deadline` (util_now_ms). -ENOENT when it holds something else.
static int read_commit(int fd, int64_t deadline, char ret_commit[NAMES_COMMIT_SIZE])
{
    const size_t len = NAMES_COMMIT_SIZE - 1;
    for (;;) {
        char text[NAMES_COMMIT_SIZE + 8];
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n >= (ssize_t) len) {
            size_t end = (size_t) n;
            end -= end > len && text[end - 1] == '\n';
            end -= end > len && text[end - 1] == '\r';
            text[end] = '\0';
            if (end != len || !names_commit_ok(text))
                return -ENOENT;
            memcpy(ret_commit, text, NAMES_COMMIT_SIZE);
            return 0;
        }
        if (util_now_ms() >= deadline)
            return -ENOENT;
        nanosleep(&(struct timespec){ .tv_nsec = REF_STEP_NS }, NULL);
    }
}

static bool is_regular(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

// What the walk through `refs` carries along.
struct refs_walk {
    layout_ref_fn *fn;
    void *userdata;
    int64_t deadline; // one for all, so that many empty files don't add up
    char ref[NAMES_REF_SIZE];
};

// Lists the directory `fd` (which it closes), whose refs begin with the first `len` bytes of walk->ref. That bounds the
// depth of the recursion.
static int walk_refs(struct refs_walk *walk, int fd, size_t len)
{
    _cleanup_closedir_ DIR *dir = open_stream(fd);
    if (!dir)
        return -errno;
    int r = 0;
    for (const struct dirent *d; (d = next_entry(dir, &r));) {
        size_t name_len = strlen(d->d_name);
        if (len + name_len + 2 > sizeof walk->ref)
            continue;
        memcpy(walk->ref + len, d->d_name, name_len + 1);
        mode_t type = entry_type(dirfd(dir), d);
        if (type != S_IFDIR && (type != S_IFREG || !names_ref_ok(walk->ref)))
            continue;
        bool deeper = type == S_IFDIR;
        int entry = openat(dirfd(dir), d->d_name, (deeper ? LIST_FLAGS : FILE_FLAGS) | O_NOFOLLOW | O_CLOEXEC);
        if (entry < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
                return -errno;
            continue;
        }
        if (deeper) {
            walk->ref[len + name_len] = '/';
            r = walk_refs(walk, entry, len + name_len + 1);
        } else {
            char commit[NAMES_COMMIT_SIZE];
            bool holds = is_regular(entry) && read_commit(entry, walk->deadline, commit) == 0;
            close(entry);
            r = holds ? walk->fn(walk->userdata, walk->ref, commit) : 0;
        }
        if (r != 0)
            return r;
    }
    return r;
}

int layout_refs(const struct layout *layout, const struct repo *repo, layout_ref_fn *fn, void *userdata)
{
    int fd = -1;
    int r = open_in_cache(layout, repo, "refs", "", LIST_FLAGS, &fd);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    struct refs_walk walk = { .fn = fn, .userdata = userdata, .deadline = util_now_ms() + REF_WAIT_MS };
    return walk_refs(&walk, fd, 0);
}

int layout_ref(const struct layout *layout, const struct repo *repo, const char *ref,
               char ret_commit[NAMES_COMMIT_SIZE], int64_t *ret_written_ms)
{
    if (!names_ref_ok(ref))
        return -ENOENT;
    _cleanup_close_ int fd = -1;
    int r = open_in_cache(layout, repo, "refs", ref, FILE_FLAGS, &fd);
    if (r < 0)
        return r == -ENOTDIR ? -ENOENT : r == -ENXIO ? -EPERM : r;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? -ENOENT : -EPERM;
    if (ret_written_ms)
        *ret_written_ms = (int64_t) st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    return read_commit(fd, util_now_ms() + REF_WAIT_MS, ret_commit);
}

// Opens a repo's directory to list it; *ret_dir is NULL when there is none.
static int list_in_cache(const struct layout *layout, const struct repo *repo, const char *dir, DIR **ret_dir)
{
    int fd = -1;
    int r = open_in_cache(layout, repo, dir, "", LIST_FLAGS, &fd);
    if (r < 0) {
        *ret_dir = NULL;
        return r == -ENOENT ? 0 : r;
    }
    *ret_dir = open_stream(fd);
    return *ret_dir ? 0 : -errno;
}

int layout_commits(const struct layout *layout, const struct repo *repo, layout_commit_fn *fn, void *userdata)
{
    _cleanup_closedir_ DIR *snapshots = NULL;
    int r = list_in_cache(layout, repo, "snapshots", &snapshots);
    for (const struct dirent *d; r == 0 && snapshots && (d = next_entry(snapshots, &r));)
        if (names_commit_ok(d->d_name) && entry_type(dirfd(snapshots), d) == S_IFDIR)
            r = fn(userdata, d->d_name);
    return r;
}

int layout_blobs(const struct layout *layout, const struct repo *repo, layout_blob_fn *fn, void *userdata)
{
    _cleanup_closedir_ DIR *blobs = NULL;
    int r = list_in_cache(layout, repo, "blobs", &blobs);
    for (const struct dirent *d; r == 0 && blobs && (d = next_entry(blobs, &r));) {
        struct stat st;
        if (names_etag_ok(d->d_name) && fstatat(dirfd(blobs), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode))
            r = fn(userdata, d->d_name, st.st_size);
    }
    return r;
}

bool layout_has_commit(const struct layout *layout, const struct repo *repo, const char *commit)
{
    if (!names_commit_ok(commit))
        return false;
    _cleanup_close_ int fd = -1;
    if (open_in_cache(layout, repo, "snapshots", commit, DIR_FLAGS, &fd) == 0)
        return true;
    _cleanup_close_ int tree = -1;
    return layout_tree_open(layout, repo, commit, &tree, &(struct stat){ 0 }) == 0;
}

int layout_tree_open(const struct layout *layout, const struct repo *repo, const char *commit, int *ret_fd,
                     struct stat *ret_stat)
{
    if (!names_commit_ok(commit))
        return -ENOENT;
    char name[NAMES_COMMIT_SIZE + sizeof ".json"];
    stpcpy(stpcpy(name, commit), ".json");
    _cleanup_close_ int fd = -1;
    int r = open_in_cache(layout, repo, "trees", name, FILE_FLAGS, &fd);
    if (r < 0)
        return r == -ENXIO ? -EPERM : r;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EPERM;
    *ret_stat = st;
    *ret_fd = util_take_fd(&fd);
    return 0;
}

// ---- snapshots ----

// "<commit>/<path>", or "<commit>" for the top. False if one of them is not well formed.
static bool join_commit(const char *commit, const char *path, char ret_rest[REST_SIZE])
{
    if (!names_commit_ok(commit) || (*path && !names_path_ok(path, strlen(path))))
        return false;
    stpcpy(stpcpy(stpcpy(ret_rest, commit), *path ? "/" : ""), path);
    return true;
}

int layout_dir_open(const struct layout *layout, const struct repo *repo, const char *commit, const char *dir,
                    int *ret_fd)
{
    char rest[REST_SIZE];
    if (!join_commit(commit, dir, rest))
        return -ENOENT;
    return open_in_cache(layout, repo, "snapshots", rest, LIST_FLAGS, ret_fd);
}

bool layout_has_file(const struct layout *layout, const struct repo *repo, const char *commit, const char *path)
{
    _cleanup_close_ int dir = -1;
    const char *slash = strrchr(path, '/');
    char parent[REST_SIZE];
    snprintf(parent, sizeof parent, "%.*s", slash ? (int) (slash - path) : 0, path);
    int r = layout_dir_open(layout, repo, commit, parent, &dir);
    struct stat st;
    return r == 0 && fstatat(dir, slash ? slash + 1 : path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

bool layout_no_exist(const struct layout *layout, const struct repo *repo, const char *commit, const char *path)
{
    char rest[REST_SIZE];
    if (!*path || !join_commit(commit, path, rest))
        return false;
    _cleanup_close_ int fd = -1;
    return open_in_cache(layout, repo, ".no_exist", rest, O_PATH, &fd) == 0 && is_regular(fd);
}

// What the link `name` in the snapshot's directory `dir_fd` points at: blobs_open_link().
static int open_link(int cache, const struct repo *repo, int dir_fd, const char *name, int flags, int *ret_fd,
                     struct stat *ret_stat, char ret_etag[NAMES_ETAG_SIZE])
{
    _cleanup_close_ int blobs = -1;
    int r = open_in_repo(cache, repo, "blobs", "", DIR_FLAGS, &blobs);
    if (r < 0 && r != -ENOENT)
        return r;
    return blobs_open_link(cache, blobs, dir_fd, name, flags, ret_fd, ret_stat, ret_etag);
}

int layout_entry(const struct layout *layout, const struct repo *repo, int dir_fd, const char *name,
                 struct layout_entry *ret_entry)
{
    if (!names_path_ok(name, strlen(name)) || strchr(name, '/'))
        return -ENOENT;
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    struct layout_entry entry = { .kind = LAYOUT_REFUSED };
    if (S_ISDIR(st.st_mode)) {
        entry.kind = LAYOUT_DIR;
    } else if (S_ISREG(st.st_mode)) {
        entry.kind = LAYOUT_FILE;
        entry.size = st.st_size;
    } else if (S_ISLNK(st.st_mode)) {
        _cleanup_close_ int cache = -1;
        _cleanup_close_ int fd = -1;
        int r = open_cache(layout, &cache);
        if (r == 0)
            r = open_link(cache, repo, dir_fd, name, O_PATH, &fd, &st, entry.etag);
        if (r == 0)
            entry.size = st.st_size;
        else if (r == -EMFILE || r == -ENFILE || r == -ENOMEM)
            return r;
        entry.kind = r == 0 ? LAYOUT_FILE : r == -ENOENT ? LAYOUT_MISSING : LAYOUT_REFUSED;
        if (entry.kind == LAYOUT_REFUSED)
            entry.etag[0] = '\0';
    }
    *ret_entry = entry;
    return 0;
}

// ---- files ----

// The blob `etag` of a repo. The usual case, a regular file and no links on the way, is two system calls.
static int open_repo_blob(int cache, const struct repo *repo, const char *etag, int *ret_fd, struct stat *ret_stat)
{
    if (!names_etag_ok(etag))
        return -ENOENT;
    _cleanup_close_ int fd = -1;
    int r = open_in_repo(cache, repo, "blobs", etag, FILE_FLAGS, &fd);
    if (r == 0) {
        r = blobs_check_regular(fd, ret_stat);
        if (r == 0)
            *ret_fd = util_take_fd(&fd);
        return r;
    }
    if (r != -EPERM)
        return r;
    _cleanup_close_ int blobs = -1;
    r = open_in_repo(cache, repo, "blobs", "", DIR_FLAGS, &blobs);
    return r < 0 ? r : blobs_open(cache, blobs, etag, FILE_FLAGS, ret_fd, ret_stat);
}

// Whether two names of blobs are digests of one kind and so of different bytes. A mirror's names are no digests: such a
// link is taken at its word.
static bool digests_differ(const char *a, const char *b)
{
    size_t len = strlen(a);
    bool digests = (len == 40 || len == 64) && strlen(b) == len && strspn(a, "0123456789abcdef") == len &&
                   strspn(b, "0123456789abcdef") == len;
    return digests && strcmp(a, b) != 0;
}

// The file or link at `rest` ("<commit>/<path>") in a repo's snapshots.
static int open_snapshot_file(int cache, const struct repo *repo, const char *rest, const char *etag, int *ret_fd,
                              struct stat *ret_stat)
{
    char dir[REST_SIZE];
    stpcpy(dir, rest);
    char *slash = strrchr(dir, '/');
    *slash = '\0';
    const char *name = slash + 1;
    _cleanup_close_ int dir_fd = -1;
    int r = open_in_repo(cache, repo, "snapshots", dir, DIR_FLAGS, &dir_fd);
    if (r < 0)
        return r;
    r = blobs_open_regular(dir_fd, name, FILE_FLAGS, ret_fd, ret_stat);
    if (r != -EPERM)
        return r;
    char found[NAMES_ETAG_SIZE] = "";
    r = open_link(cache, repo, dir_fd, name, FILE_FLAGS, ret_fd, ret_stat, found);
    if (r == 0 && digests_differ(etag, found)) {
        util_close_p(ret_fd);
        *ret_fd = -1;
        return -EIO;
    }
    return r == -EINVAL ? -EPERM : r;
}

int layout_file_open(const struct layout *layout, const struct repo *repo, const char *commit, const char *path,
                     const char *etag, const char *xet_hash, int64_t size, int *ret_fd)
{
    char rest[REST_SIZE];
    if (!*path || !join_commit(commit, path, rest))
        return -ENOENT;
    _cleanup_close_ int cache = -1;
    int r = open_cache(layout, &cache);
    if (r < 0)
        return r;
    int error = -ENOENT; // of the first place that had something
    for (int place = 0; place < 3; place++) {
        _cleanup_close_ int fd = -1;
        struct stat st;
        switch (place) {
        case 0:
            r = *etag ? open_repo_blob(cache, repo, etag, &fd, &st) : -ENOENT;
            break;
        case 1:
            r = open_snapshot_file(cache, repo, rest, etag, &fd, &st);
            break;
        default:
            r = *xet_hash ? blobs_open_shared(cache, xet_hash, FILE_FLAGS, &fd, &st) : -ENOENT;
        }
        if (r == 0 && st.st_size == size) {
            *ret_fd = util_take_fd(&fd);
            return 0;
        }
        if (r == 0)
            r = -EIO;
        else if (r == -ENOTDIR)
            r = -ENOENT;
        else if (r == -ENXIO)
            r = -EPERM;
        if (error == -ENOENT)
            error = r;
    }
    return error;
}
