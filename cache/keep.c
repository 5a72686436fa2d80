// SPDX-License-Identifier: Apache-2.0
// What becomes of bytes that have come: written to the partial blob, synced, hashed, published.
#include "cache/fetch_blob.h"
#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define HASH_STEP (1 << 20)     // bytes hashed at a time
#define HASH_FROM (8LL << 20)   // as soon as so much more is there in order
#define HASH_AT_END (4LL << 30) // what is whole is hashed to its end, though the program ends, if no more is left
#define MAP_STEP ((int64_t) 64 * 1024)
#define STRIKES_MAX 2

bool keep_disk_full(struct fetch *fetch)
{
    return util_now_ms() < fetch->full_until;
}

void keep_add(struct pool *pool, struct blob *blob, bool *waits, struct pool_work *work,
              void (*fn)(struct pool_work *work), bool urgent)
{
    {
        UTIL_LOCKED(&blob->lock);
        if (*waits)
            return;
        *waits = true;
    }
    blob_ref(blob);
    work->fn = fn;
    if (pool_add(pool, work, urgent))
        return;
    {
        UTIL_LOCKED(&blob->lock);
        *waits = false;
    }
    blob_unref(blob);
}

// --- writing

static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EFBIG || error == -EROFS;
}

// The file's own map, as soon as what it is read from is there.
static void read_map(struct blob *blob)
{
    struct partial *partial;
    {
        UTIL_LOCKED(&blob->lock);
        partial = blob->partial;
        if (blob->map_known || !partial)
            return;
    }
    int64_t need = MAP_STEP < blob->size ? MAP_STEP : blob->size;
    struct plan_map *map = NULL;
    for (int64_t len = 0; !map && need > len;) {
        len = need < blob->size ? need : blob->size;
        if (!partial_has(partial, 0, len))
            return; // the reader will want it, too
        _cleanup_free_ char *head = malloc((size_t) len);
        if (!head || pread(partial_fd(partial), head, (size_t) len, 0) != (ssize_t) len)
            return;
        map = plan_map_read(head, (size_t) len, blob->size, &need);
    }
    UTIL_LOCKED(&blob->lock);
    if (!blob->map_known)
        blob->map = util_take_ptr(map);
    blob->map_known = true;
    plan_map_free(map);
}

static void write_chunk(struct pool_work *work)
{
    struct chunk *chunk = (struct chunk *) (void *) work;
    struct blob *blob = chunk->blob;
    struct fetch *fetch = blob->fetch;
    struct partial *partial;
    size_t len;
    {
        UTIL_LOCKED(&blob->lock);
        partial = blob->partial;
        len = chunk->filled;
    }
    int error = -ENOSPC;
    bool tried = partial && !keep_disk_full(fetch);
    if (tried)
        error = partial_write(partial, chunk->offset, chunk->data, len);
    if (tried && is_full(error))
        fetch->full_until = util_now_ms() + KEEP_FULL_MS;
    bool listed = false, more, first = false;
    {
        UTIL_LOCKED(&blob->lock);
        if (error == 0) {
            struct chunk **at = &blob->chunks;
            while (*at && *at != chunk)
                at = &(*at)->next;
            listed = *at;
            if (listed)
                *at = chunk->next;
            blob->unsynced += (int64_t) len;
        } else {
            first = !chunk->unkept;
            if (first)
                chunk->used_ms = util_now_ms();
            chunk->unkept = true;
            chunk->again = false;
        }
        more = flight_landed(chunk);
    }
    if (first)
        fetch->unkept_bytes += (long long) len;
    int64_t offset = chunk->offset;
    if (listed)
        chunk_unref(chunk); // the list's
    chunk_unref(chunk);     // ours
    blob_answer(blob, offset, offset + (int64_t) len);
    if (error == 0) {
        read_map(blob);
        keep_hash(blob);
    }
    if (more)
        flight_schedule(blob);
    blob_unref(blob);
}

// One of those that the disk had no place for, with a reference; NULL if there is none that is not being written.
static struct chunk *unkept_take(struct blob *blob)
{
    UTIL_LOCKED(&blob->lock);
    bool any = blob->partial && partial_is_owner(blob->partial) && !blob->small && blob->broken == 0;
    for (struct chunk *chunk = any ? blob->chunks : NULL; chunk; chunk = chunk->next) {
        if (chunk->unkept && !chunk->again) {
            chunk->again = true;
            chunk->references++;
            return chunk;
        }
    }
    return NULL;
}

void keep_again(struct blob *blob)
{
    for (struct chunk *chunk; (chunk = unkept_take(blob));) {
        blob_ref(blob);
        chunk->work.fn = write_chunk;
        if (!pool_add(blob->fetch->writers, &chunk->work, false))
            write_chunk(&chunk->work);
    }
    bool small;
    {
        UTIL_LOCKED(&blob->lock);
        small = blob->small && blob->verified && !blob->kept && !blob->publish_waits && blob->chunks &&
                blob->chunks->unkept;
    }
    if (small)
        keep_publish(blob);
}

void keep_chunk(struct chunk *chunk)
{
    blob_ref(chunk->blob);
    chunk->references++;
    chunk->work.fn = write_chunk;
    if (!pool_add(chunk->blob->fetch->writers, &chunk->work, false))
        write_chunk(&chunk->work);
}

// Another one takes the place of a partial that was thrown away; those who read from it read on.
static void replace_partial(struct blob *blob, struct partial *old)
{
    struct partial *partial = NULL;
    partial_acquire(blob->fetch->partials, blob->etag, blob->size, &partial);
    {
        UTIL_LOCKED(&blob->lock);
        if (blob->partial == old) {
            if (blob->stale_count == STALE_MAX || !partial) {
                blob->broken = -EIO;
            } else {
                blob->stale[blob->stale_count++] = old;
                blob->partial = util_take_ptr(partial);
                blob->hash_anew = true;
            }
        }
    }
    partial_release(partial);
}

// --- small blobs: verified as one, before anything is given away

int keep_small_chunks(struct blob *blob, struct chunk *ret_chunks[SMALL_CHUNKS])
{
    UTIL_LOCKED(&blob->lock);
    int count = 0;
    for (int64_t at = 0; at < blob->size; at += (int64_t) ret_chunks[count++]->filled) {
        struct chunk *chunk = blob->chunks;
        while (chunk && (chunk->offset != at || chunk->filled == 0))
            chunk = chunk->next;
        if (!chunk || count == SMALL_CHUNKS)
            return -ESTALE;
        ret_chunks[count] = chunk;
    }
    for (int i = 0; i < count; i++)
        ret_chunks[i]->references++;
    return count;
}

static int verify_chunks(struct blob *blob)
{
    struct verify *verify;
    int error = verify_new(blob->etag, blob->size, &verify);
    if (error < 0)
        return error;
    struct chunk *chunks[SMALL_CHUNKS];
    int count = keep_small_chunks(blob, chunks);
    error = count < 0 ? count : 0;
    for (int i = 0; i < count; i++) {
        if (error == 0)
            error = verify_update(verify, chunks[i]->data, chunks[i]->filled);
        chunk_unref(chunks[i]);
    }
    if (error == 0)
        error = verify_final(verify);
    verify_free(verify);
    return error;
}

// What was left by a run before, *ret_left then, or has just come.
static int verify_small(struct blob *blob, struct partial **ret_left)
{
    *ret_left = NULL;
    {
        UTIL_LOCKED(&blob->lock);
        if (!blob->chunks && blob->size > 0 && blob->partial && partial_whole(blob->partial))
            *ret_left = blob->partial;
    }
    return *ret_left ? verify_fd(blob->etag, blob->size, partial_fd(*ret_left), NULL) : verify_chunks(blob);
}

// Ends the flight that has brought a small blob. The blob's lock is held.
static void small_landed(struct blob *blob)
{
    struct flight **at = &blob->flights;
    while (*at) {
        struct flight *flight = *at;
        if (!flight->over) {
            at = &flight->next;
            continue;
        }
        *at = flight->next;
        free(flight);
    }
}

static void small_work(struct pool_work *work)
{
    struct blob *blob = KEEP_BLOB(work, small_work);
    struct fetch *fetch = blob->fetch;
    struct partial *left;
    bool again = false;
    {
        UTIL_LOCKED(&blob->lock);
        blob->small_waits = false;
    }
    int error = verify_small(blob, &left);
    if (error < 0 && left) {
        log_error("partial/%s: damaged on the disk: fetching it once more", blob->etag);
        partial_discard(left);
        replace_partial(blob, left);
        flight_schedule(blob); // it may be under way already
        blob_unref(blob);
        return;
    }
    {
        UTIL_LOCKED(&blob->lock);
        small_landed(blob);
        if (error == 0) {
            blob->verified = true;
        } else {
            again = ++blob->strikes < STRIKES_MAX;
            blob_drop_chunks(blob);
        }
    }
    if (error == 0) {
        blob_answer(blob, 0, blob->size);
        keep_publish(blob);
    } else {
        _cleanup_free_ char *name = blob_name(blob);
        char text[512];
        snprintf(text, sizeof text, "%s: the bytes that came are not those of its hash%s", name ? name : "?",
                 again ? "; fetching them once more" : ": nothing of it is kept");
        log_error("%s", text);
        fetch_note(fetch, text);
        fetch->errors++;
        if (!again) {
            blob_fail(blob, 0, blob->size, -EIO);
            blob_drop_ahead(blob);
        }
        flight_schedule(blob);
    }
    blob_unref(blob);
}

void keep_small(struct blob *blob)
{
    keep_add(blob->fetch->writers, blob, &blob->small_waits, &blob->small_work, small_work, true);
}

// --- hashing

// How far the bytes are there from `at` on, in order, as far as it is worth looking.
static int64_t there_to(struct partial *partial, int64_t at, int64_t size)
{
    int64_t from, to;
    if (at >= size)
        return size;
    return partial_missing(partial, at, size - at, &from, &to) ? (from > at ? from : at) : size;
}

// Bytes of it that were given away are wrong, or may be.
static void tell_bad(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    const struct link *link;
    {
        UTIL_LOCKED(&blob->lock);
        link = blob->links;
    }
    while (link) {
        if (fetch->options.on_bad)
            fetch->options.on_bad(fetch->options.userdata, link->tag);
        UTIL_LOCKED(&blob->lock);
        link = link->next; // more may be added at the end
    }
}

// Its bytes are not those that its hash names.
static void condemn(struct blob *blob, struct partial *partial)
{
    struct fetch *fetch = blob->fetch;
    _cleanup_free_ char *name = blob_name(blob);
    char text[512];
    snprintf(text, sizeof text, "%s: the bytes that came are not those of its hash: thrown away, to be fetched anew",
             name ? name : "?");
    log_error("%s", text);
    fetch_note(fetch, text);
    fetch->errors++;
    {
        UTIL_LOCKED(&blob->lock);
        blob->broken = -EIO; // before its bytes go, or they would be fetched once more for this one
    }
    partial_discard(partial); // before others get another struct, or they would find the same bytes
    blob_condemn(blob);
    blob_fail(blob, 0, blob->size, -EIO);
    blob_drop_ahead(blob);
    tell_bad(blob);
}

// Hashes what is there in order. 1 when that was all of it and it is right, 0 when there is more to come.
static int hash_more(struct blob *blob, struct partial *partial)
{
    struct fetch *fetch = blob->fetch;
    int error = blob->verify ? 0 : verify_new(blob->etag, blob->size, &blob->verify);
    if (error < 0)
        return error;
    _cleanup_free_ char *buf = malloc(HASH_STEP);
    if (!buf)
        return -ENOMEM;
    while (blob->hashed < blob->size) {
        if (fetch->stopping && (!partial_whole(partial) || blob->size - blob->hashed > HASH_AT_END))
            return 0;
        int64_t to = there_to(partial, blob->hashed, blob->size);
        if (to - blob->hashed < HASH_FROM && to < blob->size)
            return 0;
        int64_t len = to - blob->hashed < HASH_STEP ? to - blob->hashed : HASH_STEP;
        ssize_t n = pread(partial_fd(partial), buf, (size_t) len, blob->hashed);
        if (n <= 0)
            return n < 0 ? -errno : -EBADMSG;
        error = verify_update(blob->verify, buf, (size_t) n);
        if (error < 0)
            return error;
        blob->hashed += n;
    }
    if (!partial_whole(partial)) // a sync has failed meanwhile: some of it will come again
        return -EAGAIN;
    error = verify_final(blob->verify);
    return error < 0 ? error : 1;
}

static void hash_drop(struct blob *blob)
{
    verify_free(blob->verify);
    blob->verify = NULL;
    blob->hashed = 0;
}

static void hash_work(struct pool_work *work)
{
    struct blob *blob = KEEP_BLOB(work, hash_work);
    struct partial *partial;
    bool wanted, anew;
    {
        UTIL_LOCKED(&blob->lock);
        blob->hash_waits = false;
        blob->hash_again = blob->hashing; // the keeper that is at it goes on
        partial = blob->partial;
        wanted = partial && !blob->small && !blob->verified && blob->broken == 0 && !blob->hashing;
        anew = wanted && blob->hash_anew;
        if (wanted) {
            blob->hashing = true;
            blob->hash_anew = false;
        }
    }
    if (anew)
        hash_drop(blob);
    int result = wanted ? hash_more(blob, partial) : 0;
    if (result != 0)
        hash_drop(blob);
    bool again = false;
    if (wanted) {
        UTIL_LOCKED(&blob->lock);
        blob->hashing = false;
        again = blob->hash_anew || (blob->hash_again && result == 0);
        if (blob->hash_anew) // it was not all of the same bytes
            result = 0;
        if (result == 1)
            blob->verified = true;
        blob->hash_again = false;
    }
    if (result == 1)
        keep_publish(blob);
    else if (result == -EBADMSG)
        condemn(blob, partial);
    else if (result < 0)
        log_warning("partial/%s: cannot be verified: %s", blob->etag, strerror(-result));
    if (again)
        keep_hash(blob);
    blob_unref(blob);
}

void keep_hash(struct blob *blob)
{
    if (!blob->small)
        keep_add(blob->fetch->keepers, blob, &blob->hash_waits, &blob->hash_work, hash_work, false);
}

// --- syncing

void keep_lost(struct blob *blob)
{
    {
        UTIL_LOCKED(&blob->lock);
        blob->hash_anew = true;
        if (blob->fd < 0 && !(blob->small && blob->chunks))
            blob->verified = blob->kept = false;
    }
    blob_answer(blob, 0, blob->size);
    flight_schedule(blob);
}

int keep_sync_partial(struct blob *blob, struct partial *partial)
{
    int error = partial_sync(partial);
    if (error == -ENOSPC)
        blob->fetch->full_until = util_now_ms() + KEEP_FULL_MS;
    if (error == -EIO || error == -ENOSPC)
        keep_lost(blob);
    return error;
}

static void sync_work(struct pool_work *work)
{
    struct blob *blob = KEEP_BLOB(work, sync_work);
    struct partial *partial;
    {
        UTIL_LOCKED(&blob->lock);
        blob->sync_waits = false;
        blob->unsynced = 0;
        blob->synced_ms = util_now_ms();
        partial = blob->partial;
    }
    if (partial)
        keep_sync_partial(blob, partial);
    blob_unref(blob);
}

void keep_sync(struct blob *blob)
{
    keep_add(blob->fetch->keepers, blob, &blob->sync_waits, &blob->sync_work, sync_work, true);
}

// --- following another process

// Its blob in the cache, if it was published.
static int open_published(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    char folder[NAMES_FOLDER_SIZE];
    _cleanup_free_ char *path = NULL;
    {
        UTIL_LOCKED(&blob->lock);
        names_repo_folder(&blob->links->repo, folder);
    }
    if (!fetch->cache_path || asprintf(&path, "%s/%s/blobs/%s", fetch->cache_path, folder, blob->etag) < 0)
        return -1;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != blob->size)
        return -1;
    return util_take_fd(&fd);
}

// What we followed is gone: published, or thrown away.
static void partial_gone(struct blob *blob, struct partial *gone)
{
    _cleanup_close_ int fd = open_published(blob);
    bool doubtful;
    if (fd < 0) {
        replace_partial(blob, gone);
        UTIL_LOCKED(&blob->lock);
        doubtful = blob->tainted;
    } else {
        UTIL_LOCKED(&blob->lock);
        doubtful = false;
        if (blob->fd < 0)
            blob->fd = util_take_fd(&fd);
        blob->verified = blob->kept = true;
    }
    if (doubtful)
        tell_bad(blob);
}

static void refresh_work(struct pool_work *work)
{
    struct blob *blob = KEEP_BLOB(work, refresh_work);
    struct partial *partial;
    {
        UTIL_LOCKED(&blob->lock);
        blob->refresh_waits = false;
        partial = blob->partial;
    }
    int state = partial ? partial_refresh(partial) : 0;
    if (state == -ESTALE)
        partial_gone(blob, partial);
    bool broken;
    {
        UTIL_LOCKED(&blob->lock);
        int64_t seen = blob->partial ? partial_present_bytes(blob->partial) : 0;
        if (blob->progress_ms == 0 || seen != blob->progress_seen)
            blob->progress_ms = util_now_ms();
        blob->progress_seen = seen;
        broken = blob->broken < 0;
    }
    blob_answer(blob, 0, blob->size);
    if (broken)
        blob_fail(blob, 0, blob->size, -EIO);
    flight_schedule(blob);
    blob_unref(blob);
}

void keep_refresh(struct blob *blob)
{
    keep_add(blob->fetch->keepers, blob, &blob->refresh_waits, &blob->refresh_work, refresh_work, true);
}
