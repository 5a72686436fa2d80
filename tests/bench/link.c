// SPDX-License-Identifier: Apache-2.0
// `link RATE DELAY_MS [LISTEN_PORT HOST PORT]…`: relays TCP as a long, narrow line would: each byte is DELAY_MS
// milliseconds on its way (half a round trip), each connection brings RATE bytes a second at most, and a new one costs
// the round trip that its handshake would take. For kernels that have neither netem nor fq.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 2
#define BUFFER (4 << 20) // bytes on their way: more than what RATE brings in a round trip
#define BATCHES 4096
#define PAIRS_MAX 256
#define LISTENERS_MAX 8

struct way {
    int from, to;
    bool limited, ended, shut;
    double tokens;
    int64_t filled_us;
    unsigned char *bytes; // a ring
    uint64_t in, out;
    struct {
        int64_t due_us;
        uint64_t end;
    } batches[BATCHES];
    uint64_t first, last;
};

struct pair {
    struct way up, down;
    int64_t since_us;
};

static struct pair *pairs[PAIRS_MAX];
static int pair_count;
static double rate;
static int64_t delay_us;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// How many bytes may be taken in now, into one piece of the ring.
static int64_t room(struct way *w, int64_t now)
{
    if (w->ended || w->last - w->first == BATCHES)
        return 0;
    int64_t free_bytes = BUFFER - (int64_t) (w->in - w->out);
    int64_t n = min64(free_bytes, BUFFER - (int64_t) (w->in % BUFFER));
    if (!w->limited)
        return n;
    w->tokens += rate * (double) (now - w->filled_us) / 1e6;
    w->filled_us = now;
    if (w->tokens > rate / 50) // what was not used in 20 ms is lost
        w->tokens = rate / 50;
    return min64(n, (int64_t) w->tokens);
}

// False: this way is broken, and the connection with it.
static bool take_in(struct way *w, int64_t now, int64_t not_before)
{
    int64_t n = room(w, now);
    if (n <= 0)
        return true;
    ssize_t got = recv(w->from, w->bytes + w->in % BUFFER, (size_t) n, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0)
        w->ended = true;
    w->tokens -= (double) got;
    w->in += (uint64_t) got;
    int64_t due = now + delay_us;
    w->batches[w->last % BATCHES].due_us = due > not_before ? due : not_before;
    w->batches[w->last++ % BATCHES].end = w->in;
    return true;
}

static bool give_out(struct way *w, int64_t now)
{
    while (w->first < w->last && w->batches[w->first % BATCHES].due_us <= now) {
        uint64_t end = w->batches[w->first % BATCHES].end;
        while (w->out < end) {
            int64_t n = min64((int64_t) (end - w->out), BUFFER - (int64_t) (w->out % BUFFER));
            ssize_t sent = send(w->to, w->bytes + w->out % BUFFER, (size_t) n, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent < 0)
                return errno == EAGAIN || errno == EINTR;
            w->out += (uint64_t) sent;
        }
        w->first++;
    }
    if (w->ended && w->first == w->last && !w->shut) {
        w->shut = true;
        shutdown(w->to, SHUT_WR);
    }
    return true;
}

static void pair_end(int i)
{
    struct pair *p = pairs[i];
    close(p->up.from);
    close(p->up.to);
    free(p->up.bytes);
    free(p->down.bytes);
    free(p);
    pairs[i] = pairs[--pair_count];
}

static void pair_begin(int listener, const struct sockaddr_in *to)
{
    int client = accept(listener, NULL, NULL);
    int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct pair *p = calloc(1, sizeof *p);
    if (client < 0 || server < 0 || !p || pair_count == PAIRS_MAX ||
        connect(server, (const struct sockaddr *) to, sizeof *to) < 0) {
        close(client);
        close(server);
        free(p);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    p->since_us = now_us();
    p->up = (struct way){ .from = client, .to = server, .bytes = malloc(BUFFER) };
    p->down = (struct way){ .from = server, .to = client, .limited = true, .bytes = malloc(BUFFER) };
    p->down.filled_us = p->since_us;
    pairs[pair_count++] = p;
}

static int listen_at(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t) port) };
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *) &at, sizeof at) < 0 || listen(fd, 128) < 0) {
        perror("link");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 6 || (argc - 3) % 3 != 0 || (argc - 3) / 3 > LISTENERS_MAX)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    rate = atof(argv[1]);
    delay_us = (int64_t) (atof(argv[2]) * 1000);
    struct pollfd listeners[LISTENERS_MAX] = { 0 };
    struct sockaddr_in to[LISTENERS_MAX] = { 0 };
    int count = (argc - 3) / 3;
    for (int i = 0; i < count; i++) {
        char **words = argv + 3 + 3 * i;
        listeners[i] = (struct pollfd){ .fd = listen_at(atoi(words[0])), .events = POLLIN };
        to[i] = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t) atoi(words[2])) };
        inet_pton(AF_INET, words[1], &to[i].sin_addr);
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        // Nothing is going on: wait for the next to come. Else look at all of them, every few milliseconds.
        if (poll(listeners, (nfds_t) count, pair_count > 0 ? TICK_MS : -1) > 0)
            for (int i = 0; i < count; i++)
                if (listeners[i].revents & POLLIN)
                    pair_begin(listeners[i].fd, &to[i]);
        int64_t now = now_us();
        for (int i = pair_count - 1; i >= 0; i--) {
            struct pair *p = pairs[i];
            bool good = take_in(&p->up, now, p->since_us + 3 * delay_us) && take_in(&p->down, now, 0) &&
                        give_out(&p->up, now) && give_out(&p->down, now);
            if (!good || (p->up.shut && p->down.shut))
                pair_end(i);
        }
    }
}
