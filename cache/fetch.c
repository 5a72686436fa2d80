// SPDX-License-Identifier: Apache-2.0
// Blobs and their readers; reads are in fetch_read.c, what is fetched when in flight.c, what becomes of it in keep.c.
#include "cache/fetch.h"

#include "cache/fetch_blob.h"
#include "cache/log.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define WRITERS 2
#define KEEPERS 2
#define CONNECTIONS 16
#define BAD_MS 10000

static unsigned bucket_of(const char *etag)
{
    unsigned hash = 2166136261u;
    for (; *etag; etag++)
        hash = (hash ^ (unsigned char) *etag) * 16777619u;
    return hash % BUCKETS;
}

// --- blobs

char *blob_name(struct blob *blob)
{
    char *name = NULL;
    UTIL_LOCKED(&blob->lock);
    const struct link *link = blob->links;
    return asprintf(&name, "%s@%s: %s", link->repo.id, link->commit, link->path) < 0 ? NULL : name;
}

void fetch_note(struct fetch *fetch, const char *text)
{
    UTIL_LOCKED(&fetch->lock);
    snprintf(fetch->last_error, sizeof fetch->last_error, "%s", text);
}

void blob_ref(struct blob *blob)
{
    UTIL_LOCKED(&blob->fetch->lock);
    blob->refs++;
}

static void blob_free(struct blob *blob)
{
    while (blob->chunks) {
        struct chunk *chunk = blob->chunks;
        blob->chunks = chunk->next;
        chunk_unref(chunk);
    }
    while (blob->links) {
        struct link *link = blob->links;
        blob->links = link->next;
        free(link);
    }
    partial_release(blob->partial);
    for (int i = 0; i < blob->stale_count; i++)
        partial_release(blob->stale[i]);
    verify_free(blob->verify);
    plan_map_free(blob->map);
    util_close_p(&blob->fd);
    pthread_mutex_destroy(&blob->lock);
    free(blob);
}

// fetch->lock is held.
static void blob_unlist(struct blob *blob)
{
    struct blob **at = &blob->fetch->blobs[bucket_of(blob->etag)];
    while (*at && *at != blob)
        at = &(*at)->next;
    if (*at)
        *at = blob->next;
}

// Nobody uses it any more. Those that have given away what was not verified stay, without their partial and their
// memory: should it turn out to be wrong, the kernel's copies must be found.
static void blob_close(struct pool_work *work)
{
    struct blob *blob = (struct blob *) (void *) ((char *) work - offsetof(struct blob, close_work));
    struct fetch *fetch = blob->fetch;
    struct partial *partial = NULL;
    struct chunk *chunks = NULL;
    bool stays;
    {
        UTIL_LOCKED(&fetch->lock);
        blob->close_waits = false;
        if (blob->refs > 0)
            return;
        stays = blob->tainted && !blob->verified && blob->broken == 0 && !fetch->stop;
        if (stays) {
            partial = util_take_ptr(blob->partial);
            chunks = util_take_ptr(blob->chunks);
        } else {
            blob_unlist(blob);
        }
    }
    partial_release(partial);
    while (chunks) {
        struct chunk *next = chunks->next;
        chunk_unref(chunks);
        chunks = next;
    }
    if (!stays)
        blob_free(blob);
}

void blob_unref(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    {
        UTIL_LOCKED(&fetch->lock);
        if (--blob->refs > 0 || blob->close_waits)
            return;
        blob->close_waits = true;
    }
    blob->close_work.fn = blob_close;
    if (!pool_add(fetch->keepers, &blob->close_work, false))
        blob_close(&blob->close_work);
}

static struct blob *blob_new(struct fetch *fetch, const struct fetch_source *source)
{
    struct blob *blob = calloc(1, sizeof *blob);
    if (!blob)
        return NULL;
    blob->fetch = fetch;
    blob->size = source->size;
    blob->small = source->size <= FETCH_SMALL;
    blob->fd = -1;
    blob->refs = 1;
    snprintf(blob->etag, sizeof blob->etag, "%s", source->etag);
    pthread_mutex_init(&blob->lock, NULL);
    return blob;
}

struct link *link_new(const struct fetch_source *source)
{
    size_t size = strlen(source->path) + 1;
    struct link *link = calloc(1, sizeof *link + size);
    if (!link)
        return NULL;
    link->repo = *source->repo;
    link->tag = source->tag;
    snprintf(link->commit, sizeof link->commit, "%s", source->commit);
    snprintf(link->ref, sizeof link->ref, "%s", source->ref ? source->ref : "");
    memcpy(link->path, source->path, size);
    return link;
}

// Notes that the blob is wanted under this name. The blob's lock is held.
static int link_add(struct blob *blob, const struct fetch_source *source)
{
    for (struct link *link = blob->links; link; link = link->next)
        if (names_repo_equal(&link->repo, source->repo) && strcmp(link->commit, source->commit) == 0 &&
            strcmp(link->path, source->path) == 0)
            return 0;
    struct link *link = link_new(source);
    if (!link)
        return -ENOMEM;
    struct link **end = &blob->links;
    while (*end)
        end = &(*end)->next;
    *end = link;
    return 0;
}

// fetch->lock is held.
static bool is_bad(const struct fetch *fetch, const char *etag)
{
    for (const struct bad *bad = fetch->bads; bad; bad = bad->next)
        if (strcmp(bad->etag, etag) == 0)
            return bad->times >= 2 && util_now_ms() < bad->until_ms;
    return false;
}

void blob_condemn(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    UTIL_LOCKED(&fetch->lock);
    blob->condemned = true;
    struct bad *bad = fetch->bads;
    while (bad && strcmp(bad->etag, blob->etag) != 0)
        bad = bad->next;
    if (!bad) {
        bad = calloc(1, sizeof *bad);
        if (!bad)
            return;
        memcpy(bad->etag, blob->etag, sizeof bad->etag);
        bad->next = fetch->bads;
        fetch->bads = bad;
    }
    if (util_now_ms() > bad->until_ms)
        bad->times = 0;
    bad->times++;
    bad->until_ms = util_now_ms() + BAD_MS;
}

// Finds or makes the blob, with a reference.
static int blob_get(struct fetch *fetch, const struct fetch_source *source, struct blob **ret_blob)
{
    UTIL_LOCKED(&fetch->lock);
    if (fetch->stop)
        return -ECANCELED;
    if (is_bad(fetch, source->etag))
        return -EIO;
    struct blob **head = &fetch->blobs[bucket_of(source->etag)];
    struct blob *blob = *head;
    while (blob && (blob->condemned || strcmp(blob->etag, source->etag) != 0))
        blob = blob->next;
    if (blob && blob->size != source->size)
        return -EINVAL;
    if (blob) {
        blob->refs++;
    } else {
        blob = blob_new(fetch, source);
        if (!blob)
            return -ENOMEM;
        blob->next = *head;
        *head = blob;
    }
    *ret_blob = blob;
    return 0;
}

// Small blobs go to the cache from memory, where that can be; their partials would cost more than their bytes. One that
// could not be published was left as a partial.
static bool wants_partial(const struct blob *blob)
{
    const struct fetch *fetch = blob->fetch;
    return fetch->partials &&
           (!blob->small || !fetch->cache_path || partials_present(fetch->partials, blob->etag, blob->size) > 0);
}

int blob_open_partial(struct blob *blob)
{
    {
        UTIL_LOCKED(&blob->lock);
        if (blob->partial || blob->fd >= 0)
            return 0;
    }
    struct partial *partial = NULL;
    struct stat st = { 0 };
    int error = partial_acquire(blob->fetch->partials, blob->etag, blob->size, &partial);
    if (error < 0) {
        log_warning("partial/%s: cannot be kept: %s", blob->etag, strerror(-error));
        return error;
    }
    fstat(partial_fd(partial), &st);
    {
        UTIL_LOCKED(&blob->lock);
        if (!blob->partial) {
            // Nobody hashes a blob without a partial. It may have had this one before, and been closed meanwhile.
            if (blob->data_inode != st.st_ino || !partial_has(partial, 0, blob->hashed))
                blob->hash_anew = true;
            blob->data_inode = st.st_ino;
            blob->partial = util_take_ptr(partial);
        }
    }
    partial_release(partial);
    return 0;
}

void blob_drop_chunks(struct blob *blob)
{
    while (blob->chunks) {
        struct chunk *chunk = blob->chunks;
        blob->chunks = chunk->next;
        chunk_unref(chunk);
    }
}

// --- readers

static int reader_add(struct blob *blob, const struct fetch_source *source, struct fetch_reader *reader)
{
    UTIL_LOCKED(&blob->lock);
    int error = link_add(blob, source);
    if (error < 0)
        return error;
    reader->blob = blob;
    reader->next = blob->readers;
    blob->readers = reader;
    return 0;
}

int fetch_open(struct fetch *fetch, const struct fetch_source *source, struct fetch_reader **ret_reader)
{
    if (!verify_possible(source->etag))
        return -EOPNOTSUPP;
    if (source->size < 0)
        return -EINVAL;
    struct blob *blob;
    int error = blob_get(fetch, source, &blob);
    if (error < 0)
        return error;
    struct fetch_reader *reader = calloc(1, sizeof *reader);
    error = reader ? reader_add(blob, source, reader) : -ENOMEM;
    if (error < 0) {
        free(reader);
        blob_unref(blob);
        return error;
    }
    if (wants_partial(blob))
        blob_open_partial(blob);
    watch_wake(fetch);
    bool whole, again;
    {
        UTIL_LOCKED(&blob->lock);
        whole = !blob->verified && ((blob->partial && partial_whole(blob->partial)) || blob->size == 0);
        again = blob->verified; // under a new name, perhaps
    }
    if (whole && blob->small)
        keep_small(blob);
    else if (whole)
        keep_hash(blob);
    else if (again)
        keep_publish(blob);
    *ret_reader = reader;
    return 0;
}

// The blob's lock is held.
static void reader_remove(struct blob *blob, const struct fetch_reader *reader)
{
    struct fetch_reader **at = &blob->readers;
    while (*at && *at != reader)
        at = &(*at)->next;
    if (*at)
        *at = reader->next;
}

static bool is_of_reader(const struct answer *a, const void *userdata)
{
    return a->reader == userdata;
}

void fetch_close(struct fetch_reader *reader)
{
    struct blob *blob = reader->blob;
    bool flying;
    blob_drop_waiters(blob, is_of_reader, reader, -ECANCELED);
    {
        UTIL_LOCKED(&blob->lock);
        reader_remove(blob, reader);
        flying = blob->flights && !blob->readers;
    }
    free(reader);
    if (flying)
        flight_schedule(blob); // what only this one wanted is given up
    blob_unref(blob);
}

void blob_drop_ahead(struct blob *blob)
{
    struct fetch_reader *dropped = NULL;
    {
        UTIL_LOCKED(&blob->lock);
        for (struct fetch_reader **at = &blob->readers; *at;) {
            struct fetch_reader *reader = *at;
            if (!reader->ahead_only) {
                at = &reader->next;
                continue;
            }
            *at = reader->next;
            reader->next = dropped;
            dropped = reader;
        }
    }
    while (dropped) {
        struct fetch_reader *next = dropped->next;
        free(dropped);
        blob_unref(blob);
        dropped = next;
    }
}

void fetch_ahead(struct fetch *fetch, const struct fetch_source *source)
{
    struct fetch_reader *reader;
    if (fetch_open(fetch, source, &reader) < 0)
        return;
    struct blob *blob = reader->blob;
    bool there;
    blob_ref(blob);
    {
        UTIL_LOCKED(&blob->lock);
        // Also when it cannot be had now: nobody would come back to it.
        there = blob->verified || blob->size == 0 || blob->broken < 0 || fetch->stopping ||
                util_now_ms() < blob->failed_until || (blob->partial && !partial_is_owner(blob->partial));
        reader->ahead_only = true;
        reader->ahead_to = blob->size;
    }
    if (there)
        blob_drop_ahead(blob);
    else
        flight_schedule(blob);
    blob_unref(blob);
}

// --- what is there, for people

enum fetch_state fetch_state(struct fetch *fetch, const char *etag, int64_t size, int64_t *ret_present)
{
    *ret_present = 0;
    struct blob *blob;
    {
        UTIL_LOCKED(&fetch->lock);
        blob = fetch->blobs[bucket_of(etag)];
        while (blob && (blob->condemned || strcmp(blob->etag, etag) != 0 || blob->size != size))
            blob = blob->next;
        if (blob)
            blob->refs++;
    }
    if (blob) {
        {
            UTIL_LOCKED(&blob->lock);
            *ret_present = blob->verified ? size : blob->partial ? partial_present_bytes(blob->partial) : 0;
        }
        blob_unref(blob);
    }
    if (*ret_present == 0 && fetch->partials)
        *ret_present = partials_present(fetch->partials, etag, size);
    return *ret_present >= size && size > 0 ? FETCH_WHOLE : *ret_present > 0 ? FETCH_PARTIAL : FETCH_ABSENT;
}

// --- all of it

static void fetch_destroy(struct fetch *fetch)
{
    while (fetch->bads) {
        struct bad *bad = fetch->bads;
        fetch->bads = bad->next;
        free(bad);
    }
    pthread_cond_destroy(&fetch->tick);
    pthread_mutex_destroy(&fetch->lock);
    pthread_mutex_destroy(&fetch->pending_lock);
    pthread_mutex_destroy(&fetch->chunk_lock);
    free(fetch->cache_path);
    free(fetch);
}

int fetch_new(struct http *http, struct hub *hub, struct partials *partials, const struct fetch_options *options,
              struct fetch **ret_fetch)
{
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (!fetch)
        return -ENOMEM;
    fetch->http = http;
    fetch->hub = hub;
    fetch->partials = partials;
    fetch->options = *options;
    if (fetch->options.connections <= 0)
        fetch->options.connections = CONNECTIONS;
    // A small blob keeps its chunks until all of it has come: each connection must be able to bring one.
    fetch->chunks_max = fetch->options.connections * (int) (FETCH_SMALL / CHUNK + 1);
    if (fetch->chunks_max < CHUNKS_MIN)
        fetch->chunks_max = CHUNKS_MIN;
    pthread_mutex_init(&fetch->lock, NULL);
    pthread_mutex_init(&fetch->pending_lock, NULL);
    pthread_mutex_init(&fetch->chunk_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&fetch->tick, &monotonic);
    pthread_condattr_destroy(&monotonic);
    fetch->pending_end = &fetch->pending;
    fetch->queue_end = &fetch->queue;
    int error = 0;
    if (options->cache_path && !(fetch->cache_path = strdup(options->cache_path)))
        error = -ENOMEM;
    if (error == 0)
        error = pool_new("writer", WRITERS, &fetch->writers);
    if (error == 0)
        error = pool_new("keeper", KEEPERS, &fetch->keepers);
    if (error == 0)
        error = watch_start(fetch);
    if (error < 0) {
        pool_free(fetch->writers);
        pool_free(fetch->keepers);
        fetch_destroy(fetch);
        return error;
    }
    *ret_fetch = fetch;
    return 0;
}

static void stop_blob(struct blob *blob)
{
    bool retries;
    blob_fail(blob, 0, blob->size, -ECANCELED);
    blob_drop_ahead(blob);
    {
        UTIL_LOCKED(&blob->lock);
        retries = blob->publish_tries > 0;
    }
    if (retries)
        keep_publish(blob); // for the last time
}

void fetch_stop(struct fetch *fetch)
{
    fetch->stopping = true;
    flight_stop(fetch);
    watch_stop(fetch);
    size_t count = 0;
    struct blob **blobs = fetch_blobs(fetch, &count);
    for (size_t i = 0; i < count; i++) {
        stop_blob(blobs[i]);
        blob_unref(blobs[i]);
    }
    free(blobs);
    // What has come is written, then synced and published; these give back what they hold of the blobs.
    pool_stop(fetch->writers);
    pool_stop(fetch->keepers);
}

void fetch_free(struct fetch *fetch)
{
    if (!fetch)
        return;
    flight_drain(fetch);
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (fetch->blobs[i]) { // those that nobody uses, but the kernel may have bytes of
            struct blob *blob = fetch->blobs[i];
            fetch->blobs[i] = blob->next;
            blob_free(blob);
        }
    }
    chunks_trim(fetch);
    pool_free(fetch->writers);
    pool_free(fetch->keepers);
    fetch_destroy(fetch);
}
