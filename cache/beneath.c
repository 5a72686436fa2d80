// SPDX-License-Identifier: Apache-2.0
#include "cache/beneath.h"

#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LINKS_MAX 40 // as the kernel's own limit, path_resolution(7)

enum links { LINKS_NONE, LINKS_TRUSTED };

// The text of the link `name`, if it may be followed. -ENOTDIR when it is no link. The owner that is asked for is that
// of the very link which is read, since both go through one descriptor.
static int read_link(int dir_fd, const char *name, enum links links, char ret_target[PATH_MAX])
{
    _cleanup_close_ int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISLNK(st.st_mode))
        return -ENOTDIR;
    if (links == LINKS_NONE || (st.st_uid != 0 && st.st_uid != geteuid()))
        return -EPERM;
    ssize_t n = readlinkat(fd, "", ret_target, PATH_MAX);
    if (n < 0)
        return -errno;
    if (n == 0 || n == PATH_MAX)
        return n == 0 ? -ENOENT : -ENAMETOOLONG;
    ret_target[n] = '\0';
    return 0;
}

static bool is_link(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISLNK(st.st_mode);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

// The next component of `*rest`, and moves that behind it and the slashes that follow. -ENAMETOOLONG.
static int next_component(const char **rest, char ret_name[NAME_MAX + 1])
{
    size_t n = strcspn(*rest, "/");
    if (n > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(ret_name, *rest, n);
    ret_name[n] = '\0';
    *rest += n;
    *rest += strspn(*rest, "/");
    return 0;
}

// Opens `path` below `dir_fd` component by component.
static int walk(int dir_fd, const char *path, enum links links, int flags, int *ret_fd)
{
    char buffers[2][2 * PATH_MAX]; // what is still to go after a link, in turns
    char target[PATH_MAX];
    char name[NAME_MAX + 1];
    int followed = 0;
    _cleanup_close_ int at = -1; // the directory reached; while it is -1, `dir_fd`
    for (;;) {
        int r = next_component(&path, name);
        if (r < 0)
            return r;
        if (links == LINKS_NONE && (is_dots(name) || *name == '\0'))
            return -EPERM;
        int parent = at < 0 ? dir_fd : at;
        int how = *path ? O_PATH | O_DIRECTORY : flags;
        int fd = openat(parent, *name ? name : ".", how | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0) {
            util_close_p(&at);
            at = fd;
            if (*path)
                continue;
            if (is_link(at)) // O_PATH can open one
                return -EPERM;
            *ret_fd = util_take_fd(&at);
            return 0;
        }
        if (errno != ELOOP && errno != ENOTDIR)
            return -errno;
        r = read_link(parent, name, links, target);
        if (r < 0)
            return r;
        char *buffer = buffers[followed % 2];
        if (++followed > LINKS_MAX)
            return -ELOOP;
        int len = snprintf(buffer, sizeof buffers[0], "%s/%s", target + strspn(target, "/"), path);
        if (len < 0 || (size_t) len >= sizeof buffers[0])
            return -ENAMETOOLONG;
        path = buffer + strspn(buffer, "/");
        if (target[0] == '/') {
            util_close_p(&at);
            at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
            if (at < 0)
                return -errno;
        }
    }
}

int beneath_open(int dir_fd, const char *path, int flags, int *ret_fd)
{
    struct open_how how = {
        .flags = (unsigned) (flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
    if (fd >= 0) {
        *ret_fd = (int) fd;
        return 0;
    }
    switch (errno) {
    case ELOOP:
    case EXDEV:
        return -EPERM;
    case ENOSYS:       // before Linux 5.6
    case EPERM:        // seccomp in a container
    case ENAMETOOLONG: // more than PATH_MAX in all
        return walk(dir_fd, path, LINKS_NONE, flags, ret_fd);
    default:
        return -errno;
    }
}

int beneath_open_trusted(int dir_fd, const char *name, int flags, int *ret_fd)
{
    return walk(dir_fd, name, LINKS_TRUSTED, flags | O_DIRECTORY, ret_fd);
}

int beneath_open_same_mount(int at, const char *path, int *ret_fd)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                            .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS };
    long fd = syscall(SYS_openat2, at, path, &how, sizeof how);
    if (fd < 0)
        return errno == EPERM ? -ENOSYS : -errno;
    *ret_fd = (int) fd;
    return 0;
}
