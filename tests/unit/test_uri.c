// SPDX-License-Identifier: Apache-2.0
#include "cache/uri.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void check(const char *text, const char *endpoint, enum repo_type type, const char *id, const char *revision,
                  const char *path)
{
    struct uri uri;
    char error[URI_ERROR_SIZE] = "";
    if (uri_parse(text, endpoint, &uri, error) != 0)
        fail_msg("%s: %s", text, error);
    assert_int_equal(uri.repo.type, type);
    assert_string_equal(uri.repo.id, id);
    assert_string_equal(uri.revision, revision);
    assert_string_equal(uri.path, path);
}

static void is(const char *text, enum repo_type type, const char *id, const char *revision, const char *path)
{
    check(text, NULL, type, id, revision, path);
}

static void refused(const char *text, const char *why)
{
    struct uri uri;
    char error[URI_ERROR_SIZE] = "";
    if (uri_parse(text, "http://hub.corp:8080/hf/", &uri, error) != -EINVAL)
        fail_msg("%s: taken as %s", text, uri.repo.id);
    if (!strstr(error, why))
        fail_msg("%s: %s", text, error);
}

static void uris_of_the_library_s_grammar(void **state)
{
    (void) state;
    is("hf://org/name", REPO_MODEL, "org/name", "", "");
    is("hf://org/name/", REPO_MODEL, "org/name", "", "");
    is("hf://models/org/name", REPO_MODEL, "org/name", "", "");
    is("hf://datasets/org/name@v1/train.csv", REPO_DATASET, "org/name", "v1", "train.csv");
    is("hf://spaces/org/name/a/b c", REPO_SPACE, "org/name", "", "a/b c");
    is("hf://kernels/org/name@main", REPO_KERNEL, "org/name", "main", "");
    is("hf://org/name@feature%2Ffoo/x", REPO_MODEL, "org/name", "feature/foo", "x");
    is("hf://org/name@refs/pr/10/x/y", REPO_MODEL, "org/name", "refs/pr/10", "x/y");
    is("hf://org/name@refs%2Fpr%2F10", REPO_MODEL, "org/name", "refs/pr/10", "");
    is("hf://org/name@refs/convert/parquet-v2.1/x", REPO_MODEL, "org/name", "refs/convert/parquet-v2.1", "x");
    is("hf://org/name@refs/other/x", REPO_MODEL, "org/name", "refs", "other/x");
    is("hf://org/name/file@1.txt", REPO_MODEL, "org/name", "", "file@1.txt");
    is("hf://org/name@v1/file@1.txt", REPO_MODEL, "org/name", "v1", "file@1.txt");
    is("hf://org/name/100%25", REPO_MODEL, "org/name", "", "100%25");
}

static void ids_without_organisation(void **state)
{
    (void) state;
    is("hf://gpt2", REPO_MODEL, "gpt2", "", "");
    is("hf://gpt2@main/config.json", REPO_MODEL, "gpt2", "main", "config.json");
    is("hf://gpt2@refs/pr/1", REPO_MODEL, "gpt2", "refs/pr/1", "");
    is("hf://datasets/squad", REPO_DATASET, "squad", "", "");
    is("hf://datasets/squad@refs/convert/parquet/plain", REPO_DATASET, "squad", "refs/convert/parquet", "plain");
    is("hf://gpt2/config.json", REPO_MODEL, "gpt2/config.json", "", "");
}

static void addresses_from_a_browser(void **state)
{
    (void) state;
    is("https://huggingface.co/org/name", REPO_MODEL, "org/name", "", "");
    is("https://huggingface.co/org/name/", REPO_MODEL, "org/name", "", "");
    is("HTTPS://HuggingFace.co/datasets/org/name/blob/main/train.csv?download=true#L1", REPO_DATASET, "org/name",
       "main", "train.csv");
    is("huggingface.co/org/name/tree/v1/sub", REPO_MODEL, "org/name", "v1", "sub");
    is("https://hf.co/org/name/tree", REPO_MODEL, "org/name", "", "");
    is("https://huggingface.co/org/name/resolve/refs%2Fpr%2F1/a%20b%23.txt", REPO_MODEL, "org/name", "refs/pr/1",
       "a b#.txt");
    is("https://huggingface.co/org/name/blob/refs/pr/1/x", REPO_MODEL, "org/name", "refs/pr/1", "x");
    is("https://huggingface.co/spaces/org/name/raw/main/app.py", REPO_SPACE, "org/name", "main", "app.py");
    is("https://huggingface.co/org/name/blame/main/x@y", REPO_MODEL, "org/name", "main", "x@y");
    check("http://hub.corp:8080/hf/org/name/tree/main", "http://hub.corp:8080/hf/", REPO_MODEL, "org/name", "main", "");
    check("https://hub.corp/org/name", "hub.corp", REPO_MODEL, "org/name", "", "");
    check("http://[::1]:80/org/name", "http://[::1]:80", REPO_MODEL, "org/name", "", "");
    check("hub.corp/org/name", "https://hub.corp", REPO_MODEL, "org/name", "", "");
}

static void buckets_are_refused_by_name(void **state)
{
    (void) state;
    refused("hf://buckets/org/name", "buckets cannot be mounted");
    refused("hf://bucket/org/name", "buckets cannot be mounted");
    refused("hf://buckets", "buckets cannot be mounted");
    refused("https://huggingface.co/buckets/org/name/tree/x", "buckets cannot be mounted");
}

static void what_is_wrong_is_said(void **state)
{
    (void) state;
    refused("hf://", "no repo is named");
    refused("hf:///", "no repo is named");
    refused("hf://datasets", "expected hf://datasets/ID");
    refused("hf://datasets/", "expected hf://datasets/ID");
    refused("hf://dataset/org/name", "plural: hf://datasets/ID");
    refused("hf://model", "plural: hf://models/ID");
    refused("hf://@main", "not the id of a repo");
    refused("hf://org/name@", "no revision");
    refused("hf://org/name@/x", "no revision");
    refused("hf://org/name@a%2F..%2Fb", "not a revision");
    refused("hf://org/name@a%00b", "not a revision");
    refused("hf://org/name@a%0Ab", "not a revision");
    refused("hf://org/name/a//b", "not a path");
    refused("hf://org/name/../b", "not a path");
    refused("hf://-org/name", "not the id of a repo");
    refused("hf://org/na--me", "not the id of a repo");
    refused("hf://o/n.git", "not the id of a repo");
    refused("https://example.org/org/name", "not an address of the Hub");
    refused("https://huggingface.co.evil.org/org/name", "not an address of the Hub");
    refused("https://huggingface.co@evil.org/org/name", "not an address of the Hub");
    refused("org/name", "expected hf://");
    refused("", "expected hf://");
    refused("https://huggingface.co", "no organisation/name");
    refused("https://huggingface.co/openai", "no organisation/name");
    refused("https://huggingface.co/datasets/squad", "no organisation/name");
    refused("https://huggingface.co/org/name/discussions/1", "not the page of a repo, a file");
    refused("https://huggingface.co/org/name/blob/main/a%00b", "NUL");
    refused("https://huggingface.co/org/name/blob/main/..", "not a path");
    char text[20000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memcpy(text, "hf://", 5);
    refused(text, "longer");
    text[6000] = '\0';
    memcpy(text, "hf://a/b/", 9);
    refused(text, "not a path");
}

static void a_uri_is_known_from_a_directory(void **state)
{
    (void) state;
    assert_true(uri_is("hf://x"));
    assert_true(uri_is("https://x"));
    assert_true(uri_is("HTTP://x"));
    assert_false(uri_is("/srv/cache"));
    assert_false(uri_is("huggingface.co/a/b"));
    assert_false(uri_is("hf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uris_of_the_library_s_grammar), cmocka_unit_test(ids_without_organisation),
        cmocka_unit_test(addresses_from_a_browser),      cmocka_unit_test(buckets_are_refused_by_name),
        cmocka_unit_test(what_is_wrong_is_said),         cmocka_unit_test(a_uri_is_known_from_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
