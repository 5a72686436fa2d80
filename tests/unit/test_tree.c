// SPDX-License-Identifier: Apache-2.0
#include "cache/tree.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED
#endif
#endif

#define SHA1 "0123456789abcdef0123456789abcdef01234567"
#define SHA256 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define XET "ababababababababababababababababababababababababababababababab00"
#define XET_UPPER "ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB00"
#define ENTRY "{\"size\": 5, \"blob_id\": \"" SHA1 "\"}"
#define TREE(files) "{\"format_version\": 1, \"files\": {" files "}}"
#define ONE(entry) TREE("\"a\": " entry)

struct read_files {
    int count;
    int stop_at; // 0: never
    char path[4096];
    size_t path_len;
    struct tree_file file; // the last one
};

static char error[256];

static int on_file(void *userdata, const struct tree_file *file)
{
    struct read_files *files = userdata;
    files->count++;
    files->file = *file;
    files->path_len = file->path_len;
    assert_int_equal(strlen(file->path), file->path_len);
    stpcpy(files->path, file->path);
    return files->count == files->stop_at ? -ECANCELED : 0;
}

static int read_bytes(const char *text, size_t len, struct read_files *files)
{
    _cleanup_close_ int fd = memfd_create("tree", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, len), len);
    stpcpy(error, "stale");
    return tree_read(fd, on_file, files, error);
}

static int read_text(const char *text, struct read_files *files)
{
    *files = (struct read_files){ 0 };
    return read_bytes(text, strlen(text), files);
}

static void assert_invalid(const char *text)
{
    struct read_files files;
    int r = read_text(text, &files);
    if (r != -EBADMSG)
        fail_msg("%d for: %.200s", r, text);
    assert_true(strlen(error) > 0);
    assert_string_not_equal(error, "stale");
}

static void assert_valid(const char *text, int count)
{
    struct read_files files;
    int r = read_text(text, &files);
    if (r != 0)
        fail_msg("%s: %.200s", error, text);
    assert_int_equal(files.count, count);
    assert_string_equal(error, "");
}

static void assert_path(const char *key, const char *path)
{
    char text[8192];
    snprintf(text, sizeof text, TREE("\"%s\": " ENTRY), key);
    struct read_files files;
    int r = read_text(text, &files);
    if (r != 0)
        fail_msg("%s", error);
    assert_string_equal(files.path, path);
}

static void assert_no_path(const char *key)
{
    char text[8192];
    snprintf(text, sizeof text, TREE("\"%s\": " ENTRY), key);
    assert_invalid(text);
}

// As write_tree_cache() of huggingface_hub writes it.
static void the_library_s_own_layout_is_read(void **state)
{
    (void) state;
    static const char text[] = "{\n"
                               " \"format_version\": 1,\n"
                               " \"files\": {\n"
                               "  \"config.json\": {\n"
                               "   \"size\": 519,\n"
                               "   \"blob_id\": \"" SHA1 "\"\n"
                               "  },\n"
                               "  \"model.safetensors\": {\n"
                               "   \"size\": 135,\n"
                               "   \"blob_id\": \"" SHA1 "\",\n"
                               "   \"lfs_sha256\": \"" SHA256 "\",\n"
                               "   \"lfs_size\": 9007199254740992,\n"
                               "   \"xet_hash\": \"" XET "\"\n"
                               "  }\n"
                               " }\n"
                               "}";
    struct read_files files = { .stop_at = 1 };
    assert_int_equal(read_bytes(text, sizeof text - 1, &files), -ECANCELED);
    assert_string_equal(files.path, "config.json");
    assert_int_equal(files.file.size, 519);
    assert_string_equal(files.file.etag, SHA1);
    assert_string_equal(files.file.xet_hash, "");
    assert_string_equal(files.file.blob_id, "");
    assert_int_equal(read_text(text, &files), 0);
    assert_int_equal(files.count, 2);
    assert_string_equal(files.path, "model.safetensors");
    assert_int_equal(files.file.size, INT64_C(9007199254740992));
    assert_string_equal(files.file.blob_id, SHA1);
    assert_string_equal(files.file.etag, SHA256);
    assert_string_equal(files.file.xet_hash, XET);
}

static void members_come_in_any_order_and_unknown_ones_are_skipped(void **state)
{
    (void) state;
    assert_valid("{\"files\": {\"a\": " ENTRY "}, \"format_version\": 1}", 1);
    assert_valid("{\"files\":{},\"format_version\":1.0}", 0);
    assert_valid(
        "\t{ \"x\" : [1,{\"files\":[]},\"\\\"}\"] , \"files\" : { } , \"y\":null, \"format_version\":1e0 }\r\n", 0);
    assert_valid(
        ONE("{\"x\": {\"size\": -1}, \"blob_id\": \"" SHA1 "\", \"y\": [\"}\"], \"size\": 5e3, \"Size\": \"no\"}"), 1);
    assert_valid(
        ONE("{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"lfs_sha256\": null, \"lfs_size\": null, \"xet_hash\": null}"),
        1);
    assert_valid(TREE("\"a\": " ENTRY ",\"A\":" ENTRY), 2);
}

static void sizes_are_whole_numbers(void **state)
{
    (void) state;
    struct read_files files;
    assert_int_equal(read_text(ONE("{\"size\": 0, \"blob_id\": \"" SHA256 "\"}"), &files), 0);
    assert_int_equal(files.file.size, 0);
    assert_int_equal(read_text(ONE("{\"size\": 3000000000, \"blob_id\": \"" SHA1 "\"}"), &files), 0);
    assert_int_equal(files.file.size, 3000000000);
    // Without lfs_size the size is that of the file, and with lfs_size alone as well.
    assert_int_equal(read_text(ONE("{\"size\": 7, \"blob_id\": \"\", \"lfs_sha256\": \"" SHA256 "\"}"), &files), 0);
    assert_int_equal(files.file.size, 7);
    assert_string_equal(files.file.etag, SHA256);
    assert_int_equal(read_text(ONE("{\"size\": 7, \"blob_id\": \"" SHA1 "\", \"lfs_size\": 8}"), &files), 0);
    assert_int_equal(files.file.size, 7);
    static const char *const bad[] = { "-1", "0.5", "9007199254740994", "1e400", "\"5\"", "true", "null", "[5]", "NaN",
                                       "-",  "" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[512];
        snprintf(text, sizeof text, ONE("{\"size\": %s, \"blob_id\": \"" SHA1 "\"}"), bad[i]);
        assert_invalid(text);
        if (strcmp(bad[i], "null") == 0)
            continue;
        snprintf(text, sizeof text,
                 ONE("{\"size\": 1, \"blob_id\": \"" SHA1 "\", \"lfs_sha256\": \"" SHA256 "\", \"lfs_size\": %s}"),
                 bad[i]);
        assert_invalid(text);
    }
    assert_invalid(ONE("{\"blob_id\": \"" SHA1 "\"}"));
}

static void hashes_are_checked(void **state)
{
    (void) state;
    struct read_files files;
    assert_int_equal(
        read_text(ONE("{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"xet_hash\": \"" XET_UPPER "\"}"), &files), 0);
    assert_string_equal(files.file.xet_hash, XET);
    static const char *const bad[] = {
        "{\"size\": 5}",
        "{\"size\": 5, \"blob_id\": null}",
        "{\"size\": 5, \"blob_id\": 7}",
        "{\"size\": 5, \"blob_id\": \"\"}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "0\"}",
        "{\"size\": 5, \"blob_id\": \"0123456789ABCDEF0123456789abcdef01234567\"}",
        "{\"size\": 5, \"blob_id\": \"../../../../../../../../../../etc/passwd\"}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"lfs_sha256\": \"" SHA1 "\"}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"lfs_sha256\": 7}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"xet_hash\": \"" SHA1 "\"}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"xet_hash\": \"\"}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"xet_hash\": 7}",
        "{\"size\": 5, \"size\": 5, \"blob_id\": \"" SHA1 "\"}",
        "{\"size\": 5, \"blob_id\": \"" SHA1 "\", \"xet_hash\": null, \"xet_hash\": null}",
        "[]",
        "5",
        "null",
        "\"" SHA1 "\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1024];
        snprintf(text, sizeof text, ONE("%s"), bad[i]);
        assert_invalid(text);
        assert_non_null(strstr(error, "a: not a valid"));
    }
}

static void what_is_not_this_format_is_refused(void **state)
{
    (void) state;
    static const char *const bad[] = {
        "",
        " ",
        "{}",
        "[]",
        "null",
        "{",
        "{\"",
        "{\"files\"",
        "{\"files\":",
        "{\"files\":{",
        "{\"files\":{}",
        "{\"files\":{}}",
        "{\"format_version\":1}",
        "{\"format_version\":2,\"files\":{}}",
        "{\"files\":{},\"format_version\":0}",
        "{\"files\":{},\"format_version\":\"1\"}",
        "{\"files\":{},\"format_version\":null}",
        "{\"files\":[],\"format_version\":1}",
        "{\"files\":null,\"format_version\":1}",
        "{\"FILES\":{},\"format_version\":1}",
        "{\"files\":{},\"files\":{},\"format_version\":1}",
        "{\"format_version\":1,\"files\":{},\"format_version\":1}",
        "{\"files\":{},\"format_version\":1,}",
        "{\"files\":{},,\"format_version\":1}",
        "{,\"files\":{},\"format_version\":1}",
        "{\"files\":{} \"format_version\":1}",
        "{\"files\" {},\"format_version\":1}",
        "{files:{},\"format_version\":1}",
        "{\"files\":{},\"format_version\":1}x",
        "{\"files\":{},\"format_version\":1}{}",
        "\xef\xbb\xbf{\"files\":{},\"format_version\":1}",
        "{\"files\":{},\"format_version\":1,\"x\":}",
        "{\"files\":{},\"format_version\":1,\"x\":[}",
        "{\"files\":{},\"format_version\":1,\"x\":[}]}",
        "{\"files\":{},\"format_version\":1,\"x\":{]}",
        "{\"files\":{},\"format_version\":1,\"x\":]}",
        "{\"files\":{},\"format_version\":1,\"x\":tru}",
        "{\"files\":{},\"format_version\":1,\"x\":truest}",
        "{\"files\":{},\"format_version\":1,\"x\":'a'}",
        "{\"files\":{},\"format_version\":1,\"x\":\"a\nb\"}",
        "{\"files\":{},\"format_version\":1,\"x\":\"\\x41\"}",
        "{\"files\":{},\"format_version\":1,\"x\":\"\\u12g4\"}",
        "{\"files\":{},\"format_version\":1,\"x\":\"a\\u0000b\"}",
        "{\"files\":{},\"format_version\":1,\"x\":[\"a\\u0000b\"]}",
        "{\"files\":{},\"format_version\":1,\"x\":{\"a\\u0000b\":1}}",
        "{\"files\":{},\"format_version\":1,\"x\":\"\\",
        "{\"files\":{},\"format_version\":1,\"x\":\"\\u00",
        TREE("\"a\": " ENTRY ","),
        TREE("\"a\": " ENTRY " \"b\": " ENTRY),
        TREE("\"a\"" ENTRY),
        TREE("\"a\":"),
        TREE("\"a\""),
        TREE("a"),
        TREE("\"a\": {\"size\": 5, \"blob_id\": \"" SHA1 "\\u0000\"}"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_invalid(bad[i]);
    struct read_files files = { 0 };
    assert_int_equal(read_bytes("{\"files\":{},\"format_version\":1}\0", 32, &files), -EBADMSG);
    assert_int_equal(read_bytes("\0", 1, &files), -EBADMSG);
    // Every beginning of a good one.
    static const char good[] = TREE("\"a\\n\": " ENTRY);
    for (size_t len = 0; len < sizeof good - 1; len++)
        assert_int_equal(read_bytes(good, len, &files), -EBADMSG);
    assert_int_equal(read_bytes(good, sizeof good - 1, &files), 0);
}

static void names_come_out_as_the_file_system_has_them(void **state)
{
    (void) state;
    assert_path("a/b c.txt", "a/b c.txt");
    assert_path("\\\"\\\\\\/x\\b\\f\\n\\r\\t", "\"\\/x\b\f\n\r\t");
    assert_path("\\u0041\\u00e9\\u6587\\ud83e\\udd17", "A\xc3\xa9\xe6\x96\x87\xf0\x9f\xa4\x97");
    assert_path("\\u00E9\\uD83E\\uDD17\\udbff\\udfff", "\xc3\xa9\xf0\x9f\xa4\x97\xf4\x8f\xbf\xbf");
    assert_path("caf\xc3\xa9 \xf0\x9f\xa4\x97", "caf\xc3\xa9 \xf0\x9f\xa4\x97");
    assert_path("\\u0001\\u007f\x7f", "\x01\x7f\x7f");
    // Python's surrogateescape: a byte that is not UTF-8.
    assert_path("caf\\udce9", "caf\xe9");
    assert_path("\\udc80\\udcff", "\x80\xff");
    assert_path("\\ud800\\udc80", "\xf0\x90\x82\x80"); // a pair is a pair
    char longest[256 + 3] = "";
    memset(longest, 'n', 255);
    assert_path(longest, longest);
}

static void names_that_are_none_are_refused(void **state)
{
    (void) state;
    static const char *const bad[] = {
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        ".",
        "\\u002e.",
        "a\\/..",
        "\\u002f",
        "a\\u0000",
        "\\ud800",
        "\\ud800x",
        "\\ud83e\\n",
        "\\udc41",
        "\\udc00",
        "\\udc7f",
        "\\udd00",
        "\\udfff",
        "\\ud800\\ud800",
        "\xff",
        "\xc3",
        "\xc0\xaf",
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "\xe0\x80\x80",
        "\xc3(",
        "\\ud83e\\u0041",
        "\xf0\x9f\xa4",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_no_path(bad[i]);
    char longer[257] = "";
    memset(longer, 'n', 256);
    assert_no_path(longer);
    char longest[5000] = "";
    for (size_t i = 0; i < sizeof longest - 1; i++)
        longest[i] = i % 2 ? '/' : 'a';
    longest[4999] = '\0';
    assert_no_path(longest);
    longest[4095] = '\0';
    assert_path(longest, longest);
}

static void deep_nesting_is_refused_and_harmless(void **state)
{
    (void) state;
    const size_t depth = 500000;
    char *text = malloc(depth + 64);
    static const char brackets[] = "[{";
    for (int i = 0; i < 2; i++) {
        char *end = stpcpy(text, "{\"x\":");
        memset(end, brackets[i], depth);
        end[depth] = '\0';
        assert_invalid(text);
        memset(end + depth / 2, i ? '}' : ']', depth / 2);
        assert_invalid(text);
    }
    free(text);
}

static void one_entry_has_a_bound_and_the_whole_has_none(void **state)
{
    (void) state;
    const size_t len = 3 << 19;
    char *text = malloc(len + 512);
    struct read_files files = { 0 };
    // Too long: a key, a value in an entry, an unknown member; white space of any length is nothing.
    static const char *const starts[] = { "{\"", "{\"x\":\"", "{\"files\":{\"a\":{\"x\":\"", "{\"files\":{\"" };
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        char *end = stpcpy(text, starts[i]);
        memset(end, 'a', len);
        assert_int_equal(read_bytes(text, (size_t) (end - text) + len, &files), -E2BIG);
        assert_true(strlen(error) > 0);
    }
    memset(text, ' ', len);
    stpcpy(text + len, TREE("\"a\":" ENTRY));
    assert_valid(text, 1);
    // Up to the bound.
    char *end = stpcpy(text, "{\"format_version\":1,\"x\":\"");
    memset(end, 'a', (1 << 20) - 8);
    stpcpy(end + (1 << 20) - 8, "\",\"files\":{\"a\":" ENTRY "}}");
    assert_valid(text, 1);
    free(text);
}

static void a_hundred_thousand_files_need_little_memory(void **state)
{
    (void) state;
    _cleanup_close_ int fd = memfd_create("tree", MFD_CLOEXEC);
    _cleanup_fclose_ FILE *file = fdopen(dup(fd), "w");
    fputs("{\n \"format_version\": 1,\n \"files\": {\n", file);
    const int count = 100000;
    for (int i = 0; i < count; i++)
        fprintf(
            file,
            "  \"data/part-%06d/with/a/rather/long/name.safetensors\": {\n   \"size\": 135,\n   \"blob_id\": \"" SHA1
            "\",\n   \"lfs_sha256\": \"" SHA256 "\",\n   \"lfs_size\": %d,\n   \"xet_hash\": \"" XET "\"\n  }%s\n",
            i, i, i < count - 1 ? "," : "");
    fputs(" }\n}", file);
    fflush(file);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    struct read_files files = { 0 };
    int64_t start = util_now_ms();
    assert_int_equal(tree_read(fd, on_file, &files, error), 0);
    print_message("%d files in %lld ms\n", count, (long long) (util_now_ms() - start));
    getrusage(RUSAGE_SELF, &after);
    assert_int_equal(files.count, count);
    assert_int_equal(files.file.size, count - 1);
#ifndef SANITIZED                                           // which keep what was freed for a while
    assert_true(after.ru_maxrss - before.ru_maxrss < 4096); // KiB
#endif
}

static void errors_of_reading_are_passed_on(void **state)
{
    (void) state;
    struct read_files files = { 0 };
    _cleanup_close_ int dir = open("/", O_RDONLY | O_DIRECTORY);
    assert_int_equal(tree_read(dir, on_file, &files, error), -EISDIR);
    assert_int_equal(tree_read(-1, on_file, &files, error), -EBADF);
    assert_int_equal(files.count, 0);
}

static void the_descriptor_s_position_does_not_matter(void **state)
{
    (void) state;
    _cleanup_close_ int fd = memfd_create("tree", MFD_CLOEXEC);
    static const char text[] = TREE("\"a\":" ENTRY);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    for (int i = 1; i <= 2; i++) {
        struct read_files files = { 0 };
        assert_int_equal(tree_read(fd, on_file, &files, error), 0);
        assert_int_equal(files.count, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_library_s_own_layout_is_read),
        cmocka_unit_test(members_come_in_any_order_and_unknown_ones_are_skipped),
        cmocka_unit_test(sizes_are_whole_numbers),
        cmocka_unit_test(hashes_are_checked),
        cmocka_unit_test(what_is_not_this_format_is_refused),
        cmocka_unit_test(names_come_out_as_the_file_system_has_them),
        cmocka_unit_test(names_that_are_none_are_refused),
        cmocka_unit_test(deep_nesting_is_refused_and_harmless),
        cmocka_unit_test(one_entry_has_a_bound_and_the_whole_has_none),
        cmocka_unit_test(a_hundred_thousand_files_need_little_memory),
        cmocka_unit_test(errors_of_reading_are_passed_on),
        cmocka_unit_test(the_descriptor_s_position_does_not_matter),
    };
    return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
