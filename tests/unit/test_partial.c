// SPDX-License-Identifier: Apache-2.0
// Partial blobs: what is claimed is there, whatever dies and whenever.
#include "cache/index_partial.h"
#include "cache/partial.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#define B BLOCKMAP_BLOCK
#define ETAG "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define OTHER "da39a3ee5e6b4b0d3255bfef95601890afd80709"
#define BLOCKS 40
#define SIZE ((int64_t) BLOCKS * B - 1000)

static char place[] = "/tmp/modelmount-partial-XXXXXX";
static struct index *index_;
static struct partials *all;

// --- a disk that fails when told to, and remembers what has reached it

static struct disk {
    atomic_int fail_write, fail_sync; // errno
    atomic_bool record;
    void (*during_sync)(void);
    unsigned char written[BLOCKS * B]; // 1: the write has returned; 3: and was synced since
} * disk;

// SQLite writes too, and is left alone.
static bool is_blob(int fd)
{
    struct stat st;
    return disk && fstat(fd, &st) == 0 && st.st_size == SIZE;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    bool blob = is_blob(fd);
    if (blob && disk->fail_write) {
        errno = disk->fail_write;
        return -1;
    }
    ssize_t done = syscall(SYS_pwrite64, fd, buf, n, offset);
    if (blob && disk->record)
        for (ssize_t i = 0; i < done; i++)
            disk->written[offset + i] |= 1; // the same bytes as before: what was synced stays so
    return done;
}

int fdatasync(int fd)
{
    if (!is_blob(fd))
        return (int) syscall(SYS_fdatasync, fd);
    unsigned char *before = NULL;
    if (disk->record) {
        before = malloc(sizeof disk->written);
        memcpy(before, disk->written, sizeof disk->written);
    }
    if (disk->during_sync)
        disk->during_sync();
    for (size_t i = 0; before && i < sizeof disk->written; i++)
        if (before[i])
            disk->written[i] = 3;
    free(before);
    errno = disk->fail_sync;
    return errno ? -1 : 0;
}

// --- helpers

static unsigned char byte_at(int64_t offset)
{
    uint64_t x = (uint64_t) offset / 8 * 0x9e3779b97f4a7c15ULL;
    return (unsigned char) ((x >> (offset % 8 * 8)) | 1); // never 0, as a hole is
}

static void content(int64_t offset, char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (char) byte_at(offset + (int64_t) i);
}

static int put(struct partial *p, int64_t offset, int64_t len)
{
    char *buf = malloc((size_t) len + 1);
    content(offset, buf, (size_t) len);
    int error = partial_write(p, offset, buf, (size_t) len);
    free(buf);
    return error;
}

static struct partial *get(void)
{
    struct partial *p = NULL;
    assert_int_equal(partial_acquire(all, ETAG, SIZE, &p), 0);
    return p;
}

// Every block that is claimed has its bytes. Returns how many are claimed.
static int check_claims(struct partial *p)
{
    static char want[B], have[B];
    int claimed = 0;
    for (int64_t at = 0; at < SIZE; at += B) {
        int64_t len = SIZE - at < B ? SIZE - at : B;
        if (!partial_has(p, at, len))
            continue;
        claimed++;
        content(at, want, (size_t) len);
        assert_int_equal(pread(partial_fd(p), have, (size_t) len, at), len);
        assert_memory_equal(want, have, (size_t) len);
    }
    return claimed;
}

static void begin(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/index.db", place);
    assert_int_equal(index_open(path, "", &index_), 0);
    assert_int_equal(partials_open(place, index_, &all), 0);
}

static void end(void)
{
    partials_close(all);
    index_close(index_);
}

static void restart(void)
{
    end();
    begin();
}

static bool file_there(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/partial/%s", place, name);
    return access(path, F_OK) == 0;
}

static bool row_there(const char *etag)
{
    struct index_partial row;
    _cleanup_free_ unsigned char *bits = NULL;
    size_t len;
    return index_partial_load(index_, etag, &row, &bits, &len) == 0;
}

static int setup(void **state)
{
    (void) state;
    strcpy(place + strlen(place) - 6, "XXXXXX");
    assert_non_null(mkdtemp(place));
    disk = NULL;
    begin();
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    end();
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", place);
    return system(command);
}

// --- a new one, and again after a restart

static void test_a_new_one_has_nothing(void **state)
{
    (void) state;
    struct partial *p = get();
    assert_true(partial_is_owner(p));
    assert_false(partial_whole(p));
    assert_int_equal(partial_present_bytes(p), 0);
    assert_false(partial_has(p, 0, 1));
    assert_true(partial_has(p, 5, 0));
    assert_true(partial_has(p, SIZE, 100));
    int64_t from, to;
    assert_true(partial_missing(p, 3 * B + 5, 1, &from, &to));
    assert_int_equal(from, 3 * B);
    assert_int_equal(to, 4 * B);
    assert_true(partial_missing(p, 0, INT64_MAX, &from, &to));
    assert_int_equal(to, SIZE);
    assert_false(partial_missing(p, SIZE, 1, &from, &to));
    partial_release(p);
}

static void test_a_block_is_there_once_all_its_bytes_are(void **state)
{
    (void) state;
    struct partial *p = get();
    assert_int_equal(put(p, B - 10, B), 0); // the end of block 0, nearly all of block 1
    assert_int_equal(partial_present_bytes(p), 0);
    assert_int_equal(put(p, 2 * B - 10, 10), 0);
    assert_true(partial_has(p, B, B));
    assert_false(partial_has(p, B - 1, 1)); // written, but its block is not whole
    assert_int_equal(put(p, 100, B - 150), 0);
    assert_int_equal(put(p, B - 60, 55), 0);
    assert_int_equal(put(p, 0, 99), 0);
    assert_false(partial_has(p, 0, 1));
    assert_int_equal(put(p, 99, 1), 0);
    assert_true(partial_has(p, 0, 2 * B));
    assert_int_equal(put(p, SIZE - 500, 500), 0); // the last block is shorter
    assert_false(partial_has(p, SIZE - 1, 1));
    assert_int_equal(put(p, (int64_t) (BLOCKS - 1) * B, B - 1500), 0);
    assert_true(partial_has(p, SIZE - 1, 1));
    assert_int_equal(partial_present_bytes(p), 3 * B - 1000);
    assert_int_equal(check_claims(p), 3);
    assert_int_equal(partial_write(p, SIZE - 1, "xy", 2), -EINVAL);
    assert_int_equal(partial_write(p, -1, "xy", 2), -EINVAL);
    assert_int_equal(partial_write(p, SIZE + 1, "", 0), -EINVAL);
    partial_release(p);
}

static void test_a_block_in_many_pieces_comes_in_the_end(void **state)
{
    (void) state;
    struct partial *p = get();
    for (int64_t at = 0; at < B; at += 128) // more holes than are remembered
        assert_int_equal(put(p, at, 64), 0);
    assert_false(partial_has(p, 0, B));
    for (int64_t at = 0; at < B; at += 1024)
        assert_int_equal(put(p, at, 1024), 0);
    assert_true(partial_has(p, 0, B));
    for (int64_t at = 5 * B; at < 9 * B; at += 1000) // in order, pieces over the borders
        assert_int_equal(put(p, at, at + 1000 > 9 * B ? 9 * B - at : 1000), 0);
    assert_true(partial_has(p, 5 * B, 4 * B));
    check_claims(p);
    partial_release(p);
}

static void test_missing_runs(void **state)
{
    (void) state;
    struct partial *p = get();
    int64_t from, to;
    put(p, 2 * B, 10 * B);
    put(p, 20 * B, B);
    assert_true(partial_missing(p, 0, SIZE, &from, &to));
    assert_int_equal(from, 0);
    assert_int_equal(to, 2 * B);
    assert_true(partial_missing(p, 2 * B, SIZE, &from, &to));
    assert_int_equal(from, 12 * B);
    assert_int_equal(to, 20 * B);
    assert_false(partial_missing(p, 3 * B, 9 * B, &from, &to));
    assert_true(partial_missing(p, 3 * B, 9 * B + 1, &from, &to));
    assert_int_equal(from, 12 * B);
    assert_int_equal(to, 13 * B);
    assert_true(partial_missing(p, 21 * B, INT64_MAX, &from, &to));
    assert_int_equal(to, SIZE);
    partial_release(p);
}

static void test_what_was_synced_is_there_after_a_restart(void **state)
{
    (void) state;
    struct partial *p = get();
    put(p, 0, 3 * B + 10);
    put(p, (int64_t) (BLOCKS - 1) * B, B - 1000);
    assert_int_equal(partial_sync(p), 0);
    assert_true(row_there(ETAG));
    partial_release(p);
    restart();
    p = get();
    assert_int_equal(check_claims(p), 4);
    assert_int_equal(partial_present_bytes(p), 4 * B - 1000);
    put(p, 10 * B, B);
    partial_release(p); // syncs
    restart();
    p = get();
    assert_int_equal(check_claims(p), 5);
    put(p, 0, SIZE);
    assert_true(partial_whole(p));
    partial_release(p);
    restart();
    p = get();
    assert_true(partial_whole(p));
    partial_release(p);
}

static void test_one_struct_for_each_etag(void **state)
{
    (void) state;
    struct partial *a = get(), *b = get(), *c;
    assert_ptr_equal(a, b);
    assert_int_equal(partial_acquire(all, ETAG, SIZE + 1, &c), -EINVAL);
    assert_int_equal(partial_acquire(all, "../x", 1, &c), -EINVAL);
    assert_int_equal(partial_acquire(all, OTHER, -1, &c), -EINVAL);
    partial_release(a);
    put(b, 0, B);
    partial_release(b);
    partial_release(NULL);
    // Nobody has it any more: another size starts anew.
    assert_int_equal(partial_acquire(all, ETAG, SIZE + 1, &c), 0);
    assert_int_equal(partial_present_bytes(c), 0);
    assert_int_equal(lseek(partial_fd(c), 0, SEEK_END), SIZE + 1);
    partial_release(c);
}

static void test_an_empty_blob_is_whole(void **state)
{
    (void) state;
    struct partial *p;
    assert_int_equal(partial_acquire(all, OTHER, 0, &p), 0);
    assert_true(partial_whole(p));
    assert_int_equal(partial_sync(p), 0);
    partial_release(p);
}

// --- what does not belong together

static void leave_three_blocks(void)
{
    struct partial *p = get();
    put(p, 0, 3 * B);
    partial_release(p);
}

static void assert_nothing_claimed(void)
{
    struct partial *p = get();
    assert_int_equal(partial_present_bytes(p), 0);
    partial_release(p);
}

static void shell(const char *what)
{
    char command[300];
    snprintf(command, sizeof command, "cd %s/partial && %s", place, what);
    assert_int_equal(system(command), 0);
}

static void test_a_map_without_its_file_is_dropped(void **state)
{
    (void) state;
    leave_three_blocks();
    shell("rm " ETAG);
    restart();
    assert_false(row_there(ETAG));
    leave_three_blocks();
    shell("rm " ETAG); // also when it goes while we run
    assert_nothing_claimed();
}

static void test_a_file_without_a_map_is_removed(void **state)
{
    (void) state;
    leave_three_blocks();
    assert_int_equal(index_partial_drop(index_, ETAG), 0);
    restart();
    assert_false(file_there(ETAG));
    leave_three_blocks();
    assert_int_equal(index_partial_drop(index_, ETAG), 0);
    assert_nothing_claimed();
}

static void test_another_file_of_that_name_is_not_vouched_for(void **state)
{
    (void) state;
    leave_three_blocks();
    shell("cp --sparse=always " ETAG " copy && mv copy " ETAG);
    assert_nothing_claimed();
    leave_three_blocks();
    shell("cp " ETAG " copy && mv copy " ETAG);
    restart();
    assert_false(row_there(ETAG));
    assert_false(file_there(ETAG));
    leave_three_blocks();
    shell("truncate -s 3 " ETAG);
    restart();
    assert_false(file_there(ETAG));
    leave_three_blocks();
    shell("truncate -s 3 " ETAG);
    assert_nothing_claimed();
}

static void test_an_inode_number_that_was_given_again_does_not_count(void **state)
{
    (void) state;
    leave_three_blocks();
    struct index_partial row;
    _cleanup_free_ unsigned char *bits = NULL;
    size_t len;
    assert_int_equal(index_partial_load(index_, ETAG, &row, &bits, &len), 0);
    if (row.born == 0)
        skip();
    row.born--;
    assert_int_equal(index_partial_save(index_, ETAG, &row, bits, len), 0);
    assert_nothing_claimed();
}

static void test_a_map_that_cannot_be_is_not_believed(void **state)
{
    (void) state;
    struct index_partial row;
    for (int i = 0; i < 3; i++) {
        _cleanup_free_ unsigned char *bits = NULL;
        size_t len;
        leave_three_blocks();
        assert_int_equal(index_partial_load(index_, ETAG, &row, &bits, &len), 0);
        assert_int_equal(len, BLOCKS / 8);
        unsigned char longer[BLOCKS / 8 + 1] = { 0xff };
        row.block = i == 2 ? B / 2 : B;
        assert_int_equal(index_partial_save(index_, ETAG, &row, longer, i == 2 ? len : len - 1 + 2 * (size_t) i), 0);
        assert_nothing_claimed();
    }
}

static void test_strangers_files_are_left(void **state)
{
    (void) state;
    shell("touch .keep .unnamed-1-2; mkdir dir; ln -s /etc/passwd " OTHER "; ln -s /nowhere " ETAG);
    restart();
    assert_true(file_there(".keep"));
    assert_false(file_there(".unnamed-1-2"));
    struct partial *p;
    assert_int_equal(partial_acquire(all, ETAG, SIZE, &p), -EEXIST); // never through a link
    assert_int_equal(partial_acquire(all, OTHER, SIZE, &p), -EEXIST);
    assert_int_equal(access("/nowhere", F_OK), -1);
}

static void test_an_index_in_memory_costs_no_file(void **state)
{
    (void) state;
    leave_three_blocks();
    struct index *memory;
    struct partials *others;
    struct partial *p;
    assert_int_equal(index_open(NULL, "", &memory), 0);
    assert_int_equal(partials_open(place, memory, &others), 0);
    assert_int_equal(partial_acquire(others, ETAG, SIZE, &p), 0);
    assert_true(partial_is_owner(p));
    put(p, 0, 2 * B);
    assert_int_equal(check_claims(p), 2);
    assert_int_equal(partial_sync(p), 0);
    partial_release(p);
    partials_close(others);
    assert_int_equal(partials_open(NULL, memory, &others), 0);
    assert_int_equal(partial_acquire(others, ETAG, SIZE, &p), 0);
    put(p, 0, 2 * B);
    assert_int_equal(check_claims(p), 2);
    assert_int_equal(partial_discard(p), 0);
    partial_release(p);
    partials_close(others);
    index_close(memory);
    p = get();
    assert_int_equal(check_claims(p), 3);
    partial_release(p);
}

// --- the end of one

static void test_discarded_all_is_gone(void **state)
{
    (void) state;
    struct partial *p = get(), *again;
    put(p, 0, 3 * B);
    partial_sync(p);
    assert_int_equal(partial_discard(p), 0);
    assert_false(row_there(ETAG));
    assert_false(file_there(ETAG));
    assert_false(partial_has(p, 0, 1));
    assert_int_equal(put(p, 0, B), -ESTALE);
    assert_int_equal(partial_sync(p), -ESTALE);
    assert_int_equal(partial_refresh(p), -ESTALE);
    again = get();
    assert_ptr_not_equal(p, again);
    assert_int_equal(put(again, B, B), 0);
    assert_int_equal(partial_discard(p), 0); // once more does not touch the new one
    partial_release(p);
    assert_int_equal(partial_sync(again), 0);
    assert_int_equal(check_claims(again), 1);
    assert_true(file_there(ETAG));
    partial_release(again);
}

static void test_published_its_readers_read_on(void **state)
{
    (void) state;
    struct partial *p = get();
    put(p, 0, SIZE);
    partial_sync(p);
    shell("ln " ETAG " ../blob");
    assert_int_equal(partial_published(p), 0);
    assert_false(row_there(ETAG));
    assert_false(file_there(ETAG));
    assert_true(partial_whole(p));
    assert_int_equal(check_claims(p), BLOCKS);
    assert_int_equal(partial_sync(p), 0);
    partial_release(p);
    restart();
    assert_nothing_claimed();
}

static void test_one_whose_publisher_died_is_not_written_to(void **state)
{
    (void) state;
    leave_three_blocks();
    shell("ln " ETAG " ../blob");
    assert_nothing_claimed();
    leave_three_blocks();
    shell("ln -f " ETAG " ../blob");
    restart();
    assert_false(file_there(ETAG));
    assert_false(row_there(ETAG));
}

// --- a disk that fails

static struct disk *disk_new(void)
{
    void *made = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(made, MAP_FAILED);
    return made;
}

static void test_a_full_disk_marks_nothing(void **state)
{
    (void) state;
    struct partial *p = get();
    put(p, 0, B);
    disk = disk_new();
    disk->fail_write = ENOSPC;
    assert_int_equal(put(p, B, B), -ENOSPC);
    disk->fail_write = EDQUOT;
    assert_int_equal(put(p, B, B), -ENOSPC);
    disk->fail_write = EIO;
    assert_int_equal(put(p, B, B), -EIO);
    disk->fail_write = 0;
    assert_int_equal(check_claims(p), 1);
    assert_int_equal(put(p, B, B), 0);
    assert_int_equal(check_claims(p), 2);
    partial_release(p);
}

static void test_a_failed_sync_loses_what_it_was_for(void **state)
{
    (void) state;
    struct partial *p = get();
    put(p, 0, 2 * B);
    assert_int_equal(partial_sync(p), 0);
    disk = disk_new();
    put(p, 2 * B, 2 * B);
    put(p, 8 * B, B / 2);
    disk->fail_sync = EIO;
    assert_int_equal(partial_sync(p), -EIO);
    assert_true(partial_has(p, 0, 2 * B));
    assert_false(partial_has(p, 2 * B, 1));
    disk->fail_sync = 0;
    put(p, 8 * B + B / 2, B / 2); // the other half is gone too
    assert_false(partial_has(p, 8 * B, 1));
    assert_int_equal(partial_sync(p), 0);
    partial_release(p);
    restart();
    p = get();
    assert_int_equal(check_claims(p), 2);
    partial_release(p);
}

static struct partial *written_during_sync;

static void write_during_sync(void)
{
    put(written_during_sync, 5 * B, B);
}

static void test_what_is_written_during_a_sync_is_left_for_the_next(void **state)
{
    (void) state;
    struct partial *p = written_during_sync = get();
    put(p, 0, B);
    disk = disk_new();
    disk->during_sync = write_during_sync;
    assert_int_equal(partial_sync(p), 0);
    assert_true(partial_has(p, 5 * B, B));
    struct index_partial row;
    unsigned char *bits;
    size_t len;
    assert_int_equal(index_partial_load(index_, ETAG, &row, &bits, &len), 0);
    assert_int_equal(bits[0], 1);
    free(bits);
    disk->during_sync = NULL;
    assert_int_equal(partial_sync(p), 0);
    assert_int_equal(index_partial_load(index_, ETAG, &row, &bits, &len), 0);
    assert_int_equal(bits[0], 1 | 1 << 5);
    free(bits);
    partial_release(p);
}

static void random_writes(struct partial *p, unsigned *seed, int count)
{
    for (int i = 0; i < count; i++) {
        int64_t offset = (rand_r(seed) % (BLOCKS * 4)) * (int64_t) (B / 4);
        int64_t len = (1 + rand_r(seed) % 12) * (int64_t) (B / 4) - rand_r(seed) % 2 * 7;
        if (offset >= SIZE)
            continue;
        assert_int_equal(put(p, offset, len < SIZE - offset ? len : SIZE - offset), 0);
    }
}

static unsigned during_seed;

static void random_writes_during_sync(void)
{
    random_writes(written_during_sync, &during_seed, 2);
}

// A power cut: of what was written, only what was synced before is on the disk, all else is a hole again.
static void test_a_power_cut_takes_only_what_is_not_claimed(void **state)
{
    (void) state;
    static char buf[BLOCKS * B];
    int claimed = 0;
    for (unsigned round = 0; round < 15; round++) {
        disk = disk_new();
        end();
        pid_t child = fork();
        if (child == 0) {
            begin();
            disk->record = true;
            disk->during_sync = random_writes_during_sync;
            unsigned seed = during_seed = round + 1;
            struct partial *p = written_during_sync = get();
            for (unsigned i = 0; i < round; i++) {
                random_writes(p, &seed, 3);
                partial_sync(p);
            }
            random_writes(p, &seed, 3);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        char path[200];
        snprintf(path, sizeof path, "%s/partial/%s", place, ETAG);
        content(0, buf, sizeof buf);
        for (size_t i = 0; i < sizeof buf; i++)
            if (disk->written[i] != 3)
                buf[i] = 0;
        munmap(disk, sizeof *disk);
        disk = NULL;
        int fd = open(path, O_WRONLY);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, buf, (size_t) SIZE, 0), SIZE);
        close(fd);
        begin();
        struct partial *p = get();
        claimed += check_claims(p);
        partial_discard(p);
        partial_release(p);
    }
    assert_true(claimed > 100);
}

// --- processes

static void child_writes_for_ever(unsigned seed)
{
    begin();
    struct partial *p = get();
    for (;;) {
        random_writes(p, &seed, 1 + rand_r(&seed) % 4);
        partial_sync(p);
        if (partial_whole(p)) {
            partial_discard(p);
            partial_release(p);
            p = get();
        }
    }
}

static void test_killed_at_any_moment_what_is_claimed_is_there(void **state)
{
    (void) state;
    int claimed = 0;
    unsigned seed = 7;
    for (unsigned round = 0; round < 60; round++) {
        end();
        pid_t child = fork();
        if (child == 0)
            child_writes_for_ever(round);
        nanosleep(&(struct timespec){ .tv_nsec = 1000000L * (1 + rand_r(&seed) % 60) }, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        begin();
        struct partial *p = get();
        assert_true(partial_is_owner(p));
        claimed += check_claims(p);
        partial_release(p);
    }
    assert_true(claimed > 0);
}

static void test_the_second_follows_and_takes_over(void **state)
{
    (void) state;
    struct index *second_index;
    struct partials *second;
    char path[64];
    snprintf(path, sizeof path, "%s/index.db", place);
    struct partial *p = get(), *q;
    assert_int_equal(index_open(path, "", &second_index), 0);
    assert_int_equal(partials_open(place, second_index, &second), 0); // leaves what is locked
    assert_true(file_there(ETAG));
    assert_int_equal(partial_acquire(second, ETAG, SIZE + 1, &q), -EINVAL);
    assert_int_equal(partial_acquire(second, ETAG, SIZE, &q), 0);
    assert_false(partial_is_owner(q));
    assert_int_equal(put(q, 0, B), -EBUSY);
    put(p, 0, 2 * B);
    assert_int_equal(partial_refresh(q), 0);
    assert_int_equal(check_claims(q), 0); // not synced yet
    partial_sync(p);
    assert_int_equal(partial_refresh(q), 0);
    assert_int_equal(check_claims(q), 2);
    put(p, 3 * B, B);
    partial_release(p);
    assert_int_equal(partial_refresh(q), 1);
    assert_true(partial_is_owner(q));
    assert_int_equal(check_claims(q), 3);
    assert_int_equal(put(q, 7 * B, B), 0);
    p = get();
    assert_false(partial_is_owner(p));
    assert_int_equal(partial_discard(q), 0);
    assert_int_equal(partial_refresh(p), -ESTALE);
    assert_false(partial_has(p, 0, 1));
    partial_release(p);
    p = get();
    assert_true(partial_is_owner(p));
    assert_int_equal(partial_present_bytes(p), 0);
    partial_release(q);
    partial_release(p);
    partials_close(second);
    index_close(second_index);
}

// --- threads

static void *thread_writes(void *seed)
{
    unsigned mine = *(unsigned *) seed;
    for (int i = 0; i < 30; i++) {
        struct partial *p = get();
        random_writes(p, &mine, 2);
        if (i % 5 == 0)
            assert_int_equal(partial_sync(p), 0);
        partial_present_bytes(p);
        int64_t from, to;
        partial_missing(p, 0, SIZE, &from, &to);
        assert_int_equal(partial_refresh(p), 1);
        partial_release(p);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void) state;
    pthread_t threads[4];
    unsigned seeds[4] = { 1, 2, 3, 4 };
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_writes, &seeds[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct partial *p = get();
    assert_true(check_claims(p) > BLOCKS / 2);
    partial_release(p);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_new_one_has_nothing),
        T(test_a_block_is_there_once_all_its_bytes_are),
        T(test_a_block_in_many_pieces_comes_in_the_end),
        T(test_missing_runs),
        T(test_what_was_synced_is_there_after_a_restart),
        T(test_one_struct_for_each_etag),
        T(test_an_empty_blob_is_whole),
        T(test_a_map_without_its_file_is_dropped),
        T(test_a_file_without_a_map_is_removed),
        T(test_another_file_of_that_name_is_not_vouched_for),
        T(test_an_inode_number_that_was_given_again_does_not_count),
        T(test_a_map_that_cannot_be_is_not_believed),
        T(test_strangers_files_are_left),
        T(test_an_index_in_memory_costs_no_file),
        T(test_discarded_all_is_gone),
        T(test_published_its_readers_read_on),
        T(test_one_whose_publisher_died_is_not_written_to),
        T(test_a_full_disk_marks_nothing),
        T(test_a_failed_sync_loses_what_it_was_for),
        T(test_what_is_written_during_a_sync_is_left_for_the_next),
        T(test_a_power_cut_takes_only_what_is_not_claimed),
        T(test_killed_at_any_moment_what_is_claimed_is_there),
        T(test_the_second_follows_and_takes_over),
        T(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
