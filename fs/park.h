// SPDX-License-Identifier: Apache-2.0
// Requests that wait for an answer of the Hub. No worker waits with them: they are set aside, and begun anew by a
// thread of the park's once the Hub has said something.
#ifndef FS_PARK_H
#define FS_PARK_H

#include "fs/fs.h"

// 0, -ENOMEM, -errno of the threads.
int park_start(struct fs *fs);
// After store_stop(), which calls all that wait.
void park_stop(struct fs *fs);
// When no worker is left.
void park_free(struct fs *fs);

// Sets a request aside that was answered with -EINPROGRESS, `seen` being store_answers() before it was tried. It is
// answered with EINTR when it is interrupted.
void park_lookup(fuse_req_t req, fuse_ino_t parent, const char *name, uint64_t seen);

// The same for open and opendir: `op` is called again with a copy of `fi`.
void park_open(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi, uint64_t seen,
               void (*op)(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi));

#endif
