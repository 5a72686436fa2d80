// SPDX-License-Identifier: Apache-2.0
// The FUSE operations on files. Everybody who has the same file open shares one descriptor of its blob and one mode:
// passthrough (the kernel reads) or cached (we answer reads, the page cache keeps them); the kernel allows an inode
// only one of them at a time. A file that is not whole is in cached mode, and each open has a reader of its own: what
// is to be fetched next depends on who reads.
#ifndef FS_FILE_H
#define FS_FILE_H

#include "fs/fs.h"

// 0 or -ENOMEM.
int files_new(struct files **ret_files);
void files_free(struct files *files);

// How many files are open now (each once, however often).
int files_open(struct files *files);

void file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void file_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void file_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void file_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

#endif
