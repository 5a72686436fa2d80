// SPDX-License-Identifier: Apache-2.0
// The Hub behind the cache: opens and closes what asks it and what fetches from it.
#include "cache/store.h"

#include "cache/log.h"
#include "cache/store_parts.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define CONNECTIONS 16
#define API_CONNECTIONS 8 // questions never wait for bytes
#define TIMEOUT_MS 15000
#define BUDGET_TIMEOUTS 4 // a read is given up after so many timeouts without a byte
#define REF_TTL_MS 60000
#define BATCH 256

// All files of a commit for publish_file().
static int list_tree(void *userdata, struct tree_list *list)
{
    const struct fetch_commit *commit = userdata;
    struct store *store = commit->userdata;
    struct index_tree tree;
    int error = index_tree_known(store->index, commit->repo, commit->commit, &tree);
    if (error < 0 || !tree.complete)
        return error < 0 ? error : -ENOENT;
    struct entry *entries = malloc(BATCH * sizeof *entries);
    if (!entries)
        return -ENOMEM;
    uint32_t after = 0;
    int count = BATCH;
    while (count == BATCH && error == 0) {
        count = index_files(store->index, tree.id, after, entries, BATCH);
        error = count < 0 ? count : 0;
        for (int i = 0; i < count && error == 0; i++) {
            const struct entry *e = &entries[i];
            _cleanup_free_ char *path = NULL;
            error = index_path(store->index, tree.id, e->ordinal, &path);
            if (error == 0)
                error = tree_list_add(list, path, e->size, e->etag, e->blob_id, e->xet_hash);
        }
        if (count > 0)
            after = entries[count - 1].ordinal;
    }
    free(entries);
    return error;
}

int store_hub_open(struct store *store, const struct store_options *options, const char *state_dir)
{
    const struct store_hub_options *o = options->hub;
    int connections = o->connections > 0 ? o->connections : CONNECTIONS;
    int timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : TIMEOUT_MS;
    struct http_options http = {
        .connections = connections + API_CONNECTIONS,
        .connections_per_host = connections + API_CONNECTIONS,
    };
    struct hub_options hub = {
        .endpoint = o->endpoint,
        .offline = o->offline,
        .timeout_ms = timeout_ms,
        .budget_ms = BUDGET_TIMEOUTS * timeout_ms,
    };
    struct remote_options remote = { .ref_ttl_ms = o->ref_ttl_ms >= 0 ? o->ref_ttl_ms : REF_TTL_MS };
    int error = http_new(&http, &store->http);
    if (error == 0)
        error = hub_new(store->http, &hub, &store->hub);
    if (error == 0)
        error = remote_new(store->hub, store->index, &remote, &store->remote);
    if (error < 0)
        return error;
    store->online = !hub_is_offline(store->hub);
    store->publish = o->publish;
    error = partials_open(state_dir, store->index, &store->partials);
    if (error < 0)
        log_warning("%s: what is fetched cannot be kept: %s",
                    state_dir ? state_dir : "the directory for temporary files", strerror(-error));
    struct fetch_options fetch = {
        .cache_path = o->publish ? layout_path(store->layout) : NULL,
        .connections = connections,
        .tree = list_tree,
        .list_userdata = store,
        .userdata = o->userdata,
        .on_bad = o->on_bad,
    };
    return fetch_new(store->http, store->hub, store->partials, &fetch, &store->fetch);
}

void store_stop(struct store *store)
{
    if (store->stopped)
        return;
    store->stopped = true;
    if (store->remote)
        remote_stop(store->remote);
    if (store->fetch)
        fetch_stop(store->fetch);
}

void store_hub_close(struct store *store)
{
    store_stop(store);
    fetch_free(store->fetch);
    remote_free(store->remote);
    partials_close(store->partials);
    hub_free(store->hub);
    http_free(store->http);
}

bool store_is_online(const struct store *store)
{
    return store->online;
}

const char *store_endpoint(const struct store *store)
{
    return store->hub ? hub_endpoint(store->hub) : "";
}

uint64_t store_answers(struct store *store)
{
    return store->remote ? remote_answers(store->remote) : 0;
}

void store_wait(struct store *store, uint64_t seen, struct remote_waiter *waiter)
{
    remote_wait(store->remote, seen, waiter);
}

void store_hub_error(struct store *store, const struct repo *repo, char ret_text[512])
{
    *ret_text = '\0';
    if (store->remote)
        remote_error(store->remote, repo, ret_text);
}

struct fetch *store_fetch(struct store *store)
{
    return store->fetch;
}

// --- whether a file can be had

struct probe {
    int error;
    char *text;
};

static void probe_done(void *userdata, const struct hub_error *error, const struct hub_file *file)
{
    struct probe *probe = userdata;
    (void) file;
    probe->error = error->error;
    snprintf(probe->text, 512, "%s", error->text);
}

int store_probe(struct store *store, struct snapshot *s, uint32_t ordinal, char ret_text[512])
{
    _cleanup_free_ char *path = NULL;
    int error = store_path(store, s, ordinal, &path);
    if (error < 0)
        return error;
    struct probe probe = { .error = -ETIMEDOUT, .text = ret_text };
    struct hub_call *call;
    snprintf(ret_text, 512, "%s@%.12s/%s: the Hub does not answer: try again later", s->repo.id, s->commit, path);
    error = hub_resolve(store->hub, &s->repo, s->commit, path, probe_done, &probe, &call);
    if (error < 0)
        return error;
    error = hub_wait(call, REMOTE_WAIT_MS);
    hub_release(call);
    return error < 0 ? error : probe.error;
}
