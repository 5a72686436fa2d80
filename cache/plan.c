// SPDX-License-Identifier: Apache-2.0
#include "cache/plan.h"

#include "cache/blockmap.h"

#include <assert.h>
#include <limits.h>

#define MIB ((int64_t) 1024 * 1024)

// Less than a block cannot be kept, so no range begins or ends within one.
#define GRAIN BLOCKMAP_BLOCK
// The kernel sends what it reads ahead, 128 KiB each, on several threads: this many bytes to either side of where a
// reader should go on are still the same stream.
#define NEAR MIB
// One request of a sequential reader, up to the next multiple. Who only looks at a file's beginning pays this much.
#define STRIDE MIB
// One request after a jump: a round trip of 50 ms at 20 MB/s is worth 1 MB, but who jumps at random mostly wants a
// page.
#define JUMP_MIN ((int64_t) 256 * 1024)
// How much in sequence makes a reader sequential: more than headers and magic numbers are.
#define RUN_MIN (2 * MIB) // who wants the first MiB of a file gets no more than what the kernel's readahead touches
// What a sequential reader is given ahead: this much, or AHEAD_RUNS times of what it has read if that is more. So what
// was fetched for nothing when it stops grows with what was not.
#define AHEAD_MIN (4 * MIB)
#define AHEAD_RUNS 4
// A run this long ends at the end of the file.
#define RUN_WHOLE (32 * MIB)
// Of a part, from the read on: tensors reach into gigabytes, and the next jump may be elsewhere.
#define PART_AHEAD (64 * MIB)
// Who has jumped this often and asked for a 1/WHOLE_SHARE of the file is loading all of it, in an order of its own.
#define WHOLE_JUMPS 3
#define WHOLE_SHARE 4

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t down(int64_t offset, int64_t unit)
{
    return offset - offset % unit;
}

// No further than `size`, and without overflow on the way there.
static int64_t forward(int64_t offset, int64_t bytes, int64_t size)
{
    return bytes < size - offset ? offset + bytes : size;
}

static int64_t up(int64_t offset, int64_t unit, int64_t size)
{
    int64_t over = offset % unit;
    return over ? forward(offset, unit - over, size) : offset;
}

// Notes a read that ends at `end`. A run is as long as it has got further: neither a page read twice nor the order in
// which the kernel's requests come counts.
static void note(struct plan_reader *reader, bool jump, int64_t size, int64_t end, int64_t len)
{
    reader->total = forward(min64(reader->total, size), len, size);
    if (jump) {
        reader->jumps += reader->jumps < INT_MAX;
        reader->run = len;
        reader->next = end;
    } else if (end > reader->next) {
        reader->run += end - reader->next;
        reader->next = end;
    }
}

struct plan_want plan_read(struct plan_reader *reader, const struct plan_map *map, int64_t size, int64_t offset,
                           int64_t len)
{
    assert(offset >= 0 && len >= 0 && offset <= size);
    len = min64(len, size - offset);
    if (len == 0)
        return (struct plan_want){ 0 };

    int64_t end = offset + len;
    int64_t away = offset - reader->next;
    int64_t run = reader->run + min64(away, 0); // up to this read, not with it or with what overtook it
    bool jump = away < -NEAR || away > NEAR;
    note(reader, jump, size, end, len);
    bool much = reader->total >= size / WHOLE_SHARE;

    struct plan_want want = { .need_from = down(offset, GRAIN) };
    if (jump)
        want.need_to = max64(up(end, GRAIN, size), forward(want.need_from, JUMP_MIN, size));
    else
        want.need_to = up(end, STRIDE, size);

    int64_t part_from, part_to;
    want.ahead_from = want.ahead_to = want.need_to;
    if (much && reader->jumps >= WHOLE_JUMPS) {
        want.ahead_to = size;
        if (want.need_to == size) {
            want.ahead_from = 0;
            want.ahead_to = want.need_from;
        }
    } else if (jump) {
        if (map && plan_map_part(map, offset, &part_from, &part_to))
            want.ahead_to = max64(want.need_to, up(min64(part_to, forward(offset, PART_AHEAD, size)), GRAIN, size));
    } else if (run >= RUN_WHOLE || (run >= RUN_MIN && much)) {
        want.ahead_to = size;
    } else if (run >= RUN_MIN) {
        want.ahead_to = up(forward(want.need_to, max64(AHEAD_MIN, AHEAD_RUNS * run), size), GRAIN, size);
    }
    return want;
}
