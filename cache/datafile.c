// SPDX-License-Identifier: Apache-2.0
#include "cache/datafile.h"

#include "cache/blockmap.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define UNNAMED ".unnamed-"
#define TRIES 50

bool datafile_lock(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES);
}

bool datafile_is_named(int dir_fd, const char *name, const struct stat *st)
{
    struct stat now;
    return fstatat(dir_fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_dev == st->st_dev &&
           now.st_ino == st->st_ino;
}

struct index_partial datafile_identity(int fd, const struct stat *st)
{
    struct index_partial id = {
        .size = st->st_size,
        .block = BLOCKMAP_BLOCK,
        .device = (int64_t) st->st_dev,
        .inode = (int64_t) st->st_ino,
    };
    struct statx born;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &born) == 0 && (born.stx_mask & STATX_BTIME))
        id.born = born.stx_btime.tv_sec * 1000000000LL + born.stx_btime.tv_nsec;
    return id;
}

bool datafile_same(const struct index_partial *a, const struct index_partial *b)
{
    return a->size == b->size && a->block == b->block && a->device == b->device && a->inode == b->inode &&
           a->born == b->born;
}

int datafile_unnamed(int dir_fd, int64_t size, int *ret_fd)
{
    _cleanup_close_ int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    for (int i = 0; fd < 0 && i < TRIES; i++) { // O_TMPFILE is not for every file system
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        char name[64];
        snprintf(name, sizeof name, UNNAMED "%d-%llx-%d", getpid(), now.tv_sec * 1000000000ULL + (unsigned) now.tv_nsec,
                 i);
        fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0)
            unlinkat(dir_fd, name, 0);
        else if (errno != EEXIST)
            return -errno;
    }
    if (fd < 0 || ftruncate(fd, size) < 0)
        return -errno;
    *ret_fd = util_take_fd(&fd);
    return 0;
}

bool datafile_is_leftover(const char *name)
{
    return strncmp(name, UNNAMED, strlen(UNNAMED)) == 0;
}
