// SPDX-License-Identifier: Apache-2.0
#include "cache/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HEX40 "0123456789abcdef0123456789abcdef01234567"
#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// `n` times `c` in a static buffer.
static const char *times(char c, size_t n)
{
    static char buffer[8192];
    assert_true(n < sizeof buffer);
    memset(buffer, c, n);
    buffer[n] = '\0';
    return buffer;
}

static bool path_ok(const char *path)
{
    return names_path_ok(path, strlen(path));
}

static void types_have_two_names(void **state)
{
    (void) state;
    assert_string_equal(names_type(REPO_KERNEL), "kernel");
    assert_string_equal(names_type_plural(REPO_MODEL), "models");
    for (int i = 0; i < NAMES_REPO_TYPES; i++) {
        enum repo_type type;
        assert_true(names_type_from_plural(names_type_plural((enum repo_type) i), &type));
        assert_int_equal(type, i);
    }
    enum repo_type untouched = REPO_SPACE;
    assert_false(names_type_from_plural("model", &untouched));
    assert_false(names_type_from_plural("", &untouched));
    assert_false(names_type_from_plural("buckets", &untouched));
    assert_int_equal(untouched, REPO_SPACE);
}

// The examples are those of the library's own tests of validate_repo_id.
static void id_parts_follow_the_library(void **state)
{
    (void) state;
    static const char *const good[] = { "a",    "123", "foo", "Foo-BAR_foo.bar123", "_a_", "__a_", "gpt-4.1.x",
                                        "a.gi", "git", "a-.b" };
    static const char *const bad[] = {
        "",     "-a",  ".a",      "a-",  "a.",          "a--b", "a..b", "a/b",     "a b",
        "a\nb", "a\n", "foo.git", "a:b", "caf\xc3\xa9", "--",   "a\\b", "%2e%2ea", "a---b",
        "-",    ".",   "..",      "a@b", "a+b",         "a~b",  ".git", "a\x01",   "\xff",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!names_id_part_ok(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (names_id_part_ok(bad[i]))
            fail_msg("taken: %s", bad[i]);
    assert_true(names_id_part_ok(times('a', 96)));
    assert_false(names_id_part_ok(times('a', 97)));
}

static void folders_and_repos_round_trip(void **state)
{
    (void) state;
    static const struct {
        const char *folder;
        enum repo_type type;
        const char *id;
    } cases[] = {
        { "models--gpt2", REPO_MODEL, "gpt2" },
        { "models--openai-community--gpt2", REPO_MODEL, "openai-community/gpt2" },
        { "datasets--a--b", REPO_DATASET, "a/b" },
        { "spaces--a.b--c-d", REPO_SPACE, "a.b/c-d" },
        { "kernels--k--_", REPO_KERNEL, "k/_" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct repo repo;
        assert_true(names_repo_from_folder(cases[i].folder, &repo));
        assert_int_equal(repo.type, cases[i].type);
        assert_string_equal(repo.id, cases[i].id);
        char folder[NAMES_FOLDER_SIZE];
        names_repo_folder(&repo, folder);
        assert_string_equal(folder, cases[i].folder);
    }
}

static void folders_of_strangers_are_no_repos(void **state)
{
    (void) state;
    static const char *const bad[] = {
        "",           "models",          "models--",       "models----a",   "models--a--",
        "model--a",   "models--a--b--c", "blobs",          ".locks",        "Models--a--b",
        "models-a-b", "models---a--b",   "models--a---b",  "buckets--a--b", "version.txt",
        "models--..", "models--a--..",   "models--a/b--c", "xmodels--a--b", "models--a--b.git",
        "--a--b",     "models--a--b--",  "tmp_models--a",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct repo repo = { .type = REPO_SPACE, .id = "same" };
        if (names_repo_from_folder(bad[i], &repo))
            fail_msg("taken: %s", bad[i]);
        assert_string_equal(repo.id, "same");
    }
}

static void the_longest_repo_fits(void **state)
{
    (void) state;
    char part[97];
    stpcpy(part, times('x', 96));
    struct repo repo;
    assert_true(names_repo_make(REPO_DATASET, part, part, &repo));
    assert_int_equal(strlen(repo.id), 96 + 1 + 96);
    char folder[NAMES_FOLDER_SIZE];
    names_repo_folder(&repo, folder);
    struct repo again;
    assert_true(names_repo_from_folder(folder, &again));
    assert_true(names_repo_equal(&repo, &again));
    again.type = REPO_MODEL;
    assert_false(names_repo_equal(&repo, &again));
}

static void repos_are_made_of_good_parts(void **state)
{
    (void) state;
    struct repo repo;
    assert_true(names_repo_make(REPO_MODEL, NULL, "gpt2", &repo));
    assert_string_equal(repo.id, "gpt2");
    assert_true(names_repo_make(REPO_MODEL, "org", "name", &repo));
    assert_string_equal(repo.id, "org/name");
    assert_false(names_repo_make(REPO_MODEL, "", "name", &repo));
    assert_false(names_repo_make(REPO_MODEL, "org", "", &repo));
    assert_false(names_repo_make(REPO_MODEL, "o/rg", "name", &repo));
    assert_false(names_repo_make(REPO_MODEL, NULL, "org/name", &repo));
    assert_false(names_repo_make(REPO_MODEL, times('a', 500), "name", &repo));
    assert_string_equal(repo.id, "org/name");
}

static void hashes_are_lower_hex_of_one_length(void **state)
{
    (void) state;
    assert_true(names_commit_ok(HEX40));
    assert_false(names_commit_ok(HEX40 "0"));
    assert_false(names_commit_ok(HEX64));
    assert_false(names_commit_ok(&HEX40[1]));
    assert_false(names_commit_ok(""));
    assert_false(names_commit_ok("A123456789abcdef0123456789abcdef01234567"));
    assert_false(names_commit_ok("g123456789abcdef0123456789abcdef01234567"));
    assert_true(names_xet_ok(HEX64));
    assert_false(names_xet_ok(HEX40));
    assert_false(names_xet_ok(HEX64 "a"));
    assert_false(names_xet_ok(""));
}

static void etags_are_not_temporary_names(void **state)
{
    (void) state;
    static const char *const good[] = { HEX40, HEX64, "a", "d41d8-5", "W x", "tmp", "a.b" };
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "a/b",
        "a\nb",
        "a\x7f",
        "caf\xc3\xa9",
        HEX40 ".incomplete",
        HEX40 ".0123abcd.incomplete",
        "." HEX40 ".0123abcd.shared",
        "tmp_0f1e",
        HEX40 ".lock",
        "x.tmp",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!names_etag_ok(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (names_etag_ok(bad[i]))
            fail_msg("taken: %s", bad[i]);
    assert_true(names_etag_ok(times('e', NAMES_ETAG_SIZE - 1)));
    assert_false(names_etag_ok(times('e', NAMES_ETAG_SIZE)));
}

static void refs_are_relative_paths(void **state)
{
    (void) state;
    static const char *const good[] = { "main",
                                        "refs/pr/1",
                                        "refs/convert/parquet",
                                        "feature/x",
                                        "v1.0",
                                        "%",
                                        "a b",
                                        "caf\xc3\xa9",
                                        "x.tmp",
                                        "main.0123abc.tmp",
                                        ".hidden",
                                        "main.0123abcg.tmp",
                                        ".0123abcd.tmp",
                                        "...",
                                        "a.0123abcd.tmp/b",
                                        "0123abcd.tmp" };
    static const char *const bad[] = {
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "./a",
        "a/../b",
        "a/./b",
        "a/..",
        "a\nb",
        "a\x7f",
        "main.0123abcd.tmp",
        "refs/pr/1.deadbeef.tmp",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!names_ref_ok(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (names_ref_ok(bad[i]))
            fail_msg("taken: %s", bad[i]);
    assert_true(names_ref_ok(times('r', 255)));
    assert_false(names_ref_ok(times('r', 256)));
}

static void revisions_round_trip(void **state)
{
    (void) state;
    static const struct {
        const char *ref, *component;
    } cases[] = {
        { "main", "main" },     { "refs/pr/1", "refs%2Fpr%2F1" }, { "100%", "100%25" },
        { "a%2Fb", "a%252Fb" }, { "caf\xc3\xa9", "caf\xc3\xa9" },
    };
    char component[NAMES_REVISION_SIZE];
    char ref[NAMES_REF_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(names_revision_encode(cases[i].ref, component));
        assert_string_equal(component, cases[i].component);
        assert_true(names_revision_decode(component, ref));
        assert_string_equal(ref, cases[i].ref);
    }
    assert_true(names_revision_decode("a%2fb", ref));
    assert_string_equal(ref, "a/b");
    assert_true(names_revision_encode(times('%', 255), component));
    assert_true(names_revision_decode(component, ref));
    assert_string_equal(ref, times('%', 255));
}

static void revisions_that_are_none_are_refused(void **state)
{
    (void) state;
    static const char *const bad[] = { "",     "%",    "%2",       "%2G",    "%20",    "%00",    "a/b",  ".",     "..",
                                       "%2Fa", "a%2F", "a%2F%2Fb", "%2e%2e", "..%2Fa", "a%2F..", "a\nb", "%2\xc3" };
    char ref[NAMES_REF_SIZE] = "same";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (names_revision_decode(bad[i], ref))
            fail_msg("taken: %s", bad[i]);
    assert_false(names_revision_decode(times('a', 256), ref));
    assert_string_equal(ref, "same");
    char component[NAMES_REVISION_SIZE] = "same";
    assert_false(names_revision_encode(times('/', 256), component));
    assert_string_equal(component, "same");
}

static void paths_are_relative_and_plain(void **state)
{
    (void) state;
    static const char *const good[] = { "a",           "a/b",  "a/.b", "...", "a/..b/c", "a\nb",       "\"",
                                        "caf\xc3\xa9", "\xff", "a b",  "-rf", "a\\b",    ".git/config" };
    static const char *const bad[] = { "", "/", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/../b", "a/..", "a/." };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!path_ok(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (path_ok(bad[i]))
            fail_msg("taken: %s", bad[i]);
    assert_false(names_path_ok("a\0b", 3));
    assert_true(names_path_ok("a/b/..", 3));
    assert_true(path_ok(times('a', 255)));
    assert_false(path_ok(times('a', 256)));

    char path[4097];
    for (size_t i = 0; i < sizeof path; i++)
        path[i] = i % 2 ? '/' : 'a';
    assert_true(names_path_ok(path, 4095));
    assert_false(names_path_ok(path, 4097));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_two_names),
        cmocka_unit_test(id_parts_follow_the_library),
        cmocka_unit_test(folders_and_repos_round_trip),
        cmocka_unit_test(folders_of_strangers_are_no_repos),
        cmocka_unit_test(the_longest_repo_fits),
        cmocka_unit_test(repos_are_made_of_good_parts),
        cmocka_unit_test(hashes_are_lower_hex_of_one_length),
        cmocka_unit_test(etags_are_not_temporary_names),
        cmocka_unit_test(refs_are_relative_paths),
        cmocka_unit_test(revisions_round_trip),
        cmocka_unit_test(revisions_that_are_none_are_refused),
        cmocka_unit_test(paths_are_relative_and_plain),
    };
    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
