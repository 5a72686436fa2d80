// SPDX-License-Identifier: Apache-2.0
#include "cache/publish.h"

#include "cache/hublock.h"
#include "cache/log.h"
#include "cache/owned.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define STEP (1 << 20)
#define TREE_MODE 0600 // the library leaves it as mkstemp(3) made it

// _local_folder.py, CACHEDIR_TAG_CONTENT
static const char CACHEDIR_TAG[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                                   "# This file is a cache directory tag created by huggingface_hub.\n"
                                   "# For information about cache directory tags, see:\n"
                                   "#\thttps://bford.info/cachedir/\n";

// One call: the directories of the repo, and which of them it has made.
struct job {
    const struct publish *p;
    struct owned owned;
    char folder[NAMES_FOLDER_SIZE];
    int repo, snapshots, blobs;
    bool made_repo, made_snapshots, made_blobs, made_blob;
};

static unsigned random32(void)
{
    unsigned r = 0;
    if (getrandom(&r, sizeof r, 0) != sizeof r)
        r = (unsigned) util_now_ms();
    return r;
}

static int write_all(int fd, const char *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, buf, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        buf += n;
        len -= (size_t) n;
    }
    return 0;
}

// --- the blob

// 1 when it is there, 0 when it is not, or is a link that leads nowhere; -EEXIST for one of another size.
static int blob_there(const struct job *j)
{
    struct stat st;
    if (fstatat(j->blobs, j->p->etag, &st, 0) < 0) // into the shared store too, where it leads there
        return errno == ENOENT ? 0 : -errno;
    return S_ISREG(st.st_mode) && st.st_size == j->p->size ? 1 : -EEXIST;
}

static int copy_bytes(int from, int to, int64_t size)
{
    if (size > 0 && fallocate(to, 0, 0, size) < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
        return -errno;
    off_t at = 0;
    while (at < size) { // in the kernel, as far as it can
        ssize_t n = copy_file_range(from, &at, to, NULL, (size_t) (size - at), 0);
        if (n <= 0)
            break;
    }
    _cleanup_free_ char *buf = at < size ? malloc(STEP) : NULL;
    if (at < size && !buf)
        return -ENOMEM;
    while (at < size) {
        ssize_t n = pread(from, buf, size - at < STEP ? (size_t) (size - at) : STEP, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EINVAL;
        int error = write_all(to, buf, (size_t) n);
        if (error < 0)
            return error;
        at += n;
    }
    return fdatasync(to) < 0 ? -errno : 0;
}

static int copy_blob(struct job *j, const char *name)
{
    _cleanup_close_ int to = -1;
    int error = owned_file(&j->owned, j->blobs, name, j->owned.file_mode, &to);
    if (error < 0)
        return error;
    error = copy_bytes(j->p->fd, to, j->p->size);
    if (error < 0)
        unlinkat(j->blobs, name, 0);
    return error == -EDQUOT ? -ENOSPC : error;
}

// Gives the file a second name. False where that cannot be done.
static bool link_blob(struct job *j, const struct stat *st, const char *name)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", j->p->fd);
    struct stat blobs;
    if (fstat(j->blobs, &blobs) < 0 || blobs.st_dev != st->st_dev || owned_give(&j->owned, j->p->fd) < 0)
        return false;
    return linkat(AT_FDCWD, path, j->blobs, name, AT_SYMLINK_FOLLOW) == 0;
}

static int put_blob(struct job *j)
{
    int there = blob_there(j);
    if (there != 0)
        return there < 0 ? there : 0;
    struct stat st;
    if (j->p->fd < 0)
        return -ENOENT;
    if (fstat(j->p->fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || st.st_size != j->p->size)
        return -EINVAL;
    char name[NAMES_ETAG_SIZE + 24];
    snprintf(name, sizeof name, "%s.%08x.incomplete", j->p->etag, random32());
    if (fdatasync(j->p->fd) < 0) // a name never comes before its bytes
        return -errno;
    if (!link_blob(j, &st, name)) {
        int error = copy_blob(j, name);
        if (error < 0)
            return error;
    }
    int error = renameat(j->blobs, name, j->blobs, j->p->etag) < 0 ? -errno : 0;
    // Gone, unless the rename failed, or both names are of one file: rename(2) then does nothing.
    unlinkat(j->blobs, name, 0);
    j->made_blob = error == 0;
    return error;
}

// --- the link in the snapshot

static int put_link_at(struct job *j, int dir, const char *name, const char *target)
{
    struct stat st;
    if (fstatat(dir, name, &st, 0) == 0)
        return 0;
    if (errno != ENOENT && errno != ELOOP)
        return -errno;
    if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
        return -errno;
    int error = owned_symlink(&j->owned, target, dir, name);
    if (error == -EEXIST) // somebody else's download of the same file
        return 0;
    if ((error == -EPERM || error == -EOPNOTSUPP) && j->made_blob) {
        // No links on this file system: the file itself, as _create_symlink() does it.
        error = renameat(j->blobs, j->p->etag, dir, name) < 0 ? -errno : 0;
        j->made_blob = error != 0;
    }
    return error;
}

static int put_link(struct job *j)
{
    _cleanup_close_ int commit = -1;
    _cleanup_close_ int dir = -1;
    const char *name = NULL;
    int error = owned_dir(&j->owned, j->snapshots, j->p->commit, false, &commit, NULL);
    if (error == 0)
        error = owned_parents(&j->owned, commit, j->p->path, &dir, &name);
    if (error < 0)
        return error;
    size_t ups = 2;
    for (const char *s = j->p->path; (s = strchr(s, '/')); s++)
        ups++;
    _cleanup_free_ char *target = malloc(ups * 3 + sizeof "blobs/" + NAMES_ETAG_SIZE);
    if (!target)
        return -ENOMEM;
    char *end = target;
    while (ups-- > 0)
        end = stpcpy(end, "../");
    stpcpy(stpcpy(end, "blobs/"), j->p->etag);
    return put_link_at(j, dir, name, target);
}

// --- texts: temporary, then renamed

static int text_write(struct job *j, int dir, const char *temporary, const char *name, const char *text)
{
    _cleanup_close_ int fd = -1;
    int error = owned_file(&j->owned, dir, temporary, j->owned.file_mode, &fd);
    if (error < 0)
        return error;
    error = write_all(fd, text, strlen(text));
    if (error == 0 && (fdatasync(fd) < 0 || renameat(dir, temporary, dir, name) < 0))
        error = -errno;
    if (error < 0)
        unlinkat(dir, temporary, 0);
    return error;
}

static int put_ref_at(struct job *j, int dir, const char *name)
{
    char now[NAMES_COMMIT_SIZE + 1] = "";
    _cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && read(fd, now, sizeof now - 1) >= 0 && strcmp(now, j->p->commit) == 0)
        return 0;
    char temporary[NAMES_REF_SIZE + 16];
    snprintf(temporary, sizeof temporary, "%s.%08x.tmp", name, random32());
    return text_write(j, dir, temporary, name, j->p->commit);
}

static int put_ref(struct job *j)
{
    if (!j->p->ref || strcmp(j->p->ref, j->p->commit) == 0)
        return 0;
    _cleanup_close_ int refs = -1;
    _cleanup_close_ int dir = -1;
    const char *name = NULL;
    int error = owned_dir(&j->owned, j->repo, "refs", true, &refs, NULL);
    if (error == 0)
        error = owned_parents(&j->owned, refs, j->p->ref, &dir, &name);
    return error < 0 ? error : put_ref_at(j, dir, name);
}

static int tree_write_at(struct job *j, struct tree_list *list, int dir, const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_"; // as Python's tempfile
    char temporary[] = "tmpXXXXXXXX.tmp";
    for (int i = 0; i < 8; i++)
        temporary[3 + i] = letters[random32() % (sizeof letters - 1)];
    int fd;
    int error = owned_file(&j->owned, dir, temporary, TREE_MODE, &fd);
    if (error < 0)
        return error;
    FILE *out = fdopen(fd, "w");
    if (out) {
        error = tree_list_write(list, out);
        if (error == 0 && fdatasync(fd) < 0)
            error = -errno;
        if (fclose(out) != 0 && error == 0)
            error = -errno;
    } else {
        error = -errno;
        close(fd);
    }
    if (error == 0 && renameat(dir, temporary, dir, name) < 0)
        error = -errno;
    if (error < 0)
        unlinkat(dir, temporary, 0);
    return error;
}

static int put_tree(struct job *j)
{
    char path[64], *name = path + strlen("trees/");
    snprintf(path, sizeof path, "trees/%s.json", j->p->commit);
    struct stat st;
    if (!j->p->tree || fstatat(j->repo, path, &st, 0) == 0)
        return 0;
    struct tree_list *list = tree_list_new();
    _cleanup_close_ int dir = -1;
    int error = list ? j->p->tree(j->p->userdata, list) : -ENOMEM;
    if (error == 0)
        error = owned_dir(&j->owned, j->repo, "trees", true, &dir, NULL);
    if (error == 0)
        error = tree_write_at(j, list, dir, name);
    tree_list_free(list);
    return error;
}

static void put_tag(struct job *j)
{
    int fd;
    if (owned_file(&j->owned, j->owned.cache_fd, "CACHEDIR.TAG", j->owned.file_mode, &fd) < 0)
        return;
    if (write_all(fd, CACHEDIR_TAG, strlen(CACHEDIR_TAG)) < 0)
        unlinkat(j->owned.cache_fd, "CACHEDIR.TAG", 0);
    close(fd);
}

// --- all together

// `snapshots` comes first: a repo without it is damaged to the library, one without blobs is just empty.
static int open_dirs(struct job *j)
{
    const struct owned *o = &j->owned;
    int error = owned_dir(o, o->cache_fd, j->folder, true, &j->repo, &j->made_repo);
    if (error == 0)
        error = owned_dir(o, j->repo, "snapshots", true, &j->snapshots, &j->made_snapshots);
    if (error == 0)
        error = owned_dir(o, j->repo, "blobs", true, &j->blobs, &j->made_blobs);
    return error;
}

// Takes away what was made, unless somebody else uses it by now.
static void undo(struct job *j)
{
    if (j->made_blob)
        unlinkat(j->blobs, j->p->etag, 0);
    if (j->made_blobs)
        unlinkat(j->repo, "blobs", AT_REMOVEDIR);
    if (j->made_snapshots) {
        unlinkat(j->snapshots, j->p->commit, AT_REMOVEDIR);
        unlinkat(j->repo, "snapshots", AT_REMOVEDIR);
    }
    if (j->made_repo)
        unlinkat(j->owned.cache_fd, j->folder, AT_REMOVEDIR);
}

static void say(const struct job *j, const char *what, const char *which, int error)
{
    if (error < 0)
        log_warning("%s@%s: its %s%s cannot be written to %s: %s", j->p->repo->id, j->p->commit, what, which,
                    j->p->cache, error == -ENODATA ? "the Hub does not say enough of its files" : strerror(-error));
}

static int publish_locked(struct job *j)
{
    int error = open_dirs(j);
    if (error == 0)
        error = put_blob(j);
    if (error == 0)
        error = put_link(j);
    if (error < 0) {
        undo(j);
        return error;
    }
    say(j, "list of files", "", put_tree(j));
    say(j, "ref ", j->p->ref ? j->p->ref : "", put_ref(j));
    put_tag(j);
    return 0;
}

static bool is_well_formed(const struct publish *p)
{
    return names_commit_ok(p->commit) && names_etag_ok(p->etag) && names_path_ok(p->path, strlen(p->path)) &&
           p->size >= 0 && (!p->ref || names_ref_ok(p->ref));
}

int publish_file(const struct publish *p)
{
    if (!is_well_formed(p))
        return -EINVAL;
    struct job j = { .p = p, .repo = -1, .snapshots = -1, .blobs = -1 };
    names_repo_folder(p->repo, j.folder);
    int error = owned_begin(&j.owned, p->cache);
    if (error < 0)
        return error;
    _cleanup_close_ int lock = -1;
    error = hublock_take(&j.owned, j.folder, p->etag, p->timeout_ms, &lock);
    if (error == 0)
        error = publish_locked(&j);
    owned_end(&j.owned);
    util_close_p(&j.blobs);
    util_close_p(&j.snapshots);
    util_close_p(&j.repo);
    return error;
}
