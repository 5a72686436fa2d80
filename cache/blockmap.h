// SPDX-License-Identifier: Apache-2.0
// Which blocks of a blob are there. No I/O, and no lock: the caller has one.
#ifndef CACHE_BLOCKMAP_H
#define CACHE_BLOCKMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// 64 KiB: half of the kernel's default readahead, so a far page fault costs little more than it wants, while at that
// size the round trip, not the bytes, is what it waits for; and the map of a 100 GB blob is 190 KB, small enough to be
// written whole with every batch.
#define BLOCKMAP_BLOCK 65536

struct blockmap {
    int64_t size;                // bytes of the blob
    int64_t present;             // bytes in blocks that are there
    unsigned char *bits;         // a bit for each block, the lowest of the first byte for block 0
    size_t len;                  // bytes in `bits`
    struct blockmap_fill *fills; // blocks of which some bytes are there, by number
    size_t fill_count, fill_room;
};

// All blocks absent. 0 or -ENOMEM.
int blockmap_init(struct blockmap *map, int64_t size);
void blockmap_free(struct blockmap *map);
void blockmap_clear(struct blockmap *map);

// Takes over `bits` as they were saved. False, with nothing changed, if those cannot be of a blob of this size.
bool blockmap_load(struct blockmap *map, const unsigned char *bits, size_t len);

// The bytes from `offset` to `offset + len` (within the blob) have come. A block is there once all its bytes are.
// -ENOMEM when that could not be noted: blocks that would have been incomplete are then absent. 0 otherwise.
int blockmap_add(struct blockmap *map, int64_t offset, int64_t len);

// Whether all of a range is there; what reaches over the blob's end is not looked at.
bool blockmap_has(const struct blockmap *map, int64_t offset, int64_t len);

// The first run of absent blocks that a range touches: bytes from *ret_from up to *ret_to, ends of blocks or the blob's
// end, so it may begin before the range and end behind it. False if there is none.
bool blockmap_missing(const struct blockmap *map, int64_t offset, int64_t len, int64_t *ret_from, int64_t *ret_to);

#endif
