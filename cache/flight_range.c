// SPDX-License-Identifier: Apache-2.0
// Which range of a blob is to be fetched next.
#include "cache/fetch_blob.h"
#include "cache/util.h"

#define PIECE_MIN ((int64_t) 1024 * 1024) // of what is fetched ahead: a round trip for less is not worth it
#define PIECE_MAX ((int64_t) 16 * 1024 * 1024)
#define FULL_AHEAD ((int64_t) 4 * 1024 * 1024) // when nothing can be kept, no more than this lies about in memory
#define FOLLOW_MS 4000 // how long another process's partial may stand still before we fetch for ourselves

// The first stretch of a range that is neither there nor under way. The blob's lock is held.
static bool find_gap(struct blob *blob, int64_t from, int64_t to, int64_t *ret_from, int64_t *ret_to)
{
    while (from < to) {
        int64_t a = from, b = to;
        if (blob->fd >= 0)
            return false;
        // On disk? From block to block, so that what is asked for begins and ends at their edges.
        if (blob->partial) {
            if (!partial_missing(blob->partial, from, to - from, &a, &b))
                return false;
        } else {
            a = from / BLOCKMAP_BLOCK * BLOCKMAP_BLOCK;
            b = (to + BLOCKMAP_BLOCK - 1) / BLOCKMAP_BLOCK * BLOCKMAP_BLOCK;
            b = b < blob->size ? b : blob->size;
        }
        // Under way, or in memory alone?
        bool moved = true;
        while (moved && a < b) {
            moved = false;
            for (const struct flight *f = blob->flights; f; f = f->next) {
                if (a >= f->from && a < f->to) {
                    a = f->to;
                    moved = true;
                }
            }
            for (const struct chunk *c = blob->chunks; c; c = c->next) {
                if (c->unkept && a >= c->offset && a < c->offset + (int64_t) c->filled) {
                    a = c->offset + (int64_t) c->filled;
                    moved = true;
                }
            }
        }
        if (a < b && a < to) {
            for (const struct flight *f = blob->flights; f; f = f->next)
                if (f->from > a && f->from < b)
                    b = f->from;
            for (const struct chunk *c = blob->chunks; c; c = c->next)
                if (c->unkept && c->offset > a && c->offset < b)
                    b = c->offset;
            *ret_from = a;
            *ret_to = b;
            return true;
        }
        from = a > from ? a : b;
    }
    return false;
}

// Whether it is for this process to fetch: another one may be at it.
static bool may_fetch(struct blob *blob, int64_t now)
{
    if (!blob->partial || partial_is_owner(blob->partial))
        return true;
    return blob->progress_ms != 0 && now - blob->progress_ms > FOLLOW_MS;
}

// What somebody waits for: the one who has waited longest is last in the list.
static bool find_demand(struct blob *blob, int64_t *ret_from, int64_t *ret_to)
{
    bool found = false;
    for (const struct answer *a = blob->waiters; a; a = a->next) {
        int64_t from = a->need_from, to = a->need_to, first = a->read->offset;
        // The bytes of the read itself first; then what comes with it, as long as it is one request.
        int64_t gap_from, gap_to;
        if (!find_gap(blob, first, first + (int64_t) a->read->len, &gap_from, &gap_to))
            continue;
        found = true;
        *ret_from = gap_from;
        *ret_to = gap_to;
        if (gap_to < to && find_gap(blob, gap_to, to, &from, &to) && from == gap_to)
            *ret_to = to;
    }
    return found;
}

static bool find_ahead(struct blob *blob, int64_t *ret_from, int64_t *ret_to)
{
    struct fetch *fetch = blob->fetch;
    if (util_now_ms() < blob->failed_until)
        return false;
    for (const struct fetch_reader *reader = blob->readers; reader; reader = reader->next) {
        int64_t from = reader->ahead_from, to = reader->ahead_to;
        if (keep_disk_full(fetch) && to - reader->plan.next > FULL_AHEAD)
            to = reader->plan.next + FULL_AHEAD;
        if (from >= to || !find_gap(blob, from, to, ret_from, ret_to))
            continue;
        // The more is left the larger the pieces, so that all connections end at about the same time.
        int64_t piece = (to - *ret_from) * 2 / ((int64_t) 3 * fetch->options.connections);
        piece = piece < PIECE_MIN ? PIECE_MIN : piece > PIECE_MAX ? PIECE_MAX : piece;
        piece = (piece + CHUNK - 1) / CHUNK * CHUNK;
        if (*ret_to - *ret_from > piece + PIECE_MIN / 2)
            *ret_to = (*ret_from + piece) / CHUNK * CHUNK;
        return true;
    }
    return false;
}

bool flight_range(struct blob *blob, enum urgency urgency, int64_t *ret_from, int64_t *ret_to)
{
    UTIL_LOCKED(&blob->lock);
    if (blob->broken < 0 || (blob->small && blob->verified) || !may_fetch(blob, util_now_ms()))
        return false;
    if (!(urgency == DEMAND ? find_demand(blob, ret_from, ret_to) : find_ahead(blob, ret_from, ret_to)))
        return false;
    if (blob->small || blob->no_ranges) { // all or nothing
        if (blob->flights)
            return false;
        *ret_from = 0;
        *ret_to = blob->size;
    }
    return *ret_from < *ret_to;
}
