// SPDX-License-Identifier: Apache-2.0
// Verification: right bytes pass, all others don't. The digests are from sha256sum and git hash-object.
#include "cache/util.h"
#include "cache/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define EMPTY_GIT "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
#define HELLO_SHA256 "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03" // "hello\n"
#define HELLO_GIT "ce013625030ba8dba906f756967f9e9ca394464a"
#define ZEROS 3000000
#define ZEROS_SHA256 "35bce4eae54ec8e6cc2868baa8d157914d6ae2858811b4cc0c078c94460fa26f"
#define ZEROS_GIT "73e77f405a9ff5ab6f54695cf10e7be6d23c9a4b"

static void test_which_etags_name_bytes(void **state)
{
    (void) state;
    assert_true(verify_possible(HELLO_SHA256));
    assert_true(verify_possible(HELLO_GIT));
    assert_false(verify_possible(""));
    assert_false(verify_possible("5f3a-62c1b"));
    assert_false(verify_possible("CE013625030BA8DBA906F756967F9E9CA394464A"));
    assert_false(verify_possible("ce013625030ba8dba906f756967f9e9ca394464"));
    assert_false(verify_possible("zz013625030ba8dba906f756967f9e9ca394464a"));
    struct verify *v;
    assert_int_equal(verify_new("5f3a-62c1b", 6, &v), -EOPNOTSUPP);
    assert_int_equal(verify_bytes("d41d8cd98f00b204e9800998ecf8427e", "", 0), -EOPNOTSUPP); // MD5, as S3 has it
    assert_int_equal(verify_fd("5f3a-62c1b", 6, 0, NULL), -EOPNOTSUPP);
}

static void test_bytes_in_memory(void **state)
{
    (void) state;
    static const struct {
        const char *etag, *bytes;
        int result;
    } cases[] = {
        { HELLO_SHA256, "hello\n", 0 }, { HELLO_GIT, "hello\n", 0 },         { EMPTY_SHA256, "", 0 },
        { EMPTY_GIT, "", 0 },           { HELLO_SHA256, "hello", -EBADMSG }, { HELLO_GIT, "Hello\n", -EBADMSG },
        { HELLO_SHA256, "", -EBADMSG }, { EMPTY_GIT, "hello\n", -EBADMSG },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(verify_bytes(cases[i].etag, cases[i].bytes, strlen(cases[i].bytes)), cases[i].result);
}

static int in_pieces(const char *etag, int64_t size, const char *const *pieces)
{
    struct verify *v;
    assert_int_equal(verify_new(etag, size, &v), 0);
    int error = 0;
    for (; *pieces && error == 0; pieces++)
        error = verify_update(v, *pieces, strlen(*pieces));
    int last = verify_final(v);
    verify_free(v);
    return error ? error : last;
}

static void test_pieces(void **state)
{
    (void) state;
    for (int i = 0; i < 2; i++) {
        const char *etag = i ? HELLO_GIT : HELLO_SHA256;
        assert_int_equal(in_pieces(etag, 6, (const char *[]){ "he", "", "llo", "\n", NULL }), 0);
        assert_int_equal(in_pieces(etag, 6, (const char *[]){ "hello\n", "x", NULL }), -EBADMSG); // too long
        assert_int_equal(in_pieces(etag, 6, (const char *[]){ "hello", NULL }), -EBADMSG);        // too short
        assert_int_equal(in_pieces(etag, 7, (const char *[]){ "hello\n", NULL }), -EBADMSG);
    }
    verify_free(NULL);
}

static void test_files(void **state)
{
    (void) state;
    _cleanup_close_ int fd = memfd_create("blob", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, ZEROS), 0);
    assert_int_equal(lseek(fd, 100, SEEK_SET), 100);
    assert_int_equal(verify_fd(ZEROS_SHA256, ZEROS, fd, NULL), 0);
    assert_int_equal(verify_fd(ZEROS_GIT, ZEROS, fd, NULL), 0);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 100);
    assert_int_equal(verify_fd(ZEROS_SHA256, ZEROS - 1, fd, NULL), -EBADMSG);
    assert_int_equal(verify_fd(ZEROS_SHA256, ZEROS + 1, fd, NULL), -EBADMSG);
    assert_int_equal(pwrite(fd, "x", 1, ZEROS - 1), 1);
    assert_int_equal(verify_fd(ZEROS_SHA256, ZEROS, fd, NULL), -EBADMSG);
    atomic_bool stop = true;
    assert_int_equal(verify_fd(ZEROS_SHA256, ZEROS, fd, &stop), -ECANCELED);
    _cleanup_close_ int blind = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(verify_fd(EMPTY_GIT, 0, blind, NULL), -EBADF);
    assert_int_equal(verify_fd(EMPTY_GIT, 0, -1, NULL), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_etags_name_bytes),
        cmocka_unit_test(test_bytes_in_memory),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
