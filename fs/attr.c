// SPDX-License-Identifier: Apache-2.0
#include "fs/attr.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define EPOCH_1980 315532800 // the earliest time that a zip file can hold

// A st_ino from the parts that name an inode, each ended by a NUL so that no two lists of parts look alike.
static uint64_t ino_of(const char *const *parts, size_t count)
{
    char buffer[8192];
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        size_t part = strlen(parts[i]) + 1;
        if (len + part > sizeof buffer)
            part = sizeof buffer - len;
        memcpy(buffer + len, parts[i], part);
        len += part;
    }
    uint64_t ino = XXH3_64bits(buffer, len);
    return ino > 1 ? ino : ino + 2; // 0 means "no file", 1 is the mount's root
}

static struct stat attr_common(const struct fs *fs, mode_t mode, int64_t size, time_t time)
{
    const struct session_options *o = fs->options;
    if (o->mtime >= 0)
        time = o->mtime;
    bool dir = S_ISDIR(mode);
    return (struct stat){
        .st_mode = mode | ((dir ? 0777 : 0666) & ~o->umask),
        .st_nlink = 1,
        .st_uid = o->uid,
        .st_gid = o->gid,
        .st_size = dir ? 4096 : size,
        .st_blksize = 4096,
        .st_blocks = dir ? 8 : (size + 511) / 512,
        .st_atim.tv_sec = time,
        .st_mtim.tv_sec = time,
        .st_ctim.tv_sec = time,
    };
}

// The commit's date. Where that is not known, 1980 and up to 2^27 seconds (four years) from its hash, so that another
// commit has another time, and the same commit the same everywhere.
static time_t snapshot_time(const struct snapshot *snapshot)
{
    int64_t date = snapshot_date(snapshot);
    if (date != INDEX_NO_DATE)
        return (time_t) date;
    const char *commit = snapshot_commit(snapshot);
    return EPOCH_1980 + (time_t) (XXH3_64bits(commit, strlen(commit)) & 0x7ffffff);
}

struct stat attr_place(const struct fs *fs, const struct place *place, int64_t size)
{
    struct stat st = attr_common(fs, place_is_dir(place->kind) ? S_IFDIR : S_IFREG, size, EPOCH_1980);
    char kind[8];
    snprintf(kind, sizeof kind, "%d", place->kind);
    const char *parts[] = { "place", kind, names_type(place->repo.type), place->repo.id, place->rest };
    st.st_ino = place->kind == PLACE_ROOT ? FUSE_ROOT_ID : ino_of(parts, 5);
    return st;
}

struct stat attr_entry(const struct fs *fs, const struct snapshot *snapshot, const struct view *view,
                       const struct entry *entry, const char *path)
{
    bool dir = entry->kind == ENTRY_DIR;
    struct stat st = attr_common(fs, dir ? S_IFDIR : S_IFREG, entry->size, snapshot_time(snapshot));
    const struct repo *repo = snapshot_repo(snapshot);
    const char *parts[] = { dir ? "dir" : "file", names_type(repo->type), repo->id, snapshot_commit(snapshot), path,
                            dir ? view->name : "" };
    st.st_ino = ino_of(parts, 6);
    return st;
}
