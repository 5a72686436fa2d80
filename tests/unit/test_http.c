// SPDX-License-Identifier: Apache-2.0
#include "cache/http.h"
#include "cache/url.h"
#include "cache/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#define MIB ((size_t) 1024 * 1024)

// ---- a server that says what it was told to ----

struct server {
    int fd;
    int port;
    pthread_t thread;
    const char *head;    // sent as it is
    size_t body;         // bytes of 'x' after it
    bool stay;           // leave the connection open and silent then
    bool keep;           // and read the next request
    bool reset;          // end it with a reset
    int head_delay_ms;   // before the head
    atomic_int accepted; // connections
    atomic_int current;  // the open one, or -1
    atomic_int requests;
    atomic_int gone; // clients that closed the connection first
    char request[4096];
};

static bool read_request(struct server *s, int fd)
{
    size_t len = 0;
    char request[sizeof s->request];
    while (len < sizeof request - 1) {
        ssize_t n = recv(fd, request + len, sizeof request - 1 - len, 0);
        if (n <= 0)
            return false;
        len += (size_t) n;
        request[len] = '\0';
        if (strstr(request, "\r\n\r\n"))
            break;
    }
    memcpy(s->request, request, len + 1);
    atomic_fetch_add(&s->requests, 1);
    return true;
}

static bool send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        bytes += n;
        len -= (size_t) n;
    }
    return true;
}

static bool answer(struct server *s, int fd)
{
    static char xs[65536];
    memset(xs, 'x', sizeof xs);
    usleep((useconds_t) s->head_delay_ms * 1000);
    if (!send_all(fd, s->head, strlen(s->head)))
        return false;
    for (size_t left = s->body; left > 0;) {
        size_t n = left < sizeof xs ? left : sizeof xs;
        if (!send_all(fd, xs, n))
            return false;
        left -= n;
    }
    return true;
}

static void serve_connection(struct server *s, int fd)
{
    while (read_request(s, fd)) {
        bool sent = answer(s, fd);
        char c;
        if (!sent || (s->stay && recv(fd, &c, 1, 0) <= 0))
            atomic_fetch_add(&s->gone, 1);
        if (!s->keep || !sent)
            break;
    }
    if (s->reset)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
    atomic_store(&s->current, -1);
    close(fd);
}

static void *serve(void *userdata)
{
    struct server *s = userdata;
    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        atomic_fetch_add(&s->accepted, 1);
        atomic_store(&s->current, fd);
        serve_connection(s, fd);
    }
}

static struct server *server_new(struct server given)
{
    struct server *s = malloc(sizeof *s);
    *s = given;
    atomic_init(&s->current, -1);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof address;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *) &address, sizeof address), 0);
    assert_int_equal(listen(s->fd, 64), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *) &address, &len), 0);
    s->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    return s;
}

static void server_free(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    if (s->current >= 0) // kept open by the client
        shutdown(s->current, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    free(s);
}

// ---- a client that writes down what it sees ----

struct seen {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int heads, pieces, dones;
    size_t bytes;
    int status;      // of the head
    int done_status; // of on_done
    int result;
    char error[256];
    char location[256];
    char link[2][64];
    int pause_at; // this piece is not taken at first; 0: none
    bool pause_all;
    bool paused;
    int head_result, data_result;
    struct http_transfer *cancel_in_data;
};

static int on_head(void *userdata, const struct http_head *head)
{
    struct seen *seen = userdata;
    UTIL_LOCKED(&seen->lock);
    seen->heads++;
    seen->status = http_head_status(head);
    if (http_head_value(head, "location", 0))
        snprintf(seen->location, sizeof seen->location, "%s", http_head_value(head, "location", 0));
    for (int i = 0; i < 2; i++)
        if (http_head_value(head, "LINK", i))
            snprintf(seen->link[i], sizeof seen->link[i], "%s", http_head_value(head, "LINK", i));
    assert_null(http_head_value(head, "link", 2));
    return seen->head_result;
}

static int on_data(void *userdata, const void *bytes, size_t len)
{
    struct seen *seen = userdata;
    assert_int_equal(*(const char *) bytes, 'x');
    if (seen->cancel_in_data)
        assert_true(http_cancel(seen->cancel_in_data));
    UTIL_LOCKED(&seen->lock);
    if (!seen->paused && (seen->pause_all || seen->pieces + 1 == seen->pause_at)) {
        seen->paused = true;
        pthread_cond_broadcast(&seen->changed);
        return HTTP_PAUSE;
    }
    seen->paused = false;
    seen->pieces++;
    seen->bytes += len;
    return seen->data_result;
}

static void on_done(void *userdata, int result, int status, const char *error)
{
    struct seen *seen = userdata;
    UTIL_LOCKED(&seen->lock);
    seen->dones++;
    seen->result = result;
    seen->done_status = status;
    snprintf(seen->error, sizeof seen->error, "%s", error);
    pthread_cond_broadcast(&seen->changed);
}

static const struct http_handlers handlers = { .on_head = on_head, .on_data = on_data, .on_done = on_done };

static struct seen seen_new(void)
{
    return (struct seen){ .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
}

static void wait_done(struct seen *seen, int count)
{
    UTIL_LOCKED(&seen->lock);
    while (seen->dones < count)
        pthread_cond_wait(&seen->changed, &seen->lock);
    assert_int_equal(seen->dones, count);
}

static void wait_paused(struct seen *seen)
{
    UTIL_LOCKED(&seen->lock);
    while (!seen->paused)
        pthread_cond_wait(&seen->changed, &seen->lock);
}

static struct http *http;

static int set_up(void **state)
{
    (void) state;
    unsetenv("http_proxy");
    return http_new(&(struct http_options){ .connections_per_host = 4 }, &http);
}

static int tear_down(void **state)
{
    (void) state;
    http_free(http);
    return 0;
}

static void url_of(const struct server *s, char url[64])
{
    snprintf(url, 64, "http://127.0.0.1:%d/x", s->port);
}

static struct http_transfer *start(const struct server *s, struct seen *seen, struct http_request request)
{
    char url[64];
    url_of(s, url);
    request.url = url;
    if (request.first == 0 && request.last == 0)
        request.first = request.last = -1;
    struct http_transfer *t;
    assert_int_equal(http_start(http, &request, &handlers, seen, &t), 0);
    return t;
}

// One request to a server of that kind.
static struct seen get(struct server given, struct http_request request)
{
    struct server *s = server_new(given);
    struct seen seen = seen_new();
    struct http_transfer *t = start(s, &seen, request);
    wait_done(&seen, 1);
    http_release(t);
    server_free(s);
    return seen;
}

#define OK_MIB "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"

static void an_answer_comes_whole(void **state)
{
    (void) state;
    struct seen seen = get((struct server){ .head = OK_MIB, .body = MIB }, (struct http_request){ 0 });
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.status, 200);
    assert_int_equal(seen.done_status, 200);
    assert_int_equal(seen.heads, 1);
    assert_int_equal(seen.bytes, MIB);
    assert_string_equal(seen.error, "");
}

static void what_is_asked_for_is_sent(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = "HTTP/1.1 206 P\r\nContent-Length: 1\r\n\r\n", .body = 1 });
    struct seen seen = seen_new();
    const char *headers[] = { "Authorization: Bearer hf_x", "X-Other: y", NULL };
    http_release(start(s, &seen, (struct http_request){ .first = 5, .last = 5000000000, .headers = headers }));
    wait_done(&seen, 1);
    assert_non_null(strstr(s->request, "GET /x HTTP/1.1\r\n"));
    assert_non_null(strstr(s->request, "Range: bytes=5-5000000000\r\n"));
    assert_non_null(strstr(s->request, "Authorization: Bearer hf_x\r\n"));
    assert_non_null(strstr(s->request, "X-Other: y\r\n"));
    assert_non_null(strstr(s->request, "Accept-Encoding: identity\r\n"));
    assert_non_null(strstr(s->request, "User-Agent: modelmount/"));
    server_free(s);
}

static void a_range_to_the_end_and_a_head(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = "HTTP/1.1 206 P\r\nContent-Length: 9\r\n\r\n" });
    struct seen seen = seen_new();
    http_release(start(s, &seen, (struct http_request){ .method = HTTP_HEAD, .first = 7, .last = -1 }));
    wait_done(&seen, 1);
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.bytes, 0);
    assert_non_null(strstr(s->request, "HEAD /x HTTP/1.1\r\n"));
    assert_non_null(strstr(s->request, "Range: bytes=7-\r\n"));
    server_free(s);
}

static void compression_is_undone_only_when_asked_for(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n"
                                                           "Content-Length: 3\r\n\r\nxyz" });
    struct seen seen = seen_new();
    http_release(start(s, &seen, (struct http_request){ 0 }));
    wait_done(&seen, 1);
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.bytes, 3);
    http_release(start(s, &seen, (struct http_request){ .compressed = true }));
    wait_done(&seen, 2);
    assert_int_equal(seen.result, -EBADMSG);
    assert_non_null(strstr(s->request, "gzip"));
    server_free(s);
}

static void redirects_are_shown_and_not_followed(void **state)
{
    (void) state;
    struct seen seen = get((struct server){ .head = "HTTP/1.1 302 F\r\nlOcation:   /else \r\nLink: a\r\nlink: b\r\n"
                                                    "Content-Length: 0\r\n\r\n" },
                           (struct http_request){ 0 });
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.status, 302);
    assert_string_equal(seen.location, "/else");
    assert_string_equal(seen.link[0], "a");
    assert_string_equal(seen.link[1], "b");
}

static void early_heads_and_trailers_are_not_heads(void **state)
{
    (void) state;
    struct seen seen = get((struct server){ .head = "HTTP/1.1 103 Early\r\nLink: no\r\n\r\nHTTP/1.1 200 OK\r\n"
                                                    "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nLocation: no\r\n"
                                                    "\r\n" },
                           (struct http_request){ 0 });
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.heads, 1);
    assert_int_equal(seen.status, 200);
    assert_string_equal(seen.link[0], "");
    assert_string_equal(seen.location, "");
}

static void a_short_body_is_an_error(void **state)
{
    (void) state;
    struct seen seen = get((struct server){ .head = OK_MIB, .body = MIB / 2 }, (struct http_request){ 0 });
    assert_int_equal(seen.result, -ECONNRESET);
    assert_int_equal(seen.bytes, MIB / 2);
    assert_true(*seen.error);
}

static void a_reset_is_an_error(void **state)
{
    (void) state;
    struct seen seen = get((struct server){ .head = OK_MIB, .reset = true }, (struct http_request){ 0 });
    assert_int_equal(seen.result, -ECONNRESET);
    seen = get((struct server){ .head = "" }, (struct http_request){ 0 });
    assert_int_equal(seen.result, -ECONNRESET);
    assert_int_equal(seen.heads, 0);
    assert_int_equal(seen.done_status, 0);
}

static void what_is_not_http_is_an_error(void **state)
{
    (void) state;
    struct seen seen = get((struct server){ .head = "220 mail ready\r\n" }, (struct http_request){ 0 });
    assert_true(seen.result < 0);
    assert_int_equal(seen.heads, 0);
}

static void an_endless_head_is_an_error(void **state)
{
    (void) state;
    size_t size = 128 * 1024;
    char *head = malloc(size);
    char *end = stpcpy(head, "HTTP/1.1 200 OK\r\n");
    while (end < head + size - 2048) {
        end = stpcpy(end, "X-More: ");
        memset(end, 'y', 900);
        end = stpcpy(end + 900, "\r\n");
    }
    stpcpy(end, "\r\n");
    struct seen seen = get((struct server){ .head = head }, (struct http_request){ 0 });
    assert_int_equal(seen.result, -EMSGSIZE);
    assert_int_equal(seen.heads, 0);
    free(head);
}

static void silence_ends_it(void **state)
{
    (void) state;
    int64_t began = util_now_ms();
    struct http_request request = { .stall_timeout_ms = 150 };
    struct seen seen = get((struct server){ .head = "", .stay = true }, request);
    assert_int_equal(seen.result, -ETIMEDOUT);
    seen = get((struct server){ .head = OK_MIB, .body = MIB / 2, .stay = true }, request);
    assert_int_equal(seen.result, -ETIMEDOUT);
    assert_int_equal(seen.bytes, MIB / 2);
    assert_string_equal(seen.error, "no byte for 0.15 s");
    assert_in_range(util_now_ms() - began, 300, 5000);
}

static void a_pause_is_no_silence(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB });
    struct seen seen = seen_new();
    seen.pause_at = 2;
    struct http_transfer *t = start(s, &seen, (struct http_request){ .stall_timeout_ms = 150 });
    wait_paused(&seen);
    usleep(400000);
    {
        UTIL_LOCKED(&seen.lock);
        assert_int_equal(seen.dones, 0);
    }
    http_resume(t);
    wait_done(&seen, 1);
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.bytes, MIB);
    http_release(t);
    server_free(s);
}

// Also the last piece, which has come with the end of the answer.
static void every_piece_can_be_paused(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB });
    struct seen seen = seen_new();
    seen.pause_all = true;
    struct http_transfer *t = start(s, &seen, (struct http_request){ 0 });
    for (bool done = false; !done;) {
        http_resume(t);
        usleep(200);
        UTIL_LOCKED(&seen.lock);
        done = seen.dones;
    }
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.bytes, MIB);
    http_release(t);
    server_free(s);
}

static void a_handler_can_end_it(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB });
    struct seen seen = seen_new();
    seen.head_result = -ESTALE;
    http_release(start(s, &seen, (struct http_request){ 0 }));
    wait_done(&seen, 1);
    assert_int_equal(seen.result, -ESTALE);
    assert_int_equal(seen.bytes, 0);
    seen = seen_new();
    seen.data_result = -ENOSPC;
    http_release(start(s, &seen, (struct http_request){ 0 }));
    wait_done(&seen, 1);
    assert_int_equal(seen.result, -ENOSPC);
    assert_int_equal(seen.pieces, 1);
    seen = seen_new();
    seen.data_result = -ENOSPC;
    seen.pause_at = 1;
    struct http_transfer *t = start(s, &seen, (struct http_request){ 0 });
    wait_paused(&seen);
    http_resume(t);
    wait_done(&seen, 1);
    assert_int_equal(seen.result, -ENOSPC);
    http_release(t);
    server_free(s);
}

static void a_cancelled_transfer_is_silent(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB / 2, .stay = true });
    struct seen seen = seen_new();
    seen.pause_at = 3;
    struct http_transfer *t = start(s, &seen, (struct http_request){ 0 });
    wait_paused(&seen);
    assert_true(http_cancel(t));
    assert_true(http_cancel(t));
    http_resume(t);
    http_release(t);
    for (int i = 0; i < 100 && !s->gone; i++)
        usleep(20000);
    assert_int_equal(s->gone, 1);
    assert_int_equal(seen.dones, 0);
    assert_int_equal(seen.pieces, 2);
    server_free(s);
}

static void a_handler_may_cancel_its_own(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB });
    struct seen seen = seen_new();
    seen.pause_at = 1;
    struct http_transfer *t = start(s, &seen, (struct http_request){ 0 });
    wait_paused(&seen);
    seen.cancel_in_data = t;
    http_resume(t);
    usleep(100000);
    UTIL_LOCKED(&seen.lock);
    assert_int_equal(seen.dones, 0);
    assert_int_equal(seen.pieces, 1);
    http_release(t);
    server_free(s);
}

static void a_finished_transfer_cannot_be_cancelled(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB });
    struct seen seen = seen_new();
    struct http_transfer *t = start(s, &seen, (struct http_request){ 0 });
    wait_done(&seen, 1);
    assert_false(http_cancel(t));
    http_resume(t);
    http_release(t);
    server_free(s);
}

static void cancels_at_any_moment_are_exact(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB, .keep = true });
    for (int i = 0; i < 100; i++) {
        struct seen *seen = malloc(sizeof *seen);
        *seen = seen_new();
        struct http_transfer *t = start(s, seen, (struct http_request){ 0 });
        usleep((useconds_t) (i * 37 % 3000));
        bool cancelled = http_cancel(t);
        assert_int_equal(seen->dones, cancelled ? 0 : 1);
        free(seen); // what is called now would be seen by the sanitizers
        http_release(t);
    }
    server_free(s);
}

static void the_end_of_all_ends_each(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = "", .stay = true });
    struct seen seen = seen_new();
    struct http *here;
    assert_int_equal(http_new(&(struct http_options){ 0 }, &here), 0);
    char url[64];
    url_of(s, url);
    for (int i = 0; i < 10; i++)
        assert_int_equal(http_start(here, &(struct http_request){ .url = url, .first = -1 }, &handlers, &seen, NULL),
                         0);
    http_free(here);
    assert_int_equal(seen.dones, 10);
    assert_int_equal(seen.result, -ECANCELED);
    server_free(s);
}

static void connections_are_kept(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = OK_MIB, .body = MIB, .keep = true });
    struct seen seen = seen_new();
    for (int i = 1; i <= 5; i++) {
        http_release(start(s, &seen, (struct http_request){ 0 }));
        wait_done(&seen, i);
    }
    assert_int_equal(seen.bytes, 5 * MIB);
    assert_int_equal(s->accepted, 1);
    server_free(s);
}

// The server answers one connection at a time, 50 ms each: the last of 12 waits for longer than the limit of silence.
static void waiting_for_a_connection_is_no_silence(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ .head = "HTTP/1.1 204 N\r\n\r\n", .head_delay_ms = 50 });
    struct seen seen = seen_new();
    for (int i = 0; i < 12; i++)
        http_release(start(s, &seen, (struct http_request){ .stall_timeout_ms = 450 }));
    wait_done(&seen, 12);
    assert_int_equal(seen.result, 0);
    assert_int_equal(seen.heads, 12);
    server_free(s);
}

static void a_server_that_is_not_there(void **state)
{
    (void) state;
    struct server *s = server_new((struct server){ 0 });
    char url[64];
    url_of(s, url);
    server_free(s);
    struct seen seen = seen_new();
    assert_int_equal(http_start(http, &(struct http_request){ .url = url, .first = -1 }, &handlers, &seen, NULL), 0);
    wait_done(&seen, 1);
    assert_int_equal(seen.result, -ECONNREFUSED);
    struct http_request request = { .url = "http://no-such-host.invalid/", .first = -1 };
    assert_int_equal(http_start(http, &request, &handlers, &seen, NULL), 0);
    wait_done(&seen, 2);
    assert_int_equal(seen.result, -EHOSTUNREACH);
}

static void bad_requests_are_refused(void **state)
{
    (void) state;
    struct seen seen = seen_new();
    const char *forged[] = { "X: a\r\nAuthorization: b", NULL };
    struct http_request request = { .url = "file:///etc/passwd", .first = -1 };
    assert_int_equal(http_start(http, &request, &handlers, &seen, NULL), -EINVAL);
    request.url = "ftp://127.0.0.1/";
    assert_int_equal(http_start(http, &request, &handlers, &seen, NULL), -EINVAL);
    request = (struct http_request){ .url = "http://127.0.0.1/", .headers = forged };
    assert_int_equal(http_start(http, &request, &handlers, &seen, NULL), -EINVAL);
    assert_int_equal(seen.dones, 0);
}

// ---- jobs and timers ----

struct ticks {
    struct http_timer timers[3];
    int order[3];
    int count;
};
static struct ticks ticks;

static void on_tick(struct http_timer *timer)
{
    ticks.order[ticks.count++] = (int) (timer - ticks.timers);
}

static void set_timers(void *userdata)
{
    (void) userdata;
    assert_true(http_on_thread(http));
    http_timer_set(http, &ticks.timers[0], 80, on_tick);
    http_timer_set(http, &ticks.timers[1], 20, on_tick);
    http_timer_set(http, &ticks.timers[2], 40, on_tick);
    http_timer_set(http, &ticks.timers[2], 60, on_tick);
    http_timer_clear(http, &ticks.timers[1]);
}

static void read_ticks(void *userdata)
{
    *(struct ticks *) userdata = ticks;
}

static void timers_go_off_in_their_order(void **state)
{
    (void) state;
    assert_false(http_on_thread(http));
    http_run(http, set_timers, NULL);
    struct ticks now;
    for (int i = 0; i < 100; i++) {
        usleep(20000);
        http_run(http, read_ticks, &now);
        if (now.count == 2)
            break;
    }
    assert_int_equal(now.count, 2);
    assert_int_equal(now.order[0], 2);
    assert_int_equal(now.order[1], 0);
}

// ---- TLS ----

static pid_t tls_server(const char *dir, int *ret_port)
{
    static const char program[] =
        "import http.server, ssl, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '1'); self.end_headers()\n"
        "        self.wfile.write(b'x')\n"
        "    def log_message(self, *a): pass\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)\n"
        "c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain('c.pem', 'k.pem')\n"
        "s.socket = c.wrap_socket(s.socket, server_side=True)\n"
        "print(s.server_address[1], flush=True)\n"
        "s.serve_forever()\n";
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        if (chdir(dir) == 0 &&
            system("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout k.pem "
                   "-out c.pem -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 >/dev/null 2>&1") == 0)
            execlp("python3", "python3", "-c", program, (char *) NULL);
        _exit(127);
    }
    close(out[1]);
    char line[16] = "";
    assert_true(read(out[0], line, sizeof line - 1) > 0);
    close(out[0]);
    *ret_port = (int) strtol(line, NULL, 10);
    return pid;
}

static int get_with(const char *url)
{
    struct http *here;
    struct seen seen = seen_new();
    assert_int_equal(http_new(&(struct http_options){ 0 }, &here), 0);
    assert_int_equal(http_start(here, &(struct http_request){ .url = url, .first = -1 }, &handlers, &seen, NULL), 0);
    wait_done(&seen, 1);
    http_free(here);
    return seen.result;
}

static void certificates_are_checked(void **state)
{
    (void) state;
    char dir[] = "/tmp/test_http_XXXXXX";
    assert_non_null(mkdtemp(dir));
    int port;
    pid_t pid = tls_server(dir, &port);
    char url[64];
    char file[64];
    snprintf(url, sizeof url, "https://127.0.0.1:%d/", port);
    snprintf(file, sizeof file, "%s/c.pem", dir);
    static const char *const variables[] = { "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE" };
    for (size_t i = 0; i < 3; i++)
        unsetenv(variables[i]);
    unsetenv("SSL_CERT_DIR");
    assert_int_equal(get_with(url), -EKEYREJECTED);
    for (size_t i = 0; i < 3; i++) {
        setenv(variables[i], file, 1);
        assert_int_equal(get_with(url), 0);
        unsetenv(variables[i]);
    }
    setenv("SSL_CERT_FILE", "/dev/null", 1);
    setenv("REQUESTS_CA_BUNDLE", file, 1);
    assert_int_equal(get_with(url), -EKEYREJECTED);
    unsetenv("SSL_CERT_FILE");
    unsetenv("REQUESTS_CA_BUNDLE");
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    unlink(file);
    snprintf(file, sizeof file, "%s/k.pem", dir);
    unlink(file);
    rmdir(dir);
}

// ---- addresses ----

static void assert_join(const char *base, const char *reference, const char *expected)
{
    _cleanup_free_ char *url = NULL;
    int r = url_join(base, reference, &url);
    if (!expected) {
        if (r != -EPROTO)
            fail_msg("%s: %s", reference, url);
        return;
    }
    assert_int_equal(r, 0);
    assert_string_equal(url, expected);
}

static void references_are_joined(void **state)
{
    (void) state;
    assert_join("http://h:1/a/b?q", "/c%2Fd?e=f#g", "http://h:1/c%2Fd?e=f");
    assert_join("http://h/a/b?q", "c", "http://h/a/c");
    assert_join("http://h/a/b", "?n=1", "http://h/a/b?n=1");
    assert_join("https://h/a", "//other/b", "https://other/b");
    assert_join("https://h/a", "http://other/b c", "http://other/b%20c");
    assert_join("https://h/a", "file:///etc/passwd", NULL);
    assert_join("https://h/a", "ftp://h/", NULL);
    assert_join("https://h/a", "gopher://h/", NULL);
    assert_join("https://h/a", "javascript:alert(1)", NULL);
    assert_join("https://h/a", "https://user:pass@other/", NULL);
    assert_join("https://h/a", "https://h:99999/", NULL);
}

static void origins_are_compared(void **state)
{
    (void) state;
    assert_true(url_same_origin("https://h/a", "https://H:443/b?c"));
    assert_true(url_same_origin("http://127.0.0.1:8080", "http://127.0.0.1:8080/x"));
    assert_false(url_same_origin("https://h/", "http://h/"));
    assert_false(url_same_origin("https://h/", "http://h:443/"));
    assert_false(url_same_origin("https://h/", "https://h:444/"));
    assert_false(url_same_origin("https://h/", "https://h.evil/"));
    assert_false(url_same_origin("https://h/", "https://evil/https://h/"));
    assert_false(url_same_origin("https://h/", "https://h@evil/"));
    assert_false(url_same_origin("https://h/", "https://h\\@evil/"));
    assert_false(url_same_origin("file:///a", "file:///a"));
    assert_false(url_same_origin("", ""));
}

static void bytes_are_encoded_and_decoded(void **state)
{
    (void) state;
    _cleanup_free_ char *encoded = url_encode("refs/pr/1 #?\xc3\xa9~%", false);
    assert_string_equal(encoded, "refs%2Fpr%2F1%20%23%3F%C3%A9~%25");
    _cleanup_free_ char *kept = url_encode("a b/c", true);
    assert_string_equal(kept, "a%20b/c");
    _cleanup_free_ char *decoded = url_decode(encoded, strlen(encoded));
    assert_string_equal(decoded, "refs/pr/1 #?\xc3\xa9~%");
    _cleanup_free_ char *left = url_decode("%zz%4", 5);
    assert_string_equal(left, "%zz%4");
    assert_null(url_decode("a%00b", 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_comes_whole),
        cmocka_unit_test(what_is_asked_for_is_sent),
        cmocka_unit_test(a_range_to_the_end_and_a_head),
        cmocka_unit_test(compression_is_undone_only_when_asked_for),
        cmocka_unit_test(redirects_are_shown_and_not_followed),
        cmocka_unit_test(early_heads_and_trailers_are_not_heads),
        cmocka_unit_test(a_short_body_is_an_error),
        cmocka_unit_test(a_reset_is_an_error),
        cmocka_unit_test(what_is_not_http_is_an_error),
        cmocka_unit_test(an_endless_head_is_an_error),
        cmocka_unit_test(silence_ends_it),
        cmocka_unit_test(a_pause_is_no_silence),
        cmocka_unit_test(every_piece_can_be_paused),
        cmocka_unit_test(a_handler_can_end_it),
        cmocka_unit_test(a_cancelled_transfer_is_silent),
        cmocka_unit_test(a_handler_may_cancel_its_own),
        cmocka_unit_test(a_finished_transfer_cannot_be_cancelled),
        cmocka_unit_test(cancels_at_any_moment_are_exact),
        cmocka_unit_test(the_end_of_all_ends_each),
        cmocka_unit_test(connections_are_kept),
        cmocka_unit_test(waiting_for_a_connection_is_no_silence),
        cmocka_unit_test(a_server_that_is_not_there),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(timers_go_off_in_their_order),
        cmocka_unit_test(certificates_are_checked),
        cmocka_unit_test(references_are_joined),
        cmocka_unit_test(origins_are_compared),
        cmocka_unit_test(bytes_are_encoded_and_decoded),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
