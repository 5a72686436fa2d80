// SPDX-License-Identifier: Apache-2.0
// FUSE passthrough: the kernel reads a whole blob's file itself, without us. Linux >= 6.9, libfuse >= 3.17 and
// CAP_SYS_ADMIN; found out when built, at INIT and at the first open.
#ifndef FS_PASSTHROUGH_H
#define FS_PASSTHROUGH_H

#include "fs/fs.h"

// Asks for it, if everything needed seems to be there; sets fs->passthrough. From the init operation only.
void passthrough_init(struct fs *fs, struct fuse_conn_info *conn);

// A backing id for `fd`, or 0 if it can't be had. `fd` may be closed afterwards.
int passthrough_open(struct fs *fs, fuse_req_t req, int fd);
void passthrough_close(struct fs *fs, int backing_id);

// In words: why it is not in use, and what to do about it. Both "" when it is in use.
void passthrough_explain(const struct fs *fs, const char **ret_reason, const char **ret_advice);

#endif
