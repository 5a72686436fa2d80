// SPDX-License-Identifier: Apache-2.0
#include "fs/notify.h"

#include "cache/log.h"
#include "cache/pool.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

struct notice {
    struct pool_work work; // first
    struct fs *fs;
    uint64_t nodeid;
};

int notify_start(struct fs *fs)
{
    return pool_new("notify", 1, &fs->notify);
}

void notify_stop(struct fs *fs)
{
    pool_stop(fs->notify);
}

void notify_free(struct fs *fs)
{
    pool_free(fs->notify);
    fs->notify = NULL;
}

static void notice_give(struct pool_work *work)
{
    struct notice *notice = (struct notice *) (void *) work;
    int error = fuse_lowlevel_notify_inval_inode(notice->fs->session, notice->nodeid, 0, 0);
    if (error < 0 && error != -ENOENT) // not known to the kernel: all the better
        log_debug("invalidating %llx: %s", (unsigned long long) notice->nodeid, strerror(-error));
    free(notice);
}

void notify_bad(void *userdata, uint64_t nodeid)
{
    struct fs *fs = userdata;
    struct notice *notice = nodeid != 0 && fs->notify ? calloc(1, sizeof *notice) : NULL;
    if (!notice)
        return;
    notice->work.fn = notice_give;
    notice->fs = fs;
    notice->nodeid = nodeid;
    if (!pool_add(fs->notify, &notice->work, false))
        free(notice);
}
