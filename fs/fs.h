// SPDX-License-Identifier: Apache-2.0
// What the parts of fs/ share: one struct for one mount, and which part does what.
#ifndef FS_FS_H
#define FS_FS_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)

#include "cache/store.h"
#include "fs/inode.h"
#include "fs/session.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

// Entries and attributes that can never change, and those that may.
#define FS_TIMEOUT_ENDLESS 1e9
#define FS_TIMEOUT_SHORT 0.5

struct files;
struct pool;
struct push;
struct root;

// What an open(2) or opendir(3) leads to; first in the structs of file.c and dir.c. An unmount may overtake a close:
// what is still in the list at the end is freed then.
struct fs_handle {
    struct fs_handle *prev, *next;
    void (*free)(struct fs_handle *handle);
};

struct fs {
    const struct session_options *options;
    struct store *store;
    struct inodes *inodes;
    struct files *files;
    struct push *push;
    struct fuse_session *session;
    struct pool *park;       // park.c
    struct pool *notify;     // notify.c
    struct root *root;       // of a mount of one repo, else NULL
    const char *cache_path;  // absolute
    const char *mountpoint;  // absolute
    atomic_bool passthrough; // may be tried; passthrough.c

    pthread_mutex_t handles_lock; // guards the list
    struct fs_handle *handles;
};

// Puts a handle into the list, and takes it out.
void fs_handle_add(struct fs *fs, struct fs_handle *handle, void (*free)(struct fs_handle *handle));
void fs_handle_remove(struct fs *fs, struct fs_handle *handle);

// The mount a request came from.
static inline struct fs *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

// Whether a request comes from a worker of this very process: a link in the cache has led it into our own mount. It
// must fail, since the worker may hold what the answer needs. Called first in every operation that a path can end in.
bool fs_is_own(fuse_req_t req);

#endif
