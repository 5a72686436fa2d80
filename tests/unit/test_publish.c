// SPDX-License-Identifier: Apache-2.0
// Publishing: what is in the hub cache afterwards, and that nothing is where it failed. With arguments it is the
// program that tests/integration/test_publish_like_the_library.py drives.
#include "cache/publish.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

static const struct repo REPO = { .type = REPO_MODEL, .id = "org/name" };
#define COMMIT "0123456789012345678901234567890123456789"
#define ETAG "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
#define TEXT "hello\n"
#define FOLDER "models--org--name"

static char place[] = "/tmp/modelmount-publish-XXXXXX";
static char cache[64];
static atomic_int fail_fallocate, fail_link; // errno

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    (void) fd, (void) mode, (void) offset, (void) len;
    errno = fail_fallocate ? fail_fallocate : EOPNOTSUPP;
    return -1;
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    if (fail_link) {
        errno = fail_link;
        return -1;
    }
    return (int) syscall(SYS_linkat, from, old, to, new, flags);
}

// --- helpers

static void shell(const char *what)
{
    char command[600];
    snprintf(command, sizeof command, "cd %s && { %s; }", place, what);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    (void) state;
    strcpy(place + strlen(place) - 6, "XXXXXX");
    assert_non_null(mkdtemp(place));
    chmod(place, 0755);
    snprintf(cache, sizeof cache, "%s/hub", place);
    umask(022);
    fail_fallocate = fail_link = 0;
    shell("mkdir hub state && printf 'hello\\n' > state/blob && chmod 600 state/blob");
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    char command[100];
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", place, place);
    return system(command);
}

static int open_blob(void)
{
    char path[100];
    snprintf(path, sizeof path, "%s/state/blob", place);
    return open(path, O_RDWR | O_CLOEXEC);
}

static int tree_of_two(void *userdata, struct tree_list *list)
{
    (void) userdata;
    int error = tree_list_add(list, "unet/b.bin", 6, ETAG, "ce013625030ba8dba906f756967f9e9ca394464a", ETAG);
    return error < 0 ? error : tree_list_add(list, "a", 6, "ce013625030ba8dba906f756967f9e9ca394464a", NULL, NULL);
}

static int publish_as(const char *path, const char *ref, publish_tree_fn *tree)
{
    _cleanup_close_ int fd = open_blob();
    return publish_file(&(struct publish){
        .cache = cache,
        .repo = &REPO,
        .commit = COMMIT,
        .path = path,
        .etag = ETAG,
        .size = 6,
        .fd = fd,
        .ref = ref,
        .tree = tree,
        .timeout_ms = 100,
    });
}

static int publish(void)
{
    return publish_as("unet/b.bin", "main", tree_of_two);
}

static void assert_listing(const char *what, const char *want)
{
    char command[300], have[4000] = "";
    snprintf(command, sizeof command, "cd %s && find . -mindepth 1 %s | LC_ALL=C sort", cache, what);
    FILE *out = popen(command, "r");
    size_t n = fread(have, 1, sizeof have - 1, out);
    have[n] = '\0';
    pclose(out);
    assert_string_equal(have, want);
}

// Nothing but, maybe, what belongs to the lock.
static void assert_nothing_left(void)
{
    assert_listing("-path ./.locks -prune -o -print", "");
}

// --- what is there afterwards

#define REPO_LISTING                                                                                                   \
    "./" FOLDER " d 755\n"                                                                                             \
    "./" FOLDER "/blobs d 755\n"                                                                                       \
    "./" FOLDER "/blobs/" ETAG " f 644\n"                                                                              \
    "./" FOLDER "/refs d 755\n"                                                                                        \
    "./" FOLDER "/refs/main f 644\n"                                                                                   \
    "./" FOLDER "/snapshots d 755\n"                                                                                   \
    "./" FOLDER "/snapshots/" COMMIT " d 755\n"                                                                        \
    "./" FOLDER "/snapshots/" COMMIT "/unet d 755\n"                                                                   \
    "./" FOLDER "/snapshots/" COMMIT "/unet/b.bin l 777\n"                                                             \
    "./" FOLDER "/trees d 755\n"                                                                                       \
    "./" FOLDER "/trees/" COMMIT ".json f 600\n"
#define LISTING                                                                                                        \
    "./.locks d 755\n"                                                                                                 \
    "./.locks/" FOLDER " d 755\n"                                                                                      \
    "./.locks/" FOLDER "/" ETAG ".lock f 664\n"                                                                        \
    "./CACHEDIR.TAG f 644\n" REPO_LISTING

static void test_all_is_there(void **state)
{
    (void) state;
    assert_int_equal(publish(), 0);
    assert_listing("-printf '%p %y %m\\n'", LISTING);
    shell("cmp state/blob hub/" FOLDER "/snapshots/" COMMIT "/unet/b.bin");
    shell("test $(readlink hub/" FOLDER "/snapshots/" COMMIT "/unet/b.bin) = ../../../blobs/" ETAG);
    shell("test state/blob -ef hub/" FOLDER "/blobs/" ETAG);
    shell("printf " COMMIT " | cmp - hub/" FOLDER "/refs/main");
    // Again, and by another name: nothing is written twice.
    shell("touch -d 2001-01-01 hub/" FOLDER "/trees/* hub/" FOLDER "/refs/* hub/CACHEDIR.TAG");
    assert_int_equal(publish(), 0);
    assert_int_equal(publish_as("top", "main", tree_of_two), 0);
    shell("test $(readlink hub/" FOLDER "/snapshots/" COMMIT "/top) = ../../blobs/" ETAG);
    shell("test -z \"$(find hub/" FOLDER "/trees hub/" FOLDER "/refs hub/CACHEDIR.TAG -type f -newermt 2001-01-02)\"");
}

static void test_a_copy_is_the_same(void **state)
{
    (void) state;
    fail_link = EPERM;
    assert_int_equal(publish(), 0);
    assert_listing("-printf '%p %y %m\\n'", LISTING);
    shell("cmp state/blob hub/" FOLDER "/blobs/" ETAG " && ! test state/blob -ef hub/" FOLDER "/blobs/" ETAG);
}

static void test_an_unnamed_file_and_no_file(void **state)
{
    (void) state;
    struct publish p = {
        .cache = cache, .repo = &REPO, .commit = COMMIT, .path = "a", .etag = ETAG, .size = 6, .fd = -1
    };
    assert_int_equal(publish_file(&p), -ENOENT);
    assert_nothing_left();
    p.fd = open(place, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(write(p.fd, TEXT, 6), 6);
    assert_int_equal(publish_file(&p), 0);
    close(p.fd);
    p.fd = -1;
    p.path = "deep/er/b";
    assert_int_equal(publish_file(&p), 0);
    shell("cmp state/blob hub/" FOLDER "/snapshots/" COMMIT "/deep/er/b");
}

static void test_the_tree_is_written_as_python_would(void **state)
{
    (void) state;
    assert_int_equal(publish(), 0);
    shell(
        "printf '{\\n \"format_version\": 1,\\n \"files\": {\\n  \"a\": {\\n   \"size\": 6,\\n   \"blob_id\": "
        "\"ce013625030ba8dba906f756967f9e9ca394464a\"\\n  },\\n  \"unet/b.bin\": {\\n   \"size\": 6,\\n   \"blob_id\": "
        "\"ce013625030ba8dba906f756967f9e9ca394464a\",\\n   \"lfs_sha256\": \"" ETAG "\",\\n   \"lfs_size\": 6,\\n   "
        "\"xet_hash\": \"" ETAG "\"\\n  }\\n }\\n}' | cmp - hub/" FOLDER "/trees/" COMMIT ".json");
}

static int tree_unknown(void *userdata, struct tree_list *list)
{
    (void) userdata;
    assert_int_equal(tree_list_add(list, "x", 1, "5f3a-12", NULL, NULL), -ENODATA);
    return tree_list_add(list, "x", 6, ETAG, "", NULL);
}

static void test_a_list_that_cannot_be_written_is_left_out(void **state)
{
    (void) state;
    assert_int_equal(publish_as("a", "main", tree_unknown), 0);
    shell("test ! -e hub/" FOLDER "/trees && test -f hub/" FOLDER "/refs/main");
}

static void test_a_ref_moves(void **state)
{
    (void) state;
    shell("mkdir -p hub/" FOLDER "/refs/refs/pr && printf old > hub/" FOLDER "/refs/refs/pr/1");
    assert_int_equal(publish_as("a", "refs/pr/1", NULL), 0);
    assert_int_equal(publish_as("a", COMMIT, NULL), 0);
    shell("printf " COMMIT " | cmp - hub/" FOLDER "/refs/refs/pr/1");
    shell("test $(find hub/" FOLDER "/refs -type f | wc -l) = 1 && test ! -e hub/" FOLDER "/trees");
}

static void test_a_new_cache_is_made(void **state)
{
    (void) state;
    snprintf(cache, sizeof cache, "%s/new/er/hub", place);
    umask(027);
    assert_int_equal(publish(), 0);
    shell("test $(stat -c %a new new/er new/er/hub new/er/hub/" FOLDER " | sort -u) = 750");
    shell("test $(stat -c %a new/er/hub/" FOLDER "/blobs/*) = 640");
}

static void test_modes_are_the_caches_whatever_the_umask(void **state)
{
    (void) state;
    umask(077);
    shell("chmod 2775 hub");
    assert_int_equal(publish(), 0);
    shell("test $(stat -c %a hub/.locks hub/" FOLDER " hub/" FOLDER "/*/ hub/" FOLDER
          "/snapshots/*/unet | sort -u) = 2775");
    shell("test $(stat -c %a hub/CACHEDIR.TAG hub/" FOLDER "/blobs/* hub/" FOLDER "/refs/* | sort -u) = 664");
}

static void test_as_root_all_is_the_owners(void **state)
{
    (void) state;
    if (geteuid() != 0)
        skip();
    shell("chown 1234:2345 hub");
    for (int copy = 0; copy < 2; copy++) {
        fail_link = copy ? EPERM : 0;
        assert_int_equal(publish(), 0);
        shell("test -z \"$(find hub ! -uid 1234 -o ! -gid 2345)\"");
        shell("rm -rf hub/.locks hub/*; rm -f state/blob; printf 'hello\\n' > state/blob");
    }
    // What the owner may not do is not done for them.
    shell("mkdir -m 700 secret && ln -s ../secret hub/.locks");
    assert_int_equal(publish(), -EACCES);
    shell("test -z \"$(ls secret)\"");
    assert_int_equal(geteuid(), 0);
    shell("rm hub/.locks; chmod 555 hub");
    assert_int_equal(publish(), -EACCES);
    assert_nothing_left();
    _cleanup_close_ int fd = open(place, O_TMPFILE | O_RDWR, 0600); // and we are root again
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_uid, 0);
}

// --- what was there before

static void test_what_is_there_is_left(void **state)
{
    (void) state;
    shell("mkdir -p hub/" FOLDER "/blobs && printf HELLO. > hub/" FOLDER "/blobs/" ETAG);
    assert_int_equal(publish(), 0); // the size is right; its bytes are somebody else's business
    shell("printf HELLO. | cmp - hub/" FOLDER "/blobs/" ETAG);
    shell("printf short > hub/" FOLDER "/blobs/" ETAG);
    assert_int_equal(publish(), -EEXIST);
    shell("printf short | cmp - hub/" FOLDER "/blobs/" ETAG);
}

static void test_links_that_lead_nowhere_are_replaced(void **state)
{
    (void) state;
    shell("mkdir -p hub/" FOLDER "/blobs hub/" FOLDER "/snapshots/" COMMIT
          "/unet; ln -s ../../blobs/aa/gone hub/" FOLDER "/blobs/" ETAG "; ln -s ../../../blobs/gone hub/" FOLDER
          "/snapshots/" COMMIT "/unet/b.bin");
    assert_int_equal(publish(), 0);
    shell("cmp state/blob hub/" FOLDER "/snapshots/" COMMIT "/unet/b.bin");
}

static void test_no_link_is_followed_below_the_repo(void **state)
{
    (void) state;
    shell("mkdir -p out hub/" FOLDER "/snapshots/" COMMIT " && ln -s ../../../../out hub/" FOLDER "/snapshots/" COMMIT
          "/unet");
    assert_int_equal(publish(), -EPERM);
    shell("test -z \"$(ls out)\" && test ! -e hub/" FOLDER "/blobs");
    shell("rm -r hub/" FOLDER " && mkdir -p hub/" FOLDER "/refs && ln -s ../../../out hub/" FOLDER "/refs/feature");
    assert_int_equal(publish_as("a", "feature/x", NULL), 0); // said in the log
    shell("test -z \"$(ls out)\"");
    shell("ln -s ../../../out/file hub/" FOLDER "/refs/main");
    assert_int_equal(publish_as("a", "main", NULL), 0); // the link itself is replaced
    shell("test -z \"$(ls out)\" && printf " COMMIT " | cmp - hub/" FOLDER "/refs/main");
}

// --- failures

static void test_a_full_disk_leaves_nothing(void **state)
{
    (void) state;
    fail_link = EXDEV;
    fail_fallocate = ENOSPC;
    assert_int_equal(publish(), -ENOSPC);
    assert_nothing_left();
    fail_fallocate = EDQUOT;
    assert_int_equal(publish(), -ENOSPC);
    assert_nothing_left();
}

static void test_a_held_lock_is_waited_for(void **state)
{
    (void) state;
    shell("mkdir -p hub/.locks/" FOLDER " && touch hub/.locks/" FOLDER "/" ETAG ".lock");
    char path[200];
    snprintf(path, sizeof path, "%s/.locks/" FOLDER "/" ETAG ".lock", cache);
    int held = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(held, LOCK_EX), 0);
    int64_t start = util_now_ms();
    assert_int_equal(publish(), -EAGAIN);
    int64_t waited = util_now_ms() - start;
    assert_true(waited >= 100 && waited < 2000);
    assert_nothing_left();
    unlink(path); // as filelock's users do: the one who holds it no longer matters
    assert_int_equal(publish(), 0);
    close(held);
    assert_int_equal(publish(), 0);
}

static void test_what_is_not_well_formed_is_refused(void **state)
{
    (void) state;
    assert_int_equal(publish_as("../x", NULL, NULL), -EINVAL);
    assert_int_equal(publish_as("/x", NULL, NULL), -EINVAL);
    assert_int_equal(publish_as("a", "../x", NULL), -EINVAL);
    shell("printf more >> state/blob");
    assert_int_equal(publish(), -EINVAL); // another size
    assert_nothing_left();
    shell("rm -rf hub; touch hub");
    assert_int_equal(publish(), -ENOTDIR);
}

static void *thread_publishes(void *path)
{
    for (int i = 0; i < 10; i++) {
        char name[40];
        snprintf(name, sizeof name, "%s/%d", (char *) path, i);
        int error = publish_as(name, "main", tree_of_two);
        if (error < 0)
            return (void *) (intptr_t) error;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void) state;
    pthread_t threads[2];
    char names[2][2] = { "a", "b" };
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_publishes, names[i]), 0);
    for (int i = 0; i < 2; i++) {
        void *result = NULL;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    shell("test $(find -L hub/" FOLDER "/snapshots -type f | wc -l) = 20 && test $(ls hub/" FOLDER
          "/blobs | wc -l) = 1");
}

// --- driven by Python

// Lines of "<size> <etag> <blob_id or -> <xet_hash or -> <path>", the path to the NUL at the line's end.
static int tree_from_stdin(void *userdata, struct tree_list *list)
{
    (void) userdata;
    char *line = NULL;
    size_t room = 0;
    int error = 0;
    while (error == 0 && getdelim(&line, &room, 0, stdin) > 0) {
        char *field[5], *rest = line;
        for (int i = 0; i < 4; i++)
            field[i] = strsep(&rest, " ");
        field[4] = rest;
        error = tree_list_add(list, field[4], strtoll(field[0], NULL, 10), field[1], *field[2] == '-' ? "" : field[2],
                              *field[3] == '-' ? "" : field[3]);
    }
    free(line);
    return error;
}

// CACHE FOLDER COMMIT PATH ETAG FILE [REF]
static int driven(int argc, char **argv)
{
    struct repo repo;
    struct stat st;
    _cleanup_close_ int fd = open(argv[6], O_RDWR | O_CLOEXEC);
    if (!names_repo_from_folder(argv[2], &repo) || fstat(fd, &st) < 0)
        return 2;
    int error = publish_file(&(struct publish){
        .cache = argv[1],
        .repo = &repo,
        .commit = argv[3],
        .path = argv[4],
        .etag = argv[5],
        .size = st.st_size,
        .fd = fd,
        .ref = argc > 7 ? argv[7] : NULL,
        .tree = tree_from_stdin,
        .timeout_ms = 1000,
    });
    if (error < 0)
        fprintf(stderr, "%s\n", strerror(-error));
    return error < 0;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    if (argc >= 7)
        return driven(argc, argv);
    const struct CMUnitTest tests[] = {
        T(test_all_is_there),
        T(test_a_copy_is_the_same),
        T(test_an_unnamed_file_and_no_file),
        T(test_the_tree_is_written_as_python_would),
        T(test_a_list_that_cannot_be_written_is_left_out),
        T(test_a_ref_moves),
        T(test_a_new_cache_is_made),
        T(test_modes_are_the_caches_whatever_the_umask),
        T(test_as_root_all_is_the_owners),
        T(test_what_is_there_is_left),
        T(test_links_that_lead_nowhere_are_replaced),
        T(test_no_link_is_followed_below_the_repo),
        T(test_a_full_disk_leaves_nothing),
        T(test_a_held_lock_is_waited_for),
        T(test_what_is_not_well_formed_is_refused),
        T(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
