// SPDX-License-Identifier: Apache-2.0
// The Hub's API over http.h: revisions, trees, refs, dates, and ranges of files, with redirects, tokens, retries and
// limits. Knows nothing of the index or of what is on disk.
// Protocol: huggingface_hub (2.4) hf_api.py, file_download.py, utils/_http.py.
//
// Threads. Everything but the entry of these functions happens on the http thread, and all state belongs to it; there
// is one lock, which guards `done` of the calls for hub_wait(). All functions may be called from every thread,
// callbacks included, but for hub_free() and hub_wait(), which the http thread must not call. Callbacks are called on
// the http thread, with no lock held, must not block, and never before the function that started the call has returned
// on the http thread itself (on another thread they may).
//
// Each call ends with exactly one done callback, unless hub_cancel() ended it. *ret_call is set before any
// callback is called, and is given back with hub_release(); with NULL for it there is nothing to give back.
#ifndef CACHE_HUB_H
#define CACHE_HUB_H

#include "cache/http.h"
#include "cache/hub_error.h"
#include "cache/names.h"
#include "cache/tree.h"

struct hub;
struct hub_call;

struct hub_options {
    const char *endpoint; // NULL: HF_ENDPOINT, else https://huggingface.co
    bool offline;         // as HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE: every call ends with -ENETUNREACH at once
    int timeout_ms;       // no byte, or no connection, for so long ends a request; 0: 15 s
    int budget_ms;        // tries again for so long after the last good byte; 0: 60 s
    int pause_ms;         // the first pause between tries, doubled each time up to 16-fold; 0: 500
};

// `http` must outlive it. 0; -EINVAL when the endpoint is no http(s) address; -ENOMEM.
int hub_new(struct http *http, const struct hub_options *options, struct hub **ret_hub);

// Ends what is left with -ECANCELED. Before http_free(). NULL is fine.
void hub_free(struct hub *hub);

// Without a slash at its end.
const char *hub_endpoint(const struct hub *hub);

// Whether nothing is asked at all (hub_options.offline).
bool hub_is_offline(const struct hub *hub);

// How often a request was tried again since the start.
int64_t hub_retries(const struct hub *hub);

// ---- calls ----
// Each returns 0 or -ENOMEM; all other errors come by the callback. The token is looked up at the start of each call.

// `error` is never NULL; error->error is 0 when all is well, and `commit` then 40 hex digits.
typedef void hub_revision_fn(void *userdata, const struct hub_error *error, const char *commit);

// What a revision means now.
int hub_revision(struct hub *hub, const struct repo *repo, const char *revision, hub_revision_fn *fn, void *userdata,
                 struct hub_call **ret_call);

struct hub_tree_handlers {
    // One file, as tree_read() gives it; in the Hub's order. Not 0 ends the call with it. Duplicates are the caller's
    // to see. If the call fails, what was given must be thrown away.
    tree_file_fn *on_file;
    void (*on_done)(void *userdata, const struct hub_error *error);
};

// All files of a commit, page after page. What is no file, or has an empty path, is passed over; one hostile path, size
// or hash fails the whole: -EBADMSG.
int hub_tree(struct hub *hub, const struct repo *repo, const char *commit, const struct hub_tree_handlers *handlers,
             void *userdata, struct hub_call **ret_call);

struct hub_refs_handlers {
    // "main", "v1.0", "refs/convert/parquet" (names_ref_ok) and its commit. Pull requests are not among them. Refs
    // whose name or commit is not well formed are passed over. Not 0 ends the call with it.
    int (*on_ref)(void *userdata, const char *name, const char *commit);
    void (*on_done)(void *userdata, const struct hub_error *error);
};

int hub_refs(struct hub *hub, const struct repo *repo, const struct hub_refs_handlers *handlers, void *userdata,
             struct hub_call **ret_call);

// Seconds since 1970.
typedef void hub_date_fn(void *userdata, const struct hub_error *error, int64_t date);

int hub_commit_date(struct hub *hub, const struct repo *repo, const char *commit, hub_date_fn *fn, void *userdata,
                    struct hub_call **ret_call);

// ---- files ----

struct hub_file {
    int64_t size;               // -1: not told
    char etag[NAMES_ETAG_SIZE]; // "": not told
    int64_t expires;            // seconds since 1970 until which `url` is good; INT64_MAX: not told
    const char *url;            // where the bytes are
};

typedef void hub_resolve_fn(void *userdata, const struct hub_error *error, const struct hub_file *file);

// Where a file is, without its bytes. `file` is gone when `fn` returns; NULL on error.
int hub_resolve(struct hub *hub, const struct repo *repo, const char *commit, const char *path, hub_resolve_fn *fn,
                void *userdata, struct hub_call **ret_call);

struct hub_range {
    const struct repo *repo;
    const char *commit;
    const char *path;
    int64_t first, last; // bytes, both included; `last` may be beyond the end
    int64_t size;        // of the file by its tree, -1 if not known: an answer of another size is none
    const char *etag;    // the same; NULL
};

struct hub_get_handlers {
    // Bytes of the file from `offset` on, in order, none twice. 0, HTTP_PAUSE (see hub_resume()), or -errno, which ends
    // the call.
    int (*on_data)(void *userdata, int64_t offset, const void *bytes, size_t len);
    // error->error is 0 when everything up to `last`, or to the end of the file, has been given.
    void (*on_done)(void *userdata, const struct hub_error *error);
};

// A range of a file. A signed address is remembered for the next ranges of the same file; while one call finds it, the
// others wait for it. What was cut off goes on where it stopped.
int hub_get(struct hub *hub, const struct hub_range *range, const struct hub_get_handlers *handlers, void *userdata,
            struct hub_call **ret_call);

// As http_resume().
void hub_resume(struct hub_call *call);

// ---- any call ----

// As http_cancel().
bool hub_cancel(struct hub_call *call);

void hub_release(struct hub_call *call);

// Waits for the end of the call. 0 once the done callback has returned; -ETIMEDOUT after `timeout_ms`, and the call is
// then cancelled as by hub_cancel().
int hub_wait(struct hub_call *call, int timeout_ms);

#endif
