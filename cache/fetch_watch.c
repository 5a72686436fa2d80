// SPDX-License-Identifier: Apache-2.0
// The ticker: four times a second, while anything is open, what nobody else has an occasion to look at. And what there
// is to tell about fetching.
#include "cache/fetch_blob.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define TICK_MS 250LL
#define EVICT_MS 500
#define SYNC_MS 1000
#define SYNC_BYTES ((int64_t) 64 * 1024 * 1024)
#define GONE_MS 1000 // a read that waits for so long may be one whose reader was killed

static bool was_abandoned(const struct answer *a, const void *userdata)
{
    const int64_t *now = userdata;
    return *now - a->since_ms > GONE_MS && fetch_is_gone(a->read->pid);
}

struct blob **fetch_blobs(struct fetch *fetch, size_t *ret_count)
{
    UTIL_LOCKED(&fetch->lock);
    size_t count = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct blob *blob = fetch->blobs[i]; blob; blob = blob->next)
            count += blob->refs > 0;
    struct blob **blobs = calloc(count + 1, sizeof(struct blob *));
    *ret_count = 0;
    for (unsigned i = 0; blobs && i < BUCKETS; i++) {
        for (struct blob *blob = fetch->blobs[i]; blob; blob = blob->next) {
            if (blob->refs > 0 && *ret_count < count) {
                blob->refs++;
                blobs[(*ret_count)++] = blob;
            }
        }
    }
    return blobs;
}

// Drops what only memory holds, when memory is short: what was given away longest ago.
static void evict(struct blob *blob, int64_t now)
{
    UTIL_LOCKED(&blob->lock);
    for (struct chunk **at = &blob->chunks; *at;) {
        struct chunk *chunk = *at;
        if (!chunk->unkept || chunk->references > 1 || now - chunk->used_ms < EVICT_MS) {
            at = &chunk->next;
            continue;
        }
        if (blob->small) {
            blob->verified = false;
            blob_drop_chunks(blob);
            return;
        }
        *at = chunk->next;
        chunk_unref(chunk);
    }
}

static void tick_blob(struct blob *blob, int64_t now, bool starved)
{
    bool sync, follow, publish, waits;
    blob_drop_waiters(blob, was_abandoned, &now, -EINTR);
    {
        UTIL_LOCKED(&blob->lock);
        blob->rate = (blob->rate * 3 + (blob->come - blob->come_before) * (1000 / TICK_MS)) / 4;
        blob->come_before = blob->come;
        sync =
            blob->partial && (blob->unsynced >= SYNC_BYTES || (blob->unsynced > 0 && now - blob->synced_ms >= SYNC_MS));
        follow = blob->waiters && blob->partial && !partial_is_owner(blob->partial);
        publish = blob->verified && !blob->kept && blob->publish_tries > 0 && !blob->publish_waits;
    }
    if (starved)
        evict(blob, now);
    if (!keep_disk_full(blob->fetch))
        keep_again(blob);
    {
        UTIL_LOCKED(&blob->lock);
        waits = blob->waiters; // what it waits for may have been dropped, or have its turn now
    }
    if (sync)
        keep_sync(blob);
    if (follow)
        keep_refresh(blob);
    if (publish)
        keep_publish(blob);
    if (waits)
        flight_schedule(blob);
}

// What the ticker does. True if there is anything that it must look at again.
static bool tick(struct fetch *fetch)
{
    size_t count = 0;
    struct blob **blobs = fetch_blobs(fetch, &count);
    int64_t now = util_now_ms();
    bool starved;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        starved = fetch->starved;
    }
    int64_t network = fetch->network_bytes;
    {
        UTIL_LOCKED(&fetch->lock);
        fetch->rate = (fetch->rate * 3 + (network - fetch->bytes_before) * (1000 / TICK_MS)) / 4;
        fetch->bytes_before = network;
    }
    for (size_t i = 0; i < count; i++) {
        tick_blob(blobs[i], now, starved);
        blob_unref(blobs[i]);
    }
    free(blobs);
    if (fetch->flying == 0)
        chunks_trim(fetch);
    return count > 0;
}

static void *ticker_run(void *userdata)
{
    struct fetch *fetch = userdata;
    pthread_setname_np(pthread_self(), "ticker");
    bool busy = true;
    pthread_mutex_lock(&fetch->lock);
    while (!fetch->stop) {
        busy |= fetch->woken;
        fetch->woken = false;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        fetch->idle = !busy;
        if (busy)
            pthread_cond_timedwait(&fetch->tick, &fetch->lock, &until);
        else
            pthread_cond_wait(&fetch->tick, &fetch->lock);
        fetch->idle = false;
        if (fetch->stop)
            break;
        pthread_mutex_unlock(&fetch->lock);
        busy = tick(fetch);
        pthread_mutex_lock(&fetch->lock);
    }
    pthread_mutex_unlock(&fetch->lock);
    return NULL;
}

int watch_start(struct fetch *fetch)
{
    int error = -pthread_create(&fetch->ticker, NULL, ticker_run, fetch);
    fetch->ticker_runs = error == 0;
    return error;
}

void watch_wake(struct fetch *fetch)
{
    UTIL_LOCKED(&fetch->lock);
    fetch->woken = true; // it may have found nothing and be about to go idle
    if (fetch->idle)
        pthread_cond_signal(&fetch->tick);
}

void watch_stop(struct fetch *fetch)
{
    {
        UTIL_LOCKED(&fetch->lock);
        fetch->stop = true;
        pthread_cond_broadcast(&fetch->tick);
    }
    if (fetch->ticker_runs)
        pthread_join(fetch->ticker, NULL);
    fetch->ticker_runs = false;
}

// --- what is going on

void fetch_stats(struct fetch *fetch, struct fetch_stats *ret_stats)
{
    *ret_stats = (struct fetch_stats){
        .network_bytes = fetch->network_bytes,
        .disk_bytes = fetch->disk_bytes,
        .unkept_bytes = fetch->unkept_bytes,
        .requests = fetch->flying,
        .waiting_reads = fetch->waiting,
        .retries = hub_retries(fetch->hub),
        .errors = fetch->errors,
        .disk_full = keep_disk_full(fetch),
    };
    UTIL_LOCKED(&fetch->lock);
    ret_stats->bytes_per_second = fetch->rate;
    snprintf(ret_stats->last_error, sizeof ret_stats->last_error, "%s", fetch->last_error);
}

void fetch_list(struct fetch *fetch, void (*fn)(void *userdata, const struct fetch_progress *progress), void *userdata)
{
    size_t count = 0;
    struct blob **blobs = fetch_blobs(fetch, &count);
    for (size_t i = 0; i < count; i++) {
        struct blob *blob = blobs[i];
        pthread_mutex_lock(&blob->lock);
        if (blob->links && (blob->flights || blob->waiters)) {
            struct fetch_progress progress = {
                .repo = &blob->links->repo,
                .commit = blob->links->commit,
                .path = blob->links->path,
                .size = blob->size,
                .present = blob->partial ? partial_present_bytes(blob->partial) : 0,
                .bytes_per_second = blob->rate,
            };
            fn(userdata, &progress);
        }
        pthread_mutex_unlock(&blob->lock);
        blob_unref(blob);
    }
    free(blobs);
}
