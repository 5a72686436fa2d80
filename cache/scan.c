// SPDX-License-Identifier: Apache-2.0
#include "cache/scan.h"

#include "cache/log.h"
#include "cache/tree.h"
#include "cache/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define BATCH 512

// --- the list of a commit's files

struct tree_reader {
    struct index *index;
    size_t count;
    struct index_file files[BATCH];
    char *clash; // the path that was there twice; owned
    // What the pointers in `files` point at.
    struct tree_text {
        char *path;
        char etag[NAMES_ETAG_SIZE];
        char blob_id[NAMES_GIT_SIZE];
        char xet_hash[NAMES_XET_SIZE];
    } texts[BATCH];
};

static int reader_flush(struct tree_reader *r)
{
    size_t clash = 0;
    int error = index_tree_add(r->index, r->files, r->count, &clash);
    if (error == -EEXIST)
        r->clash = strdup(r->files[clash].path);
    for (size_t i = 0; i < r->count; i++)
        free(r->texts[i].path);
    r->count = 0;
    return error;
}

static int reader_file(void *userdata, const struct tree_file *file)
{
    struct tree_reader *r = userdata;
    struct tree_text *text = &r->texts[r->count];
    text->path = strdup(file->path);
    if (!text->path)
        return -ENOMEM;
    memcpy(text->etag, file->etag, sizeof text->etag);
    memcpy(text->blob_id, file->blob_id, sizeof text->blob_id);
    memcpy(text->xet_hash, file->xet_hash, sizeof text->xet_hash);
    r->files[r->count++] = (struct index_file){
        .path = text->path,
        .size = file->size,
        .etag = text->etag,
        .blob_id = text->blob_id,
        .xet_hash = text->xet_hash,
    };
    return r->count == BATCH ? reader_flush(r) : 0;
}

// Reads the open list into the index, all of it or nothing. -EBADMSG and what is wrong, if that is the list's fault.
static int tree_load(struct index *index, int fd, int64_t tree, const struct index_stamp *stamp, char why[256])
{
    struct tree_reader *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->index = index;
    int error = index_tree_start(index, tree);
    if (error == 0) {
        error = tree_read(fd, reader_file, r, why);
        if (error == 0)
            error = reader_flush(r);
        if (error == 0)
            error = index_tree_finish(index, stamp, false);
        else
            index_tree_abandon(index);
    }
    if (error == -EEXIST) {
        snprintf(why, 256, "\"%.200s\" is there twice, or both a file and a directory", r->clash ? r->clash : "?");
        error = -EBADMSG;
    }
    for (size_t i = 0; i < r->count; i++)
        free(r->texts[i].path);
    free(r->clash);
    free(r);
    return error;
}

int scan_tree(struct index *index, const struct layout *layout, const struct repo *repo, const char *commit,
              struct index_tree *tree)
{
    _cleanup_close_ int fd = -1;
    struct stat st;
    int error = layout_tree_open(layout, repo, commit, &fd, &st);
    if (error < 0) {
        if (error != -ENOENT && error != -ENOTDIR)
            log_warning("%s@%s: trees/%s.json: %s", repo->id, commit, commit, strerror(-error));
        return 0;
    }
    struct index_stamp stamp = index_stamp_of(&st);
    if (tree->complete && index_stamp_equal(&stamp, &tree->stamp))
        return 0;
    char why[256] = "";
    error = tree_load(index, fd, tree->id, &stamp, why);
    if (error == 0) {
        tree->complete = true;
        tree->from_hub = false;
        tree->stamp = stamp;
    } else if (error != -EUCLEAN && error != -ENOMEM) {
        log_warning("%s@%s: trees/%s.json cannot be used: %s", repo->id, commit, commit,
                    error == -EBADMSG ? why : strerror(-error));
        error = 0;
    }
    return error;
}

// --- a directory of a snapshot

void scan_identity(const struct stat *st, char ret_etag[NAMES_ETAG_SIZE])
{
    snprintf(ret_etag, NAMES_ETAG_SIZE, "@%llx.%llx.%llx.%lx", (unsigned long long) st->st_dev,
             (unsigned long long) st->st_ino, (unsigned long long) st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

bool scan_is_identity(const char *etag)
{
    return etag[0] == '@';
}

// Fills in what `name` is. 0, -ENOENT when it just went or is nothing for us.
static int dir_entry(const struct layout *layout, const struct repo *repo, int dir_fd, const char *name,
                     struct entry *ret_entry)
{
    struct layout_entry found;
    int error = layout_entry(layout, repo, dir_fd, name, &found);
    if (error < 0)
        return error;
    static const enum entry_kind kinds[] = {
        [LAYOUT_DIR] = ENTRY_DIR,
        [LAYOUT_FILE] = ENTRY_FILE,
        [LAYOUT_MISSING] = ENTRY_MISSING,
        [LAYOUT_REFUSED] = ENTRY_REFUSED,
    };
    *ret_entry = (struct entry){ .kind = kinds[found.kind] };
    snprintf(ret_entry->name, sizeof ret_entry->name, "%s", name);
    if (found.kind != LAYOUT_FILE)
        return 0;
    ret_entry->size = found.size;
    if (found.etag[0]) {
        snprintf(ret_entry->etag, sizeof ret_entry->etag, "%s", found.etag);
        return 0;
    }
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    ret_entry->size = st.st_size;
    scan_identity(&st, ret_entry->etag);
    return 0;
}

struct entries {
    struct entry *items;
    size_t count, room;
};

static int entries_read(struct entries *list, const struct layout *layout, const struct repo *repo, DIR *dir)
{
    const struct dirent *d;
    for (errno = 0; (d = readdir(dir)); errno = 0) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        if (list->count == list->room) {
            size_t room = list->room ? list->room * 2 : 64;
            struct entry *items = reallocarray(list->items, room, sizeof *items);
            if (!items)
                return -ENOMEM;
            list->items = items;
            list->room = room;
        }
        int error = dir_entry(layout, repo, dirfd(dir), d->d_name, &list->items[list->count]);
        if (error == 0)
            list->count++;
        else if (error != -ENOENT)
            return error;
    }
    return -errno;
}

// Whether all of it is what the directory's own stamp vouches for. What a link leads to may come, or become readable,
// without a change to the directory.
static bool entries_settled(const struct entries *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].kind != ENTRY_FILE && list->items[i].kind != ENTRY_DIR)
            return false;
    return true;
}

int scan_dir(struct index *index, const struct layout *layout, const struct repo *repo, const char *commit,
             const struct index_tree *tree, uint32_t ordinal)
{
    _cleanup_free_ char *path = NULL;
    int error = index_path(index, tree->id, ordinal, &path);
    if (error < 0)
        return error;
    _cleanup_close_ int fd = -1;
    error = layout_dir_open(layout, repo, commit, path, &fd);
    if (error < 0)
        return error;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    struct index_stamp stamp = index_stamp_of(&st), known;
    error = index_dir_stamp(index, tree->id, ordinal, &known);
    if (error < 0 || index_stamp_equal(&stamp, &known))
        return error;
    _cleanup_closedir_ DIR *dir = fdopendir(fd);
    if (!dir)
        return -errno;
    fd = -1;
    struct entries list = { 0 };
    error = entries_read(&list, layout, repo, dir);
    if (!entries_settled(&list))
        stamp = (struct index_stamp){ 0 };
    if (error == 0)
        error = index_dir_replace(index, tree->id, ordinal, &stamp, list.items, list.count);
    free(list.items);
    return error;
}
