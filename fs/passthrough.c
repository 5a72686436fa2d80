// SPDX-License-Identifier: Apache-2.0
#include "fs/passthrough.h"

#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// Why it is off. One mount per process, set at INIT or by the first open that fails.
enum obstacle { NONE, SWITCHED_OFF, OLD_LIBFUSE, OLD_KERNEL, NO_RIGHT, REFUSED };
static _Atomic enum obstacle obstacle;

static const struct {
    const char *reason, *advice;
} EXPLANATIONS[] = {
    [NONE] = { "", "" },
    [SWITCHED_OFF] = { "switched off with -o nopassthrough", "mount without that option" },
    [OLD_LIBFUSE] = { "built with a libfuse before 3.17", "build with libfuse 3.17 or later (Debian 13, Fedora 42)" },
    [OLD_KERNEL] = { "the kernel has no FUSE passthrough", "use Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH" },
    [NO_RIGHT] = { "the process lacks CAP_SYS_ADMIN",
                   "mount as root, or give the program the right: setcap cap_sys_admin+ep $(which modelmount)" },
    [REFUSED] = { "the kernel refuses it for the cache's file system", "keep the cache on a plain local file system" },
};

void passthrough_explain(const struct fs *fs, const char **ret_reason, const char **ret_advice)
{
    (void) fs;
    *ret_reason = EXPLANATIONS[obstacle].reason;
    *ret_advice = EXPLANATIONS[obstacle].advice;
}

#ifdef FUSE_CAP_PASSTHROUGH

#include <linux/fuse.h>
#include <sys/ioctl.h>

// Whether CAP_SYS_ADMIN is in the effective set, from proc_pid_status(5).
static bool has_cap_sys_admin(void)
{
    _cleanup_fclose_ FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long effective;
        if (sscanf(line, "CapEff: %llx", &effective) == 1)
            return effective >> 21 & 1;
    }
    return false;
}

void passthrough_init(struct fs *fs, struct fuse_conn_info *conn)
{
    if (!fs->options->passthrough)
        obstacle = SWITCHED_OFF;
    else if (!(conn->capable & FUSE_CAP_PASSTHROUGH))
        obstacle = OLD_KERNEL;
    else if (!has_cap_sys_admin())
        obstacle = NO_RIGHT;
    if (obstacle != NONE)
        return;
    conn->want |= FUSE_CAP_PASSTHROUGH;
    conn->max_backing_stack_depth = layout_on_overlay(store_layout(fs->store)) ? 2 : 1;
    fs->passthrough = true;
}

int passthrough_open(struct fs *fs, fuse_req_t req, int fd)
{
    if (!fs->passthrough)
        return 0;
    errno = 0;
    int id = fuse_passthrough_open(req, fd);
    if (id > 0)
        return id;
    int error = errno;
    if (error == EMFILE || error == ENFILE || error == ENOMEM) // may be over soon
        return 0;
    obstacle = error == EPERM ? NO_RIGHT : REFUSED;
    fs->passthrough = false;
    log_warning("passthrough is not to be had, reads take the splice path: %s (%s)", EXPLANATIONS[obstacle].reason,
                strerror(error));
    return 0;
}

// Not by fuse_passthrough_close(), which wants a request: there is none left when an open could not be answered.
void passthrough_close(struct fs *fs, int backing_id)
{
    uint32_t id = (uint32_t) backing_id;
    if (backing_id > 0 && ioctl(fuse_session_fd(fs->session), FUSE_DEV_IOC_BACKING_CLOSE, &id) < 0)
        log_debug("closing backing id %d: %s", backing_id, strerror(errno));
}

#else

void passthrough_init(struct fs *fs, struct fuse_conn_info *conn)
{
    (void) conn;
    obstacle = fs->options->passthrough ? OLD_LIBFUSE : SWITCHED_OFF;
}

int passthrough_open(struct fs *fs, fuse_req_t req, int fd)
{
    (void) fs;
    (void) req;
    (void) fd;
    return 0;
}

void passthrough_close(struct fs *fs, int backing_id)
{
    (void) fs;
    (void) backing_id;
}

#endif
