// SPDX-License-Identifier: Apache-2.0
#include "fs/push.h"

#include "cache/util.h"
#include "fs/fs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define MIB (1LL << 20)
#define THREADS 2
#define CHUNK (2 * MIB)   // bytes of one store; a power of two
#define WINDOW (64 * MIB) // how far ahead of a reader
#define START_RUN (MIB)   // bytes in sequence after which a reader counts as sequential
#define SLACK (MIB)       // how far from its place a sequential reader's requests may come: the kernel reorders them
#define QUEUE 64          // stretches that wait to be pushed; more are dropped, the reader then asks again

// A stretch of one file.
struct stretch {
    uint64_t nodeid;
    int fd; // ours
    int64_t from, to;
    int64_t file_size;
};

struct push {
    struct fuse_session *session;
    struct pusher {
        struct push *push;
        pthread_t thread;
        char *buffer; // CHUNK bytes
    } pushers[THREADS];
    atomic_llong bytes;

    pthread_mutex_t lock; // guards what follows
    pthread_cond_t work;
    bool stop;
    struct stretch queue[QUEUE];
    unsigned count;
};

// Takes the next chunk of the oldest stretch. The descriptor is a duplicate for whoever does not get the last chunk.
// The lock is held.
static struct stretch chunk_take(struct push *push)
{
    struct stretch *first = &push->queue[0];
    struct stretch chunk = *first;
    if (first->to - first->from > CHUNK) {
        chunk.fd = fcntl(first->fd, F_DUPFD_CLOEXEC, 0);
        chunk.to = first->from + CHUNK;
        first->from += CHUNK;
        return chunk;
    }
    push->count--;
    for (unsigned i = 0; i < push->count; i++)
        push->queue[i] = push->queue[i + 1];
    return chunk;
}

// Stores one chunk. It is read into memory first: mapping it costs more, each chunk then changes the page tables of a
// process with many threads. Of a file that has become shorter nothing is stored; the reads say what is wrong with it.
static void chunk_push(struct pusher *pusher, const struct stretch *chunk)
{
    struct push *push = pusher->push;
    size_t len = (size_t) (chunk->to - chunk->from);
    struct stat st;
    if (fstat(chunk->fd, &st) < 0 || st.st_size != chunk->file_size)
        return;
    if (pread(chunk->fd, pusher->buffer, len, chunk->from) != (ssize_t) len)
        return;
    struct fuse_bufvec data = FUSE_BUFVEC_INIT(len);
    data.buf[0].mem = pusher->buffer;
    // Without NO_SPLICE libfuse copies what fits into a pipe, to splice the copy.
    if (fuse_lowlevel_notify_store(push->session, chunk->nodeid, chunk->from, &data, FUSE_BUF_NO_SPLICE) == 0)
        push->bytes += (long long) len;
}

static void *pusher_run(void *userdata)
{
    struct pusher *pusher = userdata;
    struct push *push = pusher->push;
    pthread_mutex_lock(&push->lock);
    while (!push->stop) {
        if (push->count == 0) {
            pthread_cond_wait(&push->work, &push->lock);
            continue;
        }
        struct stretch chunk = chunk_take(push);
        pthread_mutex_unlock(&push->lock);
        if (chunk.fd >= 0) {
            chunk_push(pusher, &chunk);
            close(chunk.fd);
        }
        pthread_mutex_lock(&push->lock);
    }
    pthread_mutex_unlock(&push->lock);
    return NULL;
}

// 0, -ENOMEM, -EAGAIN.
static int pusher_start(struct push *push, struct pusher *pusher)
{
    pusher->push = push;
    pusher->buffer = aligned_alloc(CHUNK, CHUNK); // a huge page, where there are such
    return pusher->buffer ? -pthread_create(&pusher->thread, NULL, pusher_run, pusher) : -ENOMEM;
}

int push_start(struct fuse_session *session, struct push **ret_push)
{
    struct push *push = calloc(1, sizeof *push);
    if (!push)
        return -ENOMEM;
    push->session = session;
    pthread_mutex_init(&push->lock, NULL);
    pthread_cond_init(&push->work, NULL);
    for (int i = 0; i < THREADS; i++) {
        int error = pusher_start(push, &push->pushers[i]);
        if (error < 0) {
            pthread_mutex_lock(&push->lock);
            push->stop = true;
            pthread_cond_broadcast(&push->work);
            pthread_mutex_unlock(&push->lock);
            while (i-- > 0)
                pthread_join(push->pushers[i].thread, NULL);
            push_free(push);
            return error;
        }
    }
    *ret_push = push;
    return 0;
}

void push_stop(struct push *push)
{
    pthread_mutex_lock(&push->lock);
    assert(!push->stop);
    push->stop = true;
    while (push->count > 0)
        close(push->queue[--push->count].fd);
    pthread_cond_broadcast(&push->work);
    pthread_mutex_unlock(&push->lock);
    for (int i = 0; i < THREADS; i++)
        pthread_join(push->pushers[i].thread, NULL);
}

void push_free(struct push *push)
{
    if (!push)
        return;
    for (int i = 0; i < THREADS; i++)
        free(push->pushers[i].buffer);
    pthread_mutex_destroy(&push->lock);
    pthread_cond_destroy(&push->work);
    free(push);
}

int64_t push_bytes(struct push *push)
{
    return push->bytes;
}

// Queues a stretch, with a descriptor of its own. False if there is no room.
static bool stretch_add(struct push *push, const struct stretch *stretch)
{
    UTIL_LOCKED(&push->lock);
    if (push->stop || push->count == QUEUE)
        return false;
    int copy = fcntl(stretch->fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return false;
    push->queue[push->count] = *stretch;
    push->queue[push->count++].fd = copy;
    pthread_cond_broadcast(&push->work);
    return true;
}

bool push_next(struct push_reader *r, int64_t file_size, int64_t offset, int64_t size, int64_t *ret_from,
               int64_t *ret_to)
{
    // What was pushed is read without our seeing it: a reader that comes out of the pushed stretch has gone on.
    bool in_sequence = offset >= r->next - SLACK && offset <= (r->pushed > r->next ? r->pushed : r->next) + SLACK;
    if (!in_sequence) {
        *r = (struct push_reader){ .next = offset + size, .run = size };
        return false;
    }
    r->run += size;
    if (offset + size > r->next)
        r->next = offset + size;
    if (r->run < START_RUN)
        return false;
    // The kernel has its own readahead under way right behind the request: begin after it.
    int64_t from = (r->next + CHUNK) & ~(CHUNK - 1);
    if (from < r->pushed)
        from = r->pushed;
    int64_t to = r->next + WINDOW < file_size ? (r->next + WINDOW) & ~(CHUNK - 1) : file_size;
    // Not for every request: in strides of a quarter of the window, and the end.
    if (from >= to || (to - from < WINDOW / 4 && to < file_size))
        return false;
    *ret_from = from;
    *ret_to = to;
    return true;
}

void push_ahead(struct push *push, struct push_reader *reader, uint64_t nodeid, int fd, int64_t file_size,
                int64_t offset, int64_t size)
{
    struct stretch stretch = { .nodeid = nodeid, .fd = fd, .file_size = file_size };
    if (push_next(reader, file_size, offset, size, &stretch.from, &stretch.to) && stretch_add(push, &stretch))
        reader->pushed = stretch.to;
}
