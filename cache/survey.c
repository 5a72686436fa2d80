// SPDX-License-Identifier: Apache-2.0
#include "cache/survey.h"

#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define BATCH 64

// A blob that is a regular file, by name.
struct blob {
    char etag[NAMES_ETAG_SIZE];
    int64_t size;
};

struct counting {
    struct store *store;
    const struct repo *repo;
    struct survey *survey;
    struct blob *blobs; // sorted
    size_t count, room;
    char (*commits)[NAMES_COMMIT_SIZE]; // in the cache, or looked at since the start
    size_t commit_count, commit_room;
};

static int commit_add(void *userdata, const char *commit)
{
    struct counting *c = userdata;
    for (size_t i = 0; i < c->commit_count; i++)
        if (strcmp(c->commits[i], commit) == 0)
            return 0;
    if (c->commit_count == c->commit_room) {
        size_t room = c->commit_room ? c->commit_room * 2 : 8;
        void *commits = reallocarray(c->commits, room, sizeof *c->commits);
        if (!commits)
            return -ENOMEM;
        c->commits = commits;
        c->commit_room = room;
    }
    memcpy(c->commits[c->commit_count++], commit, NAMES_COMMIT_SIZE);
    return 0;
}

static int blob_add(void *userdata, const char *etag, int64_t size)
{
    struct counting *c = userdata;
    if (c->count == c->room) {
        size_t room = c->room ? c->room * 2 : 64;
        struct blob *blobs = reallocarray(c->blobs, room, sizeof *blobs);
        if (!blobs)
            return -ENOMEM;
        c->blobs = blobs;
        c->room = room;
    }
    struct blob *blob = &c->blobs[c->count++];
    snprintf(blob->etag, sizeof blob->etag, "%s", etag);
    blob->size = size;
    return 0;
}

static int blob_compare(const void *a, const void *b)
{
    return strcmp(((const struct blob *) a)->etag, ((const struct blob *) b)->etag);
}

// Whether a file is whole: by the list of blobs, which costs no system call, else by trying to open it.
static bool is_whole(const struct counting *c, struct snapshot *s, const struct entry *e)
{
    struct blob key = { 0 };
    snprintf(key.etag, sizeof key.etag, "%s", e->etag);
    const struct blob *found = c->count > 0 ? bsearch(&key, c->blobs, c->count, sizeof key, blob_compare) : NULL;
    return (found && found->size == e->size) || store_file_whole(c->store, s, e);
}

static void count_file(const struct counting *c, struct snapshot *s, const struct entry *e)
{
    struct survey *survey = c->survey;
    survey->files++;
    survey->bytes += e->size;
    if (is_whole(c, s, e)) {
        survey->whole_files++;
        survey->whole_bytes += e->size;
        return;
    }
    int64_t present = store_file_present(c->store, e);
    if (present > 0) {
        survey->partial_files++;
        survey->partial_bytes += e->size;
        survey->present_bytes += present;
    } else {
        survey->absent_files++;
        survey->absent_bytes += e->size;
    }
}

// Has all directories of a snapshot read that has no list of its files.
static int read_dirs(struct store *store, struct snapshot *s, uint32_t dir)
{
    int count = store_list_start(store, s, dir, false);
    if (count < 0)
        return count;
    struct entry *entries = malloc(BATCH * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    char after[INDEX_NAME_SIZE] = "";
    do {
        count = store_list(store, s, dir, after, entries, BATCH);
        for (int i = 0; i < count; i++)
            if (entries[i].kind == ENTRY_DIR)
                read_dirs(store, s, entries[i].ordinal); // one that cannot be read does not hide the others
        if (count > 0)
            memcpy(after, entries[count - 1].name, sizeof after);
    } while (count == BATCH);
    free(entries);
    return count < 0 ? count : 0;
}

static void count_files(const struct counting *c, struct snapshot *s)
{
    struct entry *entries = malloc(BATCH * sizeof *entries);
    uint32_t after = 0;
    int count = entries ? BATCH : 0;
    while (count == BATCH) {
        count = store_files(c->store, s, after, entries, BATCH);
        for (int i = 0; i < count; i++)
            count_file(c, s, &entries[i]);
        if (count > 0)
            after = entries[count - 1].ordinal;
    }
    free(entries);
}

static int count_commit(const struct counting *c, const char *commit)
{
    struct snapshot *s;
    if (store_known(c->store, c->repo, commit, &s) < 0)
        return 0;
    c->survey->snapshots++;
    if (!store_is_listed(s))
        read_dirs(c->store, s, 0);
    count_files(c, s);
    return 0;
}

int survey_repo(struct store *store, const struct repo *repo, struct survey *survey)
{
    struct counting c = { .store = store, .repo = repo, .survey = survey };
    survey->repos++;
    int error = layout_blobs(store_layout(store), repo, blob_add, &c);
    if (error == 0) {
        if (c.count > 0)
            qsort(c.blobs, c.count, sizeof *c.blobs, blob_compare);
        error = layout_commits(store_layout(store), repo, commit_add, &c);
        if (error == 0)
            error = store_commits(store, repo, commit_add, &c);
        for (size_t i = 0; i < c.commit_count && error == 0; i++)
            error = count_commit(&c, c.commits[i]);
    }
    free(c.blobs);
    free(c.commits);
    return error;
}

static void survey_add(struct survey *sum, const struct survey *one)
{
    sum->repos += one->repos;
    sum->snapshots += one->snapshots;
    sum->files += one->files;
    sum->bytes += one->bytes;
    sum->whole_files += one->whole_files;
    sum->whole_bytes += one->whole_bytes;
    sum->partial_files += one->partial_files;
    sum->partial_bytes += one->partial_bytes;
    sum->present_bytes += one->present_bytes;
    sum->absent_files += one->absent_files;
    sum->absent_bytes += one->absent_bytes;
}

int survey_all(struct store *store, survey_repo_fn *fn, void *userdata, struct survey *ret_survey)
{
    *ret_survey = (struct survey){ 0 };
    _cleanup_free_ struct repo *repos = NULL;
    ssize_t count = store_all_repos(store, &repos);
    for (ssize_t i = 0; i < count; i++) {
        struct survey one = { 0 };
        survey_repo(store, &repos[i], &one);
        survey_add(ret_survey, &one);
        if (fn)
            fn(userdata, &repos[i], &one);
    }
    return count < 0 ? (int) count : 0;
}
