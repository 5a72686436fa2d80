// SPDX-License-Identifier: Apache-2.0
// The index's part on partial blobs: which blocks of a data file are on stable storage. One row for each blob, written
// by whoever holds the lock on the data file (partial.h). Thread-safe, as all of index.h is. Errors: -ENOMEM, -EUCLEAN
// (see index_forget()).
#ifndef CACHE_INDEX_PARTIAL_H
#define CACHE_INDEX_PARTIAL_H

#include "cache/index.h"

#include <stddef.h>
#include <stdint.h>

// What a row vouches for: this very data file and no other, whatever its name. `born` is its time of birth in ns (0
// where the file system keeps none), since inode numbers are given again.
struct index_partial {
    int64_t size;  // bytes of the whole blob
    int64_t block; // bytes of a block
    int64_t device, inode, born;
};

// The row of a blob, and its map: a bit for each block, the lowest of the first byte for block 0. The caller frees
// *ret_map. 0, -ENOENT.
int index_partial_load(struct index *index, const char *etag, struct index_partial *ret_row, unsigned char **ret_map,
                       size_t *ret_len);

// Puts the row, in place of an older one. A power cut may undo it.
int index_partial_save(struct index *index, const char *etag, const struct index_partial *row, const unsigned char *map,
                       size_t len);

// Drops the row, if there is one. When this returns 0, not even a power cut brings it back.
int index_partial_drop(struct index *index, const char *etag);

// The first etag after `after` ("" for the very first) that has a row. 0, -ENOENT at the end.
int index_partial_next(struct index *index, const char *after, char ret_etag[NAMES_ETAG_SIZE]);

#endif
