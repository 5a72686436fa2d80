// SPDX-License-Identifier: Apache-2.0
// The cache directory that a mount shows: which one it is and whether it can be shown.
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include <stdbool.h>

// `path` made absolute, links in it left alone; it need not exist. The caller frees it. NULL without memory.
char *source_absolute(const char *path);

// Finds the cache (`source`, or the default when it is NULL), which must not overlap the real path `mountpoint`
// (unless that is NULL).
// *ret_cache is absolute, the caller frees it. 0, or EXIT_FAILURE with the message written.
int source_find(const char *source, const char *mountpoint, char **ret_cache);

// Whether `cache` can be read. That it is missing or empty is no error, and said if `notes`. 0, or EXIT_FAILURE with
// the message written.
int source_check(const char *cache, bool notes);

#endif
