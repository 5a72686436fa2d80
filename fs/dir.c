// SPDX-License-Identifier: Apache-2.0
#include "fs/dir.h"

#include "cache/log.h"
#include "cache/util.h"
#include "fs/attr.h"
#include "fs/park.h"
#include "fs/place.h"
#include "fs/root.h"

#include <errno.h>
#include <string.h>

#define BATCH 128           // entries of a snapshot that a handle reads ahead
#define UNKNOWN_INO (~0ULL) // what libfuse itself says where no inode number is known

// --- snapshots

// A path in a snapshot: the directory's own and a name in it.
static char *path_join(const char *dir, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s%s%s", dir, *dir ? "/" : "", name) < 0 ? NULL : path;
}

// What the kernel is told of an entry. Those that cannot be had have no attributes: the look-up fails.
static int entry_answer(struct fs *fs, const struct view *view, const struct entry *entry, const char *dir,
                        struct fuse_entry_param *ret)
{
    if (entry->kind == ENTRY_MISSING)
        return -ENETUNREACH;
    if (entry->kind == ENTRY_REFUSED)
        return -EPERM;
    _cleanup_free_ char *path = path_join(dir, entry->name);
    if (!path)
        return -ENOMEM;
    struct snapshot *snapshot = view->snapshot;
    double timeout = snapshot_complete(snapshot) ? FS_TIMEOUT_ENDLESS : FS_TIMEOUT_SHORT;
    *ret = (struct fuse_entry_param){
        .ino = entry->kind == ENTRY_DIR ? inode_dir(view->number, entry->ordinal)
                                        : inode_file(snapshot_number(snapshot), entry->ordinal),
        .attr = attr_entry(fs, snapshot, view, entry, path),
        .entry_timeout = timeout,
        .attr_timeout = timeout,
    };
    return 0;
}

static int snapshot_lookup(struct fs *fs, uint64_t dir, const char *name, struct fuse_entry_param *ret)
{
    struct view *view = inodes_view_find(fs->inodes, inode_owner(dir));
    if (!view)
        return -ESTALE;
    struct entry entry;
    int error = store_lookup(fs->store, view->snapshot, inode_ordinal(dir), name, &entry);
    if (error == -ENOENT && snapshot_complete(view->snapshot)) {
        // Known never to be there: the kernel need not ask again.
        *ret = (struct fuse_entry_param){ .entry_timeout = FS_TIMEOUT_ENDLESS };
        return 0;
    }
    if (error < 0)
        return error;
    _cleanup_free_ char *path = NULL;
    error = store_path(fs->store, view->snapshot, inode_ordinal(dir), &path);
    if (error == 0)
        error = entry_answer(fs, view, &entry, path, ret);
    if (error == -ENETUNREACH || error == -EPERM)
        log_warning("%s@%s: %s%s%s: %s", snapshot_repo(view->snapshot)->id, snapshot_commit(view->snapshot), path,
                    *path ? "/" : "", name,
                    error == -EPERM ? "refused: its link leads out of the repo's blobs and the shared store"
                                    : "not in the cache, and its size is not known");
    return error;
}

static int snapshot_getattr(struct fs *fs, uint64_t ino, struct stat *ret_st, double *ret_timeout)
{
    struct view *view = NULL;
    struct snapshot *snapshot;
    if (inode_is_dir(ino)) {
        view = inodes_view_find(fs->inodes, inode_owner(ino));
        snapshot = view ? view->snapshot : NULL;
    } else {
        snapshot = store_snapshot(fs->store, inode_owner(ino));
    }
    if (!snapshot)
        return -ESTALE;
    struct entry entry;
    _cleanup_free_ char *path = NULL;
    int error = store_entry(fs->store, snapshot, inode_ordinal(ino), &entry);
    if (error == 0)
        error = store_path(fs->store, snapshot, inode_ordinal(ino), &path);
    if (error < 0)
        return error;
    if ((entry.kind == ENTRY_DIR) != inode_is_dir(ino))
        return -ESTALE;
    *ret_st = attr_entry(fs, snapshot, view, &entry, path);
    *ret_timeout = snapshot_complete(snapshot) ? FS_TIMEOUT_ENDLESS : FS_TIMEOUT_SHORT;
    return 0;
}

// --- look-ups and attributes

void dir_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;
    uint64_t seen = store_answers(fs->store);
    uint64_t dir = root_node(fs, parent);
    int error = -ENOTDIR;
    if (fs_is_own(req)) {
        error = -ELOOP;
    } else if (inode_is_dir(dir) && !(parent == FUSE_ROOT_ID && strcmp(name, PLACE_CONTROL_NAME) == 0)) {
        error = snapshot_lookup(fs, dir, name, &entry);
    } else if (!inode_is_file(parent)) {
        const struct place *place = inodes_find(fs->inodes, parent);
        error = place ? place_lookup(fs, place, name, &entry) : -ESTALE;
    }
    if (error == -EINPROGRESS)
        park_lookup(req, parent, name, seen);
    else if (error < 0)
        fuse_reply_err(req, -error);
    else if (fuse_reply_entry(req, &entry) < 0)
        inodes_forget(fs->inodes, entry.ino, 1);
}

void dir_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
    inodes_forget(fs_of(req)->inodes, ino, lookups);
    fuse_reply_none(req);
}

void dir_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        inodes_forget(fs_of(req)->inodes, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

void dir_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void) fi;
    struct fs *fs = fs_of(req);
    struct stat st;
    double timeout = FS_TIMEOUT_SHORT;
    int error;
    ino = root_node(fs, ino);
    if (fs_is_own(req)) {
        error = -ELOOP;
    } else if (inode_is_dir(ino) || inode_is_file(ino)) {
        error = snapshot_getattr(fs, ino, &st, &timeout);
    } else {
        const struct place *place = inodes_find(fs->inodes, ino);
        error = place ? place_attr(fs, place, &st) : -ESTALE;
    }
    if (error < 0)
        fuse_reply_err(req, -error);
    else
        fuse_reply_attr(req, &st, timeout);
}

// --- listings

// An open directory. Offsets are 1 for ".", 2 for "..", then the entries in order.
struct dir_handle {
    struct fs_handle listed;
    pthread_mutex_t lock; // guards all below
    struct stat self;
    off_t next; // the offset of what comes next

    struct place_names names; // of a place

    struct view *view; // of a snapshot; NULL: it is a place
    uint32_t ordinal;
    char *path;
    struct entry *entries; // what was read ahead
    int at, count;
    char after[INDEX_NAME_SIZE]; // the name before entries[at]
};

static void handle_free(struct dir_handle *h)
{
    if (!h)
        return;
    if (h->view)
        snapshot_release(h->view->snapshot);
    place_names_free(&h->names);
    pthread_mutex_destroy(&h->lock);
    free(h->path);
    free(h->entries);
    free(h);
}

static void handle_free_left(struct fs_handle *handle)
{
    handle_free((struct dir_handle *) handle);
}

static int handle_open_snapshot(struct fs *fs, struct dir_handle *h, uint64_t ino)
{
    struct view *view = inodes_view_find(fs->inodes, inode_owner(ino));
    if (!view)
        return -ESTALE;
    double timeout;
    h->ordinal = inode_ordinal(ino);
    int error = store_list_start(fs->store, view->snapshot, h->ordinal, true);
    if (error == 0)
        error = snapshot_getattr(fs, ino, &h->self, &timeout);
    if (error == 0)
        error = store_path(fs->store, view->snapshot, h->ordinal, &h->path);
    if (error < 0)
        return error;
    h->entries = malloc(BATCH * sizeof *h->entries);
    if (!h->entries)
        return -ENOMEM;
    snapshot_hold(view->snapshot);
    h->view = view;
    return 0;
}

static int handle_open(struct fs *fs, uint64_t ino, struct dir_handle **ret_handle)
{
    struct dir_handle *h = calloc(1, sizeof *h);
    if (!h)
        return -ENOMEM;
    pthread_mutex_init(&h->lock, NULL);
    int error;
    if (inode_is_dir(ino)) {
        error = handle_open_snapshot(fs, h, ino);
    } else {
        const struct place *place = inodes_find(fs->inodes, ino);
        error = place ? place_list(fs, place, &h->names) : -ESTALE;
        if (error == 0)
            error = place_attr(fs, place, &h->self);
    }
    if (error < 0) {
        handle_free(h);
        return error;
    }
    *ret_handle = h;
    return 0;
}

void dir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct dir_handle *h;
    uint64_t seen = store_answers(fs_of(req)->store);
    int error = fs_is_own(req) ? -ELOOP : handle_open(fs_of(req), root_node(fs_of(req), ino), &h);
    if (error == -EINPROGRESS) {
        park_open(req, ino, fi, seen, dir_opendir);
        return;
    }
    if (error < 0) {
        fuse_reply_err(req, -error);
        return;
    }
    fs_handle_add(fs_of(req), &h->listed, handle_free_left);
    fi->fh = (uintptr_t) h;
    fi->cache_readdir = fi->keep_cache = h->view && snapshot_complete(h->view->snapshot);
    struct fs *fs = fs_of(req);
    if (fuse_reply_open(req, fi) < 0) {
        fs_handle_remove(fs, &h->listed);
        handle_free(h);
    }
}

void dir_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void) ino;
    struct dir_handle *h = (struct dir_handle *) (uintptr_t) fi->fh;
    fs_handle_remove(fs_of(req), &h->listed);
    handle_free(h);
    fuse_reply_err(req, 0);
}

// The entry of a snapshot that comes next. 1, 0 at the end, -errno.
static int handle_peek(struct fs *fs, struct dir_handle *h, const struct entry **ret_entry)
{
    if (h->at == h->count) {
        h->at = h->count = 0;
        int count = store_list(fs->store, h->view->snapshot, h->ordinal, h->after, h->entries, BATCH);
        if (count <= 0)
            return count;
        h->count = count;
    }
    *ret_entry = &h->entries[h->at];
    return 1;
}

static void handle_skip(struct dir_handle *h)
{
    memcpy(h->after, h->entries[h->at].name, sizeof h->after);
    h->at++;
    h->next++;
}

// Goes to an offset that is not where the last call ended: a program has sought in the directory.
static int handle_seek(struct fs *fs, struct dir_handle *h, off_t offset)
{
    if (offset == h->next)
        return 0;
    h->next = offset;
    if (!h->view || offset < 2)
        return 0;
    h->at = h->count = 0;
    h->after[0] = '\0';
    h->next = 2;
    while (h->next < offset) {
        const struct entry *entry;
        int found = handle_peek(fs, h, &entry);
        if (found <= 0)
            return found;
        handle_skip(h);
    }
    return 0;
}

struct reply {
    fuse_req_t req;
    char *buffer;
    size_t size, used;
    bool plus;
};

// Adds one name. False when the buffer is full. Without attributes (`full` false) the kernel looks the name up when it
// wants to know more.
static bool reply_add(struct reply *r, const char *name, const struct fuse_entry_param *entry, bool full, off_t offset)
{
    size_t room = r->size - r->used;
    struct fuse_entry_param bare = { .attr = { .st_ino = entry->attr.st_ino, .st_mode = entry->attr.st_mode } };
    size_t need = r->plus
                      ? fuse_add_direntry_plus(r->req, r->buffer + r->used, room, name, full ? entry : &bare, offset)
                      : fuse_add_direntry(r->req, r->buffer + r->used, room, name, &entry->attr, offset);
    if (need > room)
        return false;
    r->used += need;
    return true;
}

static bool reply_dots(struct reply *r, struct dir_handle *h)
{
    while (h->next < 2) {
        struct fuse_entry_param dot = { .attr = h->self };
        if (h->next == 1)
            dot.attr.st_ino = UNKNOWN_INO;
        if (!reply_add(r, h->next == 0 ? "." : "..", &dot, false, h->next + 1))
            return false;
        h->next++;
    }
    if (h->next == 2) {
        h->at = h->count = 0;
        h->after[0] = '\0';
    }
    return true;
}

static void reply_place(struct reply *r, struct dir_handle *h)
{
    while ((size_t) h->next - 2 < h->names.count) {
        const struct place_name *name = &h->names.items[h->next - 2];
        struct fuse_entry_param entry = { .attr = { .st_ino = UNKNOWN_INO, .st_mode = name->type } };
        if (!reply_add(r, name->name, &entry, false, h->next + 1))
            return;
        h->next++;
    }
}

static int reply_snapshot(struct reply *r, struct fs *fs, struct dir_handle *h)
{
    for (;;) {
        const struct entry *e;
        int found = handle_peek(fs, h, &e);
        if (found <= 0)
            return r->used > 0 ? 0 : found; // what was read already is not lost
        struct fuse_entry_param entry;
        int error = entry_answer(fs, h->view, e, h->path, &entry);
        if (error == -ENOMEM)
            return error;
        if (error < 0)
            entry = (struct fuse_entry_param){ .attr = { .st_ino = UNKNOWN_INO, .st_mode = S_IFREG } };
        if (!reply_add(r, e->name, &entry, error == 0, h->next + 1))
            return 0;
        handle_skip(h);
    }
}

// Fills the reply from `offset` on.
static int handle_read(struct fs *fs, struct dir_handle *h, off_t offset, struct reply *reply)
{
    UTIL_LOCKED(&h->lock);
    int error = handle_seek(fs, h, offset);
    if (error < 0 || !reply_dots(reply, h))
        return error;
    if (h->view)
        return reply_snapshot(reply, fs, h);
    reply_place(reply, h);
    return 0;
}

static void read_dir(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
    _cleanup_free_ char *buffer = malloc(size);
    if (!buffer) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    struct reply reply = { .req = req, .buffer = buffer, .size = size, .plus = plus };
    int error = handle_read(fs_of(req), (struct dir_handle *) (uintptr_t) fi->fh, offset, &reply);
    // With the answer the kernel may release the handle: nothing of it is touched from here on.
    if (error < 0)
        fuse_reply_err(req, -error);
    else
        fuse_reply_buf(req, buffer, reply.used);
}

void dir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void) ino;
    read_dir(req, size, offset, fi, false);
}

void dir_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void) ino;
    read_dir(req, size, offset, fi, true);
}
