// SPDX-License-Identifier: Apache-2.0
// The shared store is described in huggingface_hub's utils/_shared_blobs.py.
#include "cache/blobs.h"

#include "cache/beneath.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#define STORE_DIR "blobs"
#define STORE_MARKER ".huggingface-shared-blobs"
#define STORE_VERSION "1\n"

int blobs_check_regular(int fd, struct stat *ret_stat)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EPERM;
    *ret_stat = st;
    return 0;
}

int blobs_open_regular(int dir_fd, const char *name, int flags, int *ret_fd, struct stat *ret_stat)
{
    _cleanup_close_ int fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ELOOP || errno == ENXIO ? -EPERM : -errno; // a link, a socket
    int r = blobs_check_regular(fd, ret_stat);
    if (r == 0)
        *ret_fd = util_take_fd(&fd);
    return r;
}

// Splits the text of the link `name` into the directory and the name it ends in. -EPERM when there are no such two,
// -EINVAL when `name` is no link.
static int read_target(int dir_fd, const char *name, char ret_dir[PATH_MAX], char ret_base[NAME_MAX + 1])
{
    ssize_t n = readlinkat(dir_fd, name, ret_dir, PATH_MAX);
    if (n < 0)
        return -errno;
    if (n == PATH_MAX)
        return -EPERM;
    ret_dir[n] = '\0';
    char *slash = strrchr(ret_dir, '/');
    if (!slash || strlen(slash + 1) > NAME_MAX)
        return -EPERM;
    stpcpy(ret_base, slash + 1);
    slash[slash == ret_dir] = '\0';
    return 0;
}

// Opens the directory `dir` of a link that was read in `at`. The way there crosses into no other mount, but for its
// last step, which may be a layout's link that is trusted: an untrusted path could lead to a file server that does not
// answer, or into our own mount, whose answer would wait for us.
static int open_target_dir(int at, const char *dir, int *ret_fd)
{
    int r = beneath_open_same_mount(at, dir, ret_fd);
    if (r == -ENOSYS) { // in a container that forbids it the path is followed as it is
        *ret_fd = openat(at, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return *ret_fd < 0 ? -errno : 0;
    }
    if (r != -EXDEV)
        return r;
    char parent[PATH_MAX];
    stpcpy(parent, dir);
    char *slash = strrchr(parent, '/');
    if (!slash || slash == parent)
        return r;
    *slash = '\0';
    _cleanup_close_ int fd = -1;
    r = beneath_open_same_mount(at, parent, &fd);
    return r < 0 ? r : beneath_open_trusted(fd, slash + 1, O_PATH, ret_fd);
}

// 0 if the path `dir` from `at` on leads to the very directory `fd`, -ENOENT if it leads nowhere, else -EPERM. What is
// opened afterwards is opened in `fd`: it does not matter what becomes of the path meanwhile.
static int leads_to(int at, const char *dir, int fd)
{
    _cleanup_close_ int found = -1;
    int r = open_target_dir(at, dir, &found);
    if (r < 0)
        return r == -ENOENT || r == -ENOTDIR ? -ENOENT : -EPERM;
    if (fd < 0)
        return -EPERM;
    struct stat target, wanted;
    if (fstat(found, &target) < 0 || fstat(fd, &wanted) < 0)
        return -errno;
    return target.st_dev == wanted.st_dev && target.st_ino == wanted.st_ino ? 0 : -EPERM;
}

static bool is_marked(int store)
{
    struct stat st;
    _cleanup_close_ int marker = -1;
    if (blobs_open_regular(store, STORE_MARKER, O_RDONLY | O_NONBLOCK, &marker, &st) < 0)
        return false;
    char version[sizeof STORE_VERSION];
    const size_t len = sizeof STORE_VERSION - 1;
    return read(marker, version, sizeof version) == (ssize_t) len && memcmp(version, STORE_VERSION, len) == 0;
}

// Opens the directory of the shared store that `xet_hash` belongs into. No part of the store may be a link. -EPERM when
// it is not marked as one.
static int open_prefix(int cache, const char *xet_hash, int *ret_fd)
{
    const int flags = O_PATH | O_DIRECTORY;
    _cleanup_close_ int store = -1;
    int r = beneath_open(cache, STORE_DIR, flags, &store);
    if (r == 0 && !is_marked(store))
        r = -EPERM;
    if (r == 0)
        r = beneath_open(store, (const char[]){ xet_hash[0], xet_hash[1], '\0' }, flags, ret_fd);
    return r == -ENOTDIR ? -EPERM : r;
}

int blobs_open_shared(int cache, const char *xet_hash, int flags, int *ret_fd, struct stat *ret_stat)
{
    if (!names_xet_ok(xet_hash))
        return -ENOENT;
    _cleanup_close_ int prefix = -1;
    int r = open_prefix(cache, xet_hash, &prefix);
    if (r < 0)
        return r == -EPERM ? -ENOENT : r;
    return blobs_open_regular(prefix, xet_hash, flags, ret_fd, ret_stat);
}

// Opens what a link with the text `dir`/`base`, read in `at`, points at, if that is an entry of the shared store.
static int open_linked_shared(int cache, int at, const char *dir, const char *base, int flags, int *ret_fd,
                              struct stat *ret_stat)
{
    if (!names_xet_ok(base))
        return -EPERM;
    _cleanup_close_ int prefix = -1;
    int r = open_prefix(cache, base, &prefix);
    if (r < 0 && r != -ENOENT)
        return r;
    r = leads_to(at, dir, prefix);
    return r < 0 ? r : blobs_open_regular(prefix, base, flags, ret_fd, ret_stat);
}

int blobs_open(int cache, int blobs, const char *etag, int flags, int *ret_fd, struct stat *ret_stat)
{
    if (!names_etag_ok(etag))
        return -EPERM;
    int r = blobs_open_regular(blobs, etag, flags, ret_fd, ret_stat);
    if (r != -EPERM)
        return r;
    char dir[PATH_MAX];
    char base[NAME_MAX + 1];
    r = read_target(blobs, etag, dir, base);
    if (r < 0)
        return r == -EINVAL ? -EPERM : r;
    return open_linked_shared(cache, blobs, dir, base, flags, ret_fd, ret_stat);
}

int blobs_open_link(int cache, int blobs, int dir_fd, const char *name, int flags, int *ret_fd, struct stat *ret_stat,
                    char ret_etag[NAMES_ETAG_SIZE])
{
    ret_etag[0] = '\0';
    char dir[PATH_MAX];
    char base[NAME_MAX + 1];
    int r = read_target(dir_fd, name, dir, base);
    if (r < 0)
        return r;
    r = leads_to(dir_fd, dir, blobs);
    if (r == 0) {
        if (!names_etag_ok(base))
            return -EPERM;
        stpcpy(ret_etag, base);
        return blobs_open(cache, blobs, base, flags, ret_fd, ret_stat);
    }
    if (r == -EPERM)
        return open_linked_shared(cache, dir_fd, dir, base, flags, ret_fd, ret_stat);
    if (r != -ENOENT)
        return r;
    // Into nowhere. Only what looks as if it meant a blob is called missing: nobody shall learn here which other paths
    // exist.
    const char *slash = strrchr(dir, '/');
    if (strcmp(slash ? slash + 1 : dir, "blobs") != 0 || !names_etag_ok(base))
        return -EPERM;
    stpcpy(ret_etag, base);
    return -ENOENT;
}
