// SPDX-License-Identifier: Apache-2.0
// Reads: answered from the disk at once, or from memory or both as soon as all of their bytes are there.
#include "cache/fetch_blob.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

// --- what is there

// What has the byte at `at`: a chunk, or the disk (*ret_chunk NULL); and up to where. False if nothing has. The blob's
// lock is held.
static bool blob_there(struct blob *blob, int64_t at, struct chunk **ret_chunk, int64_t *ret_to)
{
    *ret_chunk = NULL;
    if (blob->fd >= 0) {
        *ret_to = blob->size;
        return true;
    }
    if (blob->small && !blob->verified)
        return false;
    for (struct chunk *chunk = blob->chunks; chunk; chunk = chunk->next) {
        if (at >= chunk->offset && at < chunk->offset + (int64_t) chunk->filled) {
            *ret_chunk = chunk;
            *ret_to = chunk->offset + (int64_t) chunk->filled;
            return true;
        }
    }
    if (!blob->partial || !partial_has(blob->partial, at, 1))
        return false;
    *ret_to = (at / BLOCKMAP_BLOCK + 1) * BLOCKMAP_BLOCK;
    return true;
}

static int blob_fd(const struct blob *blob)
{
    return blob->fd >= 0 ? blob->fd : partial_fd(blob->partial);
}

// Puts together the answer, if all of it is there. The blob's lock is held.
static bool answer_fill(struct answer *a)
{
    int64_t at = a->read->offset, end = at + (int64_t) a->read->len;
    int count = 0;
    int64_t disk = 0;
    for (int64_t to; at < end; at = to) {
        struct chunk *chunk;
        if (!blob_there(a->blob, at, &chunk, &to))
            return false;
        if (to > end)
            to = end;
        struct fetch_piece *last = count > 0 ? &a->pieces[count - 1] : NULL;
        if (!chunk)
            disk += to - at;
        if (!chunk && last && !last->mem) { // goes on where the last one ends
            last->len += (size_t) (to - at);
            continue;
        }
        if (count == a->most) { // chunks that end anywhere: of flights that were cut off again and again
            a->error = -EIO;
            return true;
        }
        a->chunks[count] = chunk;
        a->pieces[count++] = (struct fetch_piece){
            .mem = chunk ? chunk->data + (at - chunk->offset) : NULL,
            .fd = chunk ? -1 : blob_fd(a->blob),
            .offset = at,
            .len = (size_t) (to - at),
        };
    }
    a->count = count;
    for (int i = 0; i < count; i++)
        if (a->chunks[i])
            a->chunks[i]->references++;
    a->blob->fetch->disk_bytes += disk;
    if (!a->blob->verified)
        a->blob->tainted = true;
    return true;
}

// --- answers

static void answer_free(struct answer *a)
{
    for (int i = 0; i < a->count; i++)
        if (a->chunks[i])
            chunk_unref(a->chunks[i]);
    blob_unref(a->blob);
    free(a);
}

static void answer_give(struct pool_work *work)
{
    struct answer *a = (struct answer *) (void *) work;
    a->read->fn(a->read, a->error, a->pieces, a->error == 0 ? a->count : 0);
    answer_free(a);
}

static void answers_post(struct fetch *fetch, struct answer *list)
{
    while (list) {
        struct answer *next = list->next;
        fetch->waiting--;
        list->work.fn = answer_give;
        if (!pool_add(fetch->writers, &list->work, true))
            answer_give(&list->work);
        list = next;
    }
}

static struct answer *answer_new(struct blob *blob, struct fetch_read *read)
{
    size_t most = read->len / BLOCKMAP_BLOCK + 8;
    struct answer *a = calloc(1, sizeof *a + most * (sizeof *a->pieces + sizeof *a->chunks));
    if (!a)
        return NULL;
    a->pieces = (struct fetch_piece *) (void *) (a + 1);
    a->chunks = (struct chunk **) (void *) (a->pieces + most);
    a->most = (int) most;
    a->read = read;
    a->blob = blob;
    a->since_ms = util_now_ms();
    return a;
}

void blob_answer(struct blob *blob, int64_t from, int64_t to)
{
    struct answer *ready = NULL, **end = &ready;
    {
        UTIL_LOCKED(&blob->lock);
        for (struct answer **at = &blob->waiters; *at;) {
            struct answer *a = *at;
            int64_t first = a->read->offset, last = first + (int64_t) a->read->len;
            if (first < to && last > from && answer_fill(a)) {
                *at = a->next;
                a->next = NULL;
                *end = a;
                end = &a->next;
            } else {
                at = &a->next;
            }
        }
    }
    answers_post(blob->fetch, ready);
}

void blob_drop_waiters(struct blob *blob, bool (*gone)(const struct answer *a, const void *userdata),
                       const void *userdata, int error)
{
    struct answer *dropped = NULL;
    {
        UTIL_LOCKED(&blob->lock);
        for (struct answer **at = &blob->waiters; *at;) {
            struct answer *a = *at;
            if (!gone(a, userdata)) {
                at = &a->next;
                continue;
            }
            *at = a->next;
            a->error = error;
            a->next = dropped;
            dropped = a;
        }
    }
    answers_post(blob->fetch, dropped);
}

struct stretch {
    int64_t from, to;
};

static bool overlaps(const struct answer *a, const void *userdata)
{
    const struct stretch *s = userdata;
    return a->read->offset < s->to && a->read->offset + (int64_t) a->read->len > s->from;
}

void blob_fail(struct blob *blob, int64_t from, int64_t to, int error)
{
    struct stretch stretch = { .from = from, .to = to };
    blob_drop_waiters(blob, overlaps, &stretch, error);
}

// --- reads

// Whether a read can be answered from the disk alone. The blob's lock is held.
static bool on_disk(struct blob *blob, const struct fetch_read *read)
{
    if (blob->fd >= 0)
        return true;
    return blob->partial && (!blob->small || blob->verified) &&
           partial_has(blob->partial, read->offset, (int64_t) read->len);
}

// What the plan says. True if there is something new to be fetched ahead. The blob's lock is held.
static bool reader_plan(struct fetch_reader *reader, const struct fetch_read *read, struct answer *a)
{
    struct blob *blob = reader->blob;
    if (blob->small) {
        a->need_from = 0;
        a->need_to = blob->size;
        return false;
    }
    int jumps = reader->plan.jumps;
    struct plan_want want = plan_read(&reader->plan, blob->map, blob->size, read->offset, (int64_t) read->len);
    a->need_from = want.need_from;
    a->need_to = want.need_to;
    // Not for each read: when a megabyte more is wanted, or something else.
    bool grown = want.ahead_to > want.ahead_from &&
                 (want.ahead_to >= reader->ahead_to + (1 << 20) || want.ahead_from < reader->ahead_from ||
                  (want.ahead_to == blob->size && reader->ahead_to != blob->size));
    if (grown || reader->plan.jumps != jumps) { // else what is under way for it still is what it wants
        reader->ahead_from = want.ahead_from;
        reader->ahead_to = want.ahead_to;
    }
    return grown;
}

int fetch_read(struct fetch_reader *reader, struct fetch_read *read, int *ret_fd)
{
    struct blob *blob = reader->blob;
    struct fetch *fetch = blob->fetch;
    assert(read->len > 0 && read->offset >= 0 && (int64_t) read->len <= blob->size - read->offset);
    struct answer *a = answer_new(blob, read);
    if (!a)
        return -ENOMEM;
    blob_ref(blob); // the answer's
    bool ahead, filled = false;
    int result = -EINPROGRESS;
    {
        UTIL_LOCKED(&blob->lock);
        ahead = reader_plan(reader, read, a);
        a->reader = reader;
        if (blob->broken < 0 || fetch->stopping) {
            result = blob->broken < 0 ? blob->broken : -ECANCELED;
        } else if (on_disk(blob, read)) {
            *ret_fd = blob_fd(blob);
            fetch->disk_bytes += (long long) read->len;
            if (!blob->verified)
                blob->tainted = true;
            result = 0;
        } else if (answer_fill(a)) {
            filled = true;
            fetch->waiting++;
        } else {
            a->next = blob->waiters;
            blob->waiters = a;
            fetch->waiting++;
        }
    }
    bool waits = result == -EINPROGRESS && !filled;
    if (result != -EINPROGRESS)
        answer_free(a);
    if (filled)
        answers_post(fetch, a);
    if (waits || (ahead && result != -ECANCELED))
        flight_schedule(blob);
    if (waits)
        watch_wake(fetch);
    return result;
}

bool fetch_is_gone(int pid)
{
    if (pid <= 0)
        return false;
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    _cleanup_fclose_ FILE *file = fopen(path, "re");
    if (!file)
        return kill(pid, 0) < 0 && errno == ESRCH;
    char line[512];
    const char *end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    return end && strlen(end) > 2 && (end[2] == 'Z' || end[2] == 'X');
}

struct flush {
    const struct fetch_reader *reader;
    int pid;
};

static bool was_flushed(const struct answer *a, const void *userdata)
{
    const struct flush *f = userdata;
    return a->reader == f->reader && a->read->pid > 0 && (a->read->pid == f->pid || fetch_is_gone(a->read->pid));
}

void fetch_flush(struct fetch_reader *reader, int pid)
{
    struct flush flush = { .reader = reader, .pid = pid };
    blob_drop_waiters(reader->blob, was_flushed, &flush, -EINTR);
}
