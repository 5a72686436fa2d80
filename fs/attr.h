// SPDX-License-Identifier: Apache-2.0
// The attributes that stat(2) shows: the same on every machine and after every mount for the same commit.
#ifndef FS_ATTR_H
#define FS_ATTR_H

#include "fs/fs.h"

#include <sys/stat.h>

// Of a place. `size` for those that are files.
struct stat attr_place(const struct fs *fs, const struct place *place, int64_t size);

// Of an entry of a snapshot by its path in it. `view` is what it was entered by, and counts for directories only.
struct stat attr_entry(const struct fs *fs, const struct snapshot *snapshot, const struct view *view,
                       const struct entry *entry, const char *path);

#endif
