// SPDX-License-Identifier: Apache-2.0
// HTTP over one thread around curl_multi: requests in, heads and bytes out, any number at once. Knows nothing of the
// Hub: no redirect is followed, nothing is tried again.
//
// Threads. All of a transfer's life but its birth is on the *http thread*: every handler, job and timer is called
// there, one after another, with no lock held, and must not block. Their userdata therefore needs no lock if only they
// touch it. http_start, http_resume, http_cancel, http_post and http_run may be called from every thread, the http
// thread and the handlers included; http_timer_* from the http thread only. There is one lock, inside, over the list of
// what other threads want; it is never held while anything is called.
//
// A request waits its turn while all connections are in use; no time limit counts then.
#ifndef CACHE_HTTP_H
#define CACHE_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;
struct http_transfer;
struct http_head;

struct http_options {
    int connections;          // at most in all; 0: 64
    int connections_per_host; // 0: 32
    const char *user_agent;   // copied
};

// Starts the thread. Certificates: SSL_CERT_FILE, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE (a file or a directory) and
// SSL_CERT_DIR, else the system's; proxies: https_proxy, no_proxy and so on, as curl(1) reads them. 0, -ENOMEM, -EIO
// (curl), -errno of the thread.
int http_new(const struct http_options *options, struct http **ret_http);

// Ends each transfer that is left with on_done(-ECANCELED), runs the jobs that were posted, drops the timers and ends
// the thread. Not from the http thread, nor while another thread calls anything here. NULL is fine.
void http_free(struct http *http);

// ---- transfers ----

enum http_method { HTTP_GET, HTTP_HEAD };

struct http_request {
    const char *url; // http or https
    enum http_method method;
    int64_t first, last;        // bytes of the range, both included; first -1: no range; last -1: to the end
    const char *const *headers; // "Name: value", NULL at the end; may be NULL
    int connect_timeout_ms;     // name look-up, connection and TLS; 0: 30 s
    int stall_timeout_ms;       // without a byte, from the request on, not while paused; 0: 30 s
    bool compressed;            // ask for compression and undo it; not with a range
};

// What http_handlers.on_data may return besides 0 and -errno.
#define HTTP_PAUSE 1

struct http_handlers {
    // The final answer's head, whatever its status. 0 to go on; -errno ends the transfer with it. `head` is gone when
    // it returns. May be NULL.
    int (*on_head)(void *userdata, const struct http_head *head);
    // Bytes of the body. 0: taken; HTTP_PAUSE: not taken, the same bytes come again after http_resume(); -errno ends
    // the transfer with it. May be NULL: the body is dropped.
    int (*on_data)(void *userdata, const void *bytes, size_t len);
    // The end, exactly once for each transfer that http_cancel() did not end. `result`: 0 when the whole answer has
    // come (of any status), -errno of a handler, or: -EHOSTUNREACH no such host, or no answer from it; -ECONNREFUSED
    // and other errnos of connect(); -ETIMEDOUT no byte for too long; -ECONNRESET ended before its end; -EKEYREJECTED
    // the certificate; -EBADMSG a broken encoding; -EMSGSIZE a head over 64 KiB; -EPROTO other nonsense, or not
    // http(s); -ECANCELED http_free(); -ENOMEM; -EIO. `status`: of the answer, 0 if none came. `error`: one line, "" if
    // none.
    void (*on_done)(void *userdata, int result, int status, const char *error);
};

// Starts a request; all of it is copied. *ret_transfer is to be given back with http_release(); with NULL there is
// nothing to give back, and no way to resume or cancel. 0; -EINVAL for a URL that is not http(s), or a control
// character in a header; -ENOMEM. On failure no handler is called.
int http_start(struct http *http, const struct http_request *request, const struct http_handlers *handlers,
               void *userdata, struct http_transfer **ret_transfer);

// Goes on with a transfer whose on_data paused it; without effect on any other. May be called before that on_data has
// returned HTTP_PAUSE; never lost. on_data is not called from inside.
void http_resume(struct http_transfer *transfer);

// Ends a transfer. True: on_done was not called and never will be. False: it was; on another thread it has returned
// too. Either way no handler of this transfer runs when this returns, or starts later, but those that this very call
// was made from. So on another thread it waits for the handler that is just running: hold no lock that a handler takes.
bool http_cancel(struct http_transfer *transfer);

// Gives back the handle; does not end the transfer. NULL is fine.
void http_release(struct http_transfer *transfer);

// ---- an answer's head ----

int http_head_status(const struct http_head *head);

// The value of the header `name`, in any case, without spaces around it; NULL if there is none. `nth`: 0 for the first
// of that name, 1 for the next.
const char *http_head_value(const struct http_head *head, const char *name, int nth);

// ---- work on the http thread ----

// A call to come, inside of something that lives until then.
struct http_job {
    void (*fn)(struct http_job *job);
    struct http_job *next;
};

// Has `job->fn` called on the http thread, soon, in the order of the calls. The job must not be waiting already.
void http_post(struct http *http, struct http_job *job);

// The same, and waits until it has returned; on the http thread it is called at once. Hold no lock that handlers take.
void http_run(struct http *http, void (*fn)(void *userdata), void *userdata);

bool http_on_thread(const struct http *http);

// A call at a time, inside of something that lives until then; zeroed at first. http thread only.
struct http_timer {
    void (*fn)(struct http_timer *timer);
    int64_t due; // ms of CLOCK_MONOTONIC
    struct http_timer *next;
    bool set;
};

void http_timer_set(struct http *http, struct http_timer *timer, int64_t delay_ms,
                    void (*fn)(struct http_timer *timer));
void http_timer_clear(struct http *http, struct http_timer *timer);

#endif
