// SPDX-License-Identifier: Apache-2.0
// One question to the Hub, whatever it asks for: redirects, token, retries, limits. For hub_*.c only. All of it happens
// on the http thread; the fields of a call are that thread's own but for `references`, and `done`, which hub->lock
// guards.
#ifndef CACHE_HUB_CALL_H
#define CACHE_HUB_CALL_H

#include "cache/hub.h"

#include <pthread.h>
#include <stdatomic.h>

// Where a file's bytes were last found. Kept in the order of use.
struct hub_place {
    struct hub_place *next;
    char *key;
    char *url;               // signed, on another host; NULL: nobody knows yet
    bool direct;             // the endpoint itself has it
    int64_t expires;         // seconds since 1970
    struct hub_call *leader; // is finding out
    struct hub_call *waiters;
};

enum hub_window { HUB_WINDOW_API, HUB_WINDOW_RESOLVERS, HUB_WINDOWS };

struct hub {
    struct http *http;
    char *endpoint;
    bool offline;
    int timeout_ms, budget_ms, pause_ms;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // http thread only
    struct hub_call *calls;
    struct hub_place *places;
    int64_t limited_until[HUB_WINDOWS]; // ms of CLOCK_MONOTONIC: no request before that
    uint64_t random;
    // any thread
    atomic_llong retries;
};

// What on_head, on_data, on_redirect and on_end may return besides 0 and -errno (for which call->error is set, or is
// made from the errno).
#define HUB_STOP 2  // enough: on_end is called
#define HUB_NEXT 3  // on_end only: ask again, call->start_url is another one
#define HUB_AGAIN 4 // call->error is set, and may go away: try again after a pause

struct hub_call_kind {
    enum hub_window window;
    bool compressed;
    bool with_416; // on_head wants to see it
    // Before each request that starts from call->start_url. HUB_STOP: not now, hub_call_go() will be called. May be
    // NULL.
    int (*prepare)(struct hub_call *call, struct http_request *request);
    int (*on_redirect)(struct hub_call *call, const struct http_head *head); // to call->next_url; may be NULL
    int (*on_head)(struct hub_call *call, const struct http_head *head);     // 2xx; may be NULL
    int (*on_data)(struct hub_call *call, const char *bytes, size_t len);
    int (*on_end)(struct hub_call *call);
    // Another host than the endpoint refused (4xx): 0 to ask the endpoint again at once, or -errno. May be NULL.
    int (*on_refused)(struct hub_call *call);
    void (*on_done)(struct hub_call *call); // call->error says how it ended
    void (*on_over)(struct hub_call *call); // after that, or when cancelled; may be NULL
    void (*destroy)(struct hub_call *call); // with the last reference; may be NULL
};

enum hub_mode { HUB_BODY, HUB_REDIRECT, HUB_RETRY, HUB_REFUSAL, HUB_FAILURE };

struct hub_call {
    const struct hub_call_kind *kind;
    struct hub *hub;
    atomic_int references;
    struct http_job start_job;
    struct http_job resume_job;
    atomic_bool resuming;
    struct hub_call *prev, *next; // in hub->calls
    char *subject;                // for messages
    char *authorization;          // header; NULL: no token
    char *start_url;
    bool done;   // guarded by hub->lock
    bool over;   // ended or cancelled
    bool listed; // in hub->calls
    // this request
    struct http_transfer *transfer;
    struct http_timer timer;
    char *url, *next_url;
    int redirects;
    enum hub_mode mode;
    int64_t wait_ms;
    int handler_result; // of the kind's on_head or on_data
    size_t dropped;     // bytes of a body that nobody wants
    // all tries
    int tries;
    int64_t deadline; // ms: no try begins after it
    // told by the endpoint's answers
    int64_t linked_size; // -1
    char etag[NAMES_ETAG_SIZE];
    char commit[NAMES_COMMIT_SIZE];
    struct hub_error error;
};

// Sets up `call`, zeroed, the first member of what the kind needs. It takes subject and start_url, also on failure,
// and `call` if it fails: kind->destroy is called then. -ENOMEM.
int hub_call_start(struct hub *hub, const struct hub_call_kind *kind, struct hub_call *call, char *subject,
                   char *start_url, struct hub_call **ret_call);

// Begins, or goes on, from call->start_url.
void hub_call_go(struct hub_call *call);

// Good bytes came: the budget begins anew.
void hub_call_good(struct hub_call *call);

// Ends the call with call->error.
void hub_call_finish(struct hub_call *call);

// Whether call->url is the endpoint's.
bool hub_call_at_endpoint(const struct hub_call *call);

#endif
