// SPDX-License-Identifier: Apache-2.0
// The directories above the snapshots: what is in them, and what a name in them is.
#ifndef FS_PLACE_H
#define FS_PLACE_H

#include "fs/fs.h"

#define PLACE_CONTROL_NAME ".modelmount" // in every mount's root

// What `name` is in the place `parent`, looked up for the kernel: a place it learns of this way must be given back with
// inodes_forget() if the answer does not reach it. 0, -ENOENT, -ENETUNREACH (a revision of which nothing is here),
// -errno.
int place_lookup(struct fs *fs, const struct place *parent, const char *name, struct fuse_entry_param *ret_entry);

// The attributes of a place as they are now. 0, or -ENOENT when what it shows is gone.
int place_attr(struct fs *fs, const struct place *place, struct stat *ret_st);

// The names in a place, sorted by bytes.
struct place_names {
    struct place_name {
        char *name;
        mode_t type; // S_IFDIR or S_IFREG
    } * items;
    size_t count, room;
};
// 0 or -errno. The caller frees what is there in any case.
int place_list(struct fs *fs, const struct place *place, struct place_names *ret_names);
void place_names_free(struct place_names *names);

// The text of a place that is a file made by us (a ref, a miss, the status). The caller frees *ret_text. 0 or -errno.
int place_text(struct fs *fs, const struct place *place, char **ret_text, size_t *ret_len);

// Opens a place that is a file of the cache (trees/<commit>.json). 0 or -errno.
int place_open(struct fs *fs, const struct place *place, int *ret_fd);

#endif
