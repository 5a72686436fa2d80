// SPDX-License-Identifier: Apache-2.0
// Fetching from the test Hub: what comes is right, comes once, is kept, and nobody waits for ever.
#include "cache/fetch.h"
#include "cache/util.h"
#include "tests/unit/hub_lines.h"

#include <errno.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define tell hub_lines_tell
#define K 1024
#define BLOCK ((int64_t) BLOCKMAP_BLOCK)
#define LARGE 5000321
#define SMALL 300007
#define HUGE_FILE 21000000
#define READERS 8
#define STALL_MS 60000

struct content {
    const char *path;
    int64_t size;
    char etag[65];
    unsigned char *bytes;
};

static struct content a = { "a.bin", LARGE, "", NULL }, b = { "sub/b.bin", LARGE, "", NULL },
                      small = { "small.bin", SMALL, "", NULL }, huge = { "huge.bin", HUGE_FILE, "", NULL };
static const struct repo repo = { REPO_MODEL, "org/name" };
static char commit[NAMES_COMMIT_SIZE];
static char place[] = "/tmp/modelmount-fetch-XXXXXX";
static char cache[sizeof place + 8], state[sizeof place + 8];
static struct http *http;

// One that fetches, as a process would have it.
struct setup {
    bool publish, keep;
    int connections; // 0: as it likes
    int timeout_ms;  // 0: 500
};

struct fetcher {
    struct hub *hub;
    struct index *index;
    struct partials *partials;
    struct fetch *fetch;
};

static struct fetcher one;
static atomic_int bads;
static atomic_ullong bad_tag;

static void on_bad(void *userdata, uint64_t tag)
{
    (void) userdata;
    bad_tag = tag;
    bads++;
}

static struct fetcher fetcher_start(struct setup how)
{
    struct fetcher f = { 0 };
    struct hub_options hub = { .endpoint = hub_lines.url,
                               .timeout_ms = how.timeout_ms > 0 ? how.timeout_ms : 500,
                               .budget_ms = how.timeout_ms > 0 ? how.timeout_ms : 800,
                               .pause_ms = 10 };
    assert_int_equal(hub_new(http, &hub, &f.hub), 0);
    if (how.keep) {
        char path[sizeof state + 16];
        snprintf(path, sizeof path, "%s/index.db", state);
        assert_int_equal(index_open(path, "/cache", &f.index), 0);
        assert_int_equal(partials_open(state, f.index, &f.partials), 0);
    }
    struct fetch_options options = { .cache_path = how.publish ? cache : NULL,
                                     .connections = how.connections,
                                     .on_bad = on_bad };
    assert_int_equal(fetch_new(http, f.hub, f.partials, &options, &f.fetch), 0);
    return f;
}

static void fetcher_end(struct fetcher *f)
{
    fetch_stop(f->fetch);
    fetch_free(f->fetch);
    partials_close(f->partials);
    index_close(f->index);
    hub_free(f->hub);
    *f = (struct fetcher){ 0 };
}

static void begin(struct setup how)
{
    one = fetcher_start(how);
}

static void end(void)
{
    fetcher_end(&one);
}

static struct fetch_reader *open_in(struct fetch *fetch, const struct content *what, uint64_t tag)
{
    struct fetch_source source = {
        .repo = &repo, .commit = commit, .path = what->path, .etag = what->etag, .size = what->size, .tag = tag
    };
    struct fetch_reader *reader = NULL;
    assert_int_equal(fetch_open(fetch, &source, &reader), 0);
    return reader;
}

static struct fetch_reader *open_it(const struct content *what)
{
    return open_in(one.fetch, what, 1);
}

// --- reads

struct pending {
    struct fetch_read read; // first
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int calls;
    int error;
    unsigned char *bytes;
};

static void on_read(struct fetch_read *read, int error, const struct fetch_piece *pieces, int count)
{
    struct pending *p = (struct pending *) (void *) read;
    size_t at = 0;
    for (int i = 0; i < count; at += pieces[i++].len) {
        if (pieces[i].mem)
            memcpy(p->bytes + at, pieces[i].mem, pieces[i].len);
        else if (pread(pieces[i].fd, p->bytes + at, pieces[i].len, pieces[i].offset) != (ssize_t) pieces[i].len)
            error = -ESPIPE;
    }
    if (error == 0 && at != read->len)
        error = -EBADMSG;
    UTIL_LOCKED(&p->lock);
    p->calls++;
    p->error = error;
    pthread_cond_signal(&p->changed);
}

static struct pending *read_start(struct fetch_reader *reader, int64_t offset, size_t len, int pid)
{
    struct pending *p = calloc(1, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->bytes = malloc(len);
    p->read = (struct fetch_read){ .offset = offset, .len = len, .pid = pid, .fn = on_read };
    int fd = -1;
    int error = fetch_read(reader, &p->read, &fd);
    if (error == -EINPROGRESS)
        return p;
    if (error == 0 && pread(fd, p->bytes, len, offset) != (ssize_t) len)
        error = -ESPIPE;
    UTIL_LOCKED(&p->lock);
    p->calls = 1;
    p->error = error;
    return p;
}

static bool read_waits(struct pending *p)
{
    UTIL_LOCKED(&p->lock);
    return p->calls == 0;
}

// Its error; `what` NULL: the bytes are not looked at. Fails after half a minute.
static int read_end(struct pending *p, const struct content *what)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&p->lock);
    while (p->calls == 0 && pthread_cond_timedwait(&p->changed, &p->lock, &until) == 0)
        ;
    int calls = p->calls, error = p->error;
    pthread_mutex_unlock(&p->lock);
    if (calls != 1)
        fail_msg("%d answers to the read of %zu bytes at %lld", calls, p->read.len, (long long) p->read.offset);
    if (error == 0 && what && memcmp(p->bytes, what->bytes + p->read.offset, p->read.len) != 0)
        fail_msg("%s: wrong bytes at %lld", what->path, (long long) p->read.offset);
    free(p->bytes);
    free(p);
    return error;
}

static int read_now(struct fetch_reader *reader, const struct content *what, int64_t offset, size_t len)
{
    return read_end(read_start(reader, offset, len, 0), what);
}

static int read_all(struct fetch_reader *reader, const struct content *what)
{
    int error = 0;
    for (int64_t at = 0; at < what->size && error == 0; at += 128 * K)
        error = read_now(reader, what, at, (size_t) (what->size - at < 128 * K ? what->size - at : 128 * K));
    return error;
}

// --- what the Hub saw

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000L }, NULL);
}

static double number(const char *entry, const char *name)
{
    const char *s = strstr(entry, name);
    return s ? strtod(s + strlen(name), NULL) : 0;
}

// Requests to the host of large files, and the bytes that it sent.
static int64_t seen(int *ret_requests)
{
    int64_t bytes = 0;
    *ret_requests = 0;
    for (const char *s = tell("log"); (s = strstr(s, "\"host\": \"cdn\"")); s++) {
        ++*ret_requests;
        bytes += (int64_t) number(s, "\"sent\": ");
    }
    return bytes;
}

static int64_t sent(void)
{
    int requests;
    return seen(&requests);
}

static int requests(void)
{
    int count;
    seen(&count);
    return count;
}

#define until(condition)                                                                                               \
    do {                                                                                                               \
        int64_t until_ms_ = util_now_ms() + 20000;                                                                     \
        while (!(condition)) {                                                                                         \
            if (util_now_ms() > until_ms_)                                                                             \
                fail_msg("never: %s", #condition);                                                                     \
            pause_ms(5);                                                                                               \
        }                                                                                                              \
    } while (0)

static int under_way(void)
{
    struct fetch_stats stats;
    fetch_stats(one.fetch, &stats);
    return (int) stats.requests;
}

static enum fetch_state state_of(const struct content *what)
{
    int64_t present;
    return fetch_state(one.fetch, what->etag, what->size, &present);
}

static bool is_there(const char *dir, const char *below, const struct content *what)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s", dir, below, what->etag);
    struct stat st;
    return stat(path, &st) == 0 && st.st_size == what->size;
}

static bool is_published(const struct content *what)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof path, "%s/models--org--name/snapshots/%s/%s", cache, commit, what->path);
    return is_there(cache, "models--org--name/blobs/", what) && stat(path, &st) == 0 && st.st_size == what->size;
}

// --- around each test

static void hash(struct content *what)
{
    unsigned char digest[32];
    EVP_Digest(what->bytes, (size_t) what->size, digest, NULL, EVP_sha256(), NULL);
    for (int i = 0; i < 32; i++)
        snprintf(what->etag + 2 * i, 3, "%02x", digest[i]);
}

static void load(struct content *what)
{
    what->bytes = malloc((size_t) what->size);
    for (int64_t at = 0; at < what->size; at += 1 << 20) {
        int64_t n = what->size - at < 1 << 20 ? what->size - at : 1 << 20;
        const char *hex = tell("read {\"path\":\"%s\",\"size\":%lld,\"offset\":%lld,\"length\":%lld}", what->path,
                               (long long) what->size, (long long) at, (long long) n) +
                          1;
        for (int64_t i = 0; i < n; i++) {
            char two[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
            what->bytes[at + i] = (unsigned char) strtoul(two, NULL, 16);
        }
    }
    hash(what);
}

static int start_all(void **unused)
{
    (void) unused;
    if (hub_lines_start() < 0)
        return -1;
    hub_lines_string(tell("repo {\"id\":\"org/name\",\"files\":{\"%s\":%d,\"%s\":%d,\"%s\":%d,\"%s\":%d}}", a.path,
                          LARGE, b.path, LARGE, small.path, SMALL, huge.path, HUGE_FILE),
                     0, commit, sizeof commit);
    load(&a);
    load(&b);
    load(&small);
    load(&huge);
    if (!mkdtemp(place))
        return -1;
    snprintf(cache, sizeof cache, "%s/cache", place);
    snprintf(state, sizeof state, "%s/state", place);
    return http_new(&(struct http_options){ 0 }, &http);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void) st;
    (void) type;
    (void) ftw;
    return remove(path);
}

static int end_all(void **unused)
{
    (void) unused;
    http_free(http);
    hub_lines_stop();
    free(a.bytes);
    free(b.bytes);
    free(small.bytes);
    free(huge.bytes);
    return nftw(place, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int fresh(void **unused)
{
    (void) unused;
    tell("reset");
    tell("clear_log");
    nftw(cache, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    nftw(state, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    bads = 0;
    return mkdir(cache, 0755) < 0 || mkdir(state, 0755) < 0 ? -1 : 0;
}

// --- many readers

struct part {
    struct fetch_reader *reader;
    const struct content *what;
    unsigned seed;
    atomic_int *failed;
};

static void *read_anywhere(void *userdata)
{
    struct part *part = userdata;
    const struct content *what = part->what;
    for (int i = 0; i < 150; i++) {
        int64_t offset = rand_r(&part->seed) % what->size;
        int64_t len = 1 + rand_r(&part->seed) % (200 * K);
        if (len > what->size - offset)
            len = what->size - offset;
        struct pending *p = read_start(part->reader, offset, (size_t) len, 0);
        *part->failed += read_end(p, what) != 0;
    }
    return NULL;
}

static void read_by_many(struct fetch *fetch, const struct content *what)
{
    pthread_t threads[READERS];
    struct part parts[READERS];
    atomic_int failed = 0;
    for (int i = 0; i < READERS; i++) {
        parts[i] = (struct part){ open_in(fetch, what, 1), what, (unsigned) i * 7 + 1, &failed };
        pthread_create(&threads[i], NULL, read_anywhere, &parts[i]);
    }
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    struct fetch_reader *last = open_in(fetch, what, 1);
    for (int i = 0; i < READERS; i++)
        fetch_close(parts[i].reader);
    assert_int_equal(read_all(last, what), 0);
    fetch_close(last);
    assert_int_equal(failed, 0);
}

static void many_readers_get_the_right_bytes_and_none_comes_twice(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    read_by_many(one.fetch, &a);
    until(is_published(&a));
    until(under_way() == 0);
    assert_int_equal(sent(), LARGE);
    end();
}

static void without_a_place_to_keep_it_the_bytes_are_right_too(void **unused)
{
    (void) unused;
    begin((struct setup){ 0 });
    read_by_many(one.fetch, &a);
    read_by_many(one.fetch, &small);
    end();
}

// --- wrong bytes

static void a_small_file_with_wrong_bytes_is_fetched_once_more(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    tell("fault {\"host\":\"cdn\",\"flip_at\":5,\"times\":1}");
    struct fetch_reader *reader = open_it(&small);
    assert_int_equal(read_all(reader, &small), 0);
    assert_int_equal(requests(), 2);
    fetch_close(reader);
    until(is_published(&small));
    end();
}

static void a_small_file_that_stays_wrong_cannot_be_read(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    tell("fault {\"host\":\"cdn\",\"flip_at\":5,\"times\":2}");
    struct fetch_reader *reader = open_it(&small);
    assert_int_equal(read_now(reader, NULL, 0, 10), -EIO);
    assert_int_equal(requests(), 2);
    assert_false(is_published(&small));
    assert_int_equal(read_now(reader, &small, 0, 10), 0); // the server is right again
    fetch_close(reader);
    end();
}

static void a_large_file_with_wrong_bytes_is_thrown_away_and_told(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    tell("fault {\"host\":\"cdn\",\"flip_at\":70000,\"times\":1}");
    struct fetch_reader *reader = open_in(one.fetch, &a, 4711);
    for (int64_t at = 0; at < LARGE; at += 128 * K)
        read_now(reader, NULL, at, (size_t) (LARGE - at < 128 * K ? LARGE - at : 128 * K));
    until(bads == 1);
    assert_int_equal(bad_tag, 4711);
    until(read_now(reader, NULL, 0, 10) == -EIO);
    assert_false(is_published(&a));
    struct fetch_reader *again = open_it(&a);
    fetch_close(reader);
    assert_int_equal(read_all(again, &a), 0);
    until(is_published(&a));
    fetch_close(again);
    assert_int_equal(bads, 1);
    end();
}

static void what_was_damaged_on_disk_is_fetched_anew(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true });
    struct fetch_reader *reader = open_it(&small);
    assert_int_equal(read_all(reader, &small), 0);
    fetch_close(reader);
    until(state_of(&small) == FETCH_WHOLE);
    end();
    char path[512];
    snprintf(path, sizeof path, "%s/partial/%s", state, small.etag);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "damage", 6, 1000), 6);
    begin((struct setup){ .keep = true });
    reader = open_it(&small);
    assert_int_equal(read_all(reader, &small), 0);
    assert_int_equal(requests(), 2);
    fetch_close(reader);
    end();
}

// --- trouble

static void a_server_error_reaches_who_waits_and_the_next_read_is_tried(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true });
    tell("fault {\"host\":\"cdn\",\"status\":500,\"times\":null}");
    struct fetch_reader *large = open_it(&a), *little = open_it(&small);
    struct pending *p[3] = { read_start(large, 0, 100, 0), read_start(large, 3000000, 100, 0),
                             read_start(little, 5, 100, 0) };
    for (int i = 0; i < 3; i++)
        assert_int_equal(read_end(p[i], NULL), -EIO);
    struct fetch_stats stats;
    fetch_stats(one.fetch, &stats);
    assert_true(stats.errors > 0 && *stats.last_error && stats.waiting_reads == 0);
    tell("reset");
    assert_int_equal(read_all(large, &a), 0);
    assert_int_equal(read_all(little, &small), 0);
    fetch_close(large);
    fetch_close(little);
    end();
}

static void a_server_without_ranges_gives_the_whole_file(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true });
    tell("fault {\"host\":\"cdn\",\"ignore_range\":true,\"times\":null}");
    struct fetch_reader *reader = open_it(&huge);
    struct pending *p[3];
    for (int i = 0; i < 3; i++)
        p[i] = read_start(reader, 17000000 + 1500000 * i, 1000, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(read_end(p[i], &huge), 0);
    fetch_close(reader);
    end();
}

static void who_closes_is_answered(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true, .timeout_ms = STALL_MS });
    tell("fault {\"host\":\"cdn\",\"stall_at\":0,\"times\":null}");
    struct fetch_reader *reader = open_it(&a);
    int me = (int) getpid();
    struct pending *flushed = read_start(reader, 0, 100, 1), *mine = read_start(reader, 200000, 100, me);
    fetch_flush(reader, 1);
    assert_int_equal(read_end(flushed, NULL), -EINTR);
    assert_true(read_waits(mine));
    fetch_close(reader);
    assert_int_equal(read_end(mine, NULL), -ECANCELED);
    until(under_way() == 0);
    end();
}

static void a_reader_that_is_gone_is_answered(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true, .timeout_ms = STALL_MS });
    tell("fault {\"host\":\"cdn\",\"stall_at\":0,\"times\":null}");
    struct fetch_reader *reader = open_it(&a);
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    assert_int_equal(read_end(read_start(reader, 0, 100, (int) pid), NULL), -EINTR);
    fetch_close(reader);
    end();
}

static void the_end_answers_all(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true, .timeout_ms = STALL_MS });
    tell("fault {\"host\":\"cdn\",\"stall_at\":1000,\"times\":null}");
    struct fetch_reader *large = open_it(&a), *little = open_it(&small);
    struct pending *p[6];
    for (int i = 0; i < 5; i++)
        p[i] = read_start(large, 200000 + 900000 * i, 1000, 0);
    p[5] = read_start(little, 150000, 1000, 0);
    fetch_stop(one.fetch);
    for (int i = 0; i < 6; i++)
        assert_int_equal(read_end(p[i], NULL), -ECANCELED);
    assert_int_equal(read_now(large, NULL, 200000, 10), -ECANCELED);
    fetch_close(large);
    fetch_close(little);
    end();
}

static void *open_read_close(void *userdata)
{
    atomic_bool *over = userdata;
    unsigned seed = 3;
    while (!*over) {
        const struct content *what = rand_r(&seed) % 2 ? &a : &small;
        struct fetch_source source = {
            .repo = &repo, .commit = commit, .path = what->path, .etag = what->etag, .size = what->size
        };
        struct fetch_reader *reader;
        if (fetch_open(one.fetch, &source, &reader) < 0)
            continue;
        struct pending *p = read_start(reader, rand_r(&seed) % (what->size - 1000), 1000, 0);
        int error = read_end(p, what);
        assert_true(error == 0 || error == -ECANCELED);
        fetch_close(reader);
    }
    return NULL;
}

static void the_end_comes_while_others_open_read_and_close(void **unused)
{
    (void) unused;
    for (int i = 0; i < 10; i++) {
        atomic_bool over = false;
        pthread_t threads[4];
        begin((struct setup){ .publish = true, .keep = true });
        for (int t = 0; t < 4; t++)
            pthread_create(&threads[t], NULL, open_read_close, &over);
        pause_ms(20 + 10 * i);
        fetch_stop(one.fetch);
        over = true;
        for (int t = 0; t < 4; t++)
            pthread_join(threads[t], NULL);
        end();
    }
}

// --- keeping

static void what_is_whole_is_published_under_its_names(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    struct fetch_reader *large = open_it(&a), *little = open_it(&small);
    assert_int_equal(read_all(large, &a), 0);
    assert_int_equal(read_all(little, &small), 0);
    until(is_published(&a));
    until(is_published(&small));
    until(!is_there(state, "partial/", &a));
    // What is open reads on.
    assert_int_equal(read_all(large, &a), 0);
    assert_int_equal(read_all(little, &small), 0);
    fetch_close(large);
    fetch_close(little);
    end();
    assert_false(is_there(state, "partial/", &small));
}

static void what_is_not_published_stays_with_us(void **unused)
{
    (void) unused;
    for (int i = 0; i < 2; i++) {
        begin((struct setup){ .keep = true });
        struct fetch_reader *large = open_it(&a), *little = open_it(&small);
        assert_int_equal(read_all(large, &a), 0);
        assert_int_equal(read_all(little, &small), 0);
        fetch_close(large);
        fetch_close(little);
        until(state_of(&a) == FETCH_WHOLE && state_of(&small) == FETCH_WHOLE);
        end();
        assert_true(is_there(state, "partial/", &a) && is_there(state, "partial/", &small));
    }
    assert_int_equal(sent(), LARGE + SMALL); // nothing by the second
}

static void what_cannot_be_published_is_kept(void **unused)
{
    (void) unused;
    char path[512];
    snprintf(path, sizeof path, "%s/models--org--name", cache);
    FILE *file = fopen(path, "w"); // in the way
    fclose(file);
    begin((struct setup){ .publish = true, .keep = true });
    struct fetch_reader *little = open_it(&small);
    assert_int_equal(read_all(little, &small), 0);
    until(state_of(&small) == FETCH_WHOLE && is_there(state, "partial/", &small));
    fetch_close(little);
    end();
    assert_int_equal(unlink(path), 0);
    begin((struct setup){ .publish = true, .keep = true });
    little = open_it(&small);
    until(is_published(&small));
    fetch_close(little);
    end();
    assert_int_equal(sent(), SMALL);
}

static void the_next_run_fetches_the_rest(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    struct fetch_reader *reader = open_it(&a);
    assert_int_equal(read_now(reader, &a, 10 * BLOCK, 100), 0);
    assert_int_equal(read_now(reader, &a, 50 * BLOCK, 100), 0);
    until(under_way() == 0);
    int64_t first = sent();
    assert_true(first > 0 && first < LARGE);
    fetch_close(reader);
    end();
    begin((struct setup){ .publish = true, .keep = true });
    assert_int_equal(state_of(&a), FETCH_PARTIAL);
    reader = open_it(&a);
    assert_int_equal(read_all(reader, &a), 0);
    until(is_published(&a));
    fetch_close(reader);
    end();
    assert_int_equal(sent(), LARGE);
}

static void who_follows_reads_what_the_other_fetches(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true });
    struct fetcher two = fetcher_start((struct setup){ .keep = true });
    struct fetch_reader *owner = open_it(&a), *follower = open_in(two.fetch, &a, 2);
    struct pending *p = read_start(follower, 20 * BLOCK, 1000, 0);
    assert_int_equal(read_all(owner, &a), 0);
    assert_int_equal(read_end(p, &a), 0);
    assert_int_equal(read_all(follower, &a), 0);
    fetch_close(follower);
    fetcher_end(&two);
    fetch_close(owner);
    end();
    assert_int_equal(sent(), LARGE);
}

static void fetched_ahead_it_is_there_when_it_is_read(void **unused)
{
    (void) unused;
    begin((struct setup){ .publish = true, .keep = true });
    struct fetch_source source = {
        .repo = &repo, .commit = commit, .path = small.path, .etag = small.etag, .size = small.size
    };
    fetch_ahead(one.fetch, &source);
    until(is_published(&small));
    end();
    assert_int_equal(sent(), SMALL);
}

// --- connections

static void no_more_connections_than_allowed(void **unused)
{
    (void) unused;
    tell("shape {\"host\":\"cdn\",\"latency\":0.05,\"rate\":null}");
    begin((struct setup){ .keep = true, .connections = 3 });
    read_by_many(one.fetch, &a);
    end();
    double from[512], to[512];
    int count = 0, most = 0;
    for (const char *s = tell("log"); (s = strstr(s, "\"host\": \"cdn\"")) && count < 512; s++, count++) {
        from[count] = number(s, "\"started\": ");
        to[count] = number(s, "\"ended\": ");
    }
    for (int i = 0; i < count; i++) {
        int at_once = 0;
        for (int j = 0; j < count; j++)
            at_once += from[j] <= from[i] && (to[j] > from[i] || to[j] == 0);
        most = at_once > most ? at_once : most;
    }
    assert_in_range(most, 2, 3);
}

static void one_that_stalls_does_not_hold_up_another(void **unused)
{
    (void) unused;
    begin((struct setup){ .keep = true, .connections = 2, .timeout_ms = STALL_MS });
    tell("fault {\"host\":\"cdn\",\"path\":\"%.24s\",\"stall_at\":10,\"times\":null}", a.etag);
    struct fetch_reader *stalled = open_it(&a);
    struct pending *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = read_start(stalled, 1000000 * i, 1000, 0);
    until(requests() >= 2);
    struct fetch_reader *reader = open_it(&b);
    assert_int_equal(read_all(reader, &b), 0);
    fetch_close(reader);
    for (int i = 0; i < 4; i++)
        assert_true(read_waits(p[i]));
    fetch_close(stalled);
    for (int i = 0; i < 4; i++)
        assert_int_equal(read_end(p[i], NULL), -ECANCELED);
    end();
}

#define TEST(name) cmocka_unit_test_setup(name, fresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(many_readers_get_the_right_bytes_and_none_comes_twice),
        TEST(without_a_place_to_keep_it_the_bytes_are_right_too),
        TEST(a_small_file_with_wrong_bytes_is_fetched_once_more),
        TEST(a_small_file_that_stays_wrong_cannot_be_read),
        TEST(a_large_file_with_wrong_bytes_is_thrown_away_and_told),
        TEST(what_was_damaged_on_disk_is_fetched_anew),
        TEST(a_server_error_reaches_who_waits_and_the_next_read_is_tried),
        TEST(a_server_without_ranges_gives_the_whole_file),
        TEST(who_closes_is_answered),
        TEST(a_reader_that_is_gone_is_answered),
        TEST(the_end_answers_all),
        TEST(the_end_comes_while_others_open_read_and_close),
        TEST(what_is_whole_is_published_under_its_names),
        TEST(what_is_not_published_stays_with_us),
        TEST(what_cannot_be_published_is_kept),
        TEST(the_next_run_fetches_the_rest),
        TEST(who_follows_reads_what_the_other_fetches),
        TEST(fetched_ahead_it_is_there_when_it_is_read),
        TEST(no_more_connections_than_allowed),
        TEST(one_that_stalls_does_not_hold_up_another),
    };
    return cmocka_run_group_tests(tests, start_all, end_all);
}
