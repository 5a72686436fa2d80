// SPDX-License-Identifier: Apache-2.0
// What the parts of fetching share: fetch.c (blobs and their readers), fetch_read.c (reads), fetch_chunk.c (memory),
// fetch_watch.c (the ticker), flight.c and flight_range.c (what is fetched), keep.c (what becomes of bytes that have
// come) and keep_publish.c (where they stay). For these alone.
#ifndef CACHE_FETCH_BLOB_H
#define CACHE_FETCH_BLOB_H

#include "cache/fetch.h"
#include "cache/plan.h"
#include "cache/pool.h"
#include "cache/verify.h"

#include <pthread.h>
#include <stdatomic.h>

#define CHUNK ((int64_t) 256 * 1024) // bytes of a buffer; those of a blob begin at multiples of it
#define CHUNKS_MIN 192 // 48 MiB in all, or more for many connections; a range for which none is free is paused
#define STALE_MAX 4
#define SMALL_CHUNKS ((int) (FETCH_SMALL / CHUNK)) // of a small blob, at most
#define KEEP_FULL_MS 5000                          // how long a full disk is left alone
#define BUCKETS 1024
#define FLIGHT_FAILED_MS 2000 // a range that failed is not fetched ahead again for so long

// Bytes that have come, on their way to the disk. From the first byte on it is in its blob's list.
struct chunk {
    struct pool_work work;
    struct chunk *next; // in the blob's list; or free
    struct blob *blob;
    struct flight *flight; // whose landing it is; NULL: none, any more
    int64_t offset;
    size_t filled; // guarded by the blob's lock
    atomic_int references;
    bool unkept;     // the disk has no place for it: given away from here, dropped when room is needed
    bool again;      // an unkept one that is being written once more
    int64_t used_ms; // of an unkept one
    unsigned char data[CHUNK];
};

// A range under way. It stays in its blob's list until its bytes are written: until then it is what says that they
// need not be fetched.
struct flight {
    struct blob *blob;
    struct flight *next;
    int64_t from, to;
    int64_t at;  // the next byte to come; guarded by the blob's lock, as are `landing` and `over`
    int landing; // chunks not written yet
    bool over;   // nothing more comes
    // http thread only
    struct hub_call *call;
    struct chunk *chunk; // being filled
    bool paused;
    struct flight *next_paused;
    struct flight *next_flying;
    int64_t last_ms; // when it began, or last brought something
};

// Where a blob's bytes are wanted under a name.
struct link {
    struct link *next;
    struct repo repo;
    char commit[NAMES_COMMIT_SIZE];
    char ref[NAMES_REF_SIZE];
    uint64_t tag;
    bool published;
    char path[];
};

// A read that waits for its bytes, and then its answer.
struct answer {
    struct pool_work work;
    struct answer *next; // in the blob's list, or among those that are to be called
    struct blob *blob;   // referenced
    struct fetch_read *read;
    struct fetch_reader *reader; // while it is in the list
    int64_t need_from, need_to;  // what is fetched for it
    int64_t since_ms;
    int error;
    int count, most;
    struct fetch_piece *pieces;
    struct chunk **chunks; // of each piece the chunk that it is in, referenced; NULL: it is on disk
};

struct fetch_reader {
    struct blob *blob;
    struct fetch_reader *next; // in the blob's list
    bool ahead_only;           // fetch_ahead()
    // guarded by the blob's lock
    struct plan_reader plan;
    int64_t ahead_from, ahead_to;
};

struct blob {
    struct fetch *fetch;
    int64_t size;
    bool small;
    char etag[NAMES_ETAG_SIZE];

    // guarded by fetch->lock
    struct blob *next;
    unsigned refs;
    bool close_waits;
    bool condemned; // not for those who open it from now on

    // guarded by fetch->pending_lock
    bool pending; // on its way to the http thread, referenced
    struct blob *next_pending;

    // http thread only
    struct blob *next_queued;
    bool queued;

    pthread_mutex_t lock; // guards what follows
    struct link *links;   // the first is what it is fetched by
    struct partial *partial;
    struct partial *stale[STALE_MAX]; // which another process has published or thrown away; their readers read on
    int stale_count;
    int fd; // where all of it can be read: of a small blob that was kept, or of the hub cache. -1
    struct chunk *chunks;
    struct flight *flights;
    struct answer *waiters;
    struct fetch_reader *readers;
    struct plan_map *map;
    bool map_known;
    bool no_ranges;       // the server sends whole files only
    bool verified;        // all bytes are there and right
    bool kept;            // it is where it is to stay
    bool tainted;         // bytes of it that were not verified were given away
    int broken;           // -errno of all further reads
    int64_t failed_until; // ms: nothing is fetched ahead before that
    int64_t unsynced;     // bytes written since the last sync, which began then
    int64_t synced_ms;
    int64_t progress_ms;   // when another process's partial grew last
    int64_t progress_seen; // bytes it had then
    uint64_t data_inode;   // of the partial that is hashed
    int64_t come;          // bytes from the network, for the rate
    int64_t come_before, rate;

    int strikes; // how often the bytes of a small one were wrong
    int publish_tries;

    // Work that waits in a pool, each with a reference to the blob; guarded by the lock but for `hash`.
    bool hash_waits, sync_waits, publish_waits, refresh_waits, small_waits;
    bool hashing;
    bool hash_again;    // more has come while it was being hashed
    bool hash_anew;     // what was hashed may not be what is there
    bool publish_again; // there is a new name while it is being published
    bool retry_ref;     // a publishing that is to be tried again holds a reference
    struct pool_work hash_work, sync_work, publish_work, refresh_work, close_work, small_work;
    // Of the keeper that hashes, while that is set.
    struct verify *verify;
    int64_t hashed;
};

// Bytes of a blob were not what its hash says.
struct bad {
    struct bad *next;
    int times;
    int64_t until_ms; // it is not tried again before that
    char etag[NAMES_ETAG_SIZE];
};

struct fetch {
    struct http *http;
    struct hub *hub;
    struct partials *partials;
    struct fetch_options options;
    char *cache_path;
    struct pool *writers, *keepers;
    pthread_t ticker;
    bool ticker_runs;
    atomic_bool stopping;

    pthread_mutex_t lock; // guards what follows
    pthread_cond_t tick;
    struct blob *blobs[BUCKETS];
    struct bad *bads; // blobs whose bytes were wrong
    bool stop, idle, woken;
    char last_error[512];

    pthread_mutex_t pending_lock; // a leaf; guards what follows
    struct blob *pending, **pending_end;
    bool job_waiting;
    struct http_job job;

    pthread_mutex_t chunk_lock; // a leaf; guards what follows
    struct chunk *free_chunks;
    int free_count, chunk_count, chunks_max;
    bool starved; // a flight was paused for want of a chunk

    atomic_llong network_bytes, disk_bytes, unkept_bytes, errors, waiting;
    atomic_llong full_until; // ms: the disk was full until then, at least
    int64_t bytes_before, rate;
    atomic_int flying; // written by the http thread

    // http thread only
    bool cancel_all;
    struct flight *paused;
    struct flight *under_way;        // all of them
    struct blob *queue, **queue_end; // those of which something is to be fetched, referenced
};

// ---- fetch.c

// Counts one more use of a blob, and gives it back. Without a lock of ours.
void blob_ref(struct blob *blob);
void blob_unref(struct blob *blob);

// The name that a source is wanted under; the caller frees it. NULL when out of memory.
struct link *link_new(const struct fetch_source *source);

// Takes out the readers of fetch_ahead().
void blob_drop_ahead(struct blob *blob);

// Opens the partial of a blob that has none. Without one its bytes are given away and not kept. 0, -errno. Without a
// lock of ours.
int blob_open_partial(struct blob *blob);

// The rest of a small blob's verification failed, or it was given up: its chunks go. With the blob's lock held.
void blob_drop_chunks(struct blob *blob);

// The bytes of a blob were wrong: the next to open it starts over with another struct.
void blob_condemn(struct blob *blob);

// Notes an error for people to see.
void fetch_note(struct fetch *fetch, const char *text);

// "org/name@commit: path" for the log; the caller frees it.
char *blob_name(struct blob *blob);

// ---- fetch_read.c

// Takes those waiters that can be answered out of the list and has them called. `from`, `to`: what has changed. Without
// a lock of ours.
void blob_answer(struct blob *blob, int64_t from, int64_t to);

// Answers those waiters of which `gone` says so with an error.
void blob_drop_waiters(struct blob *blob, bool (*gone)(const struct answer *a, const void *userdata),
                       const void *userdata, int error);
// Answers those that overlap a range with an error.
void blob_fail(struct blob *blob, int64_t from, int64_t to, int error);

// Whether a thread has ended, or is about to. False for 0.
bool fetch_is_gone(int pid);

// ---- fetch_chunk.c

// A chunk, with one reference. NULL when there is none to be had; `urgent`: somebody waits for what will be in it.
struct chunk *chunk_get(struct fetch *fetch, bool urgent);
void chunk_unref(struct chunk *chunk);
// Gives back one that was not used: nobody who waits for chunks is told.
void chunk_put_back(struct fetch *fetch, struct chunk *chunk);
// Drops the free ones.
void chunks_trim(struct fetch *fetch);

// ---- fetch_watch.c

int watch_start(struct fetch *fetch);
// Something is open that the ticker has to look at.
void watch_wake(struct fetch *fetch);
void watch_stop(struct fetch *fetch);
// All blobs in use, each with a reference; the caller frees the array. NULL when out of memory.
struct blob **fetch_blobs(struct fetch *fetch, size_t *ret_count);

// ---- flight_range.c

enum urgency { DEMAND, AHEAD };

// The next range that somebody waits for, or that is likely to be wanted, and that is neither there nor under way.
// False if there is none.
bool flight_range(struct blob *blob, enum urgency urgency, int64_t *ret_from, int64_t *ret_to);

// ---- flight.c

// A chunk has become free: flights that were paused for want of one go on.
void flight_resume(struct fetch *fetch);

// Something has changed for this blob: the http thread looks what should be fetched of it.
void flight_schedule(struct blob *blob);
// Ends all flights and starts no more. Waits until that is done.
void flight_stop(struct fetch *fetch);
// After that: returns when the http thread will not touch `fetch` any more.
void flight_drain(struct fetch *fetch);
// A chunk of a flight is on disk, or cannot be. With the blob's lock held; the flight may be gone afterwards. True if
// the blob must then be scheduled.
bool flight_landed(struct chunk *chunk);

// ---- keep.c, keep_publish.c

#define KEEP_BLOB(work, member) ((struct blob *) (void *) ((char *) (work) -offsetof(struct blob, member)))

// Has something done for a blob, unless that waits already (`waits`, guarded by its lock, which `fn` clears), or all
// ends.
void keep_add(struct pool *pool, struct blob *blob, bool *waits, struct pool_work *work,
              void (*fn)(struct pool_work *work), bool urgent);
// The chunks of a small blob in order, each referenced: how many, or -ESTALE if they are not all of it.
int keep_small_chunks(struct blob *blob, struct chunk *ret_chunks[SMALL_CHUNKS]);
// partial_sync(), and what is to be done when it fails.
int keep_sync_partial(struct blob *blob, struct partial *partial);
// Some of what was on disk is absent again.
void keep_lost(struct blob *blob);

// A chunk is full, or nothing more comes into it: writes it.
void keep_chunk(struct chunk *chunk);
// The disk may have room again: writes what it had no place for.
void keep_again(struct blob *blob);
// All of a small blob has come.
void keep_small(struct blob *blob);
// Hashes what is there in order; and if that is all of it, publishes it. On a keeper, later.
void keep_hash(struct blob *blob);
// Brings what was written to stable storage. On a keeper, later.
void keep_sync(struct blob *blob);
// Publishes a blob that is verified under all its names. On a keeper, later.
void keep_publish(struct blob *blob);
// Looks what another process has fetched. On a keeper, later.
void keep_refresh(struct blob *blob);
bool keep_disk_full(struct fetch *fetch);

#endif
