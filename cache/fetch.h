// SPDX-License-Identifier: Apache-2.0
// Blobs that are not whole on disk, as files that can be read: what is read and is not there is fetched from the Hub,
// kept as a partial blob, verified, and published once it is whole. Joins hub.h, partial.h, plan.h, verify.h and
// publish.h.
//
// Nobody waits in here: a read whose bytes are absent becomes a waiter and is answered by a call, from memory, as soon
// as its own bytes have come.
//
// Threads and what they may do:
//   http      decides what is fetched next (flight.c) and copies bytes into buffers; never waits
//   writers   write full buffers to the disk, verify small blobs, call back whoever waited
//   keepers   sync, hash, publish, close
//   ticker    four times a second: readers that are gone, partials that another process fetches, what is to be synced
// Locks, in this order, none held during I/O or a call to others: fetch->lock (the table of blobs), a blob's lock, the
// partial's. All functions are thread-safe.
#ifndef CACHE_FETCH_H
#define CACHE_FETCH_H

#include "cache/hub.h"
#include "cache/partial.h"
#include "cache/publish.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Blobs up to this size are verified before their first byte is given.
#define FETCH_SMALL ((int64_t) 1024 * 1024)

struct fetch;
struct fetch_reader;

// A file whose bytes are wanted. Strings are copied.
struct fetch_source {
    const struct repo *repo;
    const char *commit;
    const char *path;
    const char *etag; // names the content (verify_possible())
    int64_t size;
    const char *ref; // that it is read through; NULL or "": none
    uint64_t tag;    // the caller's own, for on_bad
};

struct fetch_options {
    const char *cache_path; // where whole blobs are published; NULL: nowhere
    int connections;        // ranges under way at once, at most
    publish_tree_fn *tree;  // all files of a commit, for publish_file(); called on a keeper with a struct
                            // fetch_commit as `userdata`
    void *list_userdata;    // in there
    void *userdata;         // of what follows
    void (*on_bad)(void *userdata,
                   uint64_t tag); // bytes that were given away for the file `tag` were wrong. May be NULL
};

struct fetch_commit {
    void *userdata;
    const struct repo *repo;
    const char *commit;
};

// `http`, `hub` and `partials` stay the caller's and must outlive the result. `partials` NULL: nothing is kept. 0,
// -ENOMEM, -errno.
int fetch_new(struct http *http, struct hub *hub, struct partials *partials, const struct fetch_options *options,
              struct fetch **ret_fetch);

// Answers all waiters with -ECANCELED and ends all of it, so that nothing is fetched or called any more. Readers may
// still be closed.
void fetch_stop(struct fetch *fetch);
// After fetch_stop() and the last fetch_close(). NULL is fine.
void fetch_free(struct fetch *fetch);

// Opens a file for reading; asks nothing of the Hub. 0; -EIO when its bytes have twice been others than its hash says;
// -EOPNOTSUPP when its etag says nothing about its bytes; -EINVAL when that is known with another size; -ENOMEM.
int fetch_open(struct fetch *fetch, const struct fetch_source *source, struct fetch_reader **ret_reader);
// What still waits is answered with -ECANCELED.
void fetch_close(struct fetch_reader *reader);

// Fetches all of a file because it is likely to be wanted soon, after what somebody waits for. Nothing is said when
// that fails.
void fetch_ahead(struct fetch *fetch, const struct fetch_source *source);

// A file whose blob is in the cache lacks its link there: it is made, later.
void fetch_link(struct fetch *fetch, const struct fetch_source *source);

// Some bytes of an answer: in memory, good until the callback returns; or, `mem` NULL, at `offset` of `fd`.
struct fetch_piece {
    const unsigned char *mem;
    int fd;
    int64_t offset;
    size_t len;
};

// A read, in something of the caller's that lives until `fn` was called.
struct fetch_read {
    int64_t offset;
    size_t len; // not 0; within the file
    int pid;    // the thread that reads, 0 if not known
    // error 0 and the pieces in order, or -errno. Called on a writer; the last that is done with the read.
    void (*fn)(struct fetch_read *read, int error, const struct fetch_piece *pieces, int count);
};

// 0: all is on disk, at the read's offset of *ret_fd, which is good until the reader is closed, and `fn` is not called.
// -EINPROGRESS: it will be. -EIO: see fetch_open(). -errno.
int fetch_read(struct fetch_reader *reader, struct fetch_read *read, int *ret_fd);

// The thread `pid` closes a descriptor of this reader: what it was waiting for, or others that are gone, nobody waits
// for any more: these are answered with -EINTR.
void fetch_flush(struct fetch_reader *reader, int pid);

// ---- what is going on ----

enum fetch_state { FETCH_ABSENT, FETCH_PARTIAL, FETCH_WHOLE };

// Of the blob of an etag, and how many bytes of it are there. From memory and the disk, for people to look at.
enum fetch_state fetch_state(struct fetch *fetch, const char *etag, int64_t size, int64_t *ret_present);

struct fetch_stats {
    int64_t network_bytes, disk_bytes, unkept_bytes; // since the start
    int64_t bytes_per_second;                        // from the network, of late
    int64_t requests;                                // ranges under way
    int64_t waiting_reads;
    int64_t retries; // of all requests to the Hub
    int64_t errors;
    bool disk_full;
    char last_error[512];
};
void fetch_stats(struct fetch *fetch, struct fetch_stats *ret_stats);

struct fetch_progress {
    const struct repo *repo;
    const char *commit, *path;
    int64_t size, present;
    int64_t bytes_per_second;
};
// Each blob that is being fetched now. `fn` is called with a lock held: it must not call anything of this.
void fetch_list(struct fetch *fetch, void (*fn)(void *userdata, const struct fetch_progress *progress), void *userdata);

#endif
