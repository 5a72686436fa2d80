// SPDX-License-Identifier: Apache-2.0
// Joins layout, tree and index: what fs/ and cli/ ask of a hub cache. All functions are thread-safe.
//
// Locks, in order: a snapshot's own (one reading of it at a time), the index's, the store's (its tables; never held
// during I/O).
#ifndef CACHE_STORE_H
#define CACHE_STORE_H

#include "cache/fetch.h"
#include "cache/index.h"
#include "cache/layout.h"
#include "cache/names.h"
#include "cache/remote.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// How long a ref stays with the commit it pointed at after that commit's files were used last: programs that walk the
// full path for every file must not end up with a mixture of two commits.
#define STORE_REF_HOLD_MS 30000

struct store;

// The files of one repo at one commit. Lives as long as the store; its number is never given to another.
struct snapshot;

struct store_hub_options {
    const char *endpoint; // NULL: HF_ENDPOINT, else https://huggingface.co
    bool offline;         // never ask; as HF_HUB_OFFLINE
    int connections;      // ranges fetched at once; 0: 16
    int timeout_ms;       // no byte for so long ends a request; 0: 15 s
    int ref_ttl_ms;       // how long the Hub's answer on a ref is taken for its meaning; -1: 60 s
    bool publish;         // put whole blobs into the cache
    // Bytes that were given away for the file that was opened with `tag` were wrong. Called on a thread of the store's.
    void (*on_bad)(void *userdata, uint64_t tag);
    void *userdata;
};

struct store_options {
    const char *cache_path;
    const char *state_dir;               // NULL: places_state_dir(); caches may share one
    bool index_in_memory;                // and nothing else is written there
    const struct store_hub_options *hub; // NULL: the cache alone, and no threads
};

// Never fails because of the index. 0, layout_open()'s errors, -EINVAL when the endpoint is no web address, -errno.
int store_open(const struct store_options *options, struct store **ret_store);
void store_close(struct store *store);

// Answers all who wait and ends all threads of the store. Files that are open may still be closed.
void store_stop(struct store *store);
const struct layout *store_layout(const struct store *store);

// Whether the index is in memory only; why, and where it is otherwise ("" if nowhere).
bool store_index_in_memory(struct store *store, char ret_reason[256]);
const char *store_index_path(const struct store *store);

// Whether the cache has that repo, or any repo of the organisation; the cache's directory is read again only when it
// has changed.
bool store_has_repo(struct store *store, const struct repo *repo);
bool store_has_org(struct store *store, enum repo_type type, const char *org);

// Whether there may be such a repo: without a request, so also if nobody has asked the Hub yet.
bool store_may_have_repo(struct store *store, const struct repo *repo);
bool store_is_online(const struct store *store);
const char *store_endpoint(const struct store *store);

// All repos, sorted by type and id. The caller frees *ret_repos. Returns their number or -errno.
ssize_t store_repos(struct store *store, struct repo **ret_repos);
// And those of which something was resolved since the start.
ssize_t store_all_repos(struct store *store, struct repo **ret_repos);

// The refs of a repo as the Hub has them, in no order. 0, -EINPROGRESS, -ENOENT (no such repo), or an error after all
// that was known; or what the callback returned.
int store_refs(struct store *store, const struct repo *repo, layout_ref_fn *fn, void *userdata);

// -EINPROGRESS, from here on: the Hub is being asked. Take store_answers() before the call, then have store_wait() call
// you back (remote_wait()) and call again.
uint64_t store_answers(struct store *store);
void store_wait(struct store *store, uint64_t seen, struct remote_waiter *waiter);

// What the Hub said last of a repo, for people; "" if nothing.
void store_hub_error(struct store *store, const struct repo *repo, char ret_text[512]);

// The commit that a ref means now; `fresh`: the Hub is asked, if it can be. Errors as below.
int store_ref(struct store *store, const struct repo *repo, const char *ref, bool fresh,
              char ret_commit[NAMES_COMMIT_SIZE]);

// The snapshot a revision (a ref or a commit) of a repo means now. 0; -ENOENT when there is no such revision;
// -ENETUNREACH when there is, but nothing of its commit is known here; -EINPROGRESS; -EACCES, -EIO of the Hub; -errno.
int store_resolve(struct store *store, const struct repo *repo, const char *revision, struct snapshot **ret_snapshot);

// Notes the ref that led to a snapshot: what is published of it goes under that ref, too.
void store_led_to(struct snapshot *snapshot, const char *ref);

// The snapshot of a commit of which something is known here; the Hub is never asked. -ENOENT if nothing is.
int store_known(struct store *store, const struct repo *repo, const char *commit, struct snapshot **ret_snapshot);

// By number; NULL if it was never given.
struct snapshot *store_snapshot(struct store *store, uint32_t number);

// The commits of a repo that were resolved since the start and are still here, in no order. The callback must not call
// the store. 0, or what it returned.
int store_commits(struct store *store, const struct repo *repo, layout_commit_fn *fn, void *userdata);

const struct repo *snapshot_repo(const struct snapshot *snapshot);
const char *snapshot_commit(const struct snapshot *snapshot);
uint32_t snapshot_number(const struct snapshot *snapshot);

// When the commit was made, in seconds since 1970; INDEX_NO_DATE if that is not known. Never changes once an entry of
// the snapshot was asked for.
int64_t snapshot_date(const struct snapshot *snapshot);

// Its entries are void, since the index was lost: it must be resolved again.
bool snapshot_is_void(struct store *store, const struct snapshot *snapshot);

// Whether the list of the commit's files is known; other than snapshot_complete() also before anybody has used it.
bool store_is_listed(struct snapshot *snapshot);

// All files of the commit are known: what is and what is not in it will never change.
bool snapshot_complete(const struct snapshot *snapshot);

// Something of the snapshot was used just now: a ref that led to it stays with it for STORE_REF_HOLD_MS.
// snapshot_hold() until snapshot_release(), however long that takes.
void snapshot_touch(struct snapshot *snapshot);
void snapshot_hold(struct snapshot *snapshot);
void snapshot_release(struct snapshot *snapshot);

// Entries, brought up to what is on disk first. -ENOENT; -ESTALE when the ordinal is void, or the index was lost and
// the snapshot must be resolved again; -errno.
int store_entry(struct store *store, struct snapshot *snapshot, uint32_t ordinal, struct entry *ret_entry);
int store_lookup(struct store *store, struct snapshot *snapshot, uint32_t dir, const char *name,
                 struct entry *ret_entry);

// The entry at a path from the top ("" for that). -ENOTDIR when it goes through a file; the same.
int store_lookup_path(struct store *store, struct snapshot *snapshot, const char *path, struct entry *ret_entry);

// Brings a directory up to date once, before it is listed with store_list(); `ask`: the Hub may be asked. 0 or -errno.
int store_list_start(struct store *store, struct snapshot *snapshot, uint32_t dir, bool ask);
// Up to `max` entries after the name `after` in byte order. Returns their number or -errno.
int store_list(struct store *store, struct snapshot *snapshot, uint32_t dir, const char *after,
               struct entry *ret_entries, int max);

// Up to `max` files known of a snapshot with ordinals over `after`, in the order of those, without a look at the disk.
// Returns their number or -errno.
int store_files(struct store *store, struct snapshot *snapshot, uint32_t after, struct entry *ret_entries, int max);

// The path of an entry in its snapshot; the caller frees it.
int store_path(struct store *store, struct snapshot *snapshot, uint32_t ordinal, char **ret_path);

// A file that is open: whole on disk (`fd`, the caller closes it), or to be fetched (`reader`, fetch_close()).
struct store_file {
    int fd; // -1
    int64_t size;
    struct fetch_reader *reader; // NULL
};

// Whether the Hub gives away the bytes of a file. 0, or -errno and why in ret_text. Waits.
int store_probe(struct store *store, struct snapshot *snapshot, uint32_t ordinal, char ret_text[512]);

// Opens a file; asks nothing of the Hub. `tag` is for on_bad. 0; -ENETUNREACH when it is not on disk and cannot be
// fetched; -EPERM, -EIO as layout_file_open(); -ESTALE; -errno. What failed is said in one line of the log.
int store_file_open(struct store *store, struct snapshot *snapshot, uint32_t ordinal, uint64_t tag,
                    struct store_file *ret_file);

// Whether an entry's bytes are all on disk, as store_entry() gave it.
bool store_file_whole(struct store *store, struct snapshot *snapshot, const struct entry *entry);

// Bytes of one that is not whole that are on disk.
int64_t store_file_present(struct store *store, const struct entry *entry);

// What fetches; NULL without a Hub.
struct fetch *store_fetch(struct store *store);

#endif
