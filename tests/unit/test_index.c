// SPDX-License-Identifier: Apache-2.0
// The index: what is put in is found again, whatever state its file is in.
#include "cache/index.h"
#include "cache/index_refs.h"
#include "cache/util.h"

#include <errno.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

static const struct repo REPO = { .type = REPO_MODEL, .id = "org/name" };
#define COMMIT "0123456789012345678901234567890123456789"
#define SHA1 "da39a3ee5e6b4b0d3255bfef95601890afd80709"
#define SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static char place[] = "/tmp/modelmount-index-XXXXXX";
static char path[64];

static int setup(void **state)
{
    (void) state;
    strcpy(place + strlen(place) - 6, "XXXXXX");
    assert_non_null(mkdtemp(place));
    snprintf(path, sizeof path, "%s/index.db", place);
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
    for (int i = 0; i < 4; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
    return rmdir(place);
}

static struct index *open_index(void)
{
    struct index *index;
    assert_int_equal(index_open(path, "/cache", &index), 0);
    return index;
}

static void assert_on_disk(struct index *index, bool on_disk)
{
    char reason[256];
    assert_int_equal(index_in_memory(index, reason), !on_disk);
    assert_int_equal(reason[0] == '\0', on_disk);
}

static int64_t tree_of(struct index *index)
{
    struct index_tree tree;
    assert_int_equal(index_tree(index, &REPO, COMMIT, &tree), 0);
    return tree.id;
}

static const struct index_stamp STAMP = { .device = 1, .inode = 2, .size = 3, .mtime_ns = 4, .ctime_ns = 5 };

static const struct index_file FILES[] = {
    { .path = "config.json", .size = 7, .etag = SHA1, .xet_hash = "" },
    { .path = "unet/a b.safetensors", .size = 1LL << 40, .etag = SHA256, .blob_id = SHA1, .xet_hash = SHA256 },
    { .path = "unet/deep/x", .size = 0, .etag = "W-odd_etag", .xet_hash = "" },
    { .path = "README.md", .size = 1, .etag = SHA1, .xet_hash = "" },
};

static void fill(struct index *index, int64_t tree)
{
    size_t clash;
    assert_int_equal(index_tree_start(index, tree), 0);
    assert_int_equal(index_tree_add(index, FILES, 4, &clash), 0);
    assert_int_equal(index_tree_finish(index, &STAMP, false), 0);
}

static void assert_filled(struct index *index, int64_t tree)
{
    struct entry e[8];
    assert_int_equal(index_entries(index, tree, 0, "", e, 8), 3);
    assert_string_equal(e[0].name, "README.md");
    assert_string_equal(e[1].name, "config.json");
    assert_string_equal(e[2].name, "unet");
    assert_int_equal(e[2].kind, ENTRY_DIR);
    uint32_t unet = e[2].ordinal;
    assert_int_equal(index_entry_named(index, tree, unet, "a b.safetensors", e), 0);
    assert_int_equal(e->size, 1LL << 40);
    assert_string_equal(e->etag, SHA256);
    assert_string_equal(e->xet_hash, SHA256);
    assert_string_equal(e->blob_id, SHA1);
    assert_int_equal(index_entry_named(index, tree, unet, "deep", e), 0);
    assert_int_equal(index_entry_named(index, tree, e->ordinal, "x", e), 0);
    assert_string_equal(e->etag, "W-odd_etag");
    char *file_path;
    assert_int_equal(index_path(index, tree, e->ordinal, &file_path), 0);
    assert_string_equal(file_path, "unet/deep/x");
    free(file_path);
    assert_int_equal(index_entry_named(index, tree, 0, "readme.md", e), -ENOENT);
}

static void what_is_put_in_is_found_again(void **state)
{
    (void) state;
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    fill(index, tree);
    assert_filled(index, tree);
    index_close(index);
    index = open_index();
    struct index_tree found;
    assert_int_equal(index_tree(index, &REPO, COMMIT, &found), 0);
    assert_true(found.complete);
    assert_true(index_stamp_equal(&found.stamp, &STAMP));
    assert_filled(index, found.id);
    assert_on_disk(index, true);
    index_close(index);
}

static void listing_goes_on_where_it_stopped(void **state)
{
    (void) state;
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    fill(index, tree);
    struct entry e;
    const char *expected[] = { "README.md", "config.json", "unet" };
    char after[INDEX_NAME_SIZE] = "";
    for (int i = 0; i < 3; i++) {
        assert_int_equal(index_entries(index, tree, 0, after, &e, 1), 1);
        assert_string_equal(e.name, expected[i]);
        strcpy(after, e.name);
    }
    assert_int_equal(index_entries(index, tree, 0, after, &e, 1), 0);
    index_close(index);
}

static void a_clash_leaves_the_tree_as_it_was(void **state)
{
    (void) state;
    static const struct index_file clashes[][2] = {
        { { "a", 1, SHA1, "", "" }, { "a", 1, SHA1, "", "" } },
        { { "a", 1, SHA1, "", "" }, { "a/b", 1, SHA1, "", "" } },
        { { "a/b", 1, SHA1, "", "" }, { "a", 1, SHA1, "", "" } },
    };
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    fill(index, tree);
    for (int i = 0; i < 3; i++) {
        size_t clash = 9;
        assert_int_equal(index_tree_start(index, tree), 0);
        assert_int_equal(index_tree_add(index, clashes[i], 2, &clash), -EEXIST);
        assert_int_equal(clash, 1);
        index_tree_abandon(index);
        assert_filled(index, tree);
    }
    index_close(index);
}

static void a_second_reading_keeps_ordinals_and_drops_what_is_gone(void **state)
{
    (void) state;
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    fill(index, tree);
    struct entry before, after;
    size_t clash;
    assert_int_equal(index_entry_named(index, tree, 0, "config.json", &before), 0);
    assert_int_equal(index_tree_start(index, tree), 0);
    assert_int_equal(index_tree_add(index, FILES, 1, &clash), 0);
    assert_int_equal(index_tree_finish(index, &STAMP, false), 0);
    assert_int_equal(index_entry_named(index, tree, 0, "config.json", &after), 0);
    assert_int_equal(after.ordinal, before.ordinal);
    assert_int_equal(index_entry_named(index, tree, 0, "unet", &after), -ENOENT);
    index_close(index);
}

static void a_directory_that_changed_gives_new_ordinals_to_new_things(void **state)
{
    (void) state;
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    struct entry first[] = { { .kind = ENTRY_FILE, .size = 1, .etag = SHA1, .name = "kept" },
                             { .kind = ENTRY_FILE, .size = 1, .etag = SHA1, .name = "changed" },
                             { .kind = ENTRY_DIR, .name = "gone" } };
    assert_int_equal(index_dir_replace(index, tree, 0, &STAMP, first, 3), 0);
    struct entry second[] = { { .kind = ENTRY_FILE, .size = 2, .etag = SHA256, .name = "changed" },
                              { .kind = ENTRY_FILE, .size = 1, .etag = SHA1, .name = "kept" },
                              { .kind = ENTRY_MISSING, .name = "new" } };
    assert_int_equal(index_dir_replace(index, tree, 0, &STAMP, second, 3), 0);
    assert_int_equal(second[1].ordinal, first[0].ordinal);
    assert_true(second[0].ordinal > first[2].ordinal);
    assert_true(second[2].ordinal > first[2].ordinal);
    struct entry e;
    assert_int_equal(index_entry(index, tree, first[1].ordinal, &e), -ENOENT);
    assert_int_equal(index_entry_named(index, tree, 0, "gone", &e), -ENOENT);
    struct index_stamp stamp;
    assert_int_equal(index_dir_stamp(index, tree, 0, &stamp), 0);
    assert_true(index_stamp_equal(&stamp, &STAMP));
    index_close(index);
}

static void a_stamp_close_to_now_is_never_trusted(void **state)
{
    (void) state;
    struct stat st;
    assert_int_equal(stat(place, &st), 0); // made just now
    struct index_stamp stamp = index_stamp_of(&st);
    assert_false(index_stamp_equal(&stamp, &stamp));
    st.st_mtim.tv_sec -= 60;
    st.st_ctim.tv_sec -= 60;
    stamp = index_stamp_of(&st);
    assert_true(index_stamp_equal(&stamp, &stamp));
}

static void write_file(const char *text, size_t len)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, len, file), len);
    fclose(file);
}

static void a_file_that_is_no_database_is_made_anew(void **state)
{
    (void) state;
    char junk[5000];
    memset(junk, 'x', sizeof junk);
    write_file(junk, sizeof junk);
    struct index *index = open_index();
    assert_on_disk(index, true);
    fill(index, tree_of(index));
    index_close(index);
}

static void damage_found_later_is_survived(void **state)
{
    (void) state;
    struct index *index = open_index();
    fill(index, tree_of(index));
    index_close(index);
    FILE *file = fopen(path, "r+");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    char junk[4096];
    memset(junk, 0xa5, sizeof junk);
    for (long at = 4096; at < size; at += 4096) { // all but the schema
        fseek(file, at, SEEK_SET);
        fwrite(junk, 1, sizeof junk, file);
    }
    fclose(file);
    index = open_index();
    struct index_tree tree;
    unsigned generation = index_generation(index);
    int error = index_tree(index, &REPO, COMMIT, &tree);
    if (error == -EUCLEAN) {
        assert_true(index_forget(index, generation));
        assert_false(index_forget(index, generation)); // the second thread to notice
        assert_on_disk(index, false);
        assert_int_equal(index_tree(index, &REPO, COMMIT, &tree), 0);
    }
    assert_false(tree.complete);
    fill(index, tree.id);
    assert_filled(index, tree.id);
    index_close(index);
}

static void damage_met_on_the_way_is_an_error_not_a_wrong_answer(void **state)
{
    (void) state;
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    size_t clash;
    assert_int_equal(index_tree_start(index, tree), 0);
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%05d", i);
        struct index_file file = { .path = name, .size = i, .etag = SHA1, .xet_hash = "" };
        assert_int_equal(index_tree_add(index, &file, 1, &clash), 0);
    }
    assert_int_equal(index_tree_finish(index, &STAMP, false), 0);
    index_close(index);
    FILE *file = fopen(path, "r+");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    for (long at = size / 2 & ~4095L; at < size; at += 4096) {
        fseek(file, at, SEEK_SET);
        fwrite("\xff\xff\xff\xff\xff\xff\xff\xff", 1, 8, file); // a page's header
    }
    fclose(file);
    index = open_index();
    assert_on_disk(index, true);
    unsigned generation = index_generation(index);
    int failed = 0;
    for (int i = 0; i < 20000; i++) {
        char name[32];
        struct entry e;
        snprintf(name, sizeof name, "file-%05d", i);
        int error = index_entry_named(index, tree, 0, name, &e);
        assert_true(error == 0 ? e.size == i : error == -EUCLEAN);
        failed += error == -EUCLEAN;
    }
    assert_true(failed > 0);
    assert_true(index_forget(index, generation));
    fill(index, tree_of(index));
    assert_filled(index, tree_of(index));
    index_close(index);
}

static void run_sql(const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void somebody_elses_database_is_left_alone(void **state)
{
    (void) state;
    run_sql("CREATE TABLE photos (x); INSERT INTO photos VALUES (42)");
    struct index *index = open_index();
    assert_on_disk(index, false);
    fill(index, tree_of(index));
    assert_filled(index, tree_of(index));
    index_close(index);
    run_sql("INSERT INTO photos SELECT x FROM photos"); // still there
}

static void a_newer_version_is_left_alone(void **state)
{
    (void) state;
    index_close(open_index());
    run_sql("PRAGMA user_version = 999");
    struct index *index = open_index();
    assert_on_disk(index, false);
    index_close(index);
    sqlite3 *db;
    sqlite3_stmt *s;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(s, 0), 999);
    sqlite3_finalize(s);
    sqlite3_close(db);
}

static void an_older_version_is_made_anew(void **state)
{
    (void) state;
    // The first version's tables were others.
    run_sql("CREATE TABLE tree (id INTEGER PRIMARY KEY, repo TEXT); INSERT INTO tree VALUES (7, 'x');"
            "PRAGMA application_id = 0x6d6d6e74; PRAGMA user_version = 1");
    struct index *index = open_index();
    assert_on_disk(index, true);
    fill(index, tree_of(index));
    assert_filled(index, tree_of(index));
    index_close(index);
}

static void a_tree_says_where_it_came_from_and_when_it_was_made(void **state)
{
    (void) state;
    struct index *index = open_index();
    struct index_tree tree;
    size_t clash;
    assert_int_equal(index_tree(index, &REPO, COMMIT, &tree), 0);
    assert_true(tree.date == INDEX_NO_DATE);
    assert_false(tree.from_hub);
    assert_int_equal(index_tree_start(index, tree.id), 0);
    assert_int_equal(index_tree_add(index, FILES, 4, &clash), 0);
    assert_int_equal(index_tree_finish(index, &(struct index_stamp){ 0 }, true), 0);
    assert_int_equal(index_tree_date(index, tree.id, -1), 0); // 1969
    index_close(index);
    index = open_index();
    assert_int_equal(index_tree(index, &REPO, COMMIT, &tree), 0);
    assert_true(tree.complete && tree.from_hub);
    assert_int_equal(tree.date, -1);
    struct entry before, after;
    assert_int_equal(index_entry_named(index, tree.id, 0, "unet", &before), 0);
    fill(index, tree.id); // from trees/<commit>.json
    assert_int_equal(index_tree(index, &REPO, COMMIT, &tree), 0);
    assert_false(tree.from_hub);
    assert_int_equal(tree.date, -1);
    assert_int_equal(index_entry_named(index, tree.id, 0, "unet", &after), 0);
    assert_int_equal(after.ordinal, before.ordinal);
    index_close(index);
}

static void a_directory_read_late_takes_nothing_from_a_whole_list(void **state)
{
    (void) state;
    struct index *index = open_index();
    int64_t tree = tree_of(index);
    fill(index, tree);
    struct entry one = { .kind = ENTRY_FILE, .size = 1, .etag = SHA256, .name = "config.json" };
    assert_int_equal(index_dir_replace(index, tree, 0, &STAMP, &one, 1), 0);
    assert_filled(index, tree);
    index_close(index);
}

static int note_ref(void *userdata, const char *ref, const char *commit)
{
    char *text = userdata;
    snprintf(text + strlen(text), 200 - strlen(text), "%s=%.4s ", ref, commit);
    return strcmp(ref, "stop") == 0 ? 7 : 0;
}

static void refs_are_kept_with_the_time_they_were_seen(void **state)
{
    (void) state;
    struct index *index = open_index(), *other;
    char commit[NAMES_COMMIT_SIZE];
    int64_t seen;
    assert_false(index_knows_repo(index, &REPO));
    assert_int_equal(index_ref(index, &REPO, "main", commit, &seen), -ENOENT);
    assert_int_equal(index_ref_drop(index, &REPO, "main"), 0);
    assert_int_equal(index_ref_set(index, &REPO, "main", COMMIT, 5), 0);
    assert_int_equal(index_ref_set(index, &REPO, "main", SHA1, 1234567890123), 0);
    assert_int_equal(index_ref_set(index, &REPO, "refs/pr/1", COMMIT, 6), 0);
    assert_true(index_knows_repo(index, &REPO));
    index_close(index);
    index = open_index();
    assert_int_equal(index_ref(index, &REPO, "main", commit, &seen), 0);
    assert_string_equal(commit, SHA1);
    assert_int_equal(seen, 1234567890123);
    const struct repo dataset = { .type = REPO_DATASET, .id = "org/name" };
    assert_int_equal(index_ref(index, &dataset, "main", commit, NULL), -ENOENT);
    assert_false(index_knows_repo(index, &dataset));
    assert_int_equal(index_open(path, "/other", &other), 0);
    assert_int_equal(index_ref(other, &REPO, "main", commit, NULL), -ENOENT);
    index_close(other);

    // A list: what it lacks goes, unless it is younger than the question, or a pull request.
    assert_int_equal(index_ref_set(index, &REPO, "old", COMMIT, 99), 0);
    assert_int_equal(index_ref_set(index, &REPO, "young", COMMIT, 100), 0);
    const struct index_ref refs[] = { { "v1", COMMIT }, { "stop", COMMIT } };
    assert_int_equal(index_refs_set(index, &REPO, refs, 2, 100, 200), 0);
    char text[200] = "";
    assert_int_equal(index_refs(index, &REPO, note_ref, text), 7);
    assert_string_equal(text, "main=da39 refs/pr/1=0123 stop=0123 ");
    assert_int_equal(index_ref_drop(index, &REPO, "stop"), 0);
    assert_int_equal(index_ref_drop(index, &REPO, "main"), 0);
    text[0] = '\0';
    assert_int_equal(index_refs(index, &REPO, note_ref, text), 0);
    assert_string_equal(text, "refs/pr/1=0123 v1=0123 young=0123 ");
    index_close(index);
}

static void a_repo_is_known_by_a_list_of_the_hubs_alone(void **state)
{
    (void) state;
    struct index *index = open_index();
    size_t clash;
    fill(index, tree_of(index));
    assert_false(index_knows_repo(index, &REPO));
    assert_int_equal(index_tree_start(index, tree_of(index)), 0);
    assert_int_equal(index_tree_add(index, FILES, 4, &clash), 0);
    assert_int_equal(index_tree_finish(index, &STAMP, true), 0);
    assert_true(index_knows_repo(index, &REPO));
    index_close(index);
}

static void a_locked_one_is_passed_by(void **state)
{
    (void) state;
    index_close(open_index());
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    struct index *index = open_index();
    fill(index, tree_of(index));
    assert_filled(index, tree_of(index));
    index_close(index);
    sqlite3_close(db);
}

static void a_link_in_its_place_is_not_followed(void **state)
{
    (void) state;
    char target[80];
    snprintf(target, sizeof target, "%s/elsewhere", place);
    assert_int_equal(symlink(target, path), 0);
    struct index *index = open_index();
    assert_on_disk(index, false);
    index_close(index);
    assert_int_equal(access(target, F_OK), -1);
}

static void no_directory_means_memory(void **state)
{
    (void) state;
    struct index *index;
    assert_int_equal(index_open("/nonexistent/index.db", "/cache", &index), 0);
    assert_on_disk(index, false);
    fill(index, tree_of(index));
    index_close(index);
    assert_int_equal(index_open(NULL, "/cache", &index), 0);
    assert_on_disk(index, false);
    index_close(index);
}

// Two processes on one file, as two mounts of one cache.
static void two_processes_fill_the_same_tree(void **state)
{
    (void) state;
    index_close(open_index());
    pid_t children[2];
    for (int c = 0; c < 2; c++) {
        children[c] = fork();
        if (children[c] == 0) {
            struct index *index = open_index();
            for (int i = 0; i < 20; i++)
                fill(index, tree_of(index));
            char reason[256];
            _exit(index_in_memory(index, reason));
        }
    }
    for (int c = 0; c < 2; c++) {
        int status;
        assert_int_equal(waitpid(children[c], &status, 0), children[c]);
        assert_int_equal(status, 0);
    }
    struct index *index = open_index();
    assert_filled(index, tree_of(index));
    index_close(index);
}

static void two_caches_share_a_file(void **state)
{
    (void) state;
    struct index *index = open_index(), *other;
    assert_int_equal(index_open(path, "/other", &other), 0);
    fill(index, tree_of(index));
    struct index_tree tree;
    assert_int_equal(index_tree(other, &REPO, COMMIT, &tree), 0);
    assert_false(tree.complete);
    assert_int_not_equal(tree.id, tree_of(index));
    index_close(other);
    index_close(index);
}

static void *read_on(void *userdata)
{
    struct index *index = userdata;
    int64_t tree = tree_of(index);
    for (int i = 0; i < 2000; i++) {
        struct entry e;
        int error = index_entry_named(index, tree, 0, "config.json", &e);
        assert_true(error == 0 || error == -ENOENT);
    }
    return NULL;
}

// In memory both connections are one database.
static void readers_go_on_while_a_tree_is_filled(void **state)
{
    (void) state;
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        struct index *index;
        assert_int_equal(index_open(in_memory ? NULL : path, "/cache", &index), 0);
        pthread_t readers[4];
        for (int i = 0; i < 4; i++)
            pthread_create(&readers[i], NULL, read_on, index);
        for (int i = 0; i < 50; i++)
            fill(index, tree_of(index));
        for (int i = 0; i < 4; i++)
            pthread_join(readers[i], NULL);
        assert_filled(index, tree_of(index));
        index_close(index);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_put_in_is_found_again),
        TEST(listing_goes_on_where_it_stopped),
        TEST(a_clash_leaves_the_tree_as_it_was),
        TEST(a_second_reading_keeps_ordinals_and_drops_what_is_gone),
        TEST(a_directory_that_changed_gives_new_ordinals_to_new_things),
        TEST(a_stamp_close_to_now_is_never_trusted),
        TEST(a_file_that_is_no_database_is_made_anew),
        TEST(damage_found_later_is_survived),
        TEST(somebody_elses_database_is_left_alone),
        TEST(a_newer_version_is_left_alone),
        TEST(an_older_version_is_made_anew),
        TEST(a_tree_says_where_it_came_from_and_when_it_was_made),
        TEST(a_directory_read_late_takes_nothing_from_a_whole_list),
        TEST(refs_are_kept_with_the_time_they_were_seen),
        TEST(a_repo_is_known_by_a_list_of_the_hubs_alone),
        TEST(a_locked_one_is_passed_by),
        TEST(no_directory_means_memory),
        TEST(two_processes_fill_the_same_tree),
        TEST(two_caches_share_a_file),
        TEST(readers_go_on_while_a_tree_is_filled),
        TEST(a_link_in_its_place_is_not_followed),
        TEST(damage_met_on_the_way_is_an_error_not_a_wrong_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
