// SPDX-License-Identifier: Apache-2.0
// Reads `trees/<commit>.json`, the list of a commit's files, value by value in bounded memory.
// Format: huggingface_hub (>= 1.22) _tree_cache.py, format_version 1.
#ifndef CACHE_TREE_H
#define CACHE_TREE_H

#include "cache/names.h"

#include <stddef.h>
#include <stdint.h>

struct tree_file {
    const char *path; // well formed (names_path_ok), NUL-terminated
    size_t path_len;
    int64_t size;                  // bytes, 0 to 2^53
    char etag[NAMES_ETAG_SIZE];    // lfs_sha256 where there is one, else blob_id
    char blob_id[NAMES_GIT_SIZE];  // of an LFS file git's id of its pointer, "" if unknown; "" for others
    char xet_hash[NAMES_XET_SIZE]; // "" if none
};

// Returns 0 to go on; anything else stops the reading and is returned by it.
typedef int tree_file_fn(void *userdata, const struct tree_file *file);

// Reads the JSON at `fd` from its start to its end and calls `fn` for each file in the order of the text. Duplicate
// paths are the caller's to see. A file is all or nothing: when this fails, what `fn` was given must be thrown away.
// 0; -EBADMSG when it is not JSON, not this format, or a path, size or hash in it is not well formed (ret_error, at
// least 256 bytes, then says what); -E2BIG for one entry over 1 MiB; -ENOMEM; -errno of read.
int tree_read(int fd, tree_file_fn *fn, void *userdata, char ret_error[256]);

#endif
