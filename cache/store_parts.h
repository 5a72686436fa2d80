// SPDX-License-Identifier: Apache-2.0
// What the parts of the store share: store.c (snapshots, what a revision means, entries), store_repos.c (which repos
// there are), store_file.c (opens files), store_hub.c (the Hub behind the cache). For these alone.
#ifndef CACHE_STORE_PARTS_H
#define CACHE_STORE_PARTS_H

#include "cache/fetch.h"
#include "cache/remote.h"
#include "cache/store.h"

#include <pthread.h>
#include <stdatomic.h>

#define STORE_BUCKETS 1024

struct snapshot {
    struct repo repo;
    char commit[NAMES_COMMIT_SIZE];
    uint32_t number;
    unsigned generation; // of the index it belongs to; void when that has moved on
    struct snapshot *next;

    atomic_bool complete;
    atomic_int holds;
    atomic_llong used_ms; // 0: never
    atomic_llong date;    // of the commit, seconds since 1970; INDEX_NO_DATE: not known, or not yet

    pthread_mutex_t lock;   // guards what follows: one reading at a time
    struct index_tree tree; // the id is constant
    int64_t list_check_ms;  // when trees/<commit>.json is looked for again
    uint32_t checked_dir;   // the directory that was looked at last, and when it is again
    int64_t dir_check_ms;
    bool local; // the Hub could not be asked: what is on disk has to do, and nobody waits for the Hub any more
    bool dated; // its date is known, or cannot be had

    pthread_mutex_t ahead_lock; // guards what follows, a leaf: how it and its files are opened
    char ref[NAMES_REF_SIZE];   // that led to it last, "" if none
    uint32_t last_dir;
    char last_name[INDEX_NAME_SIZE];  // the one opened last
    char ahead_name[INDEX_NAME_SIZE]; // up to which they are fetched ahead
};

// The commit that a ref led to last.
struct binding {
    struct repo repo;
    struct binding *next;
    struct snapshot *snapshot;
    char ref[];
};

struct store {
    struct layout *layout;
    struct index *index;
    char *index_path; // NULL: nowhere

    // The Hub; constant after the opening.
    struct http *http;
    struct hub *hub;
    struct partials *partials;
    struct remote *remote;
    struct fetch *fetch;
    bool online;  // it may be asked
    bool publish; // whole blobs go into the cache
    atomic_bool stopped;

    pthread_mutex_t lock; // guards what follows
    struct snapshot *by_name[STORE_BUCKETS];
    struct binding *bindings[STORE_BUCKETS];
    struct snapshot **by_number; // number n at n - 1
    uint32_t count, room;

    pthread_mutex_t repos_lock; // guards what follows; taken before nothing else
    struct repo *repos;         // sorted
    size_t repo_count, repo_room;
    int64_t repos_check_ms;
};

// What an answer of the index is worth. -EUCLEAN empties it; when that happened since `generation` was read, by
// whomever, the answer may be of another tree, or of none: -ESTALE.
int store_index_check(struct store *store, unsigned generation, int answer);

// Whether a commit has anything to show without the Hub: files in the cache, or a list that the Hub gave before.
bool store_has_commit(struct store *store, const struct repo *repo, const char *commit);

// store_hub.c: opens and closes the Hub's side. 0, -EINVAL (the endpoint is no address), -ENOMEM, -errno.
int store_hub_open(struct store *store, const struct store_options *options, const char *state_dir);
void store_hub_close(struct store *store);

#endif
