// SPDX-License-Identifier: Apache-2.0
// Scope-bound clean-up, used everywhere: `_cleanup_close_ int fd = -1;` closes at the end of the scope.
#ifndef CACHE_UTIL_H
#define CACHE_UTIL_H

#include <dirent.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static inline void util_free_p(void *p)
{
    free(*(void **) p);
}

static inline void util_close_p(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void util_closedir_p(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static inline void util_fclose_p(FILE **file)
{
    if (*file)
        fclose(*file);
}

static inline void util_unlock_p(pthread_mutex_t **mutex)
{
    if (*mutex)
        pthread_mutex_unlock(*mutex);
}

#define _cleanup_free_ __attribute__((cleanup(util_free_p)))
#define _cleanup_close_ __attribute__((cleanup(util_close_p)))
#define _cleanup_closedir_ __attribute__((cleanup(util_closedir_p)))
#define _cleanup_fclose_ __attribute__((cleanup(util_fclose_p)))

// Holds `m` until the end of the scope.
#define UTIL_LOCKED(m)                                                                                                 \
    __attribute__((cleanup(util_unlock_p), unused)) pthread_mutex_t *util_lock_ = (pthread_mutex_lock(m), (m))

// Gives up an fd or a pointer that has a clean-up, to hand it to the caller.
static inline int util_take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define util_take_ptr(p)                                                                                               \
    ({                                                                                                                 \
        __typeof__(p) util_taken_ = (p);                                                                               \
        (p) = NULL;                                                                                                    \
        util_taken_;                                                                                                   \
    })

// Milliseconds of CLOCK_MONOTONIC.
static inline int64_t util_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

#endif
