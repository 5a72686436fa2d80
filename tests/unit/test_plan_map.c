// SPDX-License-Identifier: Apache-2.0
// The maps of files as loaders write them, and of what nobody should write.
#include "cache/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIB ((int64_t) 1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

// --- a file's beginning, put together

static unsigned char *file;
static size_t file_len, file_room;

static void put(const void *bytes, size_t len)
{
    if (file_len + len > file_room) {
        file_room = 2 * (file_len + len);
        file = realloc(file, file_room);
        assert_non_null(file);
    }
    memcpy(file + file_len, bytes, len);
    file_len += len;
}

static void put_number(uint64_t number, size_t len)
{
    for (size_t i = 0; i < len; i++, number >>= 8)
        put(&(unsigned char){ number & 0xff }, 1);
}

static void put_string(const char *text)
{
    put_number(strlen(text), 8);
    put(text, strlen(text));
}

static int free_file(void **state)
{
    (void) state;
    free(file);
    file = NULL;
    file_len = file_room = 0;
    return 0;
}

// From a copy of just that size, so that ASan sees what reads over its end.
static struct plan_map *read_map(size_t len, int64_t size, int64_t *ret_need)
{
    unsigned char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, file, len);
    struct plan_map *map = plan_map_read(copy, len, size, ret_need);
    free(copy);
    return map;
}

static void check_no_map(int64_t size, int64_t need)
{
    int64_t got = -1;
    assert_null(read_map(file_len, size, &got));
    assert_int_equal(got, need);
}

// The parts, as "from-to from-to", walked from end to end.
static void check_map(int64_t size, const char *parts)
{
    char seen[512] = "";
    int64_t need, from, to, last = 0;
    struct plan_map *map = read_map(file_len, size, &need);
    assert_non_null(map);
    assert_in_range(need, 1, file_len);
    for (int64_t offset = 0; offset < size; offset++) {
        if (!plan_map_part(map, offset, &from, &to))
            continue;
        assert_true(from <= offset && offset < to && from >= last && to <= size);
        assert_true(from == offset || from == last);
        size_t n = strlen(seen);
        snprintf(seen + n, sizeof seen - n, "%s%lld-%lld", n ? " " : "", (long long) from, (long long) to);
        last = to;
        offset = to - 1;
    }
    assert_string_equal(seen, parts);
    assert_false(plan_map_part(map, size, &from, &to));
    plan_map_free(map);
}

static void check_cut_short(int64_t size)
{
    for (size_t len = 0; len < file_len; len++) {
        int64_t need = -1;
        assert_null(read_map(len, size, &need));
        assert_true(need > (int64_t) len && need <= size);
    }
}

// --- safetensors

static void safetensors(const char *json)
{
    file_len = 0;
    put_number(strlen(json), 8);
    put(json, strlen(json));
}

static void tensors_of_safetensors(void **state)
{
    (void) state;
    // As the crate writes it: in another order than the data, padded with spaces.
    safetensors("{\"__metadata__\":{\"format\":\"pt\",\"data_offsets\":[7,3]},"
                "\"h.0.attn.weight\":{\"dtype\":\"F32\",\"shape\":[768,1024],\"data_offsets\":[3145728,6291456]},"
                "\"wte\":{\"dtype\":\"F32\",\"shape\":[768,1024],\"data_offsets\":[0,3145728]},"
                "\"empty\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[6291456,6291456]}}     ");
    int64_t data = (int64_t) file_len, size = data + 6 * MIB;
    char parts[256];
    snprintf(parts, sizeof parts, "%lld-%lld %lld-%lld", (long long) data, (long long) (data + 3 * MIB),
             (long long) (data + 3 * MIB), (long long) (data + 6 * MIB));
    check_map(size, parts);
    check_cut_short(size);

    int64_t need;
    assert_null(read_map(100, size, &need));
    assert_int_equal(need, data);
    check_no_map(size - 1, 0); // the last tensor is not all there
}

static void short_parts_are_joined(void **state)
{
    (void) state;
    char json[4096] = "{", parts[256];
    // A norm of 4 KiB before and after a weight, forty of 64 KiB, a gap, one alone, a gap, a weight and a bias.
    static const int64_t kib[][2] = { { 0, 4 },         { 4, 8192 },      { 8192, 8196 },  { 8196, 9216 },
                                      { 20000, 20004 }, { 30000, 32000 }, { 32000, 32001 } };
    for (size_t i = 0; i < sizeof kib / sizeof *kib; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), "%s\"%zu\":{\"data_offsets\":[%lld,%lld]}",
                 i ? "," : "", i, (long long) (kib[i][0] * KIB), (long long) (kib[i][1] * KIB));
    for (int i = 0; i < 40; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), ",\"s%d\":{\"data_offsets\":[%lld,%lld]}", i,
                 (long long) ((9216 + 64 * i) * KIB), (long long) ((9280 + 64 * i) * KIB));
    strcat(json, "}");
    safetensors(json);
    static const int64_t joined[][2] = { { 0, 8192 },      { 8192, 9216 },   { 9216, 10240 },
                                         { 10240, 11776 }, { 20000, 20004 }, { 30000, 32001 } };
    parts[0] = '\0';
    for (size_t i = 0; i < sizeof joined / sizeof *joined; i++)
        snprintf(parts + strlen(parts), sizeof parts - strlen(parts), "%s%lld-%lld", i ? " " : "",
                 (long long) ((int64_t) file_len + joined[i][0] * KIB),
                 (long long) ((int64_t) file_len + joined[i][1] * KIB));
    check_map(40 * MIB, parts);
}

static void what_is_no_safetensors_has_no_map(void **state)
{
    (void) state;
#define T(offsets) "{\"data_offsets\":" offsets "}"
    static const char *const bad[] = {
        "{\"a\":" T("[0,1000001]") "}",                     // ends beyond the file
        "{\"a\":" T("[2000000,2000000]") "}",               // begins there
        "{\"a\":" T("[0,9007199254740992]") "}",            //
        "{\"a\":" T("[0,1e300]") "}",                       //
        "{\"a\":" T("[-1,10]") "}",                         //
        "{\"a\":" T("[10,5]") "}",                          // backwards
        "{\"a\":" T("[0.5,5]") "}",                         //
        "{\"a\":" T("[\"0\",5]") "}",                       //
        "{\"a\":" T("[0]") "}",                             //
        "{\"a\":" T("[0,1,2]") "}",                         //
        "{\"a\":" T("[0,1],\"data_offsets\":[0,1]") "}",    // given twice
        "{\"a\":" T("null") "}",                            //
        "{\"a\":{}}",                                       //
        "{\"a\":[0,1]}",                                    //
        "{\"a\":" T("[0,100]") ",\"b\":" T("[50,150]") "}", // overlap
        "{\"a\":" T("[0,100]") ",\"a\":" T("[0,100]") "}",  // one tensor twice
        "{\"a\":" T("[0,100]") "}x",                        //
        "{\"a\":" T("[0,100]"),                             //
        "{\"a\":" T("[0,100]") ",}",                        //
        "{}                               ",                // well formed, and empty
        "{\"a\":" T("[7,7]") "}",                           //
        "{\"__metadata__\":{\"a\":\"b\"}}",                 //
        "[                               ]",                //
        " {\"a\":" T("[0,100]") "}",                        // the format wants '{' first
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        safetensors(bad[i]);
        while (file_len < 24)
            put("", 1);
        check_no_map((int64_t) file_len + 1000000, 0);
    }
    safetensors("{\"a\":" T("[0,1000000]") "}"); // and this is what they differ from
    char parts[64];
    snprintf(parts, sizeof parts, "%zu-%zu", file_len, file_len + 1000000);
    check_map((int64_t) file_len + 1000000, parts);
#undef T
}

static void deep_and_long_json_is_harmless(void **state)
{
    (void) state;
    static const char head[] = "{\"__metadata__\":", middle[] = ",\"a\":", tail[] = "{\"data_offsets\":[0,9]}}";
    size_t len = (size_t) 2 * 1024 * 1024;
    char *deep = malloc(len + 1);
    assert_non_null(deep);
    for (int in_metadata = 0; in_metadata < 2; in_metadata++) {
        memset(deep, '[', len / 2);
        memset(deep + len / 2, ']', len / 2);
        file_len = 0;
        size_t json = in_metadata ? strlen(head) + len + strlen(middle) + strlen(tail) : 5 + len + 1;
        put_number(json, 8);
        put(in_metadata ? head : "{\"a\":", in_metadata ? strlen(head) : 5);
        put(deep, len);
        if (in_metadata) {
            put(middle, strlen(middle));
            put(tail, strlen(tail));
        } else {
            put("}", 1);
        }
        int64_t size = (int64_t) file_len + 9;
        if (in_metadata) { // passed over, however long it is
            char parts[64];
            snprintf(parts, sizeof parts, "%lld-%lld", (long long) size - 9, (long long) size);
            check_map(size, parts);
        } else {
            check_no_map(size, 0);
        }
    }
    free(deep);

    file_len = 0; // short enough to be parsed
    put_number(5 + 200000 + 1, 8);
    put("{\"a\":", 5);
    for (int i = 0; i < 200000; i++)
        put(i < 100000 ? "[" : "]", 1);
    put("}", 1);
    check_no_map(GIB, 0);
}

static void long_headers_have_no_map(void **state)
{
    (void) state;
    static const uint64_t lengths[] = { 16 * MIB + 1,         100000000,  (uint64_t) 50 * GIB,
                                        (uint64_t) INT64_MAX, UINT64_MAX, UINT64_MAX - 7 };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        file_len = 0;
        put_number(lengths[i], 8);
        put("{\"a\":            ", 16);
        check_no_map(100 * GIB, 0);
    }
    file_len = 0;
    put_number(16 * MIB, 8);
    put("{\"a\":            ", 16);
    check_no_map(100 * GIB, 16 * MIB + 8);
    check_no_map(16 * MIB + 7, 0); // longer than the file
    file_len = 3;
    check_no_map(100, 24);
    check_no_map(23, 0); // no file of tensors is so short
    check_no_map(0, 0);
}

// --- GGUF

static void gguf(uint32_t version, uint64_t tensors, uint64_t key_values)
{
    file_len = 0;
    put("GGUF", 4);
    put_number(version, 4);
    put_number(tensors, 8);
    put_number(key_values, 8);
}

static void put_tensor(const char *name, uint64_t offset)
{
    put_string(name);
    put_number(2, 4);
    put_number(1024, 8);
    put_number(1024, 8);
    put_number(12, 4); // Q4_K
    put_number(offset, 8);
}

static void put_number_value(const char *key, uint32_t type, uint64_t value, size_t len)
{
    put_string(key);
    put_number(type, 4);
    put_number(value, len);
}

// The metadata of a small llama, of every type: nine.
static void put_metadata(void)
{
    put_string("general.architecture");
    put_number(8, 4);
    put_string("llama");
    put_number_value("llama.block_count", 4, 22, 4);
    put_number_value("llama.rope.freq_base", 6, 0, 4);
    put_number_value("a.bool", 7, 1, 1);
    put_number_value("a.short", 2, 1, 2);
    put_number_value("a.double", 12, 1, 8);
    put_string("tokenizer.ggml.tokens");
    put_number(9, 4);
    put_number(8, 4);
    put_number(3, 8);
    put_string("<s>");
    put_string("");
    put_string("general.alignment"); // no key
    put_string("tokenizer.ggml.scores");
    put_number(9, 4);
    put_number(6, 4);
    put_number(5, 8);
    put_number(0, 20);
    put_string("a.nested");
    put_number(9, 4);
    put_number(9, 4);
    put_number(2, 8);
    for (int i = 0; i < 2; i++) {
        put_number(0, 4);
        put_number(3, 8);
        put("abc", 3);
    }
}

static void tensors_of_gguf(void **state)
{
    (void) state;
    for (uint32_t version = 2; version <= 3; version++) {
        for (int64_t alignment = 0; alignment <= 4096; alignment += 4096) {
            gguf(version, 4, alignment ? 10 : 9);
            put_metadata();
            if (alignment)
                put_number_value("general.alignment", 4, (uint64_t) alignment, 4);
            put_tensor("blk.0.attn_q.weight", 2 * MIB);
            put_tensor("token_embd.weight", 0);
            put_tensor("output_norm.weight", 5 * MIB);
            put_tensor("output.weight", 5 * MIB + 4096);
            int64_t unit = alignment ? alignment : 32;
            int64_t data = ((int64_t) file_len + unit - 1) / unit * unit, size = data + 9 * MIB;
            char parts[256];
            snprintf(parts, sizeof parts, "%lld-%lld %lld-%lld %lld-%lld", (long long) data,
                     (long long) (data + 2 * MIB), (long long) (data + 2 * MIB), (long long) (data + 5 * MIB),
                     (long long) (data + 5 * MIB), (long long) size);
            check_map(size, parts);
            check_cut_short(size);
            check_no_map(data + 5 * MIB, 0); // the last tensor begins beyond the end
        }
    }
}

static void a_gguf_asks_for_more_until_it_is_enough(void **state)
{
    (void) state;
    gguf(3, 1, 1);
    put_string("tokenizer.ggml.tokens");
    put_number(9, 4);
    put_number(8, 4);
    put_number(300000, 8);
    for (int i = 0; i < 300000; i++)
        put_string("token");
    put_tensor("a", 0);
    int64_t need, len = (int64_t) file_len;
    static const int64_t steps[][2] = { { 0, 24 }, { 24, MIB }, { MIB, 2 * MIB }, { 2 * MIB, 4 * MIB } };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i][0] >= len)
            break;
        assert_null(read_map((size_t) steps[i][0], 100 * MIB, &need));
        assert_int_equal(need, steps[i][1]);
    }
    assert_null(read_map(file_len - 1, 100 * MIB, &need));
    assert_int_equal(need, 2 * (len - 1));
    assert_null(read_map(file_len - 1, len + 10, &need)); // no more than there is
    assert_int_equal(need, len + 10);
    struct plan_map *map = read_map(file_len, 100 * MIB, &need);
    assert_non_null(map);
    assert_int_equal(need, len);
    plan_map_free(map);

    gguf(3, 1, 1); // the bytes of one value, known to be long
    put_string("a");
    put_number(9, 4);
    put_number(12, 4);
    put_number(1024 * 1024, 8);
    check_no_map(100 * MIB, (int64_t) file_len + 8 * MIB);
    file_len -= 8;
    put_number(2 * 1024 * 1024, 8); // together with the head, over what is parsed
    check_no_map(100 * MIB, 0);
}

static void what_is_no_gguf_has_no_map(void **state)
{
    (void) state;
    static const uint32_t versions[] = { 0, 1, 4, 3u << 24, UINT32_MAX };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        gguf(versions[i], 1, 0);
        put_tensor("a", 0);
        check_no_map(MIB, 0);
    }
    static const uint64_t huge[] = { 1000000000, (uint64_t) INT64_MAX, (uint64_t) INT64_MIN, UINT64_MAX };
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        gguf(3, huge[i], 0); // tensors
        check_no_map(100 * GIB, 0);
        gguf(3, 1, huge[i]); // keys
        check_no_map(100 * GIB, 0);
        gguf(3, 1, 1); // a key's length
        put_number(huge[i], 8);
        check_no_map(100 * GIB, 0);
        for (uint32_t type = 0; type < 13; type++) { // entries of an array
            gguf(3, 1, 1);
            put_string("a");
            put_number(9, 4);
            put_number(type, 4);
            put_number(huge[i], 8);
            check_no_map(100 * GIB, 0);
        }
        gguf(3, 1, 0); // an offset; the first three are multiples of the alignment, or not
        put_tensor("a", huge[i]);
        check_no_map(MIB, 0);
    }
    static const uint64_t alignments[] = { 0, 3, 48 };
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        gguf(3, 1, 1);
        put_number_value("general.alignment", 4, alignments[i], 4);
        put_tensor("a", 0);
        check_no_map(MIB, 0);
    }
    gguf(3, 1, 1); // of another type
    put_number_value("general.alignment", 10, 32, 8);
    put_tensor("a", 0);
    check_no_map(MIB, 0);
    gguf(3, 1, 2); // twice
    put_number_value("general.alignment", 4, 32, 4);
    put_number_value("general.alignment", 4, 64, 4);
    put_tensor("a", 0);
    check_no_map(MIB, 0);
    gguf(3, 1, 1); // the data would begin beyond the file
    put_number_value("general.alignment", 4, 1u << 31, 4);
    put_tensor("a", 0);
    check_no_map(MIB, 0);
    gguf(3, 1, 1); // no such type
    put_number_value("a", 13, 0, 8);
    put_tensor("a", 0);
    check_no_map(MIB, 0);
    gguf(3, 1, 0);
    put_tensor("a", 33); // not aligned
    check_no_map(MIB, 0);
    gguf(3, 1, 0); // of five dimensions
    put_string("a");
    put_number(5, 4);
    put_number(0, 60);
    check_no_map(MIB, 0);
    gguf(3, 0, 0); // well formed, and empty
    check_no_map(MIB, 0);
}

static void arrays_in_arrays_end_at_two(void **state)
{
    (void) state;
    for (int depth = 1; depth <= 1000; depth += depth < 4 ? 1 : 996) {
        gguf(3, 1, 1);
        put_string("a");
        put_number(9, 4);
        for (int i = 1; i < depth; i++) {
            put_number(9, 4);
            put_number(1, 8);
        }
        put_number(0, 4);
        put_number(0, 8);
        put_tensor("a", 0);
        char parts[64];
        snprintf(parts, sizeof parts, "%lld-%lld", (long long) ((file_len + 31) / 32 * 32), (long long) MIB);
        if (depth <= 2)
            check_map(MIB, parts);
        else
            check_no_map(MIB, 0);
    }
}

static void tensors_of_one_offset_are_one_part(void **state)
{
    (void) state;
    gguf(3, 3, 0);
    put_tensor("a", 0);
    put_tensor("a", 0);
    put_tensor("b", 2 * MIB);
    int64_t data = ((int64_t) file_len + 31) / 32 * 32;
    char parts[128];
    snprintf(parts, sizeof parts, "%lld-%lld %lld-%lld", (long long) data, (long long) (data + 2 * MIB),
             (long long) (data + 2 * MIB), (long long) (data + 4 * MIB));
    check_map(data + 4 * MIB, parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_of_safetensors),
        cmocka_unit_test(short_parts_are_joined),
        cmocka_unit_test(what_is_no_safetensors_has_no_map),
        cmocka_unit_test(deep_and_long_json_is_harmless),
        cmocka_unit_test(long_headers_have_no_map),
        cmocka_unit_test(tensors_of_gguf),
        cmocka_unit_test(a_gguf_asks_for_more_until_it_is_enough),
        cmocka_unit_test(what_is_no_gguf_has_no_map),
        cmocka_unit_test(arrays_in_arrays_end_at_two),
        cmocka_unit_test(tensors_of_one_offset_are_one_part),
    };
    return cmocka_run_group_tests(tests, NULL, free_file);
}
