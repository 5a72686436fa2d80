// SPDX-License-Identifier: Apache-2.0
// The store: what is on disk shows, what changes shows soon, and nobody is moved from one commit to another.
#include "cache/store.h"
#include "cache/survey.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define OLD "0123456789abcdef0123456789abcdef01234567"
#define NEW "fedcba9876543210fedcba9876543210fedcba98"
#define HELLO "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0" // git's name for "hello"
#define REPO "models--org--name/"

static const struct repo repo = { REPO_MODEL, "org/name" };
static char root[64];
static struct store *store;

static void make_dirs(char *path)
{
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
}

static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/hub/%s", root, name);
    make_dirs(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void put_link(const char *name, const char *target)
{
    char path[512];
    snprintf(path, sizeof path, "%s/hub/%s", root, name);
    make_dirs(path);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

static void take(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/hub/%s", root, name);
    assert_int_equal(remove(path), 0);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void) st;
    (void) kind;
    (void) walk;
    return remove(path);
}

static void open_store(void)
{
    char cache[80], state[80];
    snprintf(cache, sizeof cache, "%s/hub", root);
    snprintf(state, sizeof state, "%s/state", root);
    struct store_options options = { .cache_path = cache, .state_dir = state };
    assert_int_equal(store_open(&options, &store), 0);
}

static int setup(void **unused)
{
    (void) unused;
    strcpy(root, "/tmp/modelmount-store-XXXXXX");
    assert_non_null(mkdtemp(root));
    char state[80];
    snprintf(state, sizeof state, "%s/state", root);
    mkdir(state, 0700);
    put(REPO "refs/main", OLD);
    put(REPO "blobs/" HELLO, "hello");
    put_link(REPO "snapshots/" OLD "/a.txt", "../../blobs/" HELLO);
    put_link(REPO "snapshots/" OLD "/sub/b.txt", "../../../blobs/" HELLO);
    open_store();
    return 0;
}

static int teardown(void **unused)
{
    (void) unused;
    store_close(store);
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct snapshot *resolve(const char *revision)
{
    struct snapshot *snapshot;
    assert_int_equal(store_resolve(store, &repo, revision, &snapshot), 0);
    return snapshot;
}

static void assert_commit(const char *revision, const char *commit)
{
    assert_string_equal(snapshot_commit(resolve(revision)), commit);
}

// Looks a name up until the answer is `expected`, for as long as changes may take to show.
static int lookup_soon(struct snapshot *snapshot, const char *name, int expected, struct entry *ret_entry)
{
    int error = 1;
    for (int i = 0; i < 30 && error != expected; i++) {
        error = store_lookup(store, snapshot, 0, name, ret_entry);
        if (error != expected)
            usleep(100000);
    }
    return error;
}

static void a_snapshot_without_a_list_is_read_from_its_links(void **unused)
{
    (void) unused;
    struct snapshot *s = resolve("main");
    assert_false(snapshot_complete(s));
    struct entry e;
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &e), 0);
    assert_int_equal(e.size, 5);
    assert_string_equal(e.etag, HELLO);
    struct store_file file;
    assert_int_equal(store_file_open(store, s, e.ordinal, 0, &file), 0);
    char text[8] = "";
    assert_int_equal(read(file.fd, text, sizeof text), 5);
    assert_string_equal(text, "hello");
    close(file.fd);
    assert_int_equal(store_lookup(store, s, 0, "sub", &e), 0);
    assert_int_equal(e.kind, ENTRY_DIR);
    assert_int_equal(store_lookup(store, s, e.ordinal, "b.txt", &e), 0);
    assert_int_equal(store_lookup(store, s, 0, "A.TXT", &e), -ENOENT);
}

static void what_is_added_and_removed_shows(void **unused)
{
    (void) unused;
    struct snapshot *s = resolve("main");
    struct entry before, after, e;
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &before), 0);
    put_link(REPO "snapshots/" OLD "/new.txt", "../../blobs/" HELLO);
    assert_int_equal(lookup_soon(s, "new.txt", 0, &e), 0);
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &after), 0);
    assert_int_equal(after.ordinal, before.ordinal);
    take(REPO "snapshots/" OLD "/a.txt");
    assert_int_equal(lookup_soon(s, "a.txt", -ENOENT, &e), -ENOENT);
    assert_int_equal(store_entry(store, s, before.ordinal, &e), -ESTALE);
}

static void a_broken_link_is_known_and_comes_to_life(void **unused)
{
    (void) unused;
    put_link(REPO "snapshots/" OLD "/later.txt", "../../blobs/da39a3ee5e6b4b0d3255bfef95601890afd80709");
    struct snapshot *s = resolve("main");
    struct entry e;
    assert_int_equal(store_lookup(store, s, 0, "later.txt", &e), 0);
    assert_int_equal(e.kind, ENTRY_MISSING);
    struct store_file file;
    assert_int_equal(store_file_open(store, s, e.ordinal, 0, &file), -ENETUNREACH);
    put(REPO "blobs/da39a3ee5e6b4b0d3255bfef95601890afd80709", "");
    for (int i = 0; i < 30 && e.kind != ENTRY_FILE; i++) {
        usleep(100000);
        assert_int_equal(store_lookup(store, s, 0, "later.txt", &e), 0);
    }
    assert_int_equal(e.kind, ENTRY_FILE);
}

static void a_list_names_what_is_absent(void **unused)
{
    (void) unused;
    put(REPO "trees/" OLD ".json", "{\"format_version\":1,\"files\":{\"a.txt\":{\"size\":5,\"blob_id\":\"" HELLO "\"},"
                                   "\"big.bin\":{\"size\":7,\"blob_id\":\"" OLD "\"}}}");
    struct snapshot *s = resolve("main");
    assert_true(snapshot_complete(s));
    struct entry e;
    assert_int_equal(store_lookup(store, s, 0, "big.bin", &e), 0);
    assert_int_equal(e.size, 7);
    struct store_file file;
    assert_int_equal(store_file_open(store, s, e.ordinal, 0, &file), -ENETUNREACH);
    assert_int_equal(store_lookup(store, s, 0, "sub", &e), -ENOENT); // not in the list: not of this commit
    struct survey survey;
    assert_int_equal(survey_all(store, NULL, NULL, &survey), 0);
    assert_int_equal(survey.repos, 1);
    assert_int_equal(survey.whole_files, 1);
    assert_int_equal(survey.absent_bytes, 7);
}

static void a_list_that_lies_is_not_used(void **unused)
{
    (void) unused;
    put(REPO "trees/" OLD ".json", "{\"format_version\":1,\"files\":{\"a.txt\":{\"size\":5,\"blob_id\":\"" HELLO "\"},"
                                   "\"a.txt/b\":{\"size\":5,\"blob_id\":\"" HELLO "\"}}}");
    struct snapshot *s = resolve("main");
    assert_false(snapshot_complete(s));
    struct entry e;
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &e), 0);
    assert_int_equal(e.kind, ENTRY_FILE);
}

static void a_list_that_comes_later_is_read(void **unused)
{
    (void) unused;
    struct snapshot *s = resolve("main");
    struct entry before, e;
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &before), 0);
    put(REPO "trees/" OLD ".json", "{\"format_version\":1,\"files\":{\"a.txt\":{\"size\":5,\"blob_id\":\"" HELLO "\"},"
                                   "\"x\":{\"size\":7,\"blob_id\":\"" OLD "\"}}}");
    assert_int_equal(lookup_soon(s, "x", 0, &e), 0);
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &e), 0);
    assert_int_equal(e.ordinal, before.ordinal);
}

static void a_ref_that_moves_is_followed_when_nobody_is_there(void **unused)
{
    (void) unused;
    assert_commit("main", OLD);
    put_link(REPO "snapshots/" NEW "/a.txt", "../../blobs/" HELLO);
    put(REPO "refs/main", NEW);
    assert_commit("main", NEW);
    assert_commit(OLD, OLD);
}

static void a_ref_that_moves_stays_for_those_who_are_in_it(void **unused)
{
    (void) unused;
    struct snapshot *s = resolve("main");
    snapshot_touch(s);
    put_link(REPO "snapshots/" NEW "/a.txt", "../../blobs/" HELLO);
    put(REPO "refs/main", NEW);
    assert_commit("main", OLD);
    assert_commit(NEW, NEW);
    take(REPO "refs/main");
    struct snapshot *gone;
    assert_int_equal(store_resolve(store, &repo, "main", &gone), -ENOENT);
}

static void a_ref_that_moves_is_followed_when_the_old_commit_is_gone(void **unused)
{
    (void) unused;
    snapshot_touch(resolve("main"));
    put_link(REPO "snapshots/" NEW "/a.txt", "../../blobs/" HELLO);
    put(REPO "refs/main", NEW);
    take(REPO "snapshots/" OLD "/a.txt");
    take(REPO "snapshots/" OLD "/sub/b.txt");
    take(REPO "snapshots/" OLD "/sub");
    take(REPO "snapshots/" OLD);
    assert_commit("main", NEW);
}

static void a_ref_to_nothing_is_not_taken_for_missing(void **unused)
{
    (void) unused;
    struct snapshot *s;
    put(REPO "refs/other", NEW);
    assert_int_equal(store_resolve(store, &repo, "other", &s), -ENETUNREACH);
    assert_int_equal(store_resolve(store, &repo, "none", &s), -ENOENT);
    assert_int_equal(store_resolve(store, &repo, NEW, &s), -ENOENT);
    assert_int_equal(store_resolve(store, &repo, "../main", &s), -ENOENT);
}

static void a_regular_file_that_is_rewritten_is_another_one(void **unused)
{
    (void) unused;
    put(REPO "snapshots/" OLD "/plain.txt", "one");
    struct snapshot *s = resolve("main");
    struct entry before, e;
    assert_int_equal(store_lookup(store, s, 0, "plain.txt", &before), 0);
    struct store_file file;
    assert_int_equal(store_file_open(store, s, before.ordinal, 0, &file), 0);
    close(file.fd);
    usleep(20000);
    put(REPO "snapshots/" OLD "/plain.txt", "two");
    assert_int_equal(store_file_open(store, s, before.ordinal, 0, &file), -ESTALE);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(store_lookup(store, s, 0, "plain.txt", &e), 0);
        if (e.ordinal != before.ordinal)
            break;
        usleep(100000);
    }
    assert_int_not_equal(e.ordinal, before.ordinal);
    assert_int_equal(store_file_open(store, s, e.ordinal, 0, &file), 0);
    close(file.fd);
}

static void repos_show_as_they_come_and_go(void **unused)
{
    (void) unused;
    struct repo dataset = { REPO_DATASET, "org/data" };
    assert_true(store_has_repo(store, &repo));
    assert_true(store_has_org(store, REPO_MODEL, "org"));
    assert_false(store_has_org(store, REPO_MODEL, "or"));
    assert_false(store_has_repo(store, &dataset));
    put("datasets--org--data/refs/main", OLD);
    for (int i = 0; i < 30 && !store_has_repo(store, &dataset); i++)
        usleep(100000);
    assert_true(store_has_repo(store, &dataset));
    struct repo *repos;
    assert_int_equal(store_repos(store, &repos), 2);
    assert_string_equal(repos[0].id, "org/name");
    assert_string_equal(repos[1].id, "org/data");
    free(repos);
}

static void a_second_store_knows_what_the_first_read(void **unused)
{
    (void) unused;
    put(REPO "trees/" OLD ".json",
        "{\"format_version\":1,\"files\":{\"a.txt\":{\"size\":5,\"blob_id\":\"" HELLO "\"}}}");
    struct entry first, second;
    assert_int_equal(store_lookup(store, resolve("main"), 0, "a.txt", &first), 0);
    store_close(store);
    open_store();
    struct snapshot *s = resolve("main");
    assert_true(snapshot_complete(s));
    assert_int_equal(store_lookup(store, s, 0, "a.txt", &second), 0);
    assert_int_equal(second.ordinal, first.ordinal);
    char reason[256];
    assert_false(store_index_in_memory(store, reason));
}

static void *look_around(void *unused)
{
    (void) unused;
    for (int i = 0; i < 300; i++) {
        struct snapshot *s = resolve(i % 2 ? "main" : OLD);
        struct entry e;
        assert_int_equal(store_lookup(store, s, 0, i % 3 ? "a.txt" : "sub", &e), 0);
        assert_int_equal(store_list_start(store, s, 0, true), 0);
        struct entry list[4];
        assert_true(store_list(store, s, 0, "", list, 4) >= 2);
    }
    return NULL;
}

static void many_look_at_what_changes(void **unused)
{
    (void) unused;
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        pthread_create(&threads[i], NULL, look_around, NULL);
    for (int i = 0; i < 50; i++) {
        char name[128];
        snprintf(name, sizeof name, REPO "snapshots/" OLD "/n%d", i);
        put_link(name, "../../blobs/" HELLO);
        usleep(2000);
    }
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_without_a_list_is_read_from_its_links),
        TEST(what_is_added_and_removed_shows),
        TEST(a_broken_link_is_known_and_comes_to_life),
        TEST(a_list_names_what_is_absent),
        TEST(a_list_that_lies_is_not_used),
        TEST(a_list_that_comes_later_is_read),
        TEST(a_ref_that_moves_is_followed_when_nobody_is_there),
        TEST(a_ref_that_moves_stays_for_those_who_are_in_it),
        TEST(a_ref_that_moves_is_followed_when_the_old_commit_is_gone),
        TEST(a_ref_to_nothing_is_not_taken_for_missing),
        TEST(a_regular_file_that_is_rewritten_is_another_one),
        TEST(repos_show_as_they_come_and_go),
        TEST(a_second_store_knows_what_the_first_read),
        TEST(many_look_at_what_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
