// SPDX-License-Identifier: Apache-2.0
// Which ranges are fetched, and in which order: what somebody waits for first, then what is likely to be wanted, over
// as many connections as are allowed. All of it on the http thread but for flight_schedule() and flight_resume().
#include "cache/fetch_blob.h"
#include "cache/log.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define IDLE_MS 1000 // a flight that brings nothing for so long makes room for others

static void flights_work(struct http_job *job);

// --- the way to the http thread

static void post_job(struct fetch *fetch)
{
    {
        UTIL_LOCKED(&fetch->pending_lock);
        if (fetch->job_waiting)
            return;
        fetch->job_waiting = true;
    }
    fetch->job.fn = flights_work;
    http_post(fetch->http, &fetch->job);
}

void flight_schedule(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    if (fetch->stopping)
        return;
    blob_ref(blob);
    bool added;
    {
        UTIL_LOCKED(&fetch->pending_lock);
        added = !blob->pending;
        if (added) {
            blob->pending = true;
            blob->next_pending = NULL;
            *fetch->pending_end = blob;
            fetch->pending_end = &blob->next_pending;
        }
    }
    if (!added)
        blob_unref(blob);
    post_job(fetch);
}

void flight_resume(struct fetch *fetch)
{
    if (!fetch->stopping)
        post_job(fetch);
}

// --- the end of a flight

// The blob's lock is held. Frees it if nothing of it is under way any more.
static void flight_settle(struct flight *flight)
{
    if (!flight->over || flight->landing > 0)
        return;
    struct flight **at = &flight->blob->flights;
    while (*at != flight)
        at = &(*at)->next;
    *at = flight->next;
    free(flight);
}

bool flight_landed(struct chunk *chunk)
{
    struct blob *blob = chunk->blob;
    struct flight *flight = util_take_ptr(chunk->flight);
    if (!flight)
        return false;
    flight->landing--;
    flight_settle(flight);
    return blob->no_ranges && !blob->flights && blob->waiters; // the next whole file was waiting for this
}

// Hands on what is in the chunk that was being filled.
static void chunk_done(struct flight *flight)
{
    struct chunk *chunk = util_take_ptr(flight->chunk);
    if (chunk && !flight->blob->small)
        keep_chunk(chunk);
}

static int errno_for_readers(const struct hub_error *error)
{
    switch (error->error) {
    case -ENOENT:
    case -EACCES:
    case -ENETUNREACH:
    case -ECANCELED:
    case -ENOMEM:
        return error->error;
    default:
        return -EIO;
    }
}

static void flight_failed(struct flight *flight, const struct hub_error *error)
{
    struct blob *blob = flight->blob;
    struct fetch *fetch = blob->fetch;
    if (error->reason == HUB_NO_RANGES && flight->from > 0) { // all of the file, then
        UTIL_LOCKED(&blob->lock);
        blob->no_ranges = true;
        return;
    }
    if (error->error != -ECANCELED) {
        fetch->errors++;
        fetch_note(fetch, error->text);
        log_warning("%s", error->text);
    }
    int64_t from, to;
    {
        UTIL_LOCKED(&blob->lock);
        blob->failed_until = util_now_ms() + FLIGHT_FAILED_MS;
        from = blob->small ? 0 : flight->at;
        to = blob->small ? blob->size : flight->to;
    }
    blob_fail(blob, from, to, errno_for_readers(error));
    if (error->error != -ECANCELED)
        blob_drop_ahead(blob);
}

// Nothing more comes: `error` NULL for a flight that was given up.
static void flight_end(struct flight *flight, const struct hub_error *error)
{
    struct blob *blob = flight->blob;
    struct fetch *fetch = blob->fetch;
    fetch->flying--;
    struct flight **at = &fetch->paused;
    while (*at && *at != flight)
        at = &(*at)->next_paused;
    if (*at)
        *at = flight->next_paused;
    at = &fetch->under_way;
    while (*at && *at != flight)
        at = &(*at)->next_flying;
    if (*at)
        *at = flight->next_flying;
    hub_release(flight->call);
    flight->call = NULL;
    chunk_done(flight);
    if (error && error->error < 0)
        flight_failed(flight, error);
    bool small;
    {
        UTIL_LOCKED(&blob->lock);
        small = blob->small && flight->at == blob->size;
        if (blob->small && !small && !blob->verified)
            blob_drop_chunks(blob);
        flight->over = true;
        flight->to = flight->at; // the rest is for others, though some of this is still being written
        if (!small)
            flight_settle(flight);
    }
    if (small)
        keep_small(blob);  // it ends the flight when it has looked at the bytes
    flight_schedule(blob); // and others: a connection is free
    blob_unref(blob);
}

// --- bytes

// Chunks for `len` bytes more, behind the one that is being filled; NULL in the list's end. False: there are none.
static bool chunks_reserve(struct flight *flight, size_t len, bool urgent, struct chunk **ret_list)
{
    struct chunk *list = NULL;
    int64_t at = flight->at, end = at + (int64_t) len;
    if (flight->chunk)
        at = (flight->chunk->offset / CHUNK + 1) * CHUNK;
    for (; at < end; at = (at / CHUNK + 1) * CHUNK) {
        struct chunk *chunk = chunk_get(flight->blob->fetch, urgent);
        if (!chunk) {
            while (list) {
                chunk = list;
                list = list->next;
                chunk_put_back(flight->blob->fetch, chunk);
            }
            return false;
        }
        chunk->next = list;
        list = chunk;
    }
    *ret_list = list;
    return true;
}

// A chunk that begins where the flight is; the blob's lock is held.
static void chunk_begin(struct flight *flight, struct chunk *chunk)
{
    struct blob *blob = flight->blob;
    chunk->blob = blob;
    chunk->offset = flight->at;
    if (!blob->small) {
        chunk->flight = flight;
        flight->landing++;
    }
    chunk->next = blob->chunks;
    blob->chunks = chunk;
    flight->chunk = chunk;
}

static int flight_data(void *userdata, int64_t offset, const void *bytes, size_t len)
{
    struct flight *flight = userdata;
    struct blob *blob = flight->blob;
    struct fetch *fetch = blob->fetch;
    assert(offset == flight->at);
    flight->paused = false;
    flight->last_ms = util_now_ms();
    struct chunk *reserve = NULL;
    bool urgent;
    {
        UTIL_LOCKED(&blob->lock);
        urgent = blob->waiters;
    }
    if (!chunks_reserve(flight, len, urgent, &reserve)) {
        flight->paused = true;
        flight->next_paused = fetch->paused;
        fetch->paused = flight;
        return HTTP_PAUSE;
    }
    fetch->network_bytes += (long long) len;
    const char *from = bytes;
    while (len > 0) {
        bool full;
        {
            UTIL_LOCKED(&blob->lock);
            if (!flight->chunk) {
                struct chunk *chunk = reserve;
                reserve = chunk->next;
                chunk_begin(flight, chunk);
            }
            urgent |= blob->waiters != NULL; // also of who came while this was being copied
            struct chunk *chunk = flight->chunk;
            int64_t end = (chunk->offset / CHUNK + 1) * CHUNK;
            size_t room = (size_t) (end - flight->at);
            size_t n = len < room ? len : room;
            memcpy(chunk->data + chunk->filled, from, n);
            chunk->filled += n;
            flight->at += (int64_t) n;
            blob->come += (int64_t) n;
            from += n;
            len -= n;
            full = flight->at == end || flight->at == flight->to;
        }
        if (full && !blob->small)
            chunk_done(flight);
        else if (full)
            flight->chunk = NULL;
    }
    assert(!reserve);
    if (urgent && !blob->small)
        blob_answer(blob, offset, flight->at);
    return 0;
}

static void flight_done(void *userdata, const struct hub_error *error)
{
    flight_end(userdata, error);
}

// --- starting

static bool flight_start(struct blob *blob, enum urgency urgency)
{
    int64_t from, to;
    if (!flight_range(blob, urgency, &from, &to))
        return false;
    struct flight *flight = calloc(1, sizeof *flight);
    if (!flight)
        return false;
    flight->blob = blob;
    flight->from = flight->at = from;
    flight->to = to;
    _cleanup_free_ char *path = NULL;
    struct repo repo;
    char commit[NAMES_COMMIT_SIZE];
    {
        UTIL_LOCKED(&blob->lock);
        path = strdup(blob->links->path);
        repo = blob->links->repo;
        memcpy(commit, blob->links->commit, sizeof commit);
        if (path) {
            flight->next = blob->flights;
            blob->flights = flight;
        }
    }
    static const struct hub_get_handlers handlers = { .on_data = flight_data, .on_done = flight_done };
    struct hub_range range = {
        .repo = &repo,
        .commit = commit,
        .path = path,
        .first = from,
        .last = to - 1,
        .size = blob->size,
        .etag = blob->etag,
    };
    blob_ref(blob);
    blob->fetch->flying++;
    flight->last_ms = util_now_ms();
    flight->next_flying = blob->fetch->under_way;
    blob->fetch->under_way = flight;
    int error = path ? hub_get(blob->fetch->hub, &range, &handlers, flight, &flight->call) : -ENOMEM;
    if (error < 0) {
        struct hub_error failure = { .error = error, .reason = HUB_STOPPED };
        if (!path) {
            blob->fetch->under_way = flight->next_flying;
            free(flight);
            blob->fetch->flying--;
            blob_unref(blob);
            return false;
        }
        flight_end(flight, &failure);
    }
    return error == 0;
}

// Nobody reads it any more: what is under way is given up.
static void give_up(struct blob *blob)
{
    struct fetch *fetch = blob->fetch;
    for (;;) {
        struct flight *flight;
        {
            UTIL_LOCKED(&blob->lock);
            if (!fetch->cancel_all && (blob->readers || blob->waiters))
                return;
            flight = blob->flights;
            while (flight && flight->over)
                flight = flight->next;
        }
        if (!flight)
            return;
        hub_cancel(flight->call);
        flight_end(flight, NULL);
    }
}

static void queue_add(struct fetch *fetch, struct blob *blob)
{
    if (blob->queued) {
        blob_unref(blob);
        return;
    }
    blob->queued = true;
    blob->next_queued = NULL;
    *fetch->queue_end = blob;
    fetch->queue_end = &blob->next_queued;
}

static bool is_idle(const struct flight *flight)
{
    return !flight->paused && util_now_ms() - flight->last_ms >= IDLE_MS;
}

// How many ranges of a blob are under way, and whether one of them brings nothing.
static int flights_of(const struct blob *blob, bool *ret_idle)
{
    int count = 0;
    *ret_idle = false;
    for (const struct flight *f = blob->fetch->under_way; f; f = f->next_flying) {
        if (f->blob == blob) {
            count++;
            *ret_idle |= is_idle(f);
        }
    }
    return count;
}

// Starts what there are connections for. One range of each blob after the other, so that none waits for another; one
// whose server is silent leaves a connection to the others.
static void start_some(struct fetch *fetch, enum urgency urgency)
{
    bool any = true;
    while (any) {
        any = false;
        for (struct blob *blob = fetch->queue; blob; blob = blob->next_queued) {
            if (fetch->flying >= fetch->options.connections)
                return;
            bool idle;
            int count = flights_of(blob, &idle);
            if (count == 0 || !idle || count < fetch->options.connections - 1)
                any |= flight_start(blob, urgency);
        }
    }
}

// No connection is left, and somebody waits for a blob that has none: one that has several gives up the one that has
// been silent for longest. What it was to bring is asked for again.
static void make_room(struct fetch *fetch)
{
    for (struct blob *blob = fetch->queue; blob; blob = blob->next_queued) {
        int64_t from, to;
        bool idle;
        if (fetch->flying < fetch->options.connections || flights_of(blob, &idle) > 0 ||
            !flight_range(blob, DEMAND, &from, &to))
            continue;
        struct flight *victim = NULL;
        for (struct flight *f = fetch->under_way; f; f = f->next_flying)
            if (is_idle(f) && flights_of(f->blob, &idle) > 1 && (!victim || f->last_ms < victim->last_ms))
                victim = f;
        if (!victim)
            return;
        hub_cancel(victim->call);
        flight_end(victim, NULL);
        flight_start(blob, DEMAND);
    }
}

// Takes out of the queue what needs nothing now; when there are no connections left, nobody knows.
static void queue_settle(struct fetch *fetch)
{
    if (fetch->flying >= fetch->options.connections)
        return;
    struct blob *blob = fetch->queue;
    fetch->queue = NULL;
    fetch->queue_end = &fetch->queue;
    while (blob) {
        struct blob *next = blob->next_queued;
        blob->queued = false;
        blob_unref(blob);
        blob = next;
    }
}

static struct blob *pending_take(struct fetch *fetch)
{
    UTIL_LOCKED(&fetch->pending_lock);
    struct blob *blob = fetch->pending;
    if (!blob)
        return NULL;
    fetch->pending = blob->next_pending;
    if (!fetch->pending)
        fetch->pending_end = &fetch->pending;
    blob->pending = false;
    return blob;
}

static void flights_look(struct fetch *fetch)
{
    for (struct blob *blob; (blob = pending_take(fetch));) {
        give_up(blob);
        queue_add(fetch, blob);
    }
    struct flight *paused = util_take_ptr(fetch->paused);
    while (paused) {
        struct flight *next = paused->next_paused;
        hub_resume(paused->call);
        paused = next;
    }
    if (!fetch->stopping) {
        start_some(fetch, DEMAND);
        make_room(fetch);
        start_some(fetch, AHEAD);
    }
    queue_settle(fetch);
}

static void flights_work(struct http_job *job)
{
    struct fetch *fetch = (struct fetch *) (void *) ((char *) job - offsetof(struct fetch, job));
    {
        UTIL_LOCKED(&fetch->pending_lock);
        fetch->job_waiting = false;
    }
    flights_look(fetch);
}

// --- the end

static void cancel_all(void *userdata)
{
    struct fetch *fetch = userdata;
    flights_look(fetch); // not the job: that may be in the http thread's list
    fetch->cancel_all = true;
    size_t count = 0;
    struct blob **blobs = fetch_blobs(fetch, &count);
    for (size_t i = 0; i < count; i++) {
        give_up(blobs[i]);
        blob_unref(blobs[i]);
    }
    free(blobs);
    while (fetch->queue) {
        struct blob *blob = fetch->queue;
        fetch->queue = blob->next_queued;
        blob_unref(blob);
    }
    fetch->queue_end = &fetch->queue;
}

void flight_stop(struct fetch *fetch)
{
    http_run(fetch->http, cancel_all, fetch);
}

static void nothing(void *userdata)
{
    (void) userdata;
}

void flight_drain(struct fetch *fetch)
{
    http_run(fetch->http, nothing, NULL); // behind the job, if somebody was just about to post it
}
