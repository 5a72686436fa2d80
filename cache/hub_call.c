// SPDX-License-Identifier: Apache-2.0
#include "cache/hub_call.h"

#include "cache/hub_token.h"
#include "cache/log.h"
#include "cache/url.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define REDIRECTS_MAX 10
#define DROPPED_MAX ((size_t) 64 * 1024) // of an error's body: more is cheaper cut off than read
#define PAUSE_DOUBLINGS 4

// ---- its life ----

static void reference(struct hub_call *call)
{
    atomic_fetch_add_explicit(&call->references, 1, memory_order_relaxed);
}

static void unreference(struct hub_call *call)
{
    if (atomic_fetch_sub_explicit(&call->references, 1, memory_order_acq_rel) != 1)
        return;
    if (call->kind->destroy)
        call->kind->destroy(call);
    free(call->subject);
    if (call->authorization)
        explicit_bzero(call->authorization, strlen(call->authorization));
    free(call->authorization);
    free(call->start_url);
    free(call->url);
    free(call->next_url);
    free(call);
}

void hub_release(struct hub_call *call)
{
    if (call)
        unreference(call);
}

// Out of the hub's list; whoever waits is told. Drops the hub's reference.
static void leave(struct hub_call *call)
{
    struct hub *hub = call->hub;
    call->over = true;
    if (call->transfer) {
        http_cancel(call->transfer);
        http_release(call->transfer);
        call->transfer = NULL;
    }
    http_timer_clear(hub->http, &call->timer);
    if (call->prev)
        call->prev->next = call->next;
    else if (call->listed)
        hub->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    if (call->kind->on_over)
        call->kind->on_over(call);
    {
        UTIL_LOCKED(&hub->lock);
        call->done = true;
        pthread_cond_broadcast(&hub->changed);
    }
    unreference(call);
}

void hub_call_finish(struct hub_call *call)
{
    call->over = true; // a cancel from the callback comes too late
    if (call->error.error)
        log_debug("%s", call->error.text);
    call->kind->on_done(call);
    leave(call);
}

struct cancel {
    struct hub_call *call;
    bool done;
};

static void cancel_call(void *userdata)
{
    struct cancel *cancel = userdata;
    cancel->done = !cancel->call->over;
    if (!cancel->done)
        return;
    cancel->call->error.reason = HUB_STOPPED;
    leave(cancel->call);
}

bool hub_cancel(struct hub_call *call)
{
    struct cancel cancel = { .call = call };
    http_run(call->hub->http, cancel_call, &cancel);
    return cancel.done;
}

int hub_wait(struct hub_call *call, int timeout_ms)
{
    struct hub *hub = call->hub;
    assert(!http_on_thread(hub->http));
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long) (timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    bool done;
    {
        UTIL_LOCKED(&hub->lock);
        int r = 0;
        while (!call->done && r == 0)
            r = pthread_cond_timedwait(&hub->changed, &hub->lock, &until);
        done = call->done;
    }
    return done || !hub_cancel(call) ? 0 : -ETIMEDOUT;
}

static void resume_call(struct http_job *job)
{
    struct hub_call *call = (struct hub_call *) ((char *) job - offsetof(struct hub_call, resume_job));
    atomic_store(&call->resuming, false);
    if (call->transfer)
        http_resume(call->transfer);
    unreference(call);
}

void hub_resume(struct hub_call *call)
{
    if (atomic_exchange(&call->resuming, true))
        return;
    reference(call);
    call->resume_job.fn = resume_call;
    http_post(call->hub->http, &call->resume_job);
}

// ---- one request ----

static void go_on(struct hub_call *call);

bool hub_call_at_endpoint(const struct hub_call *call)
{
    return url_same_origin(call->url, call->hub->endpoint);
}

void hub_call_good(struct hub_call *call)
{
    call->tries = 0;
    call->deadline = util_now_ms() + call->hub->budget_ms;
}

static uint64_t random_number(struct hub *hub) // xorshift64
{
    hub->random ^= hub->random << 13;
    hub->random ^= hub->random >> 7;
    hub->random ^= hub->random << 17;
    return hub->random;
}

static void on_timer(struct http_timer *timer)
{
    hub_call_go((struct hub_call *) ((char *) timer - offsetof(struct hub_call, timer)));
}

// A pause, half of it by chance, and then from the start; or the end, with call->error, where that would be too late.
static void try_again(struct hub_call *call)
{
    struct hub *hub = call->hub;
    int doublings = call->tries < PAUSE_DOUBLINGS ? call->tries : PAUSE_DOUBLINGS;
    call->tries++;
    int64_t pause = (int64_t) hub->pause_ms << doublings;
    pause = pause / 2 + (int64_t) (random_number(hub) % (uint64_t) (pause / 2 + 1));
    if (call->wait_ms >= 0)
        pause = call->wait_ms + pause / 4; // not all of us at the same moment
    int64_t now = util_now_ms();
    if (now + pause > call->deadline) {
        size_t len = strlen(call->error.text);
        if (call->wait_ms > 0)
            snprintf(call->error.text + len, sizeof call->error.text - len, " (the server says: in %lld s)",
                     (long long) call->wait_ms / 1000);
        hub_call_finish(call);
        return;
    }
    hub->retries++;
    log_debug("%s; once more in %lld ms", call->error.text, (long long) pause);
    http_timer_set(hub->http, &call->timer, pause, on_timer);
}

static void set_error(struct hub_call *call, int code)
{
    if (code == -ENOMEM)
        hub_error_set(&call->error, code, HUB_STOPPED, call->subject, "out of memory");
    else
        hub_error_set(&call->error, code, HUB_STOPPED, call->subject, "%s", strerror(-code));
}

// A result of the kind's: an error that it has described itself, or not.
static void finish_with(struct hub_call *call, int code)
{
    if (call->error.error != code)
        set_error(call, code);
    hub_call_finish(call);
}

static void strip_etag(const char *value, char ret_etag[NAMES_ETAG_SIZE])
{
    if (strncmp(value, "W/", 2) == 0)
        value += 2;
    size_t len = strlen(value);
    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        value++;
        len -= 2;
    }
    if (len >= NAMES_ETAG_SIZE)
        return;
    char etag[NAMES_ETAG_SIZE];
    memcpy(etag, value, len);
    etag[len] = '\0';
    if (names_etag_ok(etag))
        memcpy(ret_etag, etag, len + 1);
}

static int64_t decimal(const char *s)
{
    int64_t value = 0;
    const char *digit = s;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        value = value * 10 + *digit - '0';
        if (value > INT64_C(1) << 53)
            return -1;
    }
    return digit > s && *digit == '\0' ? value : -1;
}

// What the endpoint says of the file or the commit; other hosts are not asked.
static void note_facts(struct hub_call *call, const struct http_head *head)
{
    const char *size = http_head_value(head, "X-Linked-Size", 0);
    const char *etag = http_head_value(head, "X-Linked-Etag", 0);
    const char *commit = http_head_value(head, "X-Repo-Commit", 0);
    if (size)
        call->linked_size = decimal(size);
    if (!etag)
        etag = http_head_value(head, "ETag", 0);
    if (etag)
        strip_etag(etag, call->etag);
    if (commit && names_commit_ok(commit))
        stpcpy(call->commit, commit);
}

static int read_redirect(struct hub_call *call, const struct http_head *head, const char *location)
{
    call->mode = HUB_REDIRECT;
    free(call->next_url);
    call->next_url = NULL;
    int r = url_join(call->url, location, &call->next_url);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        hub_error_set(&call->error, r, HUB_NONSENSE, call->subject,
                      "the server redirects to what is no http(s) address: is HF_ENDPOINT right?");
        return r;
    }
    if (++call->redirects > REDIRECTS_MAX) {
        hub_error_set(&call->error, -ELOOP, HUB_NONSENSE, call->subject,
                      "more than %d redirects one after another: is HF_ENDPOINT right?", REDIRECTS_MAX);
        return -ELOOP;
    }
    return call->kind->on_redirect ? call->kind->on_redirect(call, head) : 0;
}

static int read_head(struct hub_call *call, const struct http_head *head)
{
    int status = http_head_status(head);
    bool at_endpoint = hub_call_at_endpoint(call);
    if (at_endpoint && status < 400)
        note_facts(call, head);
    const char *location = http_head_value(head, "Location", 0);
    if (status >= 300 && status < 400 && status != 304 && location)
        return read_redirect(call, head, location);
    if ((status >= 200 && status < 300) || (status == 416 && call->kind->with_416)) {
        call->mode = HUB_BODY;
        call->error.status = status;
        return call->kind->on_head ? call->kind->on_head(call, head) : 0;
    }
    bool again = hub_error_from_head(head, call->subject, call->authorization, &call->error, &call->wait_ms);
    call->mode = again ? HUB_RETRY : HUB_FAILURE;
    if (!again && !at_endpoint && status != 416)
        call->mode = HUB_REFUSAL;
    if (status == 429 && at_endpoint && call->wait_ms > 0)
        call->hub->limited_until[call->kind->window] = util_now_ms() + call->wait_ms;
    return 0;
}

// A handler's frame: what it calls may cancel the call.
static int on_head(void *userdata, const struct http_head *head)
{
    struct hub_call *call = userdata;
    reference(call);
    int r = read_head(call, head);
    call->handler_result = r;
    unreference(call);
    return r > 0 ? -ECANCELED : r;
}

static int on_data(void *userdata, const void *bytes, size_t len)
{
    struct hub_call *call = userdata;
    if (call->mode != HUB_BODY) {
        call->dropped += len;
        return call->dropped > DROPPED_MAX ? -ECANCELED : 0;
    }
    reference(call);
    int r = call->kind->on_data(call, bytes, len);
    if (r == HTTP_PAUSE) {
        unreference(call);
        return r;
    }
    call->handler_result = r;
    unreference(call);
    return r > 0 ? -ECANCELED : r;
}

static void end_body(struct hub_call *call)
{
    call->error = (struct hub_error){ .status = call->error.status };
    int r = call->kind->on_end(call);
    if (call->over)
        return;
    if (r == HUB_NEXT) {
        hub_call_good(call);
        hub_call_go(call);
    } else if (r == HUB_AGAIN) {
        try_again(call);
    } else if (r < 0) {
        finish_with(call, r);
    } else {
        hub_call_finish(call);
    }
}

static void follow(struct hub_call *call)
{
    free(call->url);
    call->url = util_take_ptr(call->next_url);
    go_on(call);
}

static void be_refused(struct hub_call *call)
{
    int r = call->kind->on_refused ? call->kind->on_refused(call) : call->error.error;
    if (r < 0)
        finish_with(call, r);
    else if (r == HUB_AGAIN)
        try_again(call);
    else
        hub_call_go(call);
}

static void end_request(struct hub_call *call, int result, const char *text)
{
    bool came = call->mode == HUB_BODY && result == 0;
    if (call->handler_result == HUB_STOP || (call->handler_result == 0 && came)) {
        end_body(call);
    } else if (call->handler_result == HUB_AGAIN || (call->handler_result == 0 && call->mode == HUB_RETRY)) {
        try_again(call);
    } else if (call->handler_result < 0) {
        finish_with(call, call->handler_result);
    } else if (call->mode == HUB_REDIRECT) {
        follow(call);
    } else if (call->mode == HUB_REFUSAL) {
        be_refused(call);
    } else if (call->mode == HUB_FAILURE) {
        hub_call_finish(call);
    } else {
        _cleanup_free_ char *host = url_host(call->url);
        bool again = hub_error_from_result(result, text, call->subject, host ? host : "the server", &call->error);
        if (again)
            try_again(call);
        else
            hub_call_finish(call);
    }
}

static void on_done(void *userdata, int result, int status, const char *text)
{
    (void) status;
    struct hub_call *call = userdata;
    http_release(call->transfer);
    call->transfer = NULL;
    if (call->handler_result >= 0 && call->mode != HUB_BODY)
        result = 0; // the rest of a body that nobody wants
    reference(call);
    end_request(call, result, text);
    unreference(call);
}

static const struct http_handlers handlers = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

// Asks call->url. The token goes to the endpoint and nowhere else.
static void go_on(struct hub_call *call)
{
    struct hub *hub = call->hub;
    const char *headers[2] = { NULL, NULL };
    if (hub_call_at_endpoint(call))
        headers[0] = call->authorization;
    struct http_request request = {
        .url = call->url,
        .first = -1,
        .last = -1,
        .headers = headers,
        .connect_timeout_ms = hub->timeout_ms,
        .stall_timeout_ms = hub->timeout_ms,
        .compressed = call->kind->compressed,
    };
    call->error = (struct hub_error){ 0 };
    call->mode = HUB_BODY;
    call->wait_ms = -1;
    call->handler_result = 0;
    call->dropped = 0;
    int r = call->kind->prepare ? call->kind->prepare(call, &request) : 0;
    if (r == HUB_STOP || call->over)
        return;
    if (r == 0) {
        request.url = call->url;
        if (!hub_call_at_endpoint(call))
            headers[0] = NULL;
        r = http_start(hub->http, &request, &handlers, call, &call->transfer);
    }
    if (r == -EINVAL)
        hub_error_set(&call->error, r, HUB_NONSENSE, call->subject, "not an address that can be asked");
    if (r < 0)
        finish_with(call, r);
}

void hub_call_go(struct hub_call *call)
{
    struct hub *hub = call->hub;
    int64_t wait = hub->limited_until[call->kind->window] - util_now_ms();
    if (wait > 0) {
        hub_error_set(&call->error, -EAGAIN, HUB_LIMITED, call->subject, "too many requests: %s",
                      call->authorization ? "try again later" : "try again later, or set HF_TOKEN for a higher limit");
        call->wait_ms = wait;
        try_again(call);
        return;
    }
    char *url = strdup(call->start_url);
    free(call->url);
    call->url = url;
    call->redirects = 0;
    call->linked_size = -1;
    call->etag[0] = '\0';
    call->commit[0] = '\0';
    if (!url)
        finish_with(call, -ENOMEM);
    else
        go_on(call);
}

static void start_call(struct http_job *job)
{
    struct hub_call *call = (struct hub_call *) ((char *) job - offsetof(struct hub_call, start_job));
    struct hub *hub = call->hub;
    if (!call->over) {
        call->next = hub->calls;
        if (call->next)
            call->next->prev = call;
        hub->calls = call;
        call->listed = true;
        hub_call_good(call);
        if (hub->offline) {
            hub_error_set(&call->error, -ENETUNREACH, HUB_UNREACHABLE, call->subject,
                          "not in the cache, and offline: to fetch it, mount without --offline and HF_HUB_OFFLINE");
            hub_call_finish(call);
        } else {
            hub_call_go(call);
        }
    }
    unreference(call);
}

int hub_call_start(struct hub *hub, const struct hub_call_kind *kind, struct hub_call *call, char *subject,
                   char *start_url, struct hub_call **ret_call)
{
    call->kind = kind;
    call->hub = hub;
    call->subject = subject;
    call->start_url = start_url;
    call->linked_size = -1;
    // The hub's, the job's, and the caller's.
    atomic_init(&call->references, ret_call ? 3 : 2);
    _cleanup_free_ char *token = NULL;
    bool failed = !subject || !start_url || hub_token_find(&token) < 0 ||
                  (token && asprintf(&call->authorization, "Authorization: Bearer %s", token) < 0);
    if (token)
        explicit_bzero(token, strlen(token));
    if (failed) {
        call->authorization = NULL;
        atomic_init(&call->references, 1);
        unreference(call);
        return -ENOMEM;
    }
    if (ret_call)
        *ret_call = call;
    call->start_job.fn = start_call;
    http_post(hub->http, &call->start_job);
    return 0;
}
