// SPDX-License-Identifier: Apache-2.0
// One blob of the hub cache: in a repo's `blobs`, in the store that all repos share, or where a snapshot's link says.
//
// `cache` and `blobs` are descriptors of those directories (O_PATH is enough), `flags` those of open(2): to read, or
// O_PATH to look only; O_CLOEXEC and O_NOFOLLOW are added. All return 0 and a regular file, -EPERM when what is there
// is something else or ends elsewhere, -ENOENT, -errno.
#ifndef CACHE_BLOBS_H
#define CACHE_BLOBS_H

#include "cache/names.h"

#include <sys/stat.h>

// `name` in the directory `dir_fd`, itself and not what it may link to.
int blobs_open_regular(int dir_fd, const char *name, int flags, int *ret_fd, struct stat *ret_stat);

// 0 if `fd` is a regular file, else -EPERM.
int blobs_check_regular(int fd, struct stat *ret_stat);

// `etag` in `blobs`: a regular file, or a link into the shared store.
int blobs_open(int cache, int blobs, const char *etag, int flags, int *ret_fd, struct stat *ret_stat);

// The shared store's entry `xet_hash`. -ENOENT also when the store is not marked as one.
int blobs_open_shared(int cache, const char *xet_hash, int flags, int *ret_fd, struct stat *ret_stat);

// What the link `name` in the directory `dir_fd` ends in, if that is `blobs` (-1 if there is none) or the shared store.
// ret_etag is the blob's name as far as the link tells it, "" if not; it is also set on -ENOENT. -EINVAL when `name` is
// no link.
int blobs_open_link(int cache, int blobs, int dir_fd, const char *name, int flags, int *ret_fd, struct stat *ret_stat,
                    char ret_etag[NAMES_ETAG_SIZE]);

#endif
