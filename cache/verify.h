// SPDX-License-Identifier: Apache-2.0
// Whether a blob's bytes are those that its etag names: 64 hex digits are their SHA-256, 40 are git's SHA-1 of a blob
// ("blob <size>\0", then the bytes; gitformat-objects(5)). Other etags, as mirrors make them up, say nothing.
#ifndef CACHE_VERIFY_H
#define CACHE_VERIFY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct verify;

// Whether an etag names the bytes, so that they can be verified. Hex digits are lower case, as names_etag_ok() blobs of
// the Hub have them.
bool verify_possible(const char *etag);

// Begins the digest of a blob of `size` bytes. 0, -EOPNOTSUPP when the etag names no bytes, -ENOMEM.
int verify_new(const char *etag, int64_t size, struct verify **ret_verify);
// NULL is allowed.
void verify_free(struct verify *v);

// The next bytes, in order from the first. One thread at a time. 0, -EBADMSG for more bytes than the blob has, -EIO
// when libcrypto fails.
int verify_update(struct verify *v, const void *buf, size_t len);

// After the last byte, once. 0 when size and digest are right, else -EBADMSG; -EIO.
int verify_final(struct verify *v);

// All of it in one call for bytes in memory. 0, -EBADMSG, -EOPNOTSUPP, -EIO, -ENOMEM.
int verify_bytes(const char *etag, const void *buf, size_t len);

// The whole of a file, in steps of 1 MiB; other readers of it are not disturbed. It takes as long as SHA-256 does,
// about half a second per GB: for a thread that nobody waits for. `stop`, which may be NULL, is looked at between the
// steps. 0; -EBADMSG, also when the file's size is another; -EOPNOTSUPP; -ECANCELED; -EIO; -ENOMEM; -errno of pread.
int verify_fd(const char *etag, int64_t size, int fd, const atomic_bool *stop);

#endif
