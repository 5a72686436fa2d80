// SPDX-License-Identifier: Apache-2.0
// Which repos there are.
#include "cache/store.h"

#include "cache/index_refs.h"
#include "cache/store_parts.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define REPOS_CHECK_MS 400 // the cache's own, which is read each time: a repo's link may come to life without a trace

static int repo_compare(const void *a, const void *b)
{
    const struct repo *x = a, *y = b;
    return x->type != y->type ? (x->type < y->type ? -1 : 1) : strcmp(x->id, y->id);
}

static int repos_add(void *userdata, const struct repo *repo)
{
    struct store *store = userdata;
    if (store->repo_count == store->repo_room) {
        size_t room = store->repo_room ? store->repo_room * 2 : 64;
        struct repo *repos = reallocarray(store->repos, room, sizeof *repos);
        if (!repos)
            return -ENOMEM;
        store->repos = repos;
        store->repo_room = room;
    }
    store->repos[store->repo_count++] = *repo;
    return 0;
}

// Reads the cache's directory, if that was not done just now. repos_lock is held.
static int repos_ready(struct store *store)
{
    if (util_now_ms() < store->repos_check_ms)
        return 0;
    store->repo_count = 0;
    int error = layout_repos(store->layout, repos_add, store);
    if (error < 0)
        return error;
    if (store->repo_count > 0)
        qsort(store->repos, store->repo_count, sizeof *store->repos, repo_compare);
    store->repos_check_ms = util_now_ms() + REPOS_CHECK_MS;
    return 0;
}

// The first repo that is not before `repo`. repos_lock is held.
static size_t repos_from(const struct store *store, const struct repo *repo)
{
    size_t low = 0, high = store->repo_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (repo_compare(&store->repos[middle], repo) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool store_has_repo(struct store *store, const struct repo *repo)
{
    UTIL_LOCKED(&store->repos_lock);
    if (repos_ready(store) < 0)
        return false;
    size_t at = repos_from(store, repo);
    return at < store->repo_count && names_repo_equal(&store->repos[at], repo);
}

bool store_has_org(struct store *store, enum repo_type type, const char *org)
{
    struct repo first = { .type = type };
    size_t len = (size_t) snprintf(first.id, sizeof first.id, "%s/", org);
    UTIL_LOCKED(&store->repos_lock);
    if (repos_ready(store) < 0)
        return false;
    size_t at = repos_from(store, &first);
    return at < store->repo_count && store->repos[at].type == type && strncmp(store->repos[at].id, first.id, len) == 0;
}

bool store_may_have_repo(struct store *store, const struct repo *repo)
{
    if (store_has_repo(store, repo))
        return true;
    if (!store->hub)
        return false;
    return store->online ? !remote_is_missing(store->remote, repo) : index_knows_repo(store->index, repo);
}

int store_refs(struct store *store, const struct repo *repo, layout_ref_fn *fn, void *userdata)
{
    if (!store->hub)
        return 0;
    int error = store->online ? remote_refs(store->remote, repo) : 0;
    if (error == -EINPROGRESS || error == -ENOENT)
        return error;
    int r = index_refs(store->index, repo, fn, userdata);
    return r == 0 ? error : r;
}

ssize_t store_repos(struct store *store, struct repo **ret_repos)
{
    UTIL_LOCKED(&store->repos_lock);
    int error = repos_ready(store);
    if (error < 0)
        return error;
    struct repo *repos = calloc(store->repo_count + 1, sizeof *repos);
    if (!repos)
        return -ENOMEM;
    if (store->repo_count > 0)
        memcpy(repos, store->repos, store->repo_count * sizeof *repos);
    *ret_repos = repos;
    return (ssize_t) store->repo_count;
}

ssize_t store_all_repos(struct store *store, struct repo **ret_repos)
{
    _cleanup_free_ struct repo *cached = NULL;
    ssize_t count = store_repos(store, &cached);
    if (count < 0)
        return count;
    UTIL_LOCKED(&store->lock);
    struct repo *repos = calloc((size_t) count + store->count + 1, sizeof *repos);
    if (!repos)
        return -ENOMEM;
    if (count > 0)
        memcpy(repos, cached, (size_t) count * sizeof *repos);
    for (uint32_t i = 0; i < store->count; i++)
        repos[count++] = store->by_number[i]->repo;
    if (count > 0)
        qsort(repos, (size_t) count, sizeof *repos, repo_compare);
    ssize_t kept = count > 0;
    for (ssize_t i = 1; i < count; i++)
        if (!names_repo_equal(&repos[i], &repos[kept - 1]))
            repos[kept++] = repos[i];
    *ret_repos = repos;
    return kept;
}
