// SPDX-License-Identifier: Apache-2.0
// Partial blobs: those of which some bytes are on disk. Each is a sparse data file `<state dir>/partial/<etag>` and a
// map of its blocks (BLOCKMAP_BLOCK bytes, the last one shorter) in the index. Whoever holds the lock on the data file
// (F_OFD_SETLK) fetches it and alone writes the map; others on the same state dir follow what the map says. Where locks
// don't work, everybody is the owner: bytes may come twice, never wrong.
//
// A block enters the index only after its bytes are on stable storage (fdatasync, then commit), and a row vouches only
// for the data file it names by device, inode, size and time of birth. So `kill -9` or a power cut loses the last batch
// and never claims a byte that is not there. A map without its data file, or the reverse, is thrown away.
//
// Where the index is in memory nothing would survive anyway: the data files then have no name, no lock and no row.
//
// Thread-safe. Locks, in this order; none of them is held for another partial's sake while waiting for the disk:
//   a partial's `work`     one opening, sync, refresh or end of it at a time; held during its fdatasync
//   the index's
//   the partials' `lock`   the list of partials and their references; a leaf
//   a partial's `lock`     its map and flags; a leaf, never held during I/O
#ifndef CACHE_PARTIAL_H
#define CACHE_PARTIAL_H

#include "cache/blockmap.h"
#include "cache/index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct partials;
struct partial;

// Opens the partial blobs of a state dir, which must exist, and throws away what cannot be used, unless another process
// has it locked. `state_dir` NULL: data files have no name and lie in $TMPDIR or /var/tmp. `index` stays the caller's
// and must outlive the result. Files belong to the state dir's owner, when this is root. 0, -ENOMEM, -errno.
int partials_open(const char *state_dir, struct index *index, struct partials **ret_partials);
// All partials must have been released.
void partials_close(struct partials *partials);

// A file of `size` bytes without a name, in the same place. 0 or -errno.
int partials_unnamed(struct partials *partials, int64_t size, int *ret_fd);

// How many bytes of a blob the index says are there; 0 if it knows nothing of it.
int64_t partials_present(struct partials *partials, const char *etag, int64_t size);

// The partial blob of an etag, made if there is none; there is one struct per etag in the process, counted. `etag` must
// name the content: whose etags do not (a mirror's), the caller makes them unique. 0; -EINVAL when the etag is not well
// formed, or is known with another size; -EUCLEAN of the index; -errno (-ENOSPC, -EROFS, -EACCES: go on without
// keeping).
int partial_acquire(struct partials *partials, const char *etag, int64_t size, struct partial **ret_partial);
// Gives a reference back; the last one syncs and lets the lock fall. NULL is allowed.
void partial_release(struct partial *p);

// Whether it is for this process to fetch.
bool partial_is_owner(struct partial *p);

// What a follower calls from time to time: takes the lock over if it has fallen, and reads the map again. 1: owner now
// (or was before), 0: still a follower, -ESTALE: the data file is gone, since its blob was published or thrown away:
// all is absent, release it and look again. -EUCLEAN, -ENOMEM.
int partial_refresh(struct partial *p);

int64_t partial_size(const struct partial *p);
// For reading what partial_has() says is there; good until the release.
int partial_fd(const struct partial *p);

// Whether all bytes of a range are there, in this process's knowledge: of an owner also those not yet synced. What
// reaches over the blob's end is not looked at.
bool partial_has(struct partial *p, int64_t offset, int64_t len);
bool partial_whole(struct partial *p);
int64_t partial_present_bytes(struct partial *p);

// The first run of absent blocks that a range touches: bytes from *ret_from up to *ret_to, on the edges of blocks or
// the blob's end, so it may begin before the range and end behind it. False if there is none. A block of which only
// some bytes are there counts as absent as a whole.
bool partial_missing(struct partial *p, int64_t offset, int64_t len, int64_t *ret_from, int64_t *ret_to);

// Writes bytes of the blob, within its size. A block is there once all its bytes have been written, by however many
// calls and in any order. After an error nothing of this call counts as written. 0; -ENOSPC (a quota too); -ESTALE when
// it was discarded; -EBUSY for a follower; -EINVAL for a range outside of the blob; -errno.
int partial_write(struct partial *p, int64_t offset, const void *buf, size_t len);

// Brings the blocks that are there to stable storage and into the index. What is written while this runs is left for
// the next time. 0, also when there is nothing to do; -EIO when the disk lost what was written: all of it since the
// last sync is absent again; -ENOSPC; -EUCLEAN of the index: the next call tries again; -ESTALE when it was discarded.
int partial_sync(struct partial *p);

// The bytes are not what they should be: the map goes, then the data file. All is absent, nothing more can be written;
// acquire it anew to start over. 0, -EBUSY for a follower (then only this process forgets it), -EUCLEAN.
int partial_discard(struct partial *p);

// The blob is in the hub cache: row and name go. Who holds it reads on; the next to acquire it gets a new one. 0,
// -EUCLEAN.
int partial_published(struct partial *p);

#endif
