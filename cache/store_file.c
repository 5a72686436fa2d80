// SPDX-License-Identifier: Apache-2.0
// Opens files: whole ones from the disk, the others to be fetched as they are read.
#include "cache/store.h"

#include "cache/log.h"
#include "cache/scan.h"
#include "cache/store_parts.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define AHEAD_FILES 48 // of a directory whose files are opened one after the other
// Opens the bytes of an entry, and nothing else than them.
static int file_open(struct store *store, const struct snapshot *s, const struct entry *e, const char *path,
                     int *ret_fd)
{
    if (e->kind == ENTRY_REFUSED)
        return -EPERM;
    if (e->kind != ENTRY_FILE)
        return e->kind == ENTRY_DIR ? -EISDIR : -ENOENT;
    bool plain = scan_is_identity(e->etag);
    _cleanup_close_ int fd = -1;
    int error =
        layout_file_open(store->layout, &s->repo, s->commit, path, plain ? "" : e->etag, e->xet_hash, e->size, &fd);
    if (error < 0)
        return error;
    if (plain) {
        struct stat st;
        char identity[NAMES_ETAG_SIZE];
        if (fstat(fd, &st) < 0)
            return -errno;
        scan_identity(&st, identity);
        if (strcmp(identity, e->etag) != 0)
            return -ESTALE;
    }
    *ret_fd = util_take_fd(&fd);
    return 0;
}

// `path` and `ref` must outlive it.
static struct fetch_source file_source(const struct snapshot *s, const struct entry *e, const char *path,
                                       const char *ref, uint64_t tag)
{
    return (struct fetch_source){
        .repo = &s->repo,
        .commit = s->commit,
        .path = path,
        .etag = e->etag,
        .size = e->size,
        .ref = ref,
        .tag = tag,
    };
}

static void snapshot_ref(struct snapshot *s, char ret_ref[NAMES_REF_SIZE])
{
    UTIL_LOCKED(&s->ahead_lock);
    memcpy(ret_ref, s->ref, NAMES_REF_SIZE);
}

static const char *file_problem(int error)
{
    switch (error) {
    case -ENOENT:
        return "not in the cache";
    case -EPERM:
        return "refused: its link leads out of the repo's blobs and the shared store";
    case -EIO:
        return "its blob has another size than the commit says";
    default:
        return strerror(-error);
    }
}

// An open found something else than what the directory was read as: it is read again, and the kernel is told to look
// the name up anew. Of a commit whose list is known nothing else is right.
static int file_doubt(struct store *store, struct snapshot *s, const struct entry *e)
{
    if (s->complete)
        return -EIO;
    int error = store_index_check(store, s->generation, index_dir_doubt(store->index, s->tree.id, e->parent));
    UTIL_LOCKED(&s->lock);
    s->dir_check_ms = 0;
    return error < 0 ? error : -ESTALE;
}

// --- the next ones

// Whether a file is opened after another one of the same directory that comes before it: somebody reads them all.
// ret_after is then up to where they are asked for already, "" for this one.
static bool reads_in_order(struct snapshot *s, const struct entry *e, char ret_after[INDEX_NAME_SIZE])
{
    UTIL_LOCKED(&s->ahead_lock);
    bool next = s->last_dir == e->parent && strcmp(e->name, s->last_name) > 0;
    if (!next)
        s->ahead_name[0] = '\0';
    s->last_dir = e->parent;
    memcpy(s->last_name, e->name, sizeof s->last_name);
    memcpy(ret_after, s->ahead_name, INDEX_NAME_SIZE);
    return next;
}

// Small files that come after this one are fetched before they are asked for.
static void fetch_next_ones(struct store *store, struct snapshot *s, const struct entry *e)
{
    char after[INDEX_NAME_SIZE], ref[NAMES_REF_SIZE];
    if (!store->online || !reads_in_order(s, e, after))
        return;
    if (strcmp(after, e->name) < 0)
        memcpy(after, e->name, sizeof after);
    struct entry *entries = malloc(AHEAD_FILES * sizeof *entries);
    if (!entries)
        return;
    snapshot_ref(s, ref);
    // Up to so many after the one that is opened now.
    int near = store_list(store, s, e->parent, e->name, entries, AHEAD_FILES);
    for (int i = 0; i < near; i++) {
        const struct entry *n = &entries[i];
        if (strcmp(n->name, after) <= 0 || n->kind != ENTRY_FILE || n->size > FETCH_SMALL)
            continue;
        _cleanup_free_ char *path = NULL;
        _cleanup_close_ int fd = -1;
        if (store_path(store, s, n->ordinal, &path) == 0 && file_open(store, s, n, path, &fd) == -ENOENT) {
            struct fetch_source source = file_source(s, n, path, ref, 0);
            fetch_ahead(store->fetch, &source);
        }
    }
    if (near > 0) {
        UTIL_LOCKED(&s->ahead_lock);
        memcpy(s->ahead_name, entries[near - 1].name, sizeof s->ahead_name);
    }
    free(entries);
}

// --- opening

// A file of which not all is on disk: to be fetched as it is read.
static int open_to_fetch(struct store *store, struct snapshot *s, const struct entry *e, const char *path, uint64_t tag,
                         struct store_file *ret_file)
{
    if (!store->fetch || e->kind != ENTRY_FILE || scan_is_identity(e->etag))
        return -ENOENT;
    int64_t present;
    if (!store->online && fetch_state(store->fetch, e->etag, e->size, &present) == FETCH_ABSENT)
        return -ENOENT;
    char ref[NAMES_REF_SIZE];
    snapshot_ref(s, ref);
    struct fetch_source source = file_source(s, e, path, ref, tag);
    int error = fetch_open(store->fetch, &source, &ret_file->reader);
    if (error == 0 && e->size <= FETCH_SMALL)
        fetch_next_ones(store, s, e);
    return error;
}

// A blob that came under another name has no link under this one yet: the library would have made it.
static void link_if_missing(struct store *store, struct snapshot *s, const struct entry *e, const char *path)
{
    if (!store->online || !store->publish || !s->complete || scan_is_identity(e->etag) ||
        layout_has_file(store->layout, &s->repo, s->commit, path))
        return;
    char ref[NAMES_REF_SIZE];
    snapshot_ref(s, ref);
    struct fetch_source source = file_source(s, e, path, ref, 0);
    fetch_link(store->fetch, &source);
}

int store_file_open(struct store *store, struct snapshot *s, uint32_t ordinal, uint64_t tag,
                    struct store_file *ret_file)
{
    struct entry e;
    int error = store_entry(store, s, ordinal, &e);
    if (error < 0)
        return error;
    snapshot_touch(s);
    *ret_file = (struct store_file){ .fd = -1, .size = e.size };
    _cleanup_free_ char *path = NULL;
    error = store_path(store, s, ordinal, &path);
    if (error == 0)
        error = file_open(store, s, &e, path, &ret_file->fd);
    if (error == 0)
        link_if_missing(store, s, &e, path);
    else if (error == -ENOENT)
        error = open_to_fetch(store, s, &e, path, tag, ret_file);
    if (error == -ESTALE || (error == -EIO && !s->complete))
        error = file_doubt(store, s, &e);
    if (error < 0) {
        if (error == -ESTALE)
            return error;
        log_warning("%s@%s: %s: %s", s->repo.id, s->commit, path ? path : "?", file_problem(error));
        return error == -ENOENT ? -ENETUNREACH : error;
    }
    return 0;
}

bool store_file_whole(struct store *store, struct snapshot *s, const struct entry *e)
{
    _cleanup_close_ int fd = -1;
    _cleanup_free_ char *path = NULL;
    return store_path(store, s, e->ordinal, &path) == 0 && file_open(store, s, e, path, &fd) == 0;
}

int64_t store_file_present(struct store *store, const struct entry *e)
{
    int64_t present = 0;
    if (!store->fetch || e->kind != ENTRY_FILE || scan_is_identity(e->etag))
        return 0;
    fetch_state(store->fetch, e->etag, e->size, &present);
    return present;
}
