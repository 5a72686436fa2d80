// SPDX-License-Identifier: Apache-2.0
#include "cache/owned.h"

#include "cache/beneath.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

// The process's umask. umask(2) can only be read by changing it for all threads.
static mode_t current_umask(void)
{
    unsigned mask = 022;
    char line[128];
    _cleanup_fclose_ FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (strncmp(line, "Umask:", 6) == 0) {
            mask = (unsigned) strtoul(line + 6, NULL, 8);
            break;
        }
    return mask & 0777;
}

// Both calls report no error: what they answer to an impossible id is the one in use.
static bool act_as(uid_t uid, gid_t gid)
{
    setfsgid(gid);
    setfsuid(uid);
    return (uid_t) setfsuid((uid_t) -1) == uid && (gid_t) setfsgid((gid_t) -1) == gid;
}

static void act_as_oneself(void)
{
    setfsuid(geteuid());
    setfsgid(getegid());
}

// As the owner of `fd`, if this is root.
static void take_on(struct owned *o, const struct stat *st)
{
    o->uid = st->st_uid;
    o->gid = st->st_gid;
    if (geteuid() != 0 || st->st_uid == 0)
        return;
    o->switched = act_as(st->st_uid, st->st_gid);
    if (!o->switched)
        act_as_oneself();
}

// Makes the cache directory and its missing parents, as the owner of the nearest one that is there.
static int make_cache(struct owned *o, const char *path)
{
    char part[PATH_MAX];
    if (path[0] != '/' || strlen(path) >= sizeof part)
        return path[0] != '/' ? -EINVAL : -ENAMETOOLONG;
    int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    for (const char *s = path + strspn(path, "/"); at >= 0 && *s; s += strspn(s, "/")) {
        size_t len = strcspn(s, "/");
        snprintf(part, sizeof part, "%.*s", (int) len, s);
        s += len;
        _cleanup_close_ int parent = at;
        at = openat(parent, part, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (at >= 0 || errno != ENOENT)
            continue;
        if (!o->switched && fstat(parent, &st) == 0)
            take_on(o, &st);
        if (mkdirat(parent, part, 0777 & ~current_umask()) < 0 && errno != EEXIST)
            return -errno;
        at = openat(parent, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (at < 0)
        return -errno;
    _cleanup_close_ int cache = at;
    o->cache_fd = openat(cache, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return o->cache_fd < 0 ? -errno : 0;
}

int owned_begin(struct owned *o, const char *path)
{
    *o = (struct owned){ .cache_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
    int error = o->cache_fd >= 0 ? 0 : errno != ENOENT ? -errno : make_cache(o, path);
    struct stat st;
    if (error == 0 && fstat(o->cache_fd, &st) < 0)
        error = -errno;
    if (error < 0) {
        owned_end(o);
        return error;
    }
    if (!o->switched)
        take_on(o, &st);
    o->device = st.st_dev;
    o->dir_mode = st.st_mode & (S_ISGID | S_ISVTX | 0777);
    o->file_mode = st.st_mode & 0666;
    return 0;
}

void owned_end(struct owned *o)
{
    if (o->switched)
        act_as_oneself();
    util_close_p(&o->cache_fd);
}

// Owner and mode of what this thread has made. The group is the cache's where the user may give it away.
static int settle(const struct owned *o, int fd, mode_t mode)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_gid != o->gid && fchown(fd, (uid_t) -1, o->gid) < 0 && errno != EPERM)
        return -errno;
    if ((st.st_mode & 07777) == mode || fchmod(fd, mode) == 0)
        return 0;
    return -errno;
}

int owned_give(const struct owned *o, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_uid != o->uid) {
        if (o->switched)
            act_as_oneself();
        int error = geteuid() != 0 ? -EPERM : fchown(fd, o->uid, o->gid) < 0 ? -errno : 0;
        if (o->switched)
            act_as(o->uid, o->gid);
        if (error < 0)
            return error;
    }
    return settle(o, fd, o->file_mode);
}

int owned_dir(const struct owned *o, int at, const char *name, bool trusted, int *ret_fd, bool *ret_made)
{
    bool made = mkdirat(at, name, o->dir_mode & 0777) == 0;
    if (!made && errno != EEXIST) {
        // A read-only file system says so before it looks whether the directory is there.
        int why = errno;
        struct stat st;
        if (why != EROFS || fstatat(at, name, &st, 0) < 0)
            return -why;
    }
    _cleanup_close_ int fd = -1;
    int error = trusted && !made ? beneath_open_trusted(at, name, O_RDONLY, &fd)
                                 : beneath_open(at, name, O_RDONLY | O_DIRECTORY, &fd);
    if (error == 0 && made)
        error = settle(o, fd, o->dir_mode);
    if (error < 0)
        return error;
    if (ret_made)
        *ret_made = made;
    *ret_fd = util_take_fd(&fd);
    return 0;
}

int owned_parents(const struct owned *o, int at, const char *path, int *ret_fd, const char **ret_name)
{
    _cleanup_close_ int dir = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    const char *slash;
    while ((slash = strchr(path, '/'))) {
        char name[NAME_MAX + 1];
        if (slash - path > NAME_MAX)
            return -ENAMETOOLONG;
        snprintf(name, sizeof name, "%.*s", (int) (slash - path), path);
        int next;
        int error = owned_dir(o, dir, name, false, &next, NULL);
        if (error < 0)
            return error;
        close(dir);
        dir = next;
        path = slash + 1;
    }
    *ret_name = path;
    *ret_fd = util_take_fd(&dir);
    return 0;
}

int owned_file(const struct owned *o, int at, const char *name, mode_t mode, int *ret_fd)
{
    _cleanup_close_ int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    int error = settle(o, fd, mode);
    if (error < 0) {
        unlinkat(at, name, 0);
        return error;
    }
    *ret_fd = util_take_fd(&fd);
    return 0;
}

int owned_symlink(const struct owned *o, const char *target, int at, const char *name)
{
    if (symlinkat(target, at, name) < 0)
        return -errno;
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_gid != o->gid)
        (void) !fchownat(at, name, (uid_t) -1, o->gid, AT_SYMLINK_NOFOLLOW); // where the user may give it away
    return 0;
}
