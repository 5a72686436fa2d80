// SPDX-License-Identifier: Apache-2.0
#include "cache/hublock.h"

#include "cache/names.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MODE 0664 // of the library's lock files, whatever the umask

static int open_file(const struct owned *o, int dir, const char *name, int *ret_fd)
{
    int error = owned_file(o, dir, name, MODE, ret_fd);
    if (error != -EEXIST)
        return error;
    // Somebody else's, as they may have left it: reading is enough for a lock.
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

// 1 when it is ours, 0 when somebody holds it or has replaced the file, -EOPNOTSUPP where there are no locks.
static int try_lock(int fd)
{
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK || errno == EACCES || errno == EINTR ? 0 : -EOPNOTSUPP;
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

int hublock_take(const struct owned *o, const char *folder, const char *etag, int timeout_ms, int *ret_fd)
{
    char name[NAMES_ETAG_SIZE + 8];
    snprintf(name, sizeof name, "%s.lock", etag);
    _cleanup_close_ int locks = -1;
    _cleanup_close_ int dir = -1;
    int error = owned_dir(o, o->cache_fd, ".locks", true, &locks, NULL);
    if (error == 0)
        error = owned_dir(o, locks, folder, true, &dir, NULL);
    if (error < 0)
        return error;
    int64_t until = util_now_ms() + timeout_ms;
    for (long pause_ms = 2;; pause_ms = pause_ms < 50 ? pause_ms * 2 : 50) {
        _cleanup_close_ int fd = -1;
        error = open_file(o, dir, name, &fd);
        if (error < 0 && error != -ENOENT) // removed since
            return error;
        int taken = error == 0 ? try_lock(fd) : 0;
        if (taken != 0) {
            *ret_fd = taken > 0 ? util_take_fd(&fd) : -1;
            return 0;
        }
        if (util_now_ms() >= until)
            return -EAGAIN;
        nanosleep(&(struct timespec){ .tv_nsec = pause_ms * 1000000 }, NULL);
    }
}
