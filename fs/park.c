// SPDX-License-Identifier: Apache-2.0
#include "fs/park.h"

#include "cache/pool.h"
#include "cache/util.h"
#include "fs/dir.h"

#include <errno.h>
#include <string.h>

#define THREADS 2

// Whoever takes `req` first, the answer or the interrupt, answers it.
struct parked {
    struct remote_waiter waiter; // first
    struct pool_work again, cancel;
    struct fs *fs;
    fuse_req_t req;
    atomic_flag taken, cancelled;
    atomic_int references;
    fuse_ino_t ino;
    void (*op)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi); // NULL: a look-up of `name`
    struct fuse_file_info fi;
    char name[];
};

int park_start(struct fs *fs)
{
    return pool_new("parked", THREADS, &fs->park);
}

void park_stop(struct fs *fs)
{
    pool_stop(fs->park);
}

void park_free(struct fs *fs)
{
    pool_free(fs->park);
    fs->park = NULL;
}

static void parked_unref(struct parked *p)
{
    if (--p->references == 0)
        free(p);
}

static void run_again(struct pool_work *work)
{
    struct parked *p = (struct parked *) (void *) ((char *) work - offsetof(struct parked, again));
    if (!atomic_flag_test_and_set(&p->taken)) {
        fuse_req_interrupt_func(p->req, NULL, NULL); // not called from here on
        if (p->op)
            p->op(p->req, p->ino, &p->fi);
        else
            dir_lookup(p->req, p->ino, p->name);
    }
    parked_unref(p);
}

static void run_cancel(struct pool_work *work)
{
    struct parked *p = (struct parked *) (void *) ((char *) work - offsetof(struct parked, cancel));
    if (!atomic_flag_test_and_set(&p->taken)) {
        fuse_req_interrupt_func(p->req, NULL, NULL);
        fuse_reply_err(p->req, EINTR);
    }
    parked_unref(p);
}

static void answered(struct remote_waiter *waiter)
{
    struct parked *p = (struct parked *) (void *) waiter;
    p->again.fn = run_again;
    if (pool_add(p->fs->park, &p->again, false))
        return;
    // The mount ends; a worker was about to park this.
    if (!atomic_flag_test_and_set(&p->taken)) {
        fuse_req_interrupt_func(p->req, NULL, NULL);
        fuse_reply_err(p->req, EIO);
    }
    parked_unref(p);
}

// Called with a lock of libfuse's held: the answer comes from another thread.
static void interrupted(fuse_req_t req, void *userdata)
{
    (void) req;
    struct parked *p = userdata;
    if (atomic_flag_test_and_set(&p->cancelled))
        return;
    p->references++;
    p->cancel.fn = run_cancel;
    if (!pool_add(p->fs->park, &p->cancel, true))
        p->references--; // the mount ends: the answer is on its way
}

static void park(fuse_req_t req, fuse_ino_t ino, const char *name, const struct fuse_file_info *fi, uint64_t seen,
                 void (*op)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi))
{
    struct fs *fs = fs_of(req);
    size_t size = strlen(name) + 1;
    struct parked *p = calloc(1, sizeof *p + size);
    if (!p) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    p->waiter.fn = answered;
    p->fs = fs;
    p->req = req;
    p->references = 2; // the waiter's, and ours until it waits
    p->ino = ino;
    p->op = op;
    if (fi)
        p->fi = *fi;
    memcpy(p->name, name, size);
    fuse_req_interrupt_func(req, interrupted, p);
    store_wait(fs->store, seen, &p->waiter);
    parked_unref(p);
}

void park_lookup(fuse_req_t req, fuse_ino_t parent, const char *name, uint64_t seen)
{
    park(req, parent, name, NULL, seen, NULL);
}

void park_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, uint64_t seen,
               void (*op)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi))
{
    park(req, ino, "", fi, seen, op);
}
