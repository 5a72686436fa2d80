// SPDX-License-Identifier: Apache-2.0
// `modelmount unmount`: returns when the mount is gone and its process has ended.
#include "cache/log.h"
#include "cache/util.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/fusermount.h"
#include "cli/holders.h"
#include "cli/mounts.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>

#define WAIT_MS 10000     // for the daemon's end
#define WAIT_LAZY_MS 1000 // the same, where open files may keep it

static const char help[] = "Usage: modelmount unmount [--lazy] MOUNTPOINT\n"
                           "\n"
                           "Unmounts MOUNTPOINT and returns when the mount is gone and its process has ended.\n"
                           "\n"
                           "  --lazy      detach it even when it is in use: it disappears at once, and its process\n"
                           "              ends when the last file is closed\n"
                           "  -h, --help  print this\n";

static bool is_daemon(pid_t pid)
{
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int) pid);
    _cleanup_fclose_ FILE *file = fopen(path, "re");
    return file && fgets(name, sizeof name, file) && strncmp(name, "modelmount", 10) == 0;
}

// A descriptor that becomes readable when the mount's process ends, -1 when it is dead, does not answer, or lives where
// this process sees other pids.
static int open_daemon(const struct mount *mount, pid_t *ret_pid)
{
    pid_t pid;
    if (control_pid(mount, &pid) < 0)
        return -1;
    int fd = pidfd_open(pid, 0);
    if (fd >= 0 && !is_daemon(pid)) {
        close(fd);
        return -1;
    }
    *ret_pid = pid;
    return fd;
}

static bool still_mounted(const char *mountpoint)
{
    struct mount *mount;
    if (mounts_find(mountpoint, &mount) < 0)
        return false;
    bool ours = mounts_is_ours(mount);
    mounts_free(mount, 1);
    return ours;
}

static int wait_for_end(const struct mount *mount, int daemon, pid_t pid, bool lazy)
{
    struct pollfd poll_fd = { .fd = daemon, .events = POLLIN };
    int64_t deadline = util_now_ms() + (lazy ? WAIT_LAZY_MS : WAIT_MS);
    int ended = 0;
    while (ended <= 0 && util_now_ms() < deadline)
        ended = poll(&poll_fd, 1, (int) (deadline - util_now_ms()));
    if (ended > 0 || lazy)
        return EXIT_SUCCESS;
    log_error("%s: unmounted here, but its process %d has not ended after %d s: a container that was started meanwhile "
              "may still have the mount, or the disk hangs: end that, or the process: kill %d",
              mount->mountpoint, (int) pid, WAIT_MS / 1000, (int) pid);
    return EXIT_FAILURE;
}

static void say_busy(const struct mount *mount)
{
    char names[512];
    if (holders_find(mount->mountpoint, names, sizeof names))
        log_error("%s: busy: in use by %s: end that, or detach the mount and let it end when they "
                  "do: modelmount unmount --lazy %s",
                  mount->mountpoint, names, mount->mountpoint);
    else
        log_error("%s: busy: a program works in it: end that, or detach the mount and let it end "
                  "when the program does: modelmount unmount --lazy %s",
                  mount->mountpoint, mount->mountpoint);
}

static int unmount_ours(const struct mount *mount, bool lazy)
{
    pid_t pid = 0;
    _cleanup_close_ int daemon = open_daemon(mount, &pid);
    char message[256];
    int r = fusermount_unmount(mount->mountpoint, lazy, message);
    if (r == -EBUSY) {
        say_busy(mount);
        return EXIT_FAILURE;
    }
    if (r == -ENOENT && geteuid() != 0) {
        log_error("fusermount3: not found: without it only root can unmount: install the package "
                  "fuse3");
        return EXIT_FAILURE;
    }
    // A daemon that was told to stop unmounts too: whoever comes second finds nothing, and all is well.
    if (r < 0 && still_mounted(mount->mountpoint)) {
        log_error("%s: cannot unmount: %s", mount->mountpoint, *message ? message : strerror(-r));
        return EXIT_FAILURE;
    }
    return daemon >= 0 ? wait_for_end(mount, daemon, pid, lazy) : EXIT_SUCCESS;
}

static int check_ours(const struct mount *mount)
{
    if (!mounts_is_ours(mount)) {
        log_error("%s: not a modelmount mount but one of type %s: umount %s", mount->mountpoint, mount->type,
                  mount->mountpoint);
        return EXIT_FAILURE;
    }
    if (geteuid() != 0 && mount->uid != getuid()) {
        log_error("%s: mounted by uid %u: only that user and root can unmount it", mount->mountpoint,
                  (unsigned) mount->uid);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

int unmount_main(int argc, char **argv)
{
    int lazy = 0;
    const char *path;
    int r = arguments_parse(argc, argv, "lazy", help, &lazy, &path);
    if (r != 0)
        return r == 1 ? EXIT_SUCCESS : r;
    if (!path) {
        log_error("no mountpoint given: modelmount unmount --help says how");
        return EXIT_USAGE;
    }
    struct mount *mount;
    r = mounts_lookup(path, &mount);
    if (r < 0)
        return EXIT_FAILURE;
    r = check_ours(mount);
    if (r == EXIT_SUCCESS)
        r = unmount_ours(mount, lazy);
    mounts_free(mount, 1);
    return r;
}
