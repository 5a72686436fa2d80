// SPDX-License-Identifier: Apache-2.0
// The FUSE operations on names and directories.
#ifndef FS_DIR_H
#define FS_DIR_H

#include "fs/fs.h"

void dir_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void dir_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups);
void dir_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void dir_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void dir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void dir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void dir_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void dir_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

#endif
