// SPDX-License-Identifier: Apache-2.0
// What a cache holds, counted. Reads what was not read before, so the first time it takes as long as that; counting is
// no use of a snapshot, so it holds no ref back.
#ifndef CACHE_SURVEY_H
#define CACHE_SURVEY_H

#include "cache/store.h"

struct survey {
    int64_t repos, snapshots;
    int64_t files, bytes; // in all snapshots
    int64_t whole_files, whole_bytes;
    int64_t partial_files, partial_bytes, present_bytes; // bytes of the files, and those of them that are here
    int64_t absent_files, absent_bytes;                  // bytes: as far as known
};

// Adds one repo's snapshots. 0, or -errno if they cannot be listed; what cannot be read in them is absent.
int survey_repo(struct store *store, const struct repo *repo, struct survey *survey);

// All repos, each also to `fn`, which may be NULL; one that cannot be listed does not hide the others. 0 or -errno.
typedef void survey_repo_fn(void *userdata, const struct repo *repo, const struct survey *survey);
int survey_all(struct store *store, survey_repo_fn *fn, void *userdata, struct survey *ret_survey);

#endif
