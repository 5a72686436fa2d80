// SPDX-License-Identifier: Apache-2.0
// The lock that huggingface_hub takes while it downloads a blob: flock(2) on `.locks/<repo folder>/<etag>.lock`, as its
// filelock library does it (utils/_fixes.py, WeakFileLock). The file stays when the lock is given up.
#ifndef CACHE_HUBLOCK_H
#define CACHE_HUBLOCK_H

#include "cache/owned.h"

// Takes the lock, waiting up to `timeout_ms` for whoever holds it. *ret_fd is to be closed, or -1 where the file system
// has no such locks: the library's cache does not depend on it. 0, -EAGAIN when it is still held, -EROFS, -EACCES,
// -errno.
int hublock_take(const struct owned *owned, const char *folder, const char *etag, int timeout_ms, int *ret_fd);

#endif
