// SPDX-License-Identifier: Apache-2.0
// Brings the index up to what is on disk: the list of a commit's files, or, where there is none, one directory of a
// snapshot. The caller sees to it that a tree is scanned by one thread at a time.
#ifndef CACHE_SCAN_H
#define CACHE_SCAN_H

#include "cache/index.h"
#include "cache/layout.h"

// Reads trees/<commit>.json, unless `tree` says that it was read and has not changed since. Sets tree->complete. 0,
// also when there is no such file or it is not usable (one log line says why); -EUCLEAN, -ENOMEM.
int scan_tree(struct index *index, const struct layout *layout, const struct repo *repo, const char *commit,
              struct index_tree *tree);

// Reads one directory of an incomplete tree, if it has changed since it was read last. 0; -ENOENT when it is gone;
// -EUCLEAN; -errno.
int scan_dir(struct index *index, const struct layout *layout, const struct repo *repo, const char *commit,
             const struct index_tree *tree, uint32_t ordinal);

// A regular file in a snapshot (a cache without symlinks) has no etag; this takes its place, so that a file that was
// replaced or rewritten is another one.
void scan_identity(const struct stat *st, char ret_etag[NAMES_ETAG_SIZE]);
bool scan_is_identity(const char *etag);

#endif
