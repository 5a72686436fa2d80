// SPDX-License-Identifier: Apache-2.0
#include "cache/remote_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static size_t bucket_of(enum reply_kind kind, const struct repo *repo, const char *name)
{
    XXH64_hash_t hash = XXH3_64bits_withSeed(repo->id, strlen(repo->id), 16 * (unsigned) kind + repo->type);
    return XXH3_64bits_withSeed(name, strlen(name), hash) % REMOTE_TABLE_BUCKETS;
}

void table_init(struct table *t)
{
    TAILQ_INIT(&t->open);
    TAILQ_INIT(&t->answered);
}

static void question_free(struct question *q)
{
    reply_free(q->reply);
    free(q->text);
    free(q);
}

void table_free(struct table *t)
{
    // All callbacks first: one may touch the question that came before it.
    struct question *open;
    for (open = TAILQ_FIRST(&t->open); open; open = TAILQ_NEXT(open, at)) {
        reply_free(open->reply);
        open->reply = NULL;
    }
    for (size_t i = 0; i < REMOTE_TABLE_BUCKETS; i++) {
        struct question *q = t->buckets[i];
        while (q) {
            struct question *next = q->chain;
            question_free(q);
            q = next;
        }
    }
}

struct question *table_find(const struct table *t, enum reply_kind kind, const struct repo *repo, const char *name)
{
    struct question *q = t->buckets[bucket_of(kind, repo, name)];
    while (q && (q->kind != kind || !names_repo_equal(&q->repo, repo) || strcmp(q->name, name) != 0))
        q = q->chain;
    return q;
}

static void drop_oldest(struct table *t)
{
    struct question *q = TAILQ_FIRST(&t->answered);
    struct question **at = &t->buckets[bucket_of(q->kind, &q->repo, q->name)];
    while (*at != q)
        at = &(*at)->chain;
    *at = q->chain;
    TAILQ_REMOVE(&t->answered, q, at);
    t->count--;
    question_free(q);
}

struct question *table_add(struct table *t, enum reply_kind kind, const struct repo *repo, const char *name,
                           int *ret_error)
{
    if (t->count == REMOTE_TABLE_MAX && TAILQ_EMPTY(&t->answered)) {
        *ret_error = -EAGAIN;
        return NULL;
    }
    size_t size = strlen(name) + 1;
    struct question *q = calloc(1, sizeof *q + size);
    if (!q) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    if (t->count == REMOTE_TABLE_MAX)
        drop_oldest(t);
    q->kind = kind;
    q->repo = *repo;
    q->open = true;
    memcpy(q->name, name, size);
    struct question **bucket = &t->buckets[bucket_of(kind, repo, name)];
    q->chain = *bucket;
    *bucket = q;
    TAILQ_INSERT_TAIL(&t->open, q, at);
    t->count++;
    return q;
}

void table_open(struct table *t, struct question *q)
{
    TAILQ_REMOVE(q->open ? &t->open : &t->answered, q, at);
    TAILQ_INSERT_TAIL(&t->open, q, at);
    q->open = true;
}

void table_answer(struct table *t, struct question *q, int answer, int64_t until_ms)
{
    TAILQ_REMOVE(q->open ? &t->open : &t->answered, q, at);
    TAILQ_INSERT_TAIL(&t->answered, q, at);
    q->open = q->overdue = q->reported = q->written = false;
    q->answer = answer;
    q->until_ms = until_ms;
}
