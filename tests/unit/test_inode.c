// SPDX-License-Identifier: Apache-2.0
// Nodeids: each stands for one thing, and for the same thing for as long as the kernel knows it.
#include "fs/inode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct repo repo = { REPO_DATASET, "org/name" };
static const struct repo other = { REPO_MODEL, "org/name" };
static struct inodes *inodes;

static int setup(void **unused)
{
    (void) unused;
    return inodes_new(&inodes);
}

static int teardown(void **unused)
{
    (void) unused;
    inodes_free(inodes);
    return 0;
}

static void the_root_is_number_one(void **unused)
{
    (void) unused;
    assert_int_equal(inodes_find(inodes, 1)->kind, PLACE_ROOT);
    inodes_forget(inodes, 1, 1000); // the kernel does so at the end
    assert_non_null(inodes_find(inodes, 1));
}

static void a_place_is_kept_until_it_is_forgotten_as_often_as_looked_up(void **unused)
{
    (void) unused;
    struct place *place = inodes_place(inodes, PLACE_REFS, &repo, "refs/pr");
    uint64_t nodeid = place->nodeid;
    assert_ptr_equal(inodes_place(inodes, PLACE_REFS, &repo, "refs/pr"), place);
    inodes_forget(inodes, nodeid, 1);
    assert_ptr_equal(inodes_find(inodes, nodeid), place);
    inodes_forget(inodes, nodeid, 1);
    assert_null(inodes_find(inodes, nodeid));
    assert_int_not_equal(inodes_place(inodes, PLACE_REFS, &repo, "refs/pr")->nodeid, nodeid);
}

static void places_differ_by_kind_repo_and_rest(void **unused)
{
    (void) unused;
    uint64_t nodeid = inodes_place(inodes, PLACE_REPO, &repo, "")->nodeid;
    assert_int_not_equal(inodes_place(inodes, PLACE_HUB_REPO, &repo, "")->nodeid, nodeid);
    assert_int_not_equal(inodes_place(inodes, PLACE_REPO, &other, "")->nodeid, nodeid);
    assert_int_not_equal(inodes_place(inodes, PLACE_REPO, &repo, "x")->nodeid, nodeid);
}

static void a_view_is_one_per_path_and_snapshot(void **unused)
{
    (void) unused;
    struct snapshot *a = (struct snapshot *) 0x1000, *b = (struct snapshot *) 0x2000;
    struct view *view = inodes_view(inodes, "models/org/name/main", a);
    assert_ptr_equal(inodes_view(inodes, "models/org/name/main", a), view);
    assert_ptr_not_equal(inodes_view(inodes, "models/org/name/main", b), view);
    assert_ptr_not_equal(inodes_view(inodes, "models/org/name/v1", a), view);
    assert_ptr_equal(inodes_view_find(inodes, view->number), view);
    assert_null(inodes_view_find(inodes, 0));
    assert_null(inodes_view_find(inodes, 99));
}

static void the_kinds_of_nodeids_never_meet(void **unused)
{
    (void) unused;
    const uint32_t owners[] = { 1, 2, 0x1fffffff }, ordinals[] = { 0, 1, UINT32_MAX };
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            uint64_t dir = inode_dir(owners[i], ordinals[j]), file = inode_file(owners[i], ordinals[j]);
            assert_true(inode_is_dir(dir) && !inode_is_file(dir));
            assert_true(inode_is_file(file) && !inode_is_dir(file));
            assert_int_equal(inode_owner(dir), owners[i]);
            assert_int_equal(inode_owner(file), owners[i]);
            assert_int_equal(inode_ordinal(dir), ordinals[j]);
            assert_int_equal(inode_ordinal(file), ordinals[j]);
        }
    }
    uint64_t place = inodes_place(inodes, PLACE_HUB, NULL, "")->nodeid;
    assert_false(inode_is_dir(place) || inode_is_file(place));
}

static void ten_thousand_places_come_and_go(void **unused)
{
    (void) unused;
    uint64_t first = 0;
    for (int i = 0; i < 10000; i++) {
        char rest[32];
        snprintf(rest, sizeof rest, "path/%d", i);
        struct place *place = inodes_place(inodes, PLACE_HUB_MISS, &repo, rest);
        first = first ? first : place->nodeid;
    }
    for (uint64_t id = first; id < first + 10000; id++) {
        assert_non_null(inodes_find(inodes, id));
        inodes_forget(inodes, id, 1);
        assert_null(inodes_find(inodes, id));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_root_is_number_one),
        TEST(a_place_is_kept_until_it_is_forgotten_as_often_as_looked_up),
        TEST(places_differ_by_kind_repo_and_rest),
        TEST(a_view_is_one_per_path_and_snapshot),
        TEST(the_kinds_of_nodeids_never_meet),
        TEST(ten_thousand_places_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
