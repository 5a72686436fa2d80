// SPDX-License-Identifier: Apache-2.0
// What is pushed for which reader: nothing for who jumps about, and for who goes on what comes next, once.
#include "fs/push.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define KIB (1LL << 10)
#define MIB (1LL << 20)
#define REQUEST (128 * KIB)
#define FAR (64 * MIB) // more is not asked for ahead of a reader

// Reads from `from` to `to` in the kernel's requests. Every stretch must follow upon the last; returns the bytes of
// all.
static int64_t read_on(struct push_reader *reader, int64_t file_size, int64_t from, int64_t to)
{
    int64_t sum = 0;
    for (int64_t at = from; at < to; at += REQUEST) {
        int64_t start, end;
        if (!push_next(reader, file_size, at, REQUEST, &start, &end))
            continue;
        assert_true(start >= at + REQUEST); // not what was just asked for
        assert_true(start >= reader->pushed);
        assert_true(end > start && end <= file_size && end <= at + REQUEST + FAR);
        reader->pushed = end;
        sum += end - start;
    }
    return sum;
}

static void a_short_look_pushes_nothing(void **unused)
{
    (void) unused;
    struct push_reader reader = { 0 };
    assert_int_equal(read_on(&reader, 1000 * MIB, 0, MIB / 2), 0);
}

static void who_goes_on_gets_what_comes_next(void **unused)
{
    (void) unused;
    struct push_reader reader = { 0 };
    assert_true(read_on(&reader, 1000 * MIB, 0, 2 * MIB) >= FAR / 2);
    assert_true(reader.pushed > 32 * MIB);
}

static void nothing_is_pushed_twice_and_nothing_left_out(void **unused)
{
    (void) unused;
    const int64_t size = 300 * MIB + 17;
    struct push_reader reader = { 0 };
    int64_t sum = read_on(&reader, size, 0, size - REQUEST);
    assert_int_equal(reader.pushed, size);
    assert_true(sum <= size && sum > size - 8 * MIB); // all but the start
}

static void who_comes_out_of_what_was_pushed_has_gone_on(void **unused)
{
    (void) unused;
    struct push_reader reader = { 0 };
    read_on(&reader, 1000 * MIB, 0, 2 * MIB);
    int64_t pushed = reader.pushed;
    assert_true(read_on(&reader, 1000 * MIB, pushed, pushed + REQUEST) > 0);
}

static void who_jumps_about_gets_nothing(void **unused)
{
    (void) unused;
    struct push_reader reader = { 0 };
    uint64_t dice = 88172645463325252U;
    for (int i = 0; i < 1000; i++) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        int64_t at = (int64_t) (dice % 10000) * 16 * MIB;
        assert_int_equal(read_on(&reader, 200000 * MIB, at, at + REQUEST), 0);
    }
}

static void the_kernel_may_ask_in_another_order(void **unused)
{
    (void) unused;
    struct push_reader reader = { 0 };
    int64_t sum = 0;
    for (int64_t at = 0; at < 4 * MIB; at += 2 * REQUEST) {
        sum += read_on(&reader, 1000 * MIB, at + REQUEST, at + 2 * REQUEST);
        sum += read_on(&reader, 1000 * MIB, at, at + REQUEST);
    }
    assert_true(sum > 0);
}

static void a_file_that_ends_soon_is_pushed_to_its_end(void **unused)
{
    (void) unused;
    struct push_reader reader = { 0 };
    read_on(&reader, 7 * MIB + 5, 0, 2 * MIB);
    assert_int_equal(reader.pushed, 7 * MIB + 5);
    assert_int_equal(read_on(&reader, 7 * MIB + 5, 2 * MIB, 6 * MIB), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_look_pushes_nothing),
        cmocka_unit_test(who_goes_on_gets_what_comes_next),
        cmocka_unit_test(nothing_is_pushed_twice_and_nothing_left_out),
        cmocka_unit_test(who_comes_out_of_what_was_pushed_has_gone_on),
        cmocka_unit_test(who_jumps_about_gets_nothing),
        cmocka_unit_test(the_kernel_may_ask_in_another_order),
        cmocka_unit_test(a_file_that_ends_soon_is_pushed_to_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
