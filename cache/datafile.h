// SPDX-License-Identifier: Apache-2.0
// The file that a partial blob's bytes are in: locked, and known again. For partial.c alone.
#ifndef CACHE_DATAFILE_H
#define CACHE_DATAFILE_H

#include "cache/index_partial.h"

#include <stdbool.h>
#include <sys/stat.h>

// Whether the lock (F_OFD_SETLK) on a data file is ours now. Also where locks don't work.
bool datafile_lock(int fd);

// Whether `name` in a directory still is what `st` describes.
bool datafile_is_named(int dir_fd, const char *name, const struct stat *st);

// What a row of the index must say to vouch for an open file; and whether it does.
struct index_partial datafile_identity(int fd, const struct stat *st);
bool datafile_same(const struct index_partial *a, const struct index_partial *b);

// Makes a file of `size` bytes without a name. 0 or -errno.
int datafile_unnamed(int dir_fd, int64_t size, int *ret_fd);

// Whether `name` is one that datafile_unnamed() could not take away because it was killed.
bool datafile_is_leftover(const char *name);

#endif
