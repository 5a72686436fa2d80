// SPDX-License-Identifier: Apache-2.0
// A few threads that do pieces of work in the order in which they were added, the urgent ones first.
#ifndef CACHE_POOL_H
#define CACHE_POOL_H

#include <stdbool.h>

struct pool;

// A piece of work, inside of something that lives until `fn` is called. It must not be waiting already.
struct pool_work {
    void (*fn)(struct pool_work *work);
    struct pool_work *next;
};

// `name`: of the threads, at most 15 bytes. 0, -ENOMEM, -errno of the threads.
int pool_new(const char *name, int threads, struct pool **ret_pool);

// Waits until all that was added, also by that work itself, is done, and ends the threads. Others may go on adding:
// they are told. NULL is fine.
void pool_stop(struct pool *pool);
// pool_stop(), and frees it: nobody may add any more. NULL is fine.
void pool_free(struct pool *pool);

// Has work->fn called on one of the threads. False, with nothing done, when these have ended. Thread-safe; never waits.
bool pool_add(struct pool *pool, struct pool_work *work, bool urgent);

#endif
