// SPDX-License-Identifier: Apache-2.0
// Writes `trees/<commit>.json`, the list of a commit's files, byte for byte as huggingface_hub (>= 1.22) does:
// _tree_cache.py, format_version 1, json.dump(indent=1) with paths sorted by code point and all but ASCII escaped.
#ifndef CACHE_TREE_WRITE_H
#define CACHE_TREE_WRITE_H

#include <stdint.h>
#include <stdio.h>

struct tree_list;

// An empty list; NULL when memory is short. One thread at a time.
struct tree_list *tree_list_new(void);
void tree_list_free(struct tree_list *list);

// Adds a file, in any order; everything is copied. `etag` is the SHA-256 of an LFS file, whose pointer git calls
// `blob_id`, or git's own id of the file; `xet_hash` "" if none. NULL counts as "". Paths are bytes of file names: what
// is not UTF-8 is written as Python's os.fsdecode() has it. 0, -ENOMEM; -ENODATA for an LFS file whose `blob_id` is not
// known, or an etag that is neither: the list then cannot be written.
int tree_list_add(struct tree_list *list, const char *path, int64_t size, const char *etag, const char *blob_id,
                  const char *xet_hash);

// Sorts and writes the list. 0, or -errno of the stream, which the caller closes.
int tree_list_write(struct tree_list *list, FILE *out);

#endif
