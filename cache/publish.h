// SPDX-License-Identifier: Apache-2.0
// Puts a whole, verified blob into the hub cache as huggingface_hub (2.4, file_download.py) would have: names, links,
// texts and modes are the library's, owner and group the cache's (owned.h), and the library's own lock is held
// (hublock.h). The order is blob, snapshot link, list of files, ref, so that no moment and no failure leaves something
// that `hf cache` takes for damage. Thread-safe, also among processes.
#ifndef CACHE_PUBLISH_H
#define CACHE_PUBLISH_H

#include "cache/names.h"
#include "cache/tree_write.h"

#include <stdint.h>

// Adds every file of the commit with tree_list_add(); called at most once, from publish_file(), without a lock but the
// library's for this blob. 0 or -errno: the list is then not written.
typedef int publish_tree_fn(void *userdata, struct tree_list *list);

struct publish {
    const char *cache; // the hub cache's absolute path; made if it is not there
    const struct repo *repo;
    const char *commit;
    const char *path; // of the file in the commit
    const char *etag;
    int64_t size; // bytes
    int fd;       // the blob's bytes, whole and verified, nobody writing any more; -1: only if the cache has the blob
    const char *ref;       // the ref the commit was read through; NULL or the commit itself: none is written
    publish_tree_fn *tree; // NULL: not all files of the commit are known
    void *userdata;        // for `tree`
    int timeout_ms;        // how long to wait for somebody who downloads the same blob
};

// Publishes one file. On the cache's device the blob becomes a second name of `fd`'s file (link(2)), which from then on
// is the cache owner's and must never be written to again; else it is copied. A blob, link, list or ref that is there
// already is left as it is, except for a link that leads nowhere and a ref that points elsewhere.
//
// 0: blob and link are there; if list or ref could not be written as well, the log says why. Otherwise nothing was left
// behind but, maybe, the lock's file and empty directories below `snapshots`: -EAGAIN, the blob's lock is held by
// somebody else; -EEXIST, a blob of this name and of another size is there; -ENOENT, no blob and no `fd`; -ENOSPC;
// -EROFS, -EACCES; -EPERM, a link is in the way; -EINVAL, a name is not well formed or the file at `fd` has another
// size; -errno.
int publish_file(const struct publish *p);

#endif
