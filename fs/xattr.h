// SPDX-License-Identifier: Apache-2.0
// user.modelmount.{repo,commit,etag,state} of files, with -o xattr.
#ifndef FS_XATTR_H
#define FS_XATTR_H

#include "fs/fs.h"

void xattr_get(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void xattr_list(fuse_req_t req, fuse_ino_t ino, size_t size);

#endif
