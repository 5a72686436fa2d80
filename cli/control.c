// SPDX-License-Identifier: Apache-2.0
#include "cli/control.h"

#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#define PID_MS 5000     // for the answer
#define STATUS_MS 60000 // the same
#define REAP_MS 1000    // for the end of who waited in vain

#define ANSWER_MAX (1 << 20) // bytes

static int become(const struct mount *mount)
{
    if (geteuid() != 0 || mount->uid == 0 || mount->uid == (uid_t) -1)
        return 0;
    if (setgroups(0, NULL) < 0 || setresgid(mount->gid, mount->gid, mount->gid) < 0 ||
        setresuid(mount->uid, mount->uid, mount->uid) < 0)
        return -errno;
    return 0;
}

// Opens and copies .modelmount/`name` to `out` after one int, the error. In a process of its own: a daemon that hangs
// holds up whoever reads from it, beyond any signal.
static int copy_file(const struct mount *mount, const char *name, int out)
{
    int error = become(mount);
    _cleanup_free_ char *path = NULL;
    if (error == 0 && asprintf(&path, "%s/.modelmount/%s", mount->mountpoint, name) < 0)
        error = -ENOMEM;
    _cleanup_close_ int fd = -1;
    if (error == 0) {
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            error = -errno;
    }
    if (write(out, &error, sizeof error) != (ssize_t) sizeof error || error < 0)
        return EXIT_FAILURE;
    char buffer[4096];
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, (size_t) n) != n)
            return EXIT_FAILURE;
    return n < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

// Reads all of `fd` until its end or `deadline` (util_now_ms()).
static int read_until(int fd, int64_t deadline, char *buffer, size_t size, size_t *ret_len)
{
    size_t len = 0;
    while (len < size) {
        int64_t left = deadline - util_now_ms();
        struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
        int ready = left > 0 ? poll(&poll_fd, 1, (int) left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            return -errno;
        if (ready == 0)
            return -ETIMEDOUT;
        ssize_t n = read(fd, buffer + len, size - len);
        if (n < 0)
            return -errno;
        if (n == 0) {
            *ret_len = len;
            return 0;
        }
        len += (size_t) n;
    }
    return -EFBIG;
}

static int receive(int fd, int wait_ms, char **ret_text)
{
    _cleanup_free_ char *buffer = malloc(ANSWER_MAX);
    if (!buffer)
        return -ENOMEM;
    size_t len = 0;
    int r = read_until(fd, util_now_ms() + wait_ms, buffer, ANSWER_MAX, &len);
    if (r < 0)
        return r;
    int error;
    if (len < sizeof error)
        return -EIO;
    memcpy(&error, buffer, sizeof error);
    if (error < 0)
        return error;
    char *text = strndup(buffer + sizeof error, len - sizeof error);
    if (!text)
        return -ENOMEM;
    *ret_text = text;
    return 0;
}

// Ends the child that reads. One that the daemon holds in the middle of a request cannot be killed nor waited for; it
// is left to init.
static void end_reader(pid_t child)
{
    kill(child, SIGKILL);
    int64_t deadline = util_now_ms() + REAP_MS;
    while (waitpid(child, NULL, WNOHANG) == 0 && util_now_ms() < deadline)
        usleep(1000);
}

static int ask(const struct mount *mount, const char *name, int wait_ms, char **ret_text)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        _exit(copy_file(mount, name, ends[1]));
    }
    int r = child < 0 ? -errno : 0;
    close(ends[1]);
    if (r == 0)
        r = receive(ends[0], wait_ms, ret_text);
    close(ends[0]);
    if (child > 0)
        end_reader(child);
    return r;
}

int control_pid(const struct mount *mount, pid_t *ret_pid)
{
    _cleanup_free_ char *text = NULL;
    int r = ask(mount, "pid", PID_MS, &text);
    if (r < 0)
        return r;
    int pid = atoi(text);
    if (pid <= 0)
        return -EBADMSG;
    *ret_pid = pid;
    return 0;
}

int control_read(const struct mount *mount, char **ret_text)
{
    // Whether it answers at all is known sooner.
    pid_t pid;
    int r = control_pid(mount, &pid);
    return r < 0 ? r : ask(mount, "status", STATUS_MS, ret_text);
}

int control_status(const struct mount *mount, cJSON **ret_status)
{
    _cleanup_free_ char *text = NULL;
    int r = control_read(mount, &text);
    if (r < 0)
        return r;
    cJSON *status = cJSON_Parse(text);
    if (!cJSON_IsObject(status)) {
        cJSON_Delete(status);
        return -EBADMSG;
    }
    *ret_status = status;
    return 0;
}
