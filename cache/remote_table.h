// SPDX-License-Identifier: Apache-2.0
// The table of questions to the Hub: which are under way, and what was answered lately. For remote.c alone. No I/O; the
// caller's lock is over all of it.
#ifndef CACHE_REMOTE_TABLE_H
#define CACHE_REMOTE_TABLE_H

#include "cache/names.h"
#include "cache/remote_reply.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define REMOTE_TABLE_MAX 4096 // questions remembered; the oldest answers go first
#define REMOTE_TABLE_BUCKETS 1024

TAILQ_HEAD(questions, question);

struct remote;

struct question {
    TAILQ_ENTRY(question) at; // in `open` or `answered`
    struct question *chain;   // of its bucket
    struct question *arrived; // the next whose reply has come
    enum reply_kind kind;
    struct repo repo;
    struct remote *remote;
    bool open; // under way: the question stays where it is

    // While it is open.
    struct reply *reply; // NULL once it is written
    int64_t asked_ms;    // of CLOCK_MONOTONIC, as all times here
    int64_t due_ms;      // when it counts as answered
    bool overdue;        // it does: `answer` counts, for now
    bool reported;       // in the log
    bool written;        // a list that waits for its date

    int answer;          // 0 or -errno; counts until `until_ms`
    int64_t until_ms;    // 0: never was one
    unsigned generation; // of the index that 0 and -EUCLEAN speak of
    char *text;          // of the error, for people; NULL
    uint64_t text_at;    // how many answers there had been
    char name[];         // a ref, a commit, or ""
};

struct table {
    struct question *buckets[REMOTE_TABLE_BUCKETS];
    struct questions open;
    struct questions answered; // the oldest first
    size_t count;
};

void table_init(struct table *table);
void table_free(struct table *table); // replies too

struct question *table_find(const struct table *table, enum reply_kind kind, const struct repo *repo, const char *name);

// One more, open. NULL: no memory, or all that there is room for are open (-EAGAIN).
struct question *table_add(struct table *table, enum reply_kind kind, const struct repo *repo, const char *name,
                           int *ret_error);

// From one list to the other, as the newest of it.
void table_open(struct table *table, struct question *q);
void table_answer(struct table *table, struct question *q, int answer, int64_t until_ms);

#endif
