// SPDX-License-Identifier: Apache-2.0
// The index's part on refs: what the Hub has said that they mean, and when. What refs/ of the hub cache says is not in
// here. Per cache, as the trees are. Thread-safe, as all of index.h is. Errors: -ENOMEM, -EUCLEAN (see index_forget()).
#ifndef CACHE_INDEX_REFS_H
#define CACHE_INDEX_REFS_H

#include "cache/index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Times are ms of CLOCK_REALTIME.
int index_ref_set(struct index *index, const struct repo *repo, const char *ref, const char *commit, int64_t seen_ms);

// *ret_seen may be NULL. 0, -ENOENT.
int index_ref(struct index *index, const struct repo *repo, const char *ref, char ret_commit[NAMES_COMMIT_SIZE],
              int64_t *ret_seen);

// Also 0 when there was none.
int index_ref_drop(struct index *index, const struct repo *repo, const char *ref);

struct index_ref {
    const char *name;
    const char *commit;
};

// The Hub's whole list, asked for at `asked_ms` and seen at `seen_ms`, in one transaction: sets each of `refs`, and
// drops what is not among them and was seen before it was asked for. Pull requests stay: no list has them.
int index_refs_set(struct index *index, const struct repo *repo, const struct index_ref *refs, size_t count,
                   int64_t asked_ms, int64_t seen_ms);

// Each ref of a repo in byte order, with no lock held. 0 to go on; anything else stops and is returned.
typedef int index_ref_fn(void *userdata, const char *ref, const char *commit);
int index_refs(struct index *index, const struct repo *repo, index_ref_fn *fn, void *userdata);

// Whether the Hub has said anything of the repo that is still known: a ref, or a commit's list. False on errors.
bool index_knows_repo(struct index *index, const struct repo *repo);

#endif
