// SPDX-License-Identifier: Apache-2.0
#include "cache/blockmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RUNS 8
#define FILLS_MAX 4096

// Which bytes of one block have come: runs that do not touch, in no order.
struct blockmap_fill {
    int64_t block;
    unsigned count;
    struct run {
        uint32_t from, to;
    } runs[RUNS];
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t blocks_of(int64_t size)
{
    return size / BLOCKMAP_BLOCK + (size % BLOCKMAP_BLOCK != 0);
}

static int64_t block_bytes(const struct blockmap *m, int64_t block)
{
    return min64(BLOCKMAP_BLOCK, m->size - block * BLOCKMAP_BLOCK);
}

static bool bit(const struct blockmap *m, int64_t block)
{
    return m->bits[block / 8] >> (block % 8) & 1;
}

int blockmap_init(struct blockmap *m, int64_t size)
{
    assert(size >= 0);
    size_t len = (size_t) (blocks_of(size) + 7) / 8;
    *m = (struct blockmap){ .size = size, .len = len, .bits = calloc(len + 1, 1) };
    return m->bits ? 0 : -ENOMEM;
}

void blockmap_free(struct blockmap *m)
{
    free(m->bits);
    free(m->fills);
    *m = (struct blockmap){ 0 };
}

void blockmap_clear(struct blockmap *m)
{
    memset(m->bits, 0, m->len);
    m->present = 0;
    m->fill_count = 0;
}

bool blockmap_load(struct blockmap *m, const unsigned char *bits, size_t len)
{
    int64_t blocks = blocks_of(m->size);
    if (len != m->len || (blocks % 8 != 0 && bits[len - 1] >> (blocks % 8) != 0))
        return false;
    blockmap_clear(m);
    memcpy(m->bits, bits, len);
    for (int64_t block = 0; block < blocks; block++)
        if (bit(m, block))
            m->present += block_bytes(m, block);
    return true;
}

// --- blocks that come in pieces

// Where the fill of `block` is, or would have to be.
static size_t fill_find(const struct blockmap *m, int64_t block)
{
    size_t low = 0, high = m->fill_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->fills[middle].block < block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void fill_drop(struct blockmap *m, size_t at)
{
    m->fill_count--;
    memmove(&m->fills[at], &m->fills[at + 1], (m->fill_count - at) * sizeof *m->fills);
}

static struct blockmap_fill *fill_make(struct blockmap *m, int64_t block, size_t at)
{
    if (m->fill_count == FILLS_MAX) { // left by ranges that were given up; they will come again
        fill_drop(m, 0);
        at -= at > 0;
    }
    if (m->fill_count == m->fill_room) {
        size_t room = m->fill_room ? m->fill_room * 2 : 16;
        struct blockmap_fill *fills = reallocarray(m->fills, room, sizeof *fills);
        if (!fills)
            return NULL;
        m->fills = fills;
        m->fill_room = room;
    }
    memmove(&m->fills[at + 1], &m->fills[at], (m->fill_count - at) * sizeof *m->fills);
    m->fill_count++;
    m->fills[at] = (struct blockmap_fill){ .block = block };
    return &m->fills[at];
}

// Adds a run, joined with those that it touches. More than RUNS: what was known is forgotten, to come again.
static struct run fill_add(struct blockmap_fill *f, struct run new)
{
    for (unsigned i = 0; i < f->count;) {
        if (f->runs[i].to < new.from || f->runs[i].from > new.to) {
            i++;
            continue;
        }
        if (f->runs[i].from < new.from)
            new.from = f->runs[i].from;
        if (f->runs[i].to > new.to)
            new.to = f->runs[i].to;
        f->runs[i] = f->runs[--f->count];
    }
    if (f->count == RUNS)
        f->count = 0;
    f->runs[f->count++] = new;
    return new;
}

static int add_to_block(struct blockmap *m, int64_t block, struct run run)
{
    if (bit(m, block))
        return 0;
    int64_t bytes = block_bytes(m, block);
    size_t at = fill_find(m, block);
    bool known = at < m->fill_count && m->fills[at].block == block;
    if (run.from > 0 || run.to < bytes) {
        struct blockmap_fill *f = known ? &m->fills[at] : fill_make(m, block, at);
        if (!f)
            return -ENOMEM;
        run = fill_add(f, run);
        if (run.from > 0 || run.to < bytes)
            return 0;
        known = true;
        at = (size_t) (f - m->fills);
    }
    if (known)
        fill_drop(m, at);
    m->bits[block / 8] |= (unsigned char) (1 << block % 8);
    m->present += bytes;
    return 0;
}

int blockmap_add(struct blockmap *m, int64_t offset, int64_t len)
{
    assert(offset >= 0 && len >= 0 && offset <= m->size && len <= m->size - offset);
    int error = 0;
    int64_t end = offset + len;
    while (offset < end) {
        int64_t block = offset / BLOCKMAP_BLOCK, start = block * BLOCKMAP_BLOCK;
        int64_t to = min64(end, start + BLOCKMAP_BLOCK);
        int failed = add_to_block(m, block, (struct run){ (uint32_t) (offset - start), (uint32_t) (to - start) });
        error = failed ? failed : error;
        offset = to;
    }
    return error;
}

// --- asking

// The first block from `block` up to `end` whose bit is `value`; `end` if there is none.
static int64_t next_block(const struct blockmap *m, int64_t block, int64_t end, bool value)
{
    unsigned char skip = value ? 0 : 0xff;
    while (block < end && bit(m, block) != value) {
        if (block % 8 == 0 && m->bits[block / 8] == skip)
            block += 8;
        else
            block++;
    }
    return min64(block, end);
}

// The blocks that a range touches, within the blob. False if it touches none.
static bool blocks_touched(const struct blockmap *m, int64_t offset, int64_t len, int64_t *ret_first, int64_t *ret_end)
{
    assert(offset >= 0 && len >= 0);
    if (offset >= m->size || len == 0)
        return false;
    *ret_first = offset / BLOCKMAP_BLOCK;
    *ret_end = blocks_of(offset + min64(len, m->size - offset));
    return true;
}

bool blockmap_has(const struct blockmap *m, int64_t offset, int64_t len)
{
    int64_t first, end;
    return !blocks_touched(m, offset, len, &first, &end) || next_block(m, first, end, false) == end;
}

bool blockmap_missing(const struct blockmap *m, int64_t offset, int64_t len, int64_t *ret_from, int64_t *ret_to)
{
    int64_t first, end;
    if (!blocks_touched(m, offset, len, &first, &end))
        return false;
    int64_t from = next_block(m, first, end, false);
    if (from == end)
        return false;
    *ret_from = from * BLOCKMAP_BLOCK;
    *ret_to = min64(next_block(m, from, end, true) * BLOCKMAP_BLOCK, m->size);
    return true;
}
