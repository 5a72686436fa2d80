// SPDX-License-Identifier: Apache-2.0
// What is wanted after which reads, to the byte.
#include "cache/plan.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define KIB ((int64_t) 1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static struct plan_reader reader;
static struct plan_map *map_of_reads;

static int new_reader(void **state)
{
    (void) state;
    reader = (struct plan_reader){ 0 };
    return 0;
}

static void check_read(int64_t size, int64_t offset, int64_t len, int64_t need_from, int64_t need_to,
                       int64_t ahead_from, int64_t ahead_to)
{
    struct plan_want want = plan_read(&reader, map_of_reads, size, offset, len);
    assert_int_equal(want.need_from, need_from);
    assert_int_equal(want.need_to, need_to);
    assert_int_equal(want.ahead_from, ahead_from);
    assert_int_equal(want.ahead_to, ahead_to);
}

// And nothing ahead.
static void check_need(int64_t size, int64_t offset, int64_t len, int64_t need_from, int64_t need_to)
{
    check_read(size, offset, len, need_from, need_to, need_to, need_to);
}

static void the_first_mib_costs_one_mib(void **state)
{
    (void) state;
    for (int64_t len = 4 * KIB; len <= MIB; len *= 2) {
        new_reader(NULL);
        for (int64_t offset = 0; offset < MIB; offset += len)
            check_need(10 * GIB, offset, len, offset - offset % (64 * KIB), MIB);
    }
    new_reader(NULL);
    check_need(10 * GIB, 8, 100, 0, MIB);
    check_need(10 * GIB, 0, 8, 0, MIB);
}

static void who_goes_on_is_given_more_and_more(void **state)
{
    (void) state;
    int64_t size = 10 * GIB;
    int64_t offset = 0;
    for (; offset < MIB; offset += 128 * KIB)
        check_need(size, offset, 128 * KIB, offset, MIB);
    for (; offset < 2 * MIB; offset += 128 * KIB)
        check_need(size, offset, 128 * KIB, offset, 2 * MIB);
    check_read(size, 2 * MIB, 128 * KIB, 2 * MIB, 3 * MIB, 3 * MIB, 11 * MIB);
    check_read(size, 2 * MIB + 128 * KIB, 128 * KIB, 2 * MIB + 128 * KIB, 3 * MIB, 3 * MIB, 11 * MIB + 512 * KIB);
    for (offset = 2 * MIB + 256 * KIB; offset < 8 * MIB; offset += 128 * KIB)
        plan_read(&reader, NULL, size, offset, 128 * KIB);
    check_read(size, 8 * MIB, 128 * KIB, 8 * MIB, 9 * MIB, 9 * MIB, 41 * MIB);
    for (offset = 8 * MIB + 128 * KIB; offset < 32 * MIB; offset += 128 * KIB)
        plan_read(&reader, NULL, size, offset, 128 * KIB);
    check_read(size, 32 * MIB, 128 * KIB, 32 * MIB, 33 * MIB, 33 * MIB, size);
    assert_int_equal(reader.jumps, 0);
    assert_int_equal(reader.run, 32 * MIB + 128 * KIB);
}

static void a_quarter_read_in_sequence_asks_for_the_rest(void **state)
{
    (void) state;
    int64_t size = 40 * MIB + 1;
    for (int64_t offset = 0; offset < 8 * MIB; offset += MIB)
        plan_read(&reader, NULL, size, offset, MIB);
    check_read(size, 8 * MIB, MIB, 8 * MIB, 9 * MIB, 9 * MIB, size);
    new_reader(NULL);
    for (int64_t offset = 0; offset < 6 * MIB; offset += MIB)
        plan_read(&reader, NULL, size, offset, MIB);
    check_read(size, 6 * MIB, MIB, 6 * MIB, 7 * MIB, 7 * MIB, 31 * MIB);
    new_reader(NULL);
    for (int64_t offset = 0; offset < 9 * MIB; offset += MIB)
        plan_read(&reader, NULL, size, offset, MIB);
    check_read(size, 9 * MIB, MIB, 9 * MIB, 10 * MIB, 10 * MIB, size);
    check_need(size, 40 * MIB, 1, 40 * MIB, size); // a jump
}

static void requests_that_the_kernel_reordered_are_one_run(void **state)
{
    (void) state;
    static const int order[8] = { 1, 0, 2, 5, 4, 3, 7, 6 };
    for (int64_t mib = 0; mib < 33; mib++)
        for (size_t i = 0; i < 8; i++) {
            int64_t offset = mib * MIB + order[i] * 128 * KIB;
            struct plan_want want = plan_read(&reader, NULL, 10 * GIB, offset, 128 * KIB);
            assert_int_equal(want.need_from, offset);
            assert_int_equal(want.need_to, (mib + 1) * MIB);
            if (mib < 2)
                assert_int_equal(want.ahead_from, want.ahead_to);
            else
                assert_true(want.ahead_from == want.need_to && want.ahead_to >= want.need_to + 4 * MIB);
        }
    assert_int_equal(reader.run, 33 * MIB);
    assert_int_equal(reader.total, 33 * MIB);
    assert_int_equal(reader.jumps, 0);

    // As far as it goes, to either side.
    check_read(10 * GIB, 34 * MIB, 128 * KIB, 34 * MIB, 35 * MIB, 35 * MIB, 10 * GIB);
    assert_int_equal(reader.jumps, 0);
    check_read(10 * GIB, 33 * MIB + 128 * KIB, 4 * KIB, 33 * MIB + 128 * KIB, 34 * MIB, 34 * MIB, 10 * GIB);
    assert_int_equal(reader.jumps, 0);
    check_need(10 * GIB, 33 * MIB + 124 * KIB, 4 * KIB, 33 * MIB + 64 * KIB, 33 * MIB + 320 * KIB);
    assert_int_equal(reader.jumps, 1);
    check_need(10 * GIB, 34 * MIB + 132 * KIB, 4 * KIB, 34 * MIB + 128 * KIB, 34 * MIB + 384 * KIB);
    assert_int_equal(reader.jumps, 2);
}

static void one_page_again_and_again_is_no_run(void **state)
{
    (void) state;
    for (int i = 0; i < 10000; i++)
        check_need(10 * GIB, 4 * KIB, 4 * KIB, 0, MIB);
    assert_int_equal(reader.run, 8 * KIB);
}

static void a_jump_costs_256_kib(void **state)
{
    (void) state;
    int64_t size = 10 * GIB + 100;
    check_need(size, 5 * GIB + 70 * KIB, 4 * KIB, 5 * GIB + 64 * KIB, 5 * GIB + 320 * KIB);
    check_need(size, 7 * GIB, 300 * KIB, 7 * GIB, 7 * GIB + 320 * KIB);
    check_need(size, 2 * GIB + 60 * KIB, 200 * KIB, 2 * GIB, 2 * GIB + 320 * KIB);
    check_need(size, size - 8, 8, 10 * GIB, size);
    check_need(size, size - 100, 4096, 10 * GIB, size); // near where it was; cut off at the end
    assert_int_equal(reader.jumps, 4);
    // And goes on there, not yet as a run.
    check_need(size, GIB, 4 * KIB, GIB, GIB + 256 * KIB);
    check_need(size, GIB + 4 * KIB, 128 * KIB, GIB, GIB + MIB);
}

static void a_jump_into_a_part_asks_for_the_rest_of_it(void **state)
{
    (void) state;
    // Padded, so that the data begins at 1000.
    char bytes[1001] = { (char) 0xe0, 3 };
    snprintf(bytes + 8, sizeof bytes - 8, "%-992s",
             "{\"a\":{\"data_offsets\":[0,104857600]},\"b\":{\"data_offsets\":[104857600,107479040]},"
             "\"c\":{\"data_offsets\":[209715200,209716200]}}");
    int64_t need, data = 1000, size = 10 * GIB;
    map_of_reads = plan_map_read(bytes, 1000, size, &need);
    assert_non_null(map_of_reads);
    // `a`, in its middle, and 64 MiB are not all of it: a block further, since it does not begin on one.
    check_read(size, data + 10 * MIB, 4 * KIB, 10 * MIB, 10 * MIB + 256 * KIB, 10 * MIB + 256 * KIB,
               74 * MIB + 64 * KIB);
    // `b`, to its end
    check_read(size, data + 100 * MIB, 128 * KIB, 100 * MIB, 100 * MIB + 256 * KIB, 100 * MIB + 256 * KIB,
               102 * MIB + 576 * KIB);
    // `c` is less than a request, behind it is nothing
    check_need(size, data + 200 * MIB, 4 * KIB, 200 * MIB, 200 * MIB + 256 * KIB);
    check_need(size, 300 * MIB, 4 * KIB, 300 * MIB, 300 * MIB + 256 * KIB);
    plan_map_free(map_of_reads);
    map_of_reads = NULL;
}

static void a_quarter_read_in_jumps_asks_for_the_rest(void **state)
{
    (void) state;
    int64_t size = 64 * MIB;
    check_need(size, 60 * MIB, 6 * MIB, 60 * MIB, size); // cut off
    check_need(size, 20 * MIB, 6 * MIB, 20 * MIB, 26 * MIB);
    check_need(size, 40 * MIB, 6 * MIB - 1, 40 * MIB, 46 * MIB); // one byte short
    check_read(size, 50 * MIB, 1, 50 * MIB, 50 * MIB + 256 * KIB, 50 * MIB + 256 * KIB, size);
}

static void the_rest_wraps_around(void **state)
{
    (void) state;
    int64_t size = 64 * MIB;
    check_need(size, 10 * MIB, 8 * MIB, 10 * MIB, 18 * MIB);
    check_need(size, 30 * MIB, 8 * MIB - 1, 30 * MIB, 38 * MIB);
    check_read(size, 50 * MIB, 1, 50 * MIB, 50 * MIB + 256 * KIB, 50 * MIB + 256 * KIB, size); // the third, a quarter
    check_read(size, size - 100, 100, size - 64 * KIB, size, 0, size - 64 * KIB);
    check_read(size, 0, 4 * KIB, 0, 256 * KIB, 256 * KIB, size);
    check_read(size, 4 * KIB, 4 * KIB, 0, MIB, MIB, size); // in sequence, too
}

static void small_files_and_ends(void **state)
{
    (void) state;
    check_need(0, 0, 0, 0, 0);
    check_need(100, 100, 10, 0, 0);
    check_need(100, 0, 0, 0, 0);
    assert_int_equal(reader.total, 0);
    check_need(1, 0, 4096, 0, 1);
    new_reader(NULL);
    check_need(100 * KIB, 70 * KIB, INT64_MAX, 64 * KIB, 100 * KIB);
    new_reader(NULL);
    check_need(INT64_MAX, INT64_MAX - 1, INT64_MAX, INT64_MAX - INT64_MAX % (64 * KIB), INT64_MAX);
    check_need(INT64_MAX, 0, INT64_MAX, 0, INT64_MAX);
    check_read(INT64_MAX, 0, INT64_MAX, 0, INT64_MAX, 0, 0); // all that is left is before it: nothing
    assert_int_equal(reader.total, INT64_MAX);
    reader.jumps = INT_MAX;
    check_read(INT64_MAX, 0, 1, 0, 256 * KIB, 256 * KIB, INT64_MAX);
    assert_int_equal(reader.jumps, INT_MAX);
}

static void whatever_is_read_is_covered(void **state)
{
    (void) state;
    uint64_t random = 88172645463325252u;
    for (int i = 0; i < 200000; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        int64_t size = 40 * MIB + i % 7;
        if (i % 50 == 0)
            new_reader(NULL);
        int64_t offset = (int64_t) (random % (uint64_t) size), len = (int64_t) (random >> 40) % (2 * MIB) + 1;
        if (random >> 62)
            offset = reader.next < size ? reader.next : 0;
        struct plan_want want = plan_read(&reader, NULL, size, offset, len);
        int64_t end = len < size - offset ? offset + len : size;
        assert_true(want.need_from >= 0 && want.need_from <= offset && want.need_to >= end && want.need_to <= size);
        assert_true(want.ahead_from >= 0 && want.ahead_from <= want.ahead_to && want.ahead_to <= size);
        assert_true(want.ahead_from >= want.need_to || want.ahead_to <= want.need_from);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_first_mib_costs_one_mib, new_reader),
        cmocka_unit_test_setup(who_goes_on_is_given_more_and_more, new_reader),
        cmocka_unit_test_setup(a_quarter_read_in_sequence_asks_for_the_rest, new_reader),
        cmocka_unit_test_setup(requests_that_the_kernel_reordered_are_one_run, new_reader),
        cmocka_unit_test_setup(one_page_again_and_again_is_no_run, new_reader),
        cmocka_unit_test_setup(a_jump_costs_256_kib, new_reader),
        cmocka_unit_test_setup(a_jump_into_a_part_asks_for_the_rest_of_it, new_reader),
        cmocka_unit_test_setup(a_quarter_read_in_jumps_asks_for_the_rest, new_reader),
        cmocka_unit_test_setup(the_rest_wraps_around, new_reader),
        cmocka_unit_test_setup(small_files_and_ends, new_reader),
        cmocka_unit_test_setup(whatever_is_read_is_covered, new_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
