// SPDX-License-Identifier: Apache-2.0
// One question's way to the Hub and its answer's way into the index. What comes is collected on the http thread, which
// must not block, and written by another. For remote.c alone.
#ifndef CACHE_REMOTE_REPLY_H
#define CACHE_REMOTE_REPLY_H

#include "cache/hub.h"
#include "cache/index.h"

#include <stdatomic.h>

enum reply_kind {
    REPLY_REF,  // what does a ref mean?
    REPLY_TREE, // which files has a commit?
    REPLY_DATE, // when was it made?
    REPLY_REFS, // which refs are there?
    REPLY_REPO, // is not asked: whether there is such a repo is seen from the others' answers
};

struct reply;

// `repo` and `name` (a ref, a commit, or "") stay the caller's and must outlive it. NULL: no memory.
struct reply *reply_new(enum reply_kind kind, const struct repo *repo, const char *name);

// Asks. `fn` is called once when the whole answer or an error is there: on the http thread, or in here when it cannot
// be asked at all. From then on the reply is the callee's to write and free.
typedef void reply_fn(void *userdata);
void reply_start(struct reply *reply, struct hub *hub, reply_fn *fn, void *userdata);

// Whether anything has come yet. From any thread.
bool reply_has_begun(const struct reply *reply);

// How it ended.
const struct hub_error *reply_error(const struct reply *reply);

// The commit that a ref means.
const char *reply_commit(const struct reply *reply);

// Writes a good answer into the index, all of it or nothing. 0; -EBADMSG when it is no list of files that can be
// (reply_error() then says why); -ECANCELED when *stop became true; -ENOMEM, -EUCLEAN.
int reply_write(struct reply *reply, struct index *index, const atomic_bool *stop);

// Ends the question if it is under way. Not on the http thread, and with no lock held that `fn` takes. NULL is fine.
void reply_free(struct reply *reply);

// "datasets/org/name@ref", for messages.
#define REPLY_SUBJECT_SIZE 512
void reply_subject(const struct repo *repo, const char *name, char ret_subject[REPLY_SUBJECT_SIZE]);

#endif
