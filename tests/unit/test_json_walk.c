// SPDX-License-Identifier: Apache-2.0
#include "cache/json_walk.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char seen[4096];
static int result;

static int on_value(void *userdata, const char *key, const char *value, size_t len)
{
    (void) userdata;
    size_t n = strlen(seen);
    snprintf(seen + n, sizeof seen - n, "%s=%.*s;", key ? key : "", (int) len, value ? value : "");
    return result;
}

// In pieces of `step` bytes.
static int walk(char kind, const char *text, size_t step, size_t max)
{
    struct json_walk *w = json_walk_new(kind, max, on_value, NULL);
    size_t len = strlen(text);
    int r = 0;
    seen[0] = '\0';
    for (size_t i = 0; i < len && r == 0; i += step)
        r = json_walk_feed(w, text + i, len - i < step ? len - i : step);
    if (r == 0)
        r = json_walk_end(w);
    json_walk_free(w);
    return r;
}

static void check(char kind, const char *text, const char *values)
{
    for (size_t step = 1; step < 40; step += 3) {
        assert_int_equal(walk(kind, text, step, 1000), values ? 0 : -EBADMSG);
        if (values)
            assert_string_equal(seen, values);
    }
}

static void values_come_one_by_one(void **state)
{
    (void) state;
    check('[', " [ 1,\"a]\\\"\\\\\" , {\"b\":[1,\"}\"]},null ] ", "=1;=\"a]\\\"\\\\\";={\"b\":[1,\"}\"]};=null;");
    check('[', "[]", "");
    check('{', "{}", "");
    check('{', "{\"a\":-1e5 ,\"b\\\"c\": {} }", "a=-1e5;b\\\"c={};");
}

static void what_is_no_json_is_refused(void **state)
{
    (void) state;
    static const char *const arrays[] = { "",     "{}",    "[",   "[1",  "[1,", "[1,]",
                                          "[,1]", "[1 2]", "[]]", "[1}", "[}]", "<html>" };
    static const char *const objects[] = { "[]",    "{\"a\"}",   "{\"a\":}", "{\"a\":1,}",
                                           "{a:1}", "{\"a\" 1}", "{\"a\":1", "{\"a" };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        check('[', arrays[i], NULL);
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        check('{', objects[i], NULL);
}

static void what_is_too_long_is_bounded(void **state)
{
    (void) state;
    size_t size = 3 * JSON_VALUE_MAX;
    char *text = malloc(size + 64);
    memset(text, 'x', size);
    memcpy(text, "[\"", 2);
    strcpy(text + size, "\"]");
    assert_int_equal(walk('[', text, 4096, 2 * size), -E2BIG);
    memcpy(text, "{\"a\":\"", 6);
    strcpy(text + size, "\",\"b\":1}");
    assert_int_equal(walk('{', text, 4096, 2 * size), 0); // passed over
    assert_string_equal(seen, "a=;b=1;");
    assert_int_equal(walk('{', text, 4096, size), -E2BIG);
    free(text);
}

static void a_walk_can_be_stopped(void **state)
{
    (void) state;
    result = 7;
    assert_int_equal(walk('[', "[1,2]", 100, 100), 7);
    assert_string_equal(seen, "=1;");
    result = 0;
}

static cJSON *parse(const char *text)
{
    return json_parse(text, strlen(text));
}

static void values_that_cjson_would_misread_are_refused(void **state)
{
    (void) state;
    static const char *const bad[] = { "\"a\\u0000\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
                                       "1 2",          "tru",      "{\"a\":}",     "" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(parse(bad[i]));
    cJSON *json =
        parse("{\"a\":\"\\\\u0000\",\"A\":1,\"n\":null,\"d\":1,\"d\":2,\"s\":9007199254740992,\"t\":9007199254740994,"
              "\"m\":-1,\"f\":0.5}");
    assert_string_equal(json_string(json, "a"), "\\u0000");
    assert_null(json_string(json, "A"));
    assert_null(json_member(json, "n"));
    assert_null(json_member(json, "d"));
    assert_null(json_member(NULL, "d"));
    assert_int_equal(json_size(json_member(json, "s")), INT64_C(1) << 53);
    assert_int_equal(json_size(json_member(json, "t")), -1);
    assert_int_equal(json_size(json_member(json, "m")), -1);
    assert_int_equal(json_size(json_member(json, "f")), -1);
    assert_int_equal(json_size(json_member(json, "a")), -1);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_one_by_one),
        cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(what_is_too_long_is_bounded),
        cmocka_unit_test(a_walk_can_be_stopped),
        cmocka_unit_test(values_that_cjson_would_misread_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
