// SPDX-License-Identifier: Apache-2.0
// Blobs, readers and waiters; what is fetched when is in flight.c, what becomes of it in keep.c.
#include "cache/fetch.h"

#include "cache/fetch_blob.h"
#include "cache/log.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define WRITERS 2
#define KEEPERS 2
#define CONNECTIONS 16
#define BAD_MS 10000
#define FREE_CHUNKS 32

static unsigned bucket_of(const char *etag)
{
    unsigned hash = 2166136261u;
    for (; *etag; etag++)
        hash = (hash ^ (unsigned char) *etag) * 16777619u;
    return hash % BUCKETS;
}

// --- chunks

struct chunk *chunk_get(struct fetch *fetch, bool urgent)
{
    struct chunk *chunk;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        chunk = fetch->free_chunks;
        if (chunk) {
            fetch->free_chunks = chunk->next;
            fetch->free_count--;
        } else if (fetch->chunk_count >= fetch->chunks_max + (urgent ? fetch->chunks_max / 4 : 0)) {
            fetch->starved = true;
            return NULL;
        } else {
            fetch->chunk_count++;
        }
    }
    if (!chunk)
        chunk = malloc(sizeof *chunk);
    if (!chunk) {
        UTIL_LOCKED(&fetch->chunk_lock);
        fetch->chunk_count--;
        fetch->starved = true;
        return NULL;
    }
    memset(chunk, 0, offsetof(struct chunk, data));
    chunk->references = 1;
    return chunk;
}

void chunk_put_back(struct fetch *fetch, struct chunk *chunk)
{
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        if (fetch->free_count < FREE_CHUNKS) {
            chunk->next = fetch->free_chunks;
            fetch->free_chunks = chunk;
            fetch->free_count++;
            chunk = NULL;
        } else {
            fetch->chunk_count--;
        }
    }
    free(chunk);
}

void chunk_unref(struct chunk *chunk)
{
    if (--chunk->references > 0)
        return;
    struct fetch *fetch = chunk->blob->fetch;
    chunk_put_back(fetch, chunk);
    bool starved;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        starved = fetch->starved;
        fetch->starved = false;
    }
    if (starved)
        flight_resume(fetch);
}

void chunks_trim(struct fetch *fetch)
{
    struct chunk *chunk;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        chunk = fetch->free_chunks;
        fetch->free_chunks = NULL;
        fetch->chunk_count -= fetch->free_count;
        fetch->free_count = 0;
    }
    while (chunk) {
        struct chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
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

// Notes that the blob is wanted under this name. The blob's lock is held.
static int link_add(struct blob *blob, const struct fetch_source *source)
{
    for (struct link *link = blob->links; link; link = link->next)
        if (names_repo_equal(&link->repo, source->repo) && strcmp(link->commit, source->commit) == 0 &&
            strcmp(link->path, source->path) == 0)
            return 0;
    size_t size = strlen(source->path) + 1;
    struct link *link = calloc(1, sizeof *link + size);
    if (!link)
        return -ENOMEM;
    link->repo = *source->repo;
    link->tag = source->tag;
    snprintf(link->commit, sizeof link->commit, "%s", source->commit);
    snprintf(link->ref, sizeof link->ref, "%s", source->ref ? source->ref : "");
    memcpy(link->path, source->path, size);
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

// --- what is there

bool blob_there(struct blob *blob, int64_t at, struct chunk **ret_chunk, int64_t *ret_to)
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
    size_t most = read->len / BLOCKMAP_BLOCK + 4;
    struct answer *a = calloc(1, sizeof *a + most * (sizeof *a->pieces + sizeof *a->chunks));
    if (!a)
        return NULL;
    a->pieces = (struct fetch_piece *) (void *) (a + 1);
    a->chunks = (struct chunk **) (void *) (a->pieces + most);
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

static int open_reader(struct fetch *fetch, const struct fetch_source *source, struct fetch_reader **ret_reader)
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

int fetch_open(struct fetch *fetch, const struct fetch_source *source, struct fetch_reader **ret_reader)
{
    return open_reader(fetch, source, ret_reader);
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
    if (open_reader(fetch, source, &reader) < 0)
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
