// SPDX-License-Identifier: Apache-2.0
#include "cache/pool.h"

#include "cache/util.h"

#include <errno.h>

struct queue {
    struct pool_work *first, **end;
};

struct pool {
    char name[16];
    pthread_t *threads;
    int count;

    pthread_mutex_t lock; // guards what follows
    pthread_cond_t changed;
    struct queue urgent, usual;
    int busy;
    bool stop;
    bool ended; // no thread takes work any more
};

static struct pool_work *queue_take(struct queue *queue)
{
    struct pool_work *work = queue->first;
    if (work) {
        queue->first = work->next;
        if (!queue->first)
            queue->end = &queue->first;
    }
    return work;
}

static void *worker(void *userdata)
{
    struct pool *pool = userdata;
    pthread_setname_np(pthread_self(), pool->name);
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct pool_work *work = queue_take(&pool->urgent);
        if (!work)
            work = queue_take(&pool->usual);
        if (work) {
            pool->busy++;
            pthread_mutex_unlock(&pool->lock);
            work->fn(work); // the work may be gone now
            pthread_mutex_lock(&pool->lock);
            pool->busy--;
        } else if (pool->stop && pool->busy == 0) { // what is added from here on is refused
            pool->ended = true;
            break;
        } else {
            pthread_cond_wait(&pool->changed, &pool->lock);
        }
        if (pool->stop && pool->busy == 0)
            pthread_cond_broadcast(&pool->changed);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int pool_new(const char *name, int threads, struct pool **ret_pool)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return -ENOMEM;
    snprintf(pool->name, sizeof pool->name, "%s", name);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pool->urgent.end = &pool->urgent.first;
    pool->usual.end = &pool->usual.first;
    pool->threads = calloc((size_t) threads, sizeof *pool->threads);
    int error = pool->threads ? 0 : -ENOMEM;
    while (error == 0 && pool->count < threads) {
        error = -pthread_create(&pool->threads[pool->count], NULL, worker, pool);
        if (error == 0)
            pool->count++;
    }
    if (error < 0) {
        pool_free(pool);
        return error;
    }
    *ret_pool = pool;
    return 0;
}

void pool_stop(struct pool *pool)
{
    if (!pool)
        return;
    {
        UTIL_LOCKED(&pool->lock);
        pool->stop = true;
        pthread_cond_broadcast(&pool->changed);
    }
    for (int i = 0; i < pool->count; i++)
        pthread_join(pool->threads[i], NULL);
    pool->count = 0;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pool_stop(pool);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool->threads);
    free(pool);
}

bool pool_add(struct pool *pool, struct pool_work *work, bool urgent)
{
    struct queue *queue = urgent ? &pool->urgent : &pool->usual;
    UTIL_LOCKED(&pool->lock);
    if (pool->ended)
        return false;
    work->next = NULL;
    *queue->end = work;
    queue->end = &work->next;
    pthread_cond_signal(&pool->changed);
    return true;
}
