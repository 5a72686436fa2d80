// SPDX-License-Identifier: Apache-2.0
// What the Hub says of repos: what a ref means, which files a commit has, when it was made. Asked for at most once at a
// time, kept in the index, and in memory where the answer was a no. Joins hub.h and index.h.
//
// Nobody waits in here. A question that the Hub has to be asked is answered with -EINPROGRESS; whoever needs the answer
// asks remote_wait() to be called back and then asks again. Within a bound (REMOTE_WAIT_MS) there is an answer, if only
// that there is none: the question goes on behind it, and what it brings is there the next time.
//
// How long an answer counts: a no for the refs' time to live (a second at least), a refusal 10 s, any other failure 5
// s. "No such repo" answers every question about the repo. A Hub that cannot be reached, or of which nothing was heard
// while a question waited out its bound, is asked nothing for 10 s, and waited for no longer than 2 s after that until
// it has answered something. Each question that fails is one line of the log, but for a date: mirrors have none.
//
// Thread-safe. A thread of its own, the clerk, writes what came into the index and calls the waiters; nothing blocks
// the http thread. One lock, over the table of questions and the waiters; a leaf: never held during I/O or a call.
#ifndef CACHE_REMOTE_H
#define CACHE_REMOTE_H

#include "cache/hub.h"
#include "cache/index.h"

#include <stdbool.h>
#include <stdint.h>

#define REMOTE_WAIT_MS 15000
#define REMOTE_DATE_WAIT_MS 2000 // a date is worth less than an answer

struct remote;

struct remote_options {
    int ref_ttl_ms; // how long the Hub's answer on a ref is taken for its meaning now
    int wait_ms;    // after which a question counts as answered; 0: REMOTE_WAIT_MS
};

// `hub` and `index` stay the caller's and must outlive the result. 0, -ENOMEM, -errno of the thread.
int remote_new(struct hub *hub, struct index *index, const struct remote_options *options, struct remote **ret_remote);

// Ends the thread and calls all waiters; from then on all questions are answered with what is known, and nothing is
// asked any more. Others may still be in here.
void remote_stop(struct remote *remote);
// Stops it, if that was not done, and ends what is under way. No other thread may be in here any more. Before
// hub_free(). NULL is fine.
void remote_free(struct remote *remote);

// What a ref means, by the Hub's last answer. An answer older than the ref's time to live is given all the same, and
// asked for again behind it, unless `fresh` (then it is waited for). *ret_seen, which may be NULL, is when the Hub said
// so: ms of CLOCK_REALTIME. 0; -EINPROGRESS; -ENOENT: no such repo or revision; -EACCES; -ENETUNREACH: offline or
// unreachable, and no answer of before; -EIO, -EBADMSG: the Hub fails; -ENOMEM; -EUCLEAN of
// the index, whose index_forget() is the caller's.
int remote_ref(struct remote *remote, const struct repo *repo, const char *ref, bool fresh,
               char ret_commit[NAMES_COMMIT_SIZE], int64_t *ret_seen);

// Sees to it that the index has all files of a commit, and its date if that can be had in time. `tree` as
// index_tree() gave it; on success it is as the index has it now, complete. A commit is asked about once. At
// once 0 when tree->complete. Errors as above.
int remote_tree(struct remote *remote, const struct repo *repo, const char *commit, struct index_tree *tree);

// Sees to it that the date of a commit whose tree is known is in the index and in *tree, if it can be had in time; 0
// also when it cannot. Not asked again in this process unless the Hub could not be reached. -EINPROGRESS, -ENOMEM,
// -EUCLEAN.
int remote_date(struct remote *remote, const struct repo *repo, const char *commit, struct index_tree *tree);

// Sees to it that the index has the names of a repo's branches, tags and conversions (index_refs()), not older than the
// refs' time to live. Errors as above.
int remote_refs(struct remote *remote, const struct repo *repo);

// Whether the Hub has said within the refs' time to live that there is no such repo. Asks nothing.
bool remote_is_missing(struct remote *remote, const struct repo *repo);

// The last error's text for people ("org/name@main: gated repo: accept …") about this repo, "" if there is none.
void remote_error(struct remote *remote, const struct repo *repo, char ret_text[512]);

// How many questions have been answered so far; take it before asking.
uint64_t remote_answers(struct remote *remote);

struct remote_waiter {
    void (*fn)(struct remote_waiter *waiter);
    struct remote_waiter *next;
};

// Calls waiter->fn once: at once if a question was answered since `seen` was read, else when the next one is. It is
// called on the clerk or on this thread, with no lock held, and must not block.
void remote_wait(struct remote *remote, uint64_t seen, struct remote_waiter *waiter);

#endif
