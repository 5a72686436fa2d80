// SPDX-License-Identifier: Apache-2.0
// What becomes of bytes that have come: written to the partial blob, synced, hashed, published.
#include "cache/fetch_blob.h"
#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define FULL_MS 5000            // how long a full disk is left alone
#define HASH_STEP (1 << 20)     // bytes hashed at a time
#define HASH_FROM (8LL << 20)   // as soon as so much more is there in order
#define HASH_AT_END (4LL << 30) // what is whole is hashed to its end, though the program ends, if no more is left
#define MAP_STEP (64 * 1024)
#define PUBLISH_WAIT_MS 500
#define PUBLISH_TRIES 40
#define STRIKES_MAX 2

#define WORK_BLOB(work, member) ((struct blob *) (void *) ((char *) (work) -offsetof(struct blob, member)))

bool keep_disk_full(struct fetch *fetch)
{
    return util_now_ms() < fetch->full_until;
}

// Has something done for a blob, unless that waits already, or all ends.
static void work_add(struct pool *pool, struct blob *blob, bool *waits, struct pool_work *work,
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
    if (partial && !keep_disk_full(fetch))
        error = partial_write(partial, chunk->offset, chunk->data, len);
    if (partial && is_full(error))
        fetch->full_until = util_now_ms() + FULL_MS;
    bool listed = false, more;
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
            chunk->unkept = true;
            chunk->again = false;
            chunk->used_ms = util_now_ms();
        }
        more = flight_landed(chunk);
    }
    if (error < 0)
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
    for (struct chunk *chunk = blob->partial && !blob->small ? blob->chunks : NULL; chunk; chunk = chunk->next) {
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
        small = blob->small && blob->verified && blob->chunks && blob->chunks->unkept;
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

// --- small blobs: verified as one, before anything is given away

static int verify_chunks(struct blob *blob)
{
    struct verify *verify;
    int error = verify_new(blob->etag, blob->size, &verify);
    if (error < 0)
        return error;
    UTIL_LOCKED(&blob->lock);
    int64_t at = 0;
    while (error == 0 && at < blob->size) {
        const struct chunk *chunk = blob->chunks;
        while (chunk && chunk->offset != at)
            chunk = chunk->next;
        error = chunk && chunk->filled > 0 ? verify_update(verify, chunk->data, chunk->filled) : -EBADMSG;
        at += chunk ? (int64_t) chunk->filled : 0;
    }
    if (error == 0)
        error = verify_final(verify);
    verify_free(verify);
    return error;
}

// What was left by a run before, or has just come.
static int verify_small(struct blob *blob)
{
    struct partial *whole = NULL;
    {
        UTIL_LOCKED(&blob->lock);
        if (!blob->chunks && blob->size > 0 && blob->partial && partial_whole(blob->partial))
            whole = blob->partial;
    }
    return whole ? verify_fd(blob->etag, blob->size, partial_fd(whole), NULL) : verify_chunks(blob);
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
    struct blob *blob = WORK_BLOB(work, small_work);
    struct fetch *fetch = blob->fetch;
    int error = verify_small(blob);
    bool again = false;
    {
        UTIL_LOCKED(&blob->lock);
        blob->small_waits = false;
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
    work_add(blob->fetch->writers, blob, &blob->small_waits, &blob->small_work, small_work, true);
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
    partial_discard(partial);
    blob_condemn(blob);
    struct link *links;
    {
        UTIL_LOCKED(&blob->lock);
        blob->broken = -EIO;
        links = blob->links; // only ever added to, at the end
    }
    blob_fail(blob, 0, blob->size, -EIO);
    blob_drop_ahead(blob);
    for (const struct link *link = links; link && fetch->options.on_bad; link = link->next)
        fetch->options.on_bad(fetch->options.userdata, link->tag);
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

static void hash_work(struct pool_work *work)
{
    struct blob *blob = WORK_BLOB(work, hash_work);
    struct partial *partial;
    bool wanted;
    {
        UTIL_LOCKED(&blob->lock);
        blob->hash_waits = false;
        partial = blob->partial;
        wanted = partial && !blob->small && !blob->verified && blob->broken == 0 && !blob->hashing;
        if (wanted)
            blob->hashing = true;
    }
    int result = wanted ? hash_more(blob, partial) : 0;
    if (result != 0) {
        verify_free(blob->verify);
        blob->verify = NULL;
        blob->hashed = 0;
    }
    bool again = false;
    if (wanted) {
        UTIL_LOCKED(&blob->lock);
        blob->hashing = false;
        if (result == 1)
            blob->verified = true;
        again = blob->hash_again && result == 0;
        blob->hash_again = false;
    } else {
        UTIL_LOCKED(&blob->lock);
        blob->hash_again = blob->hashing;
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
        work_add(blob->fetch->keepers, blob, &blob->hash_waits, &blob->hash_work, hash_work, false);
}

// --- syncing

static void sync_work(struct pool_work *work)
{
    struct blob *blob = WORK_BLOB(work, sync_work);
    struct partial *partial;
    {
        UTIL_LOCKED(&blob->lock);
        blob->sync_waits = false;
        blob->unsynced = 0;
        blob->synced_ms = util_now_ms();
        partial = blob->partial;
    }
    int error = partial ? partial_sync(partial) : 0;
    if (error == -ENOSPC)
        blob->fetch->full_until = util_now_ms() + FULL_MS;
    if (error == -EIO || error == -ENOSPC) {
        blob_answer(blob, 0, blob->size); // some of it is absent again
        flight_schedule(blob);
    }
    blob_unref(blob);
}

void keep_sync(struct blob *blob)
{
    work_add(blob->fetch->keepers, blob, &blob->sync_waits, &blob->sync_work, sync_work, true);
}

// --- publishing

// A file without a name that has all bytes of a small blob, from its chunks. Publishing gives it its name.
static int small_file(struct blob *blob, int *ret_fd)
{
    _cleanup_close_ int fd = -1;
    int error = partials_unnamed(blob->fetch->partials, blob->size, &fd);
    UTIL_LOCKED(&blob->lock);
    for (const struct chunk *chunk = blob->chunks; chunk && error == 0; chunk = chunk->next) {
        ssize_t n = pwrite(fd, chunk->data, chunk->filled, chunk->offset);
        if (n != (ssize_t) chunk->filled)
            error = n < 0 ? -errno : -ENOSPC;
    }
    if (error == 0)
        *ret_fd = util_take_fd(&fd);
    return error;
}

// Nothing can be published: a small blob becomes a partial that is whole.
static int small_to_partial(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    if (!fetch->partials)
        return -EROFS;
    struct partial *partial = NULL, *had;
    {
        UTIL_LOCKED(&blob->lock);
        had = blob->partial;
    }
    int error = had ? 0 : partial_acquire(fetch->partials, blob->etag, blob->size, &partial);
    struct partial *p = had ? had : partial;
    if (error == 0 && !partial_whole(p)) {
        UTIL_LOCKED(&blob->lock);
        for (const struct chunk *chunk = blob->chunks; chunk && error == 0; chunk = chunk->next)
            error = partial_write(p, chunk->offset, chunk->data, chunk->filled);
    }
    if (error == 0)
        error = partial_sync(p);
    if (error < 0) {
        partial_release(partial);
        return error;
    }
    UTIL_LOCKED(&blob->lock);
    blob->partial = p;
    if (partial_whole(p))
        blob_drop_chunks(blob);
    return 0;
}

static int publish_links(struct blob *blob, int fd, bool *ret_any)
{
    struct fetch *fetch = blob->fetch;
    struct link *link;
    int result = 0;
    {
        UTIL_LOCKED(&blob->lock);
        link = blob->links;
    }
    while (link) {
        bool published;
        {
            UTIL_LOCKED(&blob->lock);
            published = link->published;
        }
        struct fetch_commit commit = { .userdata = fetch->options.list_userdata,
                                       .repo = &link->repo,
                                       .commit = link->commit };
        struct publish p = {
            .cache = fetch->cache_path,
            .repo = &link->repo,
            .commit = link->commit,
            .path = link->path,
            .etag = blob->etag,
            .size = blob->size,
            .fd = fd,
            .ref = *link->ref ? link->ref : NULL,
            .tree = fetch->options.tree,
            .userdata = &commit,
            .timeout_ms = PUBLISH_WAIT_MS,
        };
        int error = published ? 0 : publish_file(&p);
        UTIL_LOCKED(&blob->lock);
        if (error == 0)
            link->published = *ret_any = true;
        else
            result = error;
        link = link->next;
    }
    return result;
}

// 0 when it is where it is to stay.
static int publish_blob(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    struct partial *partial;
    int fd;
    {
        UTIL_LOCKED(&blob->lock);
        partial = blob->partial;
        fd = blob->fd;
    }
    if (!fetch->cache_path || (blob->small && fetch->small_partials && fd < 0 && !partial))
        return blob->small ? small_to_partial(blob) : partial ? partial_sync(partial) : 0;
    int made = -1;
    int error = 0;
    if (fd < 0 && blob->small && !partial) {
        error = fetch->partials ? small_file(blob, &made) : -EROFS;
        fd = made;
    } else if (fd < 0) {
        error = partial ? partial_sync(partial) : -EROFS;
        fd = partial ? partial_fd(partial) : -1;
    }
    bool any = false;
    if (error == 0)
        error = publish_links(blob, fd, &any);
    if (any && partial)
        partial_published(partial);
    UTIL_LOCKED(&blob->lock);
    if (any && made >= 0) {
        blob->fd = util_take_fd(&made);
        blob_drop_chunks(blob);
    }
    util_close_p(&made);
    return error;
}

static void publish_failed(struct blob *blob, int error)
{
    struct fetch *fetch = blob->fetch;
    _cleanup_free_ char *name = blob_name(blob);
    if (is_full(error) && error != -EROFS)
        fetch->full_until = util_now_ms() + FULL_MS;
    log_warning("%s: is whole, but cannot be put into %s: %s", name ? name : "?", fetch->cache_path,
                error == -EAGAIN ? "somebody else keeps its lock" : strerror(-error));
    bool full = is_full(error) && error != -EROFS;
    if (blob->small && !full) {
        fetch->small_partials = true;
        error = small_to_partial(blob);
    }
    if (is_full(error) && blob->small && error != -EROFS) { // it is served from memory as long as there is room
        UTIL_LOCKED(&blob->lock);
        for (struct chunk *chunk = blob->chunks; chunk; chunk = chunk->next) {
            chunk->unkept = true;
            chunk->used_ms = util_now_ms();
        }
        fetch->unkept_bytes += (long long) blob->size;
    }
}

static void publish_work(struct pool_work *work)
{
    struct blob *blob = WORK_BLOB(work, publish_work);
    int tries;
    {
        UTIL_LOCKED(&blob->lock);
        blob->publish_waits = false;
        tries = ++blob->publish_tries;
    }
    int error = publish_blob(blob);
    bool later = error == -EAGAIN && tries < PUBLISH_TRIES && !blob->fetch->stopping;
    if (error < 0 && !later)
        publish_failed(blob, error);
    {
        UTIL_LOCKED(&blob->lock);
        blob->kept = !later;
        if (!later)
            blob->publish_tries = 0;
        if (later && !blob->retry_ref) { // the ticker comes back to it
            blob->retry_ref = true;
            later = false;
        } else if (!later && blob->retry_ref) {
            blob->retry_ref = false;
            later = true; // that reference goes
        } else {
            later = true;
        }
    }
    if (!blob->publish_tries)
        blob_drop_ahead(blob);
    if (later)
        blob_unref(blob);
}

void keep_publish(struct blob *blob)
{
    work_add(blob->fetch->keepers, blob, &blob->publish_waits, &blob->publish_work, publish_work, false);
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
static void partial_gone(struct blob *blob)
{
    int fd = open_published(blob);
    struct partial *partial = NULL;
    if (fd < 0)
        partial_acquire(blob->fetch->partials, blob->etag, blob->size, &partial);
    UTIL_LOCKED(&blob->lock);
    if (blob->stale_count == STALE_MAX || (fd < 0 && !partial)) {
        blob->broken = -EIO;
        return;
    }
    blob->stale[blob->stale_count++] = blob->partial;
    blob->partial = partial;
    blob->fd = fd;
    blob->verified |= fd >= 0;
    blob->kept |= fd >= 0;
}

static void refresh_work(struct pool_work *work)
{
    struct blob *blob = WORK_BLOB(work, refresh_work);
    struct partial *partial;
    {
        UTIL_LOCKED(&blob->lock);
        blob->refresh_waits = false;
        partial = blob->partial;
    }
    int state = partial ? partial_refresh(partial) : 0;
    if (state == -ESTALE)
        partial_gone(blob);
    {
        UTIL_LOCKED(&blob->lock);
        int64_t seen = blob->partial ? partial_present_bytes(blob->partial) : 0;
        if (blob->progress_ms == 0 || seen != blob->progress_seen)
            blob->progress_ms = util_now_ms();
        blob->progress_seen = seen;
    }
    blob_answer(blob, 0, blob->size);
    if (blob->broken < 0)
        blob_fail(blob, 0, blob->size, -EIO);
    flight_schedule(blob);
    blob_unref(blob);
}

void keep_refresh(struct blob *blob)
{
    work_add(blob->fetch->keepers, blob, &blob->refresh_waits, &blob->refresh_work, refresh_work, true);
}

// --- links

struct link_work {
    struct pool_work work;
    struct fetch *fetch;
    struct repo repo;
    char commit[NAMES_COMMIT_SIZE];
    char ref[NAMES_REF_SIZE];
    char etag[NAMES_ETAG_SIZE];
    int64_t size;
    char path[];
};

static void link_work(struct pool_work *work)
{
    struct link_work *link = (struct link_work *) (void *) work;
    struct fetch *fetch = link->fetch;
    struct fetch_commit commit = {
        .userdata = fetch->options.list_userdata,
        .repo = &link->repo,
        .commit = link->commit,
    };
    struct publish p = {
        .cache = fetch->cache_path,
        .repo = &link->repo,
        .commit = link->commit,
        .path = link->path,
        .etag = link->etag,
        .size = link->size,
        .fd = -1,
        .ref = *link->ref ? link->ref : NULL,
        .tree = fetch->options.tree,
        .userdata = &commit,
        .timeout_ms = PUBLISH_WAIT_MS,
    };
    int error = publish_file(&p);
    if (error < 0)
        log_info("%s@%s: %s: its link cannot be made: %s", link->repo.id, link->commit, link->path, strerror(-error));
    free(link);
}

void fetch_link(struct fetch *fetch, const struct fetch_source *source)
{
    size_t size = strlen(source->path) + 1;
    struct link_work *link = fetch->cache_path ? calloc(1, sizeof *link + size) : NULL;
    if (!link)
        return;
    link->work.fn = link_work;
    link->fetch = fetch;
    link->repo = *source->repo;
    link->size = source->size;
    snprintf(link->commit, sizeof link->commit, "%s", source->commit);
    snprintf(link->ref, sizeof link->ref, "%s", source->ref ? source->ref : "");
    snprintf(link->etag, sizeof link->etag, "%s", source->etag);
    memcpy(link->path, source->path, size);
    if (!pool_add(fetch->keepers, &link->work, false))
        free(link);
}
