// SPDX-License-Identifier: Apache-2.0
#include "cli/fusermount.h"

#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#define PROGRAM "fusermount3"

bool fusermount_found(void)
{
    if (access("/usr/bin/" PROGRAM, X_OK) == 0)
        return true;
    const char *path = getenv("PATH");
    _cleanup_free_ char *copy = strdup(path ? path : "");
    char *rest = copy;
    for (char *dir; copy && (dir = strsep(&rest, ":"));) {
        _cleanup_free_ char *program = NULL;
        if (asprintf(&program, "%s/" PROGRAM, *dir ? dir : ".") >= 0 && access(program, X_OK) == 0)
            return true;
    }
    return false;
}

static void run(const char *mountpoint, bool lazy, int err)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(EXIT_FAILURE);
    execl("/usr/bin/" PROGRAM, PROGRAM, lazy ? "-uz" : "-u", "--", mountpoint, (char *) NULL);
    execlp(PROGRAM, PROGRAM, lazy ? "-uz" : "-u", "--", mountpoint, (char *) NULL);
    _exit(127);
}

// The first line on `fd`, cut to `size`; the rest is read and dropped.
static void first_line(int fd, char *message, size_t size)
{
    size_t len = 0;
    char buffer[512];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) {
        size_t more = (size_t) n < size - 1 - len ? (size_t) n : size - 1 - len;
        memcpy(message + len, buffer, more);
        len += more;
    }
    message[len] = '\0';
    message[strcspn(message, "\n")] = '\0';
}

static int unmount_as_user(const char *mountpoint, bool lazy, char ret_message[256])
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t child = fork();
    if (child == 0)
        run(mountpoint, lazy, ends[1]);
    int error = errno;
    close(ends[1]);
    if (child > 0)
        first_line(ends[0], ret_message, 256);
    close(ends[0]);
    if (child < 0)
        return -error;
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return -ENOENT;
    return strstr(ret_message, strerror(EBUSY)) ? -EBUSY : -EIO;
}

int fusermount_unmount(const char *mountpoint, bool lazy, char ret_message[256])
{
    ret_message[0] = '\0';
    if (geteuid() != 0)
        return unmount_as_user(mountpoint, lazy, ret_message);
    return umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
}
