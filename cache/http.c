// SPDX-License-Identifier: Apache-2.0
// Other threads put what they want into the inbox and wake the loop; the loop takes the whole inbox, lets curl work,
// which calls the handlers, and ends what has to be ended. curl must not be asked for anything from inside its own
// callbacks, so on the http thread, too, everything goes through the inbox or waits for the loop to come round.
#include "cache/http.h"

#include "cache/http_easy.h"
#include "cache/util.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX ((size_t) 64 * 1024)
#define STALL_TIMEOUT_MS 30000
#define CONNECTIONS 64
#define CONNECTIONS_PER_HOST 32
#define LONGEST_WAIT_MS 60000

struct http_head {
    int status;
    size_t len;
    char text[HEAD_MAX]; // each header as name, NUL, value, NUL
};

struct http_transfer {
    struct http *http;
    atomic_int references; // the loop's, and the caller's
    struct http_handlers handlers;
    void *userdata;
    CURL *easy;
    struct curl_slist *headers;
    char error[CURL_ERROR_SIZE];
    int stall_timeout_ms;
    struct http_job start_job;
    // Guarded by http->lock.
    struct http_job resume_job;
    bool resuming; // resume_job is waiting; it holds a reference
    // All below: http thread only.
    struct http_transfer *prev, *next; // in http->transfers
    struct http_head *head;            // while it is coming in
    int64_t last_byte;                 // ms, also set when the request goes out
    bool requested;                    // a connection is there, the request goes out
    bool head_done;                    // on_head has returned
    bool paused;
    bool cancelled;
    bool ended; // on_done was called, or will never be
    int abort;  // -errno of a handler, 0 if none
};

struct http {
    CURLM *multi;
    pthread_t thread;
    char *user_agent;
    struct http_certificates certificates;
    pthread_mutex_t lock;
    // Guarded by `lock`.
    struct http_job *inbox, **inbox_end;
    bool quit;
    // All below: http thread only.
    struct http_transfer *transfers; // those added to `multi`
    struct http_timer *timers;       // the one due first at the front
    int64_t next_stall_check;
    bool cancels; // one of `transfers` is cancelled
};

// ---- the head ----

int http_head_status(const struct http_head *head)
{
    return head->status;
}

const char *http_head_value(const struct http_head *head, const char *name, int nth)
{
    for (const char *s = head->text; s < head->text + head->len;) {
        const char *value = s + strlen(s) + 1;
        if (strcasecmp(s, name) == 0 && nth-- == 0)
            return value;
        s = value + strlen(value) + 1;
    }
    return NULL;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// False when it does not fit. Lines that are no header, or hold a NUL, are left out.
static bool add_header(struct http_head *head, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    while (len > 0 && is_space(line[len - 1]))
        len--;
    if (!colon || colon == line || colon > line + len || memchr(line, '\0', len))
        return true;
    size_t name_len = (size_t) (colon - line);
    const char *value = colon + 1;
    while (value < line + len && is_space(*value))
        value++;
    size_t value_len = value < line + len ? (size_t) (line + len - value) : 0;
    if (name_len + value_len + 2 > sizeof head->text - head->len)
        return false;
    char *end = mempcpy(head->text + head->len, line, name_len);
    *end++ = '\0';
    end = mempcpy(end, value, value_len);
    *end++ = '\0';
    head->len = (size_t) (end - head->text);
    return true;
}

// ---- curl's callbacks ----

static size_t abort_with(struct http_transfer *t, int error)
{
    t->abort = error < 0 ? error : -EINVAL;
    return 0; // never how many were given: curl gives up
}

static int start_head(struct http_transfer *t, const char *line, size_t len)
{
    if (!t->head)
        t->head = malloc(sizeof *t->head);
    if (!t->head)
        return -ENOMEM;
    t->head->len = 0;
    t->head->status = 0;
    const char *space = memchr(line, ' ', len);
    for (const char *s = space ? space + 1 : line + len; s < line + len && *s >= '0' && *s <= '9'; s++)
        t->head->status = t->head->status < 1000 ? t->head->status * 10 + *s - '0' : 1000;
    return 0;
}

static int end_head(struct http_transfer *t)
{
    if (t->head->status < 200) // 1xx: another one follows
        return 0;
    t->head_done = true;
    int r = t->handlers.on_head ? t->handlers.on_head(t->userdata, t->head) : 0;
    free(t->head);
    t->head = NULL;
    return r;
}

static size_t on_header(char *line, size_t one, size_t len, void *userdata)
{
    (void) one;
    struct http_transfer *t = userdata;
    if (t->cancelled)
        return 0; // never how many were given: curl gives up
    t->last_byte = util_now_ms();
    if (t->head_done) // trailers
        return len;
    int r = 0;
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
        r = start_head(t, line, len);
    else if (!t->head)
        r = -EPROTO;
    else if (line[0] == '\r' || line[0] == '\n')
        r = end_head(t);
    else if (!add_header(t->head, line, len))
        r = -EMSGSIZE;
    return r == 0 ? len : abort_with(t, r);
}

static size_t on_body(char *bytes, size_t one, size_t len, void *userdata)
{
    (void) one;
    struct http_transfer *t = userdata;
    if (len == 0)
        return 0;
    if (t->cancelled)
        return 0; // never how many were given: curl gives up
    t->last_byte = util_now_ms();
    int r = t->handlers.on_data ? t->handlers.on_data(t->userdata, bytes, len) : 0;
    if (r == HTTP_PAUSE) {
        t->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    return r == 0 ? len : abort_with(t, r);
}

static int64_t stall_deadline(const struct http_transfer *t)
{
    return t->last_byte + t->stall_timeout_ms;
}

// The connection stands: from here on the silence counts.
static int on_request(void *userdata, char *ip, char *own_ip, int port, int own_port)
{
    (void) ip;
    (void) own_ip;
    (void) port;
    (void) own_port;
    struct http_transfer *t = userdata;
    t->requested = true;
    t->last_byte = util_now_ms();
    if (stall_deadline(t) < t->http->next_stall_check)
        t->http->next_stall_check = stall_deadline(t);
    return CURL_PREREQFUNC_OK;
}

// ---- the life of a transfer ----

static void unreference(struct http_transfer *t)
{
    if (atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) != 1)
        return;
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    free(t->head);
    free(t);
}

// Takes it out of the loop, says so unless it was cancelled, and drops the loop's reference.
static void end_transfer(struct http_transfer *t, int result, const char *error)
{
    struct http *http = t->http;
    long status = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(http->multi, t->easy);
    if (t->prev)
        t->prev->next = t->next;
    else
        http->transfers = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->prev = t->next = NULL;
    t->ended = true;
    if (!t->cancelled)
        t->handlers.on_done(t->userdata, result, (int) status, error);
    // Here, and not with the last reference: connections are given back on this thread only.
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
    unreference(t);
}

static void start_transfer(struct http_job *job)
{
    struct http_transfer *t = (struct http_transfer *) ((char *) job - offsetof(struct http_transfer, start_job));
    struct http *http = t->http;
    t->next = http->transfers;
    if (t->next)
        t->next->prev = t;
    http->transfers = t;
    if (t->cancelled)
        end_transfer(t, -ECANCELED, "");
    else if (curl_multi_add_handle(http->multi, t->easy) != CURLM_OK)
        end_transfer(t, -ENOMEM, "out of memory");
}

int http_start(struct http *http, const struct http_request *request, const struct http_handlers *handlers,
               void *userdata, struct http_transfer **ret_transfer)
{
    assert(handlers->on_done);
    struct http_transfer *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    t->http = http;
    t->handlers = *handlers;
    t->userdata = userdata;
    t->stall_timeout_ms = request->stall_timeout_ms > 0 ? request->stall_timeout_ms : STALL_TIMEOUT_MS;
    t->start_job.fn = start_transfer;
    int r = http_easy_new(request, http->user_agent, &http->certificates, &t->easy, &t->headers);
    if (r < 0) {
        free(t);
        return r;
    }
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(t->easy, CURLOPT_PREREQDATA, t);
    atomic_init(&t->references, ret_transfer ? 2 : 1);
    if (ret_transfer)
        *ret_transfer = t;
    http_post(http, &t->start_job);
    return 0;
}

static void resume_transfer(struct http_job *job)
{
    struct http_transfer *t = (struct http_transfer *) ((char *) job - offsetof(struct http_transfer, resume_job));
    pthread_mutex_lock(&t->http->lock);
    t->resuming = false;
    pthread_mutex_unlock(&t->http->lock);
    if (t->paused && !t->ended && !t->cancelled) {
        t->paused = false;
        t->last_byte = util_now_ms();
        if (stall_deadline(t) < t->http->next_stall_check)
            t->http->next_stall_check = stall_deadline(t);
        CURLcode code = curl_easy_pause(t->easy, CURLPAUSE_CONT); // calls on_body
        if (code != CURLE_OK)
            end_transfer(t, t->abort ? t->abort : http_easy_errno(t->easy, code), "");
    }
    unreference(t);
}

static void put_in_inbox(struct http *http, struct http_job *job)
{
    job->next = NULL;
    *http->inbox_end = job;
    http->inbox_end = &job->next;
}

void http_resume(struct http_transfer *t)
{
    struct http *http = t->http;
    {
        UTIL_LOCKED(&http->lock);
        if (t->resuming)
            return;
        t->resuming = true;
        atomic_fetch_add_explicit(&t->references, 1, memory_order_relaxed);
        t->resume_job.fn = resume_transfer;
        put_in_inbox(http, &t->resume_job);
    }
    curl_multi_wakeup(http->multi);
}

struct cancel {
    struct http_transfer *transfer;
    bool done;
};

static void cancel_transfer(void *userdata)
{
    struct cancel *cancel = userdata;
    struct http_transfer *t = cancel->transfer;
    if (!t->ended) {
        t->cancelled = true;
        t->http->cancels = true;
    }
    cancel->done = t->cancelled;
}

bool http_cancel(struct http_transfer *t)
{
    struct cancel cancel = { .transfer = t };
    http_run(t->http, cancel_transfer, &cancel);
    return cancel.done;
}

void http_release(struct http_transfer *t)
{
    if (t)
        unreference(t);
}

// ---- jobs and timers ----

void http_post(struct http *http, struct http_job *job)
{
    {
        UTIL_LOCKED(&http->lock);
        put_in_inbox(http, job);
    }
    curl_multi_wakeup(http->multi);
}

bool http_on_thread(const struct http *http)
{
    return pthread_equal(pthread_self(), http->thread);
}

struct run {
    struct http_job job;
    void (*fn)(void *userdata);
    void *userdata;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
};

static void run_job(struct http_job *job)
{
    struct run *run = (struct run *) job;
    run->fn(run->userdata);
    UTIL_LOCKED(&run->lock);
    run->done = true;
    pthread_cond_signal(&run->changed);
}

void http_run(struct http *http, void (*fn)(void *userdata), void *userdata)
{
    if (http_on_thread(http)) {
        fn(userdata);
        return;
    }
    struct run run = { .job.fn = run_job, .fn = fn, .userdata = userdata };
    pthread_mutex_init(&run.lock, NULL);
    pthread_cond_init(&run.changed, NULL);
    http_post(http, &run.job);
    pthread_mutex_lock(&run.lock);
    while (!run.done)
        pthread_cond_wait(&run.changed, &run.lock);
    pthread_mutex_unlock(&run.lock);
    pthread_cond_destroy(&run.changed);
    pthread_mutex_destroy(&run.lock);
}

void http_timer_clear(struct http *http, struct http_timer *timer)
{
    if (!timer->set)
        return;
    struct http_timer **at = &http->timers;
    while (*at != timer)
        at = &(*at)->next;
    *at = timer->next;
    timer->set = false;
}

void http_timer_set(struct http *http, struct http_timer *timer, int64_t delay_ms, void (*fn)(struct http_timer *timer))
{
    assert(http_on_thread(http));
    http_timer_clear(http, timer);
    timer->fn = fn;
    timer->due = util_now_ms() + delay_ms;
    struct http_timer **at = &http->timers;
    while (*at && (*at)->due <= timer->due)
        at = &(*at)->next;
    timer->next = *at;
    *at = timer;
    timer->set = true;
}

// ---- the loop ----

// Does what other threads want. False if that was nothing.
static bool take_inbox(struct http *http, bool *ret_quit)
{
    struct http_job *job;
    {
        UTIL_LOCKED(&http->lock);
        job = http->inbox;
        http->inbox = NULL;
        http->inbox_end = &http->inbox;
        *ret_quit = http->quit;
    }
    bool any = job;
    while (job) {
        struct http_job *next = job->next; // the job may be gone once it has run
        job->fn(job);
        job = next;
    }
    return any;
}

static void run_timers(struct http *http)
{
    int64_t now = util_now_ms();
    while (http->timers && http->timers->due <= now) {
        struct http_timer *timer = http->timers;
        http_timer_clear(http, timer);
        timer->fn(timer);
    }
}

static void end_finished(struct http *http)
{
    int left;
    CURLMsg *message;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        void *private = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        struct http_transfer *t = private;
        int result = t->abort ? t->abort : http_easy_errno(t->easy, code);
        const char *text = code == CURLE_OK || t->abort ? "" : *t->error ? t->error : curl_easy_strerror(code);
        end_transfer(t, result, text);
    }
}

// Ending one may cancel others, so each time from the start; `cancels` says whether there are any.
static void end_cancelled(struct http *http)
{
    while (http->cancels) {
        http->cancels = false;
        for (struct http_transfer *t = http->transfers, *next; t; t = next) {
            next = t->next;
            if (t->cancelled)
                end_transfer(t, -ECANCELED, "");
        }
    }
}

static struct http_transfer *find_stalled(struct http *http, int64_t now)
{
    http->next_stall_check = INT64_MAX;
    for (struct http_transfer *t = http->transfers; t; t = t->next) {
        if (!t->requested || t->paused || t->cancelled)
            continue;
        if (stall_deadline(t) <= now)
            return t;
        if (stall_deadline(t) < http->next_stall_check)
            http->next_stall_check = stall_deadline(t);
    }
    return NULL;
}

static void end_stalled(struct http *http)
{
    int64_t now = util_now_ms();
    while (http->next_stall_check <= now) {
        struct http_transfer *t = find_stalled(http, now);
        if (!t)
            break;
        http->next_stall_check = now; // there may be more of them
        char text[64];
        snprintf(text, sizeof text, "no byte for %g s", t->stall_timeout_ms / 1000.0);
        end_transfer(t, -ETIMEDOUT, text);
    }
}

static int wait_ms(const struct http *http)
{
    int64_t until = http->next_stall_check;
    if (http->timers && http->timers->due < until)
        until = http->timers->due;
    int64_t now = util_now_ms();
    return until <= now ? 0 : until - now < LONGEST_WAIT_MS ? (int) (until - now) : LONGEST_WAIT_MS;
}

static void *loop(void *userdata)
{
    struct http *http = userdata;
    pthread_setname_np(pthread_self(), "http");
    for (;;) {
        bool quit;
        take_inbox(http, &quit);
        if (quit)
            break;
        run_timers(http);
        end_cancelled(http);
        int running;
        curl_multi_perform(http->multi, &running);
        end_finished(http);
        end_stalled(http);
        end_cancelled(http);
        curl_multi_poll(http->multi, NULL, 0, wait_ms(http), NULL);
    }
    bool quit;
    do {
        while (http->transfers)
            end_transfer(http->transfers, -ECANCELED, "the program ends");
    } while (take_inbox(http, &quit) || http->transfers);
    return NULL;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void init_curl(void)
{
    global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void free_http(struct http *http)
{
    curl_multi_cleanup(http->multi);
    http_certificates_free(&http->certificates);
    pthread_mutex_destroy(&http->lock);
    free(http->user_agent);
    free(http);
}

int http_new(const struct http_options *options, struct http **ret_http)
{
    pthread_once(&once, init_curl);
    if (global_code != CURLE_OK)
        return -EIO;
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return -ENOMEM;
    pthread_mutex_init(&http->lock, NULL);
    http->inbox_end = &http->inbox;
    http->next_stall_check = INT64_MAX;
    http->user_agent = strdup(options->user_agent ? options->user_agent : "modelmount/" MODELMOUNT_VERSION);
    http->multi = curl_multi_init();
    int r = http->user_agent && http->multi ? http_certificates_find(&http->certificates) : -ENOMEM;
    if (r < 0) {
        free_http(http);
        return r;
    }
    long all = options->connections > 0 ? options->connections : CONNECTIONS;
    long per_host = options->connections_per_host > 0 ? options->connections_per_host : CONNECTIONS_PER_HOST;
    curl_multi_setopt(http->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, all);
    curl_multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, per_host);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, all);
    // The thread reads http->thread, which pthread_create() may set only later.
    pthread_mutex_lock(&http->lock);
    r = -pthread_create(&http->thread, NULL, loop, http);
    pthread_mutex_unlock(&http->lock);
    if (r < 0) {
        free_http(http);
        return r;
    }
    *ret_http = http;
    return 0;
}

void http_free(struct http *http)
{
    if (!http)
        return;
    {
        UTIL_LOCKED(&http->lock);
        http->quit = true;
    }
    curl_multi_wakeup(http->multi);
    pthread_join(http->thread, NULL);
    free_http(http);
}
