// SPDX-License-Identifier: Apache-2.0
// Everything runs three times: with openat2(2), without it (ENOSYS, as before Linux 5.6), and with it forbidden (EPERM,
// as older container run-times do).
#include "cache/beneath.h"
#include "cache/layout.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define COMMIT2 "fedcba9876543210fedcba9876543210fedcba98"
#define ETAG "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ETAG2 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define XET "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
#define PARTIAL "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.incomplete"
#define REPO "models--org--name/"
#define SNAPSHOT REPO "snapshots/" COMMIT "/"
#define STRANGER 54321

static const struct repo repo = { REPO_MODEL, "org/name" };
static const struct repo other = { REPO_DATASET, "other" };
static char *root;
static int root_fd = -1;
static struct layout *layout;
static int fds_before;

// ---- making caches ----

// Makes the directories on the way to `path` below root; paths may be longer than PATH_MAX. Returns the last one.
static int make_parents(const char *path, const char **ret_name)
{
    int dir = dup(root_fd);
    for (const char *slash; (slash = strchr(path, '/')); path = slash + 1) {
        char name[NAME_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int) (slash - path), path);
        if (mkdirat(dir, name, 0755) < 0)
            assert_int_equal(errno, EEXIST);
        int next = openat(dir, name, O_PATH | O_DIRECTORY);
        assert_true(next >= 0);
        close(dir);
        dir = next;
    }
    *ret_name = path;
    return dir;
}

static void make_dir(const char *path)
{
    const char *name = NULL;
    _cleanup_close_ int dir = make_parents(path, &name);
    if (*name)
        assert_int_equal(mkdirat(dir, name, 0755), 0);
}

static void make_file(const char *path, const char *text)
{
    const char *name = NULL;
    _cleanup_close_ int dir = make_parents(path, &name);
    _cleanup_close_ int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void make_link(const char *target, const char *path)
{
    const char *name = NULL;
    _cleanup_close_ int dir = make_parents(path, &name);
    assert_int_equal(symlinkat(target, dir, name), 0);
}

// `path` below root as an absolute path, in one of four static buffers.
static const char *absolute(const char *path)
{
    static char buffers[4][PATH_MAX];
    static unsigned turn;
    char *buffer = buffers[turn++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s/%s", root, path);
    return buffer;
}

static void give_away(const char *path)
{
    assert_int_equal(fchownat(root_fd, path, STRANGER, STRANGER, AT_SYMLINK_NOFOLLOW), 0);
}

static void move_away(const char *path, const char *to)
{
    assert_int_equal(renameat(root_fd, path, root_fd, to), 0);
}

static int count_fds(void)
{
    _cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(dir))
        count++;
    return count;
}

static int make_cache(void **state)
{
    (void) state;
    root = strdup("/tmp/modelmount-layout-XXXXXX");
    if (!root || !mkdtemp(root))
        return -1;
    fds_before = count_fds();
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    make_dir("cache");
    return layout_open(absolute("cache"), &layout);
}

static int drop_cache(void **state)
{
    (void) state;
    layout_close(layout);
    layout = NULL;
    close(root_fd);
    int leaked = count_fds() - fds_before;
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s", root);
    int r = system(command);
    free(root);
    if (leaked)
        print_error("%d descriptors leaked\n", leaked);
    return leaked || r != 0 ? -1 : 0;
}

#define C(path) "cache/" path

// One repo with a blob of five bytes and a link to it.
static void make_usual_repo(void)
{
    make_file(C(REPO "blobs/" ETAG), "hello");
    make_link("../../blobs/" ETAG, C(SNAPSHOT "config.json"));
    make_file(C(REPO "refs/main"), COMMIT);
}

static void make_store(void)
{
    make_file(C("blobs/.huggingface-shared-blobs"), "1\n");
    make_file(C("blobs/cd/" XET), "shared");
}

// ---- asking ----

static int open_file_as(const char *path, const char *etag, const char *xet_hash, int64_t size)
{
    int fd = -1;
    int r = layout_file_open(layout, &repo, COMMIT, path, etag, xet_hash, size, &fd);
    assert_true(r == 0 ? fd >= 0 : fd == -1);
    if (r == 0) {
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        assert_true(S_ISREG(st.st_mode));
        assert_int_equal(st.st_size, size);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
    }
    return r;
}

static int open_file(const char *path, int64_t size)
{
    return open_file_as(path, "", "", size);
}

static struct layout_entry entry_in(const char *dir, const char *name)
{
    _cleanup_close_ int fd = -1;
    assert_int_equal(layout_dir_open(layout, &repo, COMMIT, dir, &fd), 0);
    struct layout_entry entry;
    assert_int_equal(layout_entry(layout, &repo, fd, name, &entry), 0);
    return entry;
}

static int open_dir(const char *dir)
{
    _cleanup_close_ int fd = -1;
    return layout_dir_open(layout, &repo, COMMIT, dir, &fd);
}

static void assert_refused(const char *path)
{
    assert_int_equal(open_file(path, 5), -EPERM);
    struct layout_entry entry = entry_in("", path);
    assert_int_equal(entry.kind, LAYOUT_REFUSED);
    assert_string_equal(entry.etag, "");
}

struct seen {
    int count;
    char names[16][2 * NAMES_REF_SIZE];
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void assert_seen(struct seen *seen, int count, const char *const *wanted)
{
    qsort(seen->names, (size_t) seen->count, sizeof seen->names[0], compare_names);
    for (int i = 0; i < seen->count && i < count; i++)
        assert_string_equal(seen->names[i], wanted[i]);
    assert_int_equal(seen->count, count);
}

static void add_seen(struct seen *seen, const char *name, const char *more)
{
    assert_true(seen->count < 16);
    snprintf(seen->names[seen->count++], sizeof seen->names[0], "%s%s", name, more);
}

static int on_repo(void *userdata, const struct repo *r)
{
    char folder[NAMES_FOLDER_SIZE];
    names_repo_folder(r, folder);
    add_seen(userdata, folder, "");
    return 0;
}

static int on_ref(void *userdata, const char *ref, const char *commit)
{
    add_seen(userdata, ref, commit[0] == '0' ? " 0" : " f");
    return 0;
}

static int on_commit(void *userdata, const char *commit)
{
    add_seen(userdata, commit, "");
    return 0;
}

static int stop_at_repo(void *userdata, const struct repo *r)
{
    (void) r;
    ++*(int *) userdata;
    return 7;
}

static int stop_at_name(void *userdata, const char *name)
{
    (void) name;
    ++*(int *) userdata;
    return 7;
}

static int stop_at_ref(void *userdata, const char *ref, const char *commit)
{
    (void) commit;
    return stop_at_name(userdata, ref);
}

// ---- the cache ----

static void a_cache_may_come_later_and_be_replaced(void **state)
{
    (void) state;
    struct layout *later = NULL;
    char path[PATH_MAX];
    stpcpy(path, absolute("not/yet//"));
    assert_int_equal(layout_open(path, &later), 0);
    assert_string_equal(layout_path(later), absolute("not/yet"));
    assert_false(layout_exists(later));
    struct seen seen = { 0 };
    assert_int_equal(layout_repos(later, on_repo, &seen), 0);
    assert_int_equal(layout_refs(later, &repo, on_ref, &seen), 0);
    assert_int_equal(layout_commits(later, &repo, on_commit, &seen), 0);
    assert_int_equal(seen.count, 0);
    assert_false(layout_has_repo(later, &repo));
    struct statvfs st;
    assert_int_equal(layout_statvfs(later, &st), 0);
    assert_true(st.f_bsize > 0);
    make_dir("not/yet/models--org--name");
    assert_true(layout_exists(later));
    assert_true(layout_has_repo(later, &repo));
    assert_int_equal(layout_statvfs(later, &st), 0);
    move_away("not/yet", "not/any-longer");
    assert_false(layout_has_repo(later, &repo));
    layout_close(later);
}

static void a_relative_path_is_made_absolute(void **state)
{
    (void) state;
    _cleanup_close_ int here = open(".", O_PATH | O_DIRECTORY);
    assert_int_equal(fchdir(root_fd), 0);
    struct layout *relative = NULL;
    int r = layout_open("cache/", &relative);
    assert_int_equal(fchdir(here), 0);
    assert_int_equal(r, 0);
    assert_string_equal(layout_path(relative), absolute("cache"));
    assert_true(layout_exists(relative));
    layout_close(relative);
}

static void what_is_no_directory_is_no_cache(void **state)
{
    (void) state;
    make_file("file", "x");
    make_link("nowhere", "dangling");
    make_link("loop", "loop");
    assert_int_equal(mkfifoat(root_fd, "fifo", 0644), 0);
    struct layout *none = NULL;
    assert_int_equal(layout_open(absolute("file"), &none), -ENOTDIR);
    assert_int_equal(layout_open(absolute("fifo"), &none), -ENOTDIR);
    assert_int_equal(layout_open(absolute("file/cache"), &none), -ENOTDIR);
    assert_int_equal(layout_open(absolute("loop"), &none), -ELOOP);
    assert_null(none);
    assert_int_equal(layout_open(absolute("dangling"), &none), 0);
    assert_false(layout_exists(none));
    layout_close(none);
}

static void a_cache_that_may_not_be_read_is_said_so(void **state)
{
    (void) state;
    if (geteuid() != 0)
        skip();
    make_dir("secret");
    assert_int_equal(chmod(absolute("secret"), 0700), 0);
    assert_int_equal(chmod(root, 0755), 0);
    assert_int_equal(seteuid(STRANGER), 0);
    struct layout *none = NULL;
    int r = layout_open(absolute("secret"), &none);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(r, -EACCES);
}

static void repos_are_listed_by_their_folders(void **state)
{
    (void) state;
    make_dir(C("models--org--name"));
    make_dir(C("datasets--other"));
    make_dir(C("spaces--elsewhere--linked"));
    move_away(C("spaces--elsewhere--linked"), "moved");
    make_link("../moved", C("spaces--elsewhere--linked"));
    make_link("nowhere", C("models--broken--link"));
    make_link("../cache/datasets--other", C("models--to--other"));
    make_file(C("models--a--file"), "x");
    make_file(C("version.txt"), "1");
    make_file(C("CACHEDIR.TAG"), "x");
    make_dir(C(".locks/models--org--name"));
    make_dir(C("blobs"));
    make_dir(C("someone's directory"));
    struct seen seen = { 0 };
    assert_int_equal(layout_repos(layout, on_repo, &seen), 0);
    assert_seen(&seen, 4,
                (const char *const[]){ "datasets--other", "models--org--name", "models--to--other",
                                       "spaces--elsewhere--linked" });
    int count = 0;
    assert_int_equal(layout_repos(layout, stop_at_repo, &count), 7);
    assert_int_equal(count, 1);
    assert_true(layout_has_repo(layout, &repo));
    assert_true(layout_has_repo(layout, &other));
    assert_false(layout_has_repo(layout, &(struct repo){ REPO_MODEL, "a/file" }));
    assert_false(layout_has_repo(layout, &(struct repo){ REPO_MODEL, "broken/link" }));
}

// ---- refs and commits ----

static void refs_are_listed_with_their_slashes(void **state)
{
    (void) state;
    make_file(C(REPO "refs/main"), COMMIT);
    make_file(C(REPO "refs/v1.0"), COMMIT2 "\n");
    make_file(C(REPO "refs/windows"), COMMIT2 "\r\n");
    make_file(C(REPO "refs/refs/pr/1"), COMMIT2);
    make_file(C(REPO "refs/feature/a b/%2F"), COMMIT);
    make_file(C(REPO "refs/main.0123abcd.tmp"), COMMIT);
    make_file(C(REPO "refs/.DS_Store"), "stranger things, longer than a commit is: 0123456789");
    make_file(C(REPO "refs/long"), COMMIT "0");
    make_file(C(REPO "refs/lines"), COMMIT "\n\n");
    make_file(C(REPO "refs/short"), "0123");
    make_file(C(REPO "refs/empty"), "");
    make_dir(C(REPO "refs/no/thing/"));
    make_file("elsewhere/ref", COMMIT);
    make_link(absolute("elsewhere/ref"), C(REPO "refs/link"));
    make_link(absolute("elsewhere"), C(REPO "refs/dir"));
    assert_int_equal(mkfifoat(root_fd, C(REPO "refs/fifo"), 0644), 0);

    struct seen seen = { 0 };
    int64_t start = util_now_ms();
    assert_int_equal(layout_refs(layout, &repo, on_ref, &seen), 0);
    assert_true(util_now_ms() - start < 1000);
    assert_seen(&seen, 5, (const char *const[]){ "feature/a b/%2F 0", "main 0", "refs/pr/1 f", "v1.0 f", "windows f" });
    int count = 0;
    assert_int_equal(layout_refs(layout, &repo, stop_at_ref, &count), 7);
    assert_int_equal(count, 1);

    char commit[NAMES_COMMIT_SIZE] = "same";
    assert_int_equal(layout_ref(layout, &repo, "no/such", commit, NULL), -ENOENT);
    assert_int_equal(layout_ref(layout, &repo, "main/below", commit, NULL), -ENOENT);
    assert_int_equal(layout_ref(layout, &repo, "refs/pr", commit, NULL), -ENOENT);
    assert_int_equal(layout_ref(layout, &repo, "../refs/main", commit, NULL), -ENOENT);
    assert_int_equal(layout_ref(layout, &repo, "long", commit, NULL), -ENOENT);
    assert_int_equal(layout_ref(layout, &repo, "short", commit, NULL), -ENOENT);
    assert_int_equal(layout_ref(layout, &repo, "link", commit, NULL), -EPERM);
    assert_int_equal(layout_ref(layout, &repo, "dir/ref", commit, NULL), -EPERM);
    assert_int_equal(layout_ref(layout, &repo, "fifo", commit, NULL), -EPERM);
    assert_int_equal(layout_ref(layout, &other, "main", commit, NULL), -ENOENT);
    assert_string_equal(commit, "same");
    assert_int_equal(layout_ref(layout, &repo, "refs/pr/1", commit, NULL), 0);
    assert_string_equal(commit, COMMIT2);
    assert_int_equal(layout_ref(layout, &repo, "windows", commit, NULL), 0);
    assert_string_equal(commit, COMMIT2);
}

static void a_ref_with_a_nul_in_it_is_none(void **state)
{
    (void) state;
    make_file(C(REPO "refs/main"), "");
    _cleanup_close_ int fd = openat(root_fd, C(REPO "refs/main"), O_WRONLY);
    assert_int_equal(write(fd, COMMIT "\0junk", 45), 45);
    char commit[NAMES_COMMIT_SIZE];
    assert_int_equal(layout_ref(layout, &repo, "main", commit, NULL), -ENOENT);
}

static void *rewrite_slowly(void *arg)
{
    int fd = *(int *) arg;
    nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
    if (write(fd, COMMIT2, 20) != 20)
        abort();
    nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    if (write(fd, &COMMIT2[20], 20) != 20)
        abort();
    return NULL;
}

static void a_ref_that_is_rewritten_in_place_is_waited_for(void **state)
{
    (void) state;
    make_file(C(REPO "refs/main"), COMMIT);
    for (int listed = 0; listed < 2; listed++) {
        _cleanup_close_ int fd = openat(root_fd, C(REPO "refs/main"), O_WRONLY | O_TRUNC);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, rewrite_slowly, &fd), 0);
        char commit[NAMES_COMMIT_SIZE] = "";
        struct seen seen = { 0 };
        int r = listed ? layout_refs(layout, &repo, on_ref, &seen) : layout_ref(layout, &repo, "main", commit, NULL);
        pthread_join(thread, NULL);
        assert_int_equal(r, 0);
        if (listed)
            assert_seen(&seen, 1, (const char *const[]){ "main f" });
        else
            assert_string_equal(commit, COMMIT2);
    }
}

static void commits_are_listed_once(void **state)
{
    (void) state;
    make_dir(C(REPO "snapshots/" COMMIT));
    make_file(C(REPO "trees/" COMMIT ".json"), "{}");
    make_file(C(REPO "trees/" COMMIT2 ".json"), "{}");
    make_file(C(REPO "trees/tmpabc.tmp"), "{}");
    make_file(C(REPO "trees/" COMMIT2 ".jsonx"), "{}");
    make_file(C(REPO "snapshots/file"), "x");
    make_dir(C(REPO "snapshots/main"));
    make_link(COMMIT, C(REPO "snapshots/" ETAG));
    make_link(COMMIT ".json", C(REPO "trees/" ETAG ".json"));
    struct seen seen = { 0 };
    assert_int_equal(layout_commits(layout, &repo, on_commit, &seen), 0);
    assert_seen(&seen, 1, (const char *const[]){ COMMIT });
    int count = 0;
    assert_int_equal(layout_commits(layout, &repo, stop_at_name, &count), 7);
    assert_int_equal(count, 1);
    assert_true(layout_has_commit(layout, &repo, COMMIT));
    assert_true(layout_has_commit(layout, &repo, COMMIT2));
    assert_false(layout_has_commit(layout, &repo, ETAG));
    assert_false(layout_has_commit(layout, &repo, ETAG2));
    assert_false(layout_has_commit(layout, &repo, "main"));
    assert_false(layout_has_commit(layout, &other, COMMIT));

    // Only a list, as `hf cache prune` leaves it: known, but not listed.
    make_file(C("datasets--other/trees/" COMMIT2 ".json"), "{}");
    seen.count = 0;
    assert_int_equal(layout_commits(layout, &other, on_commit, &seen), 0);
    assert_int_equal(seen.count, 0);
    assert_true(layout_has_commit(layout, &other, COMMIT2));
}

static void a_tree_is_a_regular_file(void **state)
{
    (void) state;
    make_file(C(REPO "trees/" COMMIT ".json"), "{\"a\"}");
    make_link(COMMIT ".json", C(REPO "trees/" COMMIT2 ".json"));
    assert_int_equal(mkfifoat(root_fd, C(REPO "trees/" ETAG ".json"), 0644), 0);
    make_dir(C(REPO "trees/" ETAG2 ".json"));
    int fd = -1;
    struct stat st = { 0 };
    assert_int_equal(layout_tree_open(layout, &repo, COMMIT, &fd, &st), 0);
    assert_int_equal(st.st_size, 5);
    close(fd);
    assert_int_equal(layout_tree_open(layout, &repo, COMMIT2, &fd, &st), -EPERM);
    assert_int_equal(layout_tree_open(layout, &repo, ETAG, &fd, &st), -EPERM);
    assert_int_equal(layout_tree_open(layout, &repo, ETAG2, &fd, &st), -EPERM);
    assert_int_equal(layout_tree_open(layout, &repo, "../refs", &fd, &st), -ENOENT);
    assert_int_equal(layout_tree_open(layout, &other, COMMIT, &fd, &st), -ENOENT);
}

// ---- snapshots ----

static void the_usual_file_is_found_in_every_way(void **state)
{
    (void) state;
    make_usual_repo();
    make_link("../../../../blobs/" ETAG, C(SNAPSHOT "a/b/deep.bin"));
    make_link(absolute(C(REPO "blobs/" ETAG)), C(SNAPSHOT "absolute.bin"));
    make_link("./..//../blobs/" ETAG, C(SNAPSHOT "odd.bin"));
    static const char *const paths[] = { "config.json", "a/b/deep.bin", "absolute.bin", "odd.bin" };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(open_file_as(paths[i], ETAG, "", 5), 0);
        assert_int_equal(open_file_as(paths[i], "a-mirrors-name", "", 5), 0); // by its link
        assert_int_equal(open_file_as(paths[i], ETAG2, "", 5), -EIO);         // which says that it is another
        assert_int_equal(open_file(paths[i], 5), 0);
        assert_int_equal(open_file(paths[i], 4), -EIO);
        assert_int_equal(open_file_as(paths[i], ETAG, XET, 6), -EIO);
    }
    assert_int_equal(open_file_as("not/linked", ETAG, "", 5), 0);
    assert_int_equal(open_file_as("not/linked", ETAG2, XET, 5), -ENOENT);
    assert_int_equal(open_file_as("config.json/below", ETAG2, "", 5), -EPERM);
    assert_int_equal(open_file_as("../x", ETAG, "", 5), -ENOENT);
    assert_int_equal(open_file_as("", ETAG, "", 5), -ENOENT);

    struct layout_entry entry = entry_in("", "config.json");
    assert_int_equal(entry.kind, LAYOUT_FILE);
    assert_int_equal(entry.size, 5);
    assert_string_equal(entry.etag, ETAG);
    entry = entry_in("a/b", "deep.bin");
    assert_int_equal(entry.kind, LAYOUT_FILE);
    assert_string_equal(entry.etag, ETAG);
    entry = entry_in("", "absolute.bin");
    assert_int_equal(entry.kind, LAYOUT_FILE);
    assert_string_equal(entry.etag, ETAG);
    assert_int_equal(entry_in("", "a").kind, LAYOUT_DIR);

    _cleanup_close_ int fd = -1;
    assert_int_equal(layout_dir_open(layout, &repo, COMMIT, "", &fd), 0);
    assert_int_equal(layout_entry(layout, &repo, fd, "missing", &entry), -ENOENT);
    assert_int_equal(layout_entry(layout, &repo, fd, "a/b", &entry), -ENOENT);
    assert_int_equal(layout_entry(layout, &repo, fd, "..", &entry), -ENOENT);
    assert_int_equal(layout_entry(layout, &repo, fd, "", &entry), -ENOENT);
}

static void a_cache_without_symlinks_has_regular_files(void **state)
{
    (void) state;
    make_file(C(SNAPSHOT "sub/model.bin"), "plain");
    make_file(C(SNAPSHOT "empty"), "");
    assert_int_equal(open_file("sub/model.bin", 5), 0);
    assert_int_equal(open_file("sub/model.bin", 6), -EIO);
    assert_int_equal(open_file_as("sub/model.bin", ETAG, XET, 5), 0);
    assert_int_equal(open_file("empty", 0), 0);
    struct layout_entry entry = entry_in("sub", "model.bin");
    assert_int_equal(entry.kind, LAYOUT_FILE);
    assert_int_equal(entry.size, 5);
    assert_string_equal(entry.etag, "");
}

static void a_link_without_its_blob_is_missing(void **state)
{
    (void) state;
    make_link("../../blobs/" ETAG, C(SNAPSHOT "a"));
    make_link("/nowhere/models--org--name/blobs/" ETAG, C(SNAPSHOT "old-home"));
    for (int with_blobs = 0; with_blobs < 2; with_blobs++) {
        if (with_blobs)
            make_dir(C(REPO "blobs"));
        struct layout_entry entry = entry_in("", "a");
        assert_int_equal(entry.kind, LAYOUT_MISSING);
        assert_string_equal(entry.etag, ETAG);
        entry = entry_in("", "old-home");
        assert_int_equal(entry.kind, LAYOUT_MISSING);
        assert_string_equal(entry.etag, ETAG);
        assert_int_equal(open_file("a", 5), -ENOENT);
        assert_int_equal(open_file_as("a", ETAG, "", 5), -ENOENT);
    }
}

static void links_that_end_elsewhere_are_refused(void **state)
{
    (void) state;
    make_usual_repo();
    make_file("secret/" ETAG, "hello");
    make_file("secret/blobs/" ETAG, "hello");
    make_file(C("datasets--other/blobs/" ETAG), "hello");
    make_file(C(REPO "blobs/" PARTIAL), "hello");
    make_file(C(REPO "blobs/tmp_1"), "hello");
    make_file(C(REPO "other/" ETAG), "hello");
    make_file(C(SNAPSHOT "dir/real"), "hello");
    static const char *const targets[] = {
        "/etc/shadow",
        "/etc/passwd",
        "../../../../../../../../../../etc/shadow",
        "/",
        "..",
        ".",
        "nothing-at-all",
        "./config.json",
        "config.json",
        "dir/real",
        "../../blobs/",
        "../../blobs",
        "../../blobs/..",
        "../../blobs/../refs/main",
        "../../blobs/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.incomplete",
        "../../blobs/tmp_1",
        "../../other/" ETAG,
        "../../../datasets--other/blobs/" ETAG,
        "/nowhere/at/all",
        "/nowhere/blobs/..",
        "/proc/self/fd/0",
        "/dev/zero",
    };
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        make_link(targets[i], C(SNAPSHOT "evil"));
        assert_refused("evil");
        assert_int_equal(open_file_as("evil", ETAG2, XET, 5), -EPERM);
        assert_int_equal(unlinkat(root_fd, C(SNAPSHOT "evil"), 0), 0);
    }
    make_link(absolute("secret/" ETAG), C(SNAPSHOT "evil"));
    assert_refused("evil");
    make_link(absolute("secret/blobs/" ETAG), C(SNAPSHOT "evil2"));
    assert_refused("evil2");
    // What the tree names is served all the same: from `blobs`, not from there.
    assert_int_equal(open_file_as("evil", ETAG, "", 5), 0);
}

static void links_below_snapshots_are_not_entered(void **state)
{
    (void) state;
    make_usual_repo();
    make_file("secret/config.json", "hello");
    make_file("secret/dir/config.json", "hello");
    make_link(absolute("secret"), C(SNAPSHOT "dir"));
    make_link("../" COMMIT, C(SNAPSHOT "inside"));
    make_link(COMMIT, C(REPO "snapshots/" COMMIT2));
    assert_int_equal(open_dir("dir"), -EPERM);
    assert_int_equal(open_dir("dir/dir"), -EPERM);
    assert_int_equal(open_dir("inside"), -EPERM);
    assert_int_equal(open_dir("config.json"), -EPERM);
    assert_int_equal(open_dir("missing"), -ENOENT);
    assert_int_equal(open_dir(".."), -ENOENT);
    assert_int_equal(open_dir("../" COMMIT), -ENOENT);
    int fd = -1;
    assert_int_equal(layout_dir_open(layout, &repo, COMMIT2, "", &fd), -EPERM);
    assert_int_equal(layout_dir_open(layout, &repo, "main", "", &fd), -ENOENT);
    make_file(C(SNAPSHOT "file"), "x");
    assert_int_equal(open_file("file/below", 1), -ENOENT);
    assert_int_equal(open_dir("file"), -ENOTDIR);
    assert_int_equal(open_dir("file/below"), -ENOTDIR);
    assert_int_equal(open_file("dir/config.json", 5), -EPERM);
    assert_int_equal(open_file("dir/dir/config.json", 5), -EPERM);
    assert_int_equal(open_file("inside/config.json", 5), -EPERM);
    assert_refused("dir");
}

static void what_is_no_regular_file_is_refused(void **state)
{
    (void) state;
    make_dir(C(REPO "blobs/" ETAG));
    make_link("../../blobs/" ETAG, C(SNAPSHOT "dir"));
    assert_int_equal(mkfifoat(root_fd, C(REPO "blobs/" ETAG2), 0644), 0);
    make_link("../../blobs/" ETAG2, C(SNAPSHOT "fifo"));
    assert_int_equal(mkfifoat(root_fd, C(SNAPSHOT "own-fifo"), 0644), 0);
    assert_int_equal(mknodat(root_fd, C(REPO "blobs/socket"), S_IFSOCK | 0644, 0), 0);
    make_link("../../blobs/socket", C(SNAPSHOT "socket"));
    assert_refused("dir");
    assert_refused("fifo");
    assert_refused("own-fifo");
    assert_refused("socket");
    assert_int_equal(open_file_as("x", ETAG, "", 5), -EPERM);
    assert_int_equal(open_file_as("x", ETAG2, "", 0), -EPERM);
    assert_int_equal(open_file_as("x", "socket", "", 0), -EPERM);
    assert_int_equal(open_file_as("x", "../refs/main", "", 40), -ENOENT);
    if (mknodat(root_fd, C(SNAPSHOT "zero"), S_IFCHR | 0644, makedev(1, 5)) == 0)
        assert_refused("zero");
}

static void an_unreadable_blob_gives_its_own_error(void **state)
{
    (void) state;
    if (geteuid() != 0)
        skip();
    make_usual_repo();
    assert_int_equal(chmod(root, 0755), 0);
    assert_int_equal(fchmodat(root_fd, C(REPO "blobs/" ETAG), 0600, 0), 0);
    assert_int_equal(seteuid(STRANGER), 0);
    int r = open_file_as("config.json", ETAG, "", 5);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(r, -EACCES);
}

// ---- the shared store ----

static void a_blob_may_lie_in_the_shared_store(void **state)
{
    (void) state;
    make_store();
    make_link("../../blobs/cd/" XET, C(REPO "blobs/" ETAG));
    make_link("../../blobs/" ETAG, C(SNAPSHOT "model.bin"));
    assert_int_equal(open_file_as("model.bin", ETAG, "", 6), 0);
    assert_int_equal(open_file("model.bin", 6), 0);
    assert_int_equal(open_file_as("model.bin", ETAG, XET, 5), -EIO);
    struct layout_entry entry = entry_in("", "model.bin");
    assert_int_equal(entry.kind, LAYOUT_FILE);
    assert_int_equal(entry.size, 6);
    assert_string_equal(entry.etag, ETAG);
    // A snapshot's link right into the store.
    make_link("../../../blobs/cd/" XET, C(SNAPSHOT "direct.bin"));
    assert_int_equal(open_file("direct.bin", 6), 0);
    assert_int_equal(entry_in("", "direct.bin").kind, LAYOUT_FILE);
}

static void the_store_has_what_the_repo_never_downloaded(void **state)
{
    (void) state;
    make_store();
    assert_int_equal(open_file_as("model.bin", ETAG, XET, 6), 0);
    assert_int_equal(open_file_as("model.bin", ETAG, XET, 7), -EIO);
    assert_int_equal(open_file_as("model.bin", ETAG, "", 6), -ENOENT);
    assert_int_equal(open_file_as("model.bin", ETAG, "../../etc/passwd", 6), -ENOENT);
    // Its link from `blobs` is broken, since the repo was moved: still there.
    make_link("../../nowhere/blobs/cd/" XET, C(REPO "blobs/" ETAG));
    assert_int_equal(open_file_as("model.bin", ETAG, XET, 6), 0);
}

static void assert_store_refused(void)
{
    assert_int_equal(open_file_as("model.bin", ETAG, "", 6), -EPERM);
    assert_int_equal(open_file_as("model.bin", ETAG, XET, 6), -EPERM);
    assert_int_equal(entry_in("", "model.bin").kind, LAYOUT_REFUSED);
}

static void a_store_that_is_not_marked_is_refused(void **state)
{
    (void) state;
    make_store();
    make_link("../../blobs/cd/" XET, C(REPO "blobs/" ETAG));
    make_link("../../blobs/" ETAG, C(SNAPSHOT "model.bin"));
    static const char *const markers[] = { "", "1", "2\n", "1\n\n", "1\r\n", "10\n" };
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++) {
        make_file(C("blobs/.huggingface-shared-blobs"), markers[i]);
        assert_store_refused();
        assert_int_equal(open_file_as("another", ETAG2, XET, 6), -ENOENT);
    }
    assert_int_equal(unlinkat(root_fd, C("blobs/.huggingface-shared-blobs"), 0), 0);
    assert_store_refused();
    make_file("marker", "1\n");
    make_link(absolute("marker"), C("blobs/.huggingface-shared-blobs"));
    assert_store_refused();
    assert_int_equal(unlinkat(root_fd, C("blobs/.huggingface-shared-blobs"), 0), 0);
    assert_int_equal(mkfifoat(root_fd, C("blobs/.huggingface-shared-blobs"), 0644), 0);
    assert_store_refused();
}

static void no_part_of_the_store_may_be_a_link(void **state)
{
    (void) state;
    make_store();
    make_link("../../blobs/cd/" XET, C(REPO "blobs/" ETAG));
    make_link("../../blobs/" ETAG, C(SNAPSHOT "model.bin"));
    assert_int_equal(open_file("model.bin", 6), 0);
    move_away(C("blobs/cd/" XET), "entry");
    make_link(absolute("entry"), C("blobs/cd/" XET));
    assert_store_refused();
    assert_int_equal(open_file_as("another", ETAG2, XET, 6), -EPERM);
    assert_int_equal(unlinkat(root_fd, C("blobs/cd/" XET), 0), 0);
    assert_int_equal(open_file("model.bin", 6), -ENOENT);
    assert_int_equal(entry_in("", "model.bin").kind, LAYOUT_MISSING);
    move_away("entry", C("blobs/cd/" XET));
    move_away(C("blobs/cd"), "prefix");
    assert_int_equal(open_file("model.bin", 6), -ENOENT);
    make_link(absolute("prefix"), C("blobs/cd"));
    assert_store_refused();
    assert_int_equal(unlinkat(root_fd, C("blobs/cd"), 0), 0);
    move_away("prefix", C("blobs/cd"));
    assert_int_equal(open_file("model.bin", 6), 0);
    move_away(C("blobs"), "store");
    make_link(absolute("store"), C("blobs"));
    assert_store_refused();
}

static void a_blob_link_that_ends_elsewhere_is_refused(void **state)
{
    (void) state;
    make_store();
    make_file("secret/cd/" XET, "shared");
    make_file("secret/.huggingface-shared-blobs", "1\n");
    make_file(C("blobs/cd/not-a-hash"), "shared");
    make_file(C("blobs/ab/" XET), "shared");
    make_file(C("datasets--other/blobs/" ETAG), "shared");
    make_link("../../blobs/" ETAG, C(SNAPSHOT "model.bin"));
    make_file(C(REPO "blobs/" ETAG2), "shared");
    char secret[PATH_MAX];
    stpcpy(secret, absolute("secret/cd/" XET));
    const char *const targets[] = {
        "/etc/shadow",
        secret,
        "../../../secret/cd/" XET,
        "../../blobs/cd/not-a-hash",
        "../../blobs/ab/" XET,
        "../../datasets--other/blobs/" ETAG,
        ETAG2,
        "./" ETAG2,
        "../../blobs/cd",
        "../../blobs/.huggingface-shared-blobs",
    };
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        make_link(targets[i], C(REPO "blobs/" ETAG));
        assert_int_equal(open_file_as("model.bin", ETAG, "", 6), -EPERM);
        assert_int_equal(open_file("model.bin", 6), -EPERM);
        assert_int_equal(entry_in("", "model.bin").kind, LAYOUT_REFUSED);
        assert_int_equal(unlinkat(root_fd, C(REPO "blobs/" ETAG), 0), 0);
    }
}

// ---- directories that are links ----

static void directories_may_be_links(void **state)
{
    (void) state;
    static const char *const moved[] = { "cache/models--org--name/blobs", "cache/models--org--name/refs",
                                         "cache/models--org--name/trees", "cache/models--org--name", "cache" };
    make_usual_repo();
    make_store();
    make_file(C(REPO "trees/" COMMIT ".json"), "{}");
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        char to[64];
        snprintf(to, sizeof to, "disk%zu", i);
        move_away(moved[i], to);
        make_link(absolute(to), moved[i]);
        char commit[NAMES_COMMIT_SIZE];
        assert_int_equal(layout_ref(layout, &repo, "main", commit, NULL), 0);
        assert_int_equal(open_file_as("config.json", ETAG, "", 5), 0);
        assert_int_equal(open_file_as("big.bin", ETAG2, XET, 6), 0);
        assert_int_equal(entry_in("", "config.json").kind, LAYOUT_FILE);
        struct seen seen = { 0 };
        assert_int_equal(layout_repos(layout, on_repo, &seen), 0);
        assert_int_equal(layout_refs(layout, &repo, on_ref, &seen), 0);
        assert_int_equal(layout_commits(layout, &repo, on_commit, &seen), 0);
        assert_seen(&seen, 3, (const char *const[]){ COMMIT, "main 0", "models--org--name" });
        assert_true(layout_has_repo(layout, &repo));
        assert_true(layout_has_commit(layout, &repo, COMMIT));
        int fd = -1;
        struct stat st;
        assert_int_equal(layout_tree_open(layout, &repo, COMMIT, &fd, &st), 0);
        close(fd);
        if (geteuid() != 0)
            continue;
        give_away(moved[i]);
        if (i == 0)
            assert_int_equal(open_file_as("config.json", ETAG, "", 5), -EPERM);
        else if (i == 1)
            assert_int_equal(layout_ref(layout, &repo, "main", commit, NULL), -EPERM);
        else if (i == 2)
            assert_int_equal(layout_tree_open(layout, &repo, COMMIT, &fd, &st), -EPERM);
        else
            assert_false(layout_has_repo(layout, &repo));
        if (i == 3) {
            seen.count = 0;
            assert_int_equal(layout_repos(layout, on_repo, &seen), 0);
            assert_int_equal(seen.count, 0);
        }
        if (i == 4) {
            struct layout *none = NULL;
            assert_int_equal(layout_open(absolute("cache"), &none), -EPERM);
            assert_false(layout_exists(layout));
            assert_int_equal(layout_repos(layout, on_repo, &seen), -EPERM);
        }
        assert_int_equal(fchownat(root_fd, moved[i], 0, 0, AT_SYMLINK_NOFOLLOW), 0);
    }
}

static void snapshots_moved_alone_lose_their_blobs_as_for_everybody(void **state)
{
    (void) state;
    make_usual_repo();
    make_link(absolute(C(REPO "blobs/" ETAG)), C(SNAPSHOT "absolute.bin"));
    move_away(C(REPO "snapshots"), "snapshots");
    make_link("../../snapshots", C(REPO "snapshots"));
    assert_int_equal(entry_in("", "config.json").kind, LAYOUT_MISSING);
    assert_int_equal(open_file("config.json", 5), -ENOENT);
    assert_int_equal(open_file_as("config.json", ETAG, "", 5), 0);
    assert_int_equal(entry_in("", "absolute.bin").kind, LAYOUT_FILE);
    assert_int_equal(open_file("absolute.bin", 5), 0);
}

static void every_link_on_the_way_to_a_directory_is_checked(void **state)
{
    (void) state;
    make_usual_repo();
    move_away(C("models--org--name"), "repo");
    make_dir("way");
    make_link("../repo/./", "way/last");
    make_link(absolute("way"), "first");
    make_link("../first//last/", C("models--org--name"));
    assert_int_equal(open_file_as("config.json", ETAG, "", 5), 0);
    if (geteuid() != 0)
        skip();
    static const char *const links[] = { "way/last", "first" };
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        give_away(links[i]);
        assert_int_equal(open_file_as("config.json", ETAG, "", 5), -EPERM);
        // The stranger's own process may follow it, and root's.
        assert_int_equal(chmod(root, 0755), 0);
        assert_int_equal(seteuid(STRANGER), 0);
        int r = open_file_as("config.json", ETAG, "", 5);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(r, 0);
        assert_int_equal(fchownat(root_fd, links[i], 0, 0, AT_SYMLINK_NOFOLLOW), 0);
    }
}

static void links_in_circles_end(void **state)
{
    (void) state;
    make_link("models--org--name", C("models--org--name"));
    assert_false(layout_has_repo(layout, &repo));
    assert_int_equal(open_file_as("x", ETAG, "", 5), -ELOOP);
    make_link("../b", "a/b");
    make_link("a/b", "b");
    make_link("../b/b/b/b", C("datasets--other"));
    assert_false(layout_has_repo(layout, &other));
    make_link("/", C("models--to--root"));
    assert_true(layout_has_repo(layout, &(struct repo){ REPO_MODEL, "to/root" }));
    make_link("..", C("models--to--parent"));
    assert_true(layout_has_repo(layout, &(struct repo){ REPO_MODEL, "to/parent" }));
}

// ---- sizes ----

static void long_names_and_paths_work(void **state)
{
    (void) state;
    make_usual_repo();
    char path[4096];
    memset(path, 'n', sizeof path);
    for (size_t i = 255; i < sizeof path; i += 256)
        path[i] = '/';
    path[4095] = '\0'; // 15 names of 255 bytes and slashes between, and another
    assert_true(names_path_ok(path, 4095));
    for (int round = 0; round < 2; round++) {
        char full[PATH_MAX + 256];
        snprintf(full, sizeof full, "%s%s", C(SNAPSHOT), path);
        make_file(full, "long");
        assert_int_equal(open_file(path, 4), 0);
        char *slash = strrchr(path, '/');
        *slash = '\0';
        struct layout_entry entry = entry_in(path, slash + 1);
        assert_int_equal(entry.kind, LAYOUT_FILE);
        assert_int_equal(entry.size, 4);
        *slash = '/';
        assert_int_equal(open_dir(path), -ENOTDIR);
        path[4000] = '\0';
    }
    // A link instead of one of the directories is seen there as well.
    make_link("/etc", C(SNAPSHOT "nnn"));
    memmove(path + 3, path + 255, 4000 - 255 + 1);
    assert_int_equal(open_dir(path), -EPERM);
    assert_int_equal(open_file(path, 4), -EPERM);
    char name[NAME_MAX + 2];
    memset(name, 'x', sizeof name);
    name[NAME_MAX + 1] = '\0';
    assert_int_equal(open_file(name, 4), -ENOENT);
}

static void deep_paths_work(void **state)
{
    (void) state;
    char path[4096];
    for (size_t i = 0; i < sizeof path; i++)
        path[i] = i % 2 ? '/' : 'd';
    path[4095] = '\0';
    char full[PATH_MAX + 256];
    snprintf(full, sizeof full, "%s%s", C(SNAPSHOT), path);
    make_file(full, "deep");
    assert_int_equal(open_file(path, 4), 0);
    path[4093] = '\0';
    assert_int_equal(open_dir(path), 0);
    assert_int_equal(entry_in(path, "d").size, 4);
}

static void what_the_hub_lacks_is_known(void **state)
{
    (void) state;
    make_file(C(REPO ".no_exist/" COMMIT "/sub/gone.json"), "");
    make_link("sub/gone.json", C(REPO ".no_exist/" COMMIT "/link.json"));
    assert_true(layout_no_exist(layout, &repo, COMMIT, "sub/gone.json"));
    assert_false(layout_no_exist(layout, &repo, COMMIT, "sub"));
    assert_false(layout_no_exist(layout, &repo, COMMIT, "link.json"));
    assert_false(layout_no_exist(layout, &repo, COMMIT, "other.json"));
    assert_false(layout_no_exist(layout, &repo, COMMIT2, "sub/gone.json"));
    assert_false(layout_no_exist(layout, &repo, COMMIT, ""));
    assert_false(layout_no_exist(layout, &repo, COMMIT, "../" COMMIT "/sub/gone.json"));
}

static void beneath_leads_nowhere_else(void **state)
{
    (void) state;
    make_file("dir/file", "x");
    make_link("dir", "link");
    int fd = -1;
    assert_int_equal(beneath_open(root_fd, "dir/file", O_RDONLY, &fd), 0);
    close(fd);
    fd = -1;
    assert_int_equal(beneath_open(root_fd, "link/file", O_RDONLY, &fd), -EPERM);
    assert_int_equal(beneath_open(root_fd, "link", O_RDONLY, &fd), -EPERM);
    assert_int_equal(beneath_open(root_fd, "/etc/passwd", O_RDONLY, &fd), -EPERM);
    assert_int_equal(beneath_open(root_fd, "..", O_RDONLY, &fd), -EPERM);
    assert_int_equal(beneath_open(root_fd, "dir/file/x", O_RDONLY, &fd), -ENOTDIR);
    assert_int_equal(beneath_open(root_fd, "dir/x", O_RDONLY, &fd), -ENOENT);
    assert_int_equal(beneath_open_trusted(root_fd, "dir/file", O_RDONLY, &fd), -ENOTDIR);
    assert_int_equal(fd, -1);
    assert_int_equal(beneath_open_trusted(root_fd, "link", O_PATH, &fd), 0);
    close(fd);
}

// Lets openat2() fail with `error` for this process from now on.
static bool forbid_openat2(int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned) error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof filter / sizeof *filter, .filter = filter };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 &&
           syscall(SYS_openat2, -1, "", NULL, 0) < 0 && errno == error;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_cache, drop_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_cache_may_come_later_and_be_replaced),
        TEST(a_relative_path_is_made_absolute),
        TEST(what_is_no_directory_is_no_cache),
        TEST(a_cache_that_may_not_be_read_is_said_so),
        TEST(repos_are_listed_by_their_folders),
        TEST(refs_are_listed_with_their_slashes),
        TEST(a_ref_with_a_nul_in_it_is_none),
        TEST(a_ref_that_is_rewritten_in_place_is_waited_for),
        TEST(commits_are_listed_once),
        TEST(a_tree_is_a_regular_file),
        TEST(the_usual_file_is_found_in_every_way),
        TEST(a_cache_without_symlinks_has_regular_files),
        TEST(a_link_without_its_blob_is_missing),
        TEST(links_that_end_elsewhere_are_refused),
        TEST(links_below_snapshots_are_not_entered),
        TEST(what_is_no_regular_file_is_refused),
        TEST(an_unreadable_blob_gives_its_own_error),
        TEST(a_blob_may_lie_in_the_shared_store),
        TEST(the_store_has_what_the_repo_never_downloaded),
        TEST(a_store_that_is_not_marked_is_refused),
        TEST(no_part_of_the_store_may_be_a_link),
        TEST(a_blob_link_that_ends_elsewhere_is_refused),
        TEST(directories_may_be_links),
        TEST(snapshots_moved_alone_lose_their_blobs_as_for_everybody),
        TEST(every_link_on_the_way_to_a_directory_is_checked),
        TEST(links_in_circles_end),
        TEST(long_names_and_paths_work),
        TEST(deep_paths_work),
        TEST(what_the_hub_lacks_is_known),
        TEST(beneath_leads_nowhere_else),
    };
    int failed = cmocka_run_group_tests_name("layout", tests, NULL, NULL);
    if (forbid_openat2(ENOSYS))
        failed += cmocka_run_group_tests_name("layout, no openat2", tests, NULL, NULL);
    if (forbid_openat2(EPERM))
        failed += cmocka_run_group_tests_name("layout, openat2 forbidden", tests, NULL, NULL);
    return failed;
}
