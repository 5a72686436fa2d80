// SPDX-License-Identifier: Apache-2.0
// Where blobs that are verified stay: in the hub cache under all their names; else as partial blobs that are whole.
#include "cache/fetch_blob.h"
#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define PUBLISH_WAIT_MS 500
#define PUBLISH_TRIES 40

// A file without a name that has all bytes of a small blob, from its chunks. Publishing gives it its name.
static int small_file(struct blob *blob, int *ret_fd)
{
    _cleanup_close_ int fd = -1;
    struct chunk *chunks[SMALL_CHUNKS];
    int count = keep_small_chunks(blob, chunks);
    if (count < 0)
        return count;
    int error = blob->fetch->partials ? partials_unnamed(blob->fetch->partials, blob->size, &fd) : -EROFS;
    for (int i = 0; i < count; i++) {
        ssize_t n = error < 0 ? 0 : pwrite(fd, chunks[i]->data, chunks[i]->filled, chunks[i]->offset);
        if (error == 0 && n != (ssize_t) chunks[i]->filled)
            error = n < 0 ? -errno : -ENOSPC;
        chunk_unref(chunks[i]);
    }
    if (error == 0)
        *ret_fd = util_take_fd(&fd);
    return error;
}

// A small blob becomes a partial that is whole.
static int small_to_partial(struct blob *blob)
{
    if (!blob->fetch->partials)
        return -EROFS;
    int error = blob_open_partial(blob);
    struct partial *partial;
    {
        UTIL_LOCKED(&blob->lock);
        partial = blob->partial;
    }
    if (error < 0 || partial_whole(partial))
        return error;
    struct chunk *chunks[SMALL_CHUNKS];
    int count = keep_small_chunks(blob, chunks);
    error = count < 0 ? count : 0;
    for (int i = 0; i < count; i++) {
        if (error == 0)
            error = partial_write(partial, chunks[i]->offset, chunks[i]->data, chunks[i]->filled);
        chunk_unref(chunks[i]);
    }
    if (error < 0)
        return error;
    UTIL_LOCKED(&blob->lock);
    blob_drop_chunks(blob);
    blob->unsynced = blob->size + 1;
    return 0;
}

static int publish_link(const struct fetch *fetch, const struct link *link, const char *etag, int64_t size, int fd)
{
    struct fetch_commit commit = {
        .userdata = fetch->options.list_userdata,
        .repo = &link->repo,
        .commit = link->commit,
    };
    struct publish p = {
        .cache = fetch->cache_path,
        .repo = &link->repo,
        .commit = link->commit,
        .path = link->path,
        .etag = etag,
        .size = size,
        .fd = fd,
        .ref = *link->ref ? link->ref : NULL,
        .tree = fetch->options.tree,
        .userdata = &commit,
        .timeout_ms = PUBLISH_WAIT_MS,
    };
    return publish_file(&p);
}

static int publish_links(struct blob *blob, int fd, bool *ret_any)
{
    struct fetch *fetch = blob->fetch;
    struct link *link;
    int result = 0;
    {
        UTIL_LOCKED(&blob->lock);
        link = blob->links;
    }
    while (link) {
        bool published;
        {
            UTIL_LOCKED(&blob->lock);
            published = link->published;
        }
        int error = published ? 0 : publish_link(fetch, link, blob->etag, blob->size, fd);
        UTIL_LOCKED(&blob->lock);
        if (error == 0)
            link->published = *ret_any = true;
        else
            result = error;
        link = link->next;
    }
    return result;
}

// What is published: `*ret_fd` stays the blob's, or its partial's, or is `*ret_made`.
static int publish_from(struct blob *blob, struct partial **ret_partial, int *ret_made, int *ret_fd)
{
    {
        UTIL_LOCKED(&blob->lock);
        *ret_partial = blob->partial;
        *ret_fd = blob->fd;
    }
    if (*ret_fd >= 0)
        return 0;
    if (blob->small && !(*ret_partial && partial_whole(*ret_partial))) {
        int error = small_file(blob, ret_made);
        *ret_fd = *ret_made;
        return error;
    }
    if (!*ret_partial)
        return -EROFS;
    int error = keep_sync_partial(blob, *ret_partial);
    if (error == 0 && !partial_whole(*ret_partial)) { // lost by a sync, since it was verified
        keep_lost(blob);
        error = -ESTALE;
    }
    *ret_fd = partial_fd(*ret_partial);
    return error;
}

// 0 when it is where it is to stay.
static int publish_blob(struct blob *blob)
{
    struct partial *partial;
    if (!blob->fetch->cache_path) {
        if (blob->small)
            return small_to_partial(blob);
        {
            UTIL_LOCKED(&blob->lock);
            partial = blob->partial;
        }
        return partial ? keep_sync_partial(blob, partial) : 0;
    }
    int made = -1, fd;
    bool any = false;
    int error = publish_from(blob, &partial, &made, &fd);
    if (error == 0)
        error = publish_links(blob, fd, &any);
    if (any && partial)
        partial_published(partial);
    UTIL_LOCKED(&blob->lock);
    if (any && made >= 0) {
        blob->fd = util_take_fd(&made);
        blob_drop_chunks(blob);
    }
    util_close_p(&made);
    return error;
}

static bool is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

static void publish_failed(struct blob *blob, int error)
{
    struct fetch *fetch = blob->fetch;
    _cleanup_free_ char *name = blob_name(blob);
    bool full = is_full(error);
    if (full)
        fetch->full_until = util_now_ms() + KEEP_FULL_MS;
    if (fetch->cache_path && error != -ESTALE)
        log_warning("%s: is whole, but cannot be put into %s: %s", name ? name : "?", fetch->cache_path,
                    error == -EAGAIN ? "somebody else keeps its lock" : strerror(-error));
    bool in_memory;
    {
        UTIL_LOCKED(&blob->lock);
        in_memory = blob->small && blob->chunks;
    }
    if (!in_memory || (!full && fetch->cache_path && small_to_partial(blob) == 0))
        return;
    // It is served from memory as long as there is room.
    UTIL_LOCKED(&blob->lock);
    for (struct chunk *chunk = blob->chunks; chunk; chunk = chunk->next) {
        if (!chunk->unkept) {
            chunk->used_ms = util_now_ms();
            fetch->unkept_bytes += (long long) chunk->filled;
        }
        chunk->unkept = true;
    }
}

static void publish_work(struct pool_work *work)
{
    struct blob *blob = KEEP_BLOB(work, publish_work);
    int tries;
    bool verified, again, held;
    {
        UTIL_LOCKED(&blob->lock);
        blob->publish_again = false;
        tries = ++blob->publish_tries;
        verified = blob->verified;
    }
    int error = verified ? publish_blob(blob) : 0;
    bool later = error == -EAGAIN && tries < PUBLISH_TRIES && !blob->fetch->stopping;
    if (error < 0 && !later)
        publish_failed(blob, error);
    {
        UTIL_LOCKED(&blob->lock);
        // What a full disk has no place for is tried again when there is some.
        blob->kept = blob->verified && !later && !is_full(error);
        if (!later)
            blob->publish_tries = 0;
        held = blob->retry_ref;
        blob->retry_ref = later; // the ticker comes back to it
        again = blob->publish_again;
        blob->publish_waits = false;
    }
    if (later && !held)
        blob_ref(blob);
    if (!later)
        blob_drop_ahead(blob);
    if (!later && held)
        blob_unref(blob);
    if (again)
        keep_publish(blob);
    blob_unref(blob);
}

void keep_publish(struct blob *blob)
{
    {
        UTIL_LOCKED(&blob->lock);
        if (blob->publish_waits) { // it may be at it, and past what is new
            blob->publish_again = true;
            return;
        }
    }
    keep_add(blob->fetch->keepers, blob, &blob->publish_waits, &blob->publish_work, publish_work, false);
}

// --- links

struct link_work {
    struct pool_work work; // first
    struct fetch *fetch;
    struct link *link;
    char etag[NAMES_ETAG_SIZE];
    int64_t size;
};

static void link_free(struct link_work *work)
{
    free(work->link);
    free(work);
}

static void link_work(struct pool_work *work)
{
    struct link_work *l = (struct link_work *) (void *) work;
    int error = publish_link(l->fetch, l->link, l->etag, l->size, -1);
    if (error < 0)
        log_info("%s@%s: %s: its link cannot be made: %s", l->link->repo.id, l->link->commit, l->link->path,
                 strerror(-error));
    link_free(l);
}

void fetch_link(struct fetch *fetch, const struct fetch_source *source)
{
    struct link_work *l = fetch->cache_path ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return;
    l->work.fn = link_work;
    l->fetch = fetch;
    l->size = source->size;
    snprintf(l->etag, sizeof l->etag, "%s", source->etag);
    l->link = link_new(source);
    if (!l->link || !pool_add(fetch->keepers, &l->work, false))
        link_free(l);
}
