// SPDX-License-Identifier: Apache-2.0
#include "cli/mountpoint.h"

#include "cache/log.h"
#include "cache/util.h"
#include "cli/control.h"
#include "cli/fusermount.h"
#include "cli/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int check_device(void)
{
    _cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return 0;
    const char *advice = "start the container with --device /dev/fuse --cap-add SYS_ADMIN";
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        advice = "load the kernel's module (modprobe fuse), or start the container with --device /dev/fuse --cap-add "
                 "SYS_ADMIN";
    else if (errno == EACCES)
        advice = "let root open it to all, as is usual (chmod 666 /dev/fuse), or mount as root";
    log_error("/dev/fuse: %s: %s", strerror(errno), advice);
    return EXIT_FAILURE;
}

static int check_helper(void)
{
    if (geteuid() == 0 || fusermount_found())
        return 0;
    log_error("fusermount3: not found: without it only root can mount: install the package fuse3");
    return EXIT_FAILURE;
}

static int remove_dead(const char *path)
{
    char message[256];
    int r = fusermount_unmount(path, true, message);
    if (r == 0) {
        log_warning("note: %s: the mount of a modelmount that was killed was still there: "
                    "unmounted it",
                    path);
        return 0;
    }
    log_error("%s: a dead mount is there and cannot be unmounted: %s", path, *message ? message : strerror(-r));
    return EXIT_FAILURE;
}

static int check_mounted(const char *path)
{
    struct mount *mount;
    int r = mounts_find(path, &mount);
    if (r == -ENOENT)
        return 0;
    if (r < 0) {
        log_error("/proc/self/mountinfo: %s", strerror(-r));
        return EXIT_FAILURE;
    }
    if (mounts_is_ours(mount)) {
        pid_t pid;
        if (control_pid(mount, &pid) == -ENOTCONN) {
            r = remove_dead(path);
        } else {
            log_error("%s: %s is already mounted there: unmount it first: modelmount unmount %s", path, mount->source,
                      path);
            r = EXIT_FAILURE;
        }
    } else {
        r = 0;
    }
    mounts_free(mount, 1);
    return r;
}

static int check_empty(const char *path)
{
    _cleanup_closedir_ DIR *dir = opendir(path);
    if (!dir) {
        log_error("%s: %s", path, strerror(errno));
        return EXIT_FAILURE;
    }
    for (const struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            log_error("%s: not empty (there is %s): choose an empty directory, or hide what is in "
                      "it with -o nonempty",
                      path, entry->d_name);
            return EXIT_FAILURE;
        }
    return 0;
}

// What fusermount3 asks of others than root. It is asked here too, since a program with CAP_SYS_ADMIN as a file
// capability mounts without fusermount3.
static int check_owner(const char *path, const struct stat *st)
{
    if (geteuid() == 0)
        return 0;
    if (access(path, W_OK) < 0) {
        log_error("%s: you may not write there, so you may not mount there: choose a directory of "
                  "your own",
                  path);
        return EXIT_FAILURE;
    }
    if ((st->st_mode & S_ISVTX) && st->st_uid != getuid()) {
        log_error("%s: a shared directory (sticky) of another user: choose a directory of your own", path);
        return EXIT_FAILURE;
    }
    return 0;
}

static int check_directory(const char *path, bool nonempty)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        if (errno == ENOTCONN)
            log_error("%s: the dead mount of another program is there: umount -l %s", path, path);
        else
            log_error("%s: %s", path, strerror(errno));
        return EXIT_FAILURE;
    }
    if (!S_ISDIR(st.st_mode)) {
        log_error("%s: not a directory: only a directory can be a mountpoint", path);
        return EXIT_FAILURE;
    }
    int r = check_owner(path, &st);
    if (r == 0 && !nonempty)
        r = check_empty(path);
    return r;
}

int mountpoint_resolve(const char *path, char **ret_path)
{
    int r = mounts_resolve(path, ret_path);
    if (r == 0)
        return 0;
    struct stat st;
    if (r == -ENOENT && lstat(path, &st) == 0)
        log_error("%s: a link to something that does not exist", path);
    else if (r == -ENOENT)
        log_error("%s: no such directory: make it first: mkdir -p %s", path, path);
    else
        log_error("%s: %s", path, strerror(-r));
    return EXIT_FAILURE;
}

int mountpoint_check(const char *path, bool nonempty)
{
    int r = check_device();
    if (r == 0)
        r = check_helper();
    if (r == 0)
        r = check_mounted(path);
    if (r == 0)
        r = check_directory(path, nonempty);
    return r;
}
