// SPDX-License-Identifier: Apache-2.0
// A mount of one repo: its root is a directory of one commit, found when it is mounted.
#ifndef FS_ROOT_H
#define FS_ROOT_H

#include "fs/fs.h"

struct root;

// Finds the commit and the folder that options->uri means, asking the Hub; waits. 0, or -errno with the message
// written.
int root_open(struct fs *fs);
void root_free(struct root *root);

const struct repo *root_repo(const struct root *root);
const char *root_commit(const struct root *root);

// The nodeid that `ino` stands for: that of the directory if it is the root of such a mount, else itself. 0 when that
// cannot be found any more.
fuse_ino_t root_node(struct fs *fs, fuse_ino_t ino);

#endif
