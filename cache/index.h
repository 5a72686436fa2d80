// SPDX-License-Identifier: Apache-2.0
// The index: what is known of each commit's tree, in SQLite (WAL). It is a cache of what the disk says and can be
// thrown away at any time. Every SQL statement of the program is in index_db.c. Partial blobs are
// in index_partial.h, the Hub's refs in index_refs.h.
//
// A tree's entries have ordinals: 0 is its top directory, the others count up in the order in which they became known
// and are never given twice, so a number handed out stays right while the tree grows.
//
// Readers and writers have a connection and a lock each; no function calls back with one held, so all are thread-safe.
// Lock order: writer, then reader. Several processes may share one file. Errors: -ENOENT; -ENOMEM; -EUCLEAN when the
// database cannot be worked with any longer (damaged, disk full, locked by somebody else for INDEX_BUSY_MS): see
// index_forget().
#ifndef CACHE_INDEX_H
#define CACHE_INDEX_H

#include "cache/names.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define INDEX_NAME_SIZE 256
#define INDEX_BUSY_MS 5000 // the largest lists take a process that long to write

struct index;

// Opens or makes the database file at `path`; NULL keeps it in memory. Several caches may have their trees in one file:
// `scope` tells them apart. A damaged one, or one of an older version, is deleted and made anew; one that is locked,
// not ours or of a newer version is left alone and the index works in memory. What was done is said in one line of the
// log and, where it is in memory, by index_in_memory(). 0 or -ENOMEM.
int index_open(const char *path, const char *scope, struct index **ret_index);
void index_close(struct index *index);

// The file, or NULL while in memory; and why it is in memory ("" if it is not). `ret_reason` holds 256 bytes.
bool index_in_memory(struct index *index, char ret_reason[256]);

// After -EUCLEAN: goes on with an empty index in memory. All ids and ordinals given so far are void. Returns false if
// another thread has done so since `generation` was read.
bool index_forget(struct index *index, unsigned generation);
unsigned index_generation(struct index *index);

// Whether a file or directory is as it was: device, inode, size and times of what was read. All zero: never equal.
struct index_stamp {
    int64_t device, inode, size, mtime_ns, ctime_ns;
};

// The stamp of what `st` describes. If its times are within two seconds of now, a further change might not show in
// them: the result is then all zero, so that it is read again.
struct index_stamp index_stamp_of(const struct stat *st);
bool index_stamp_equal(const struct index_stamp *a, const struct index_stamp *b);

#define INDEX_NO_DATE INT64_MIN

struct index_tree {
    int64_t id;
    bool complete;            // all files of the commit are known
    bool from_hub;            // it was the Hub that gave the list
    struct index_stamp stamp; // else of the trees/<commit>.json it was read from
    int64_t date;             // of the commit, seconds since 1970; INDEX_NO_DATE if not known
};

// The tree of a repo's commit; makes an empty one if there is none.
int index_tree(struct index *index, const struct repo *repo, const char *commit, struct index_tree *ret_tree);

// The same, if there is one. -ENOENT.
int index_tree_known(struct index *index, const struct repo *repo, const char *commit, struct index_tree *ret_tree);

// Reading the whole list of a tree: start, add as often as needed, then finish or abandon. All of it is one transaction
// of the calling thread; other writers wait, readers go on. After an error the only call left is abandon.
//
// Files make the directories on their way; those known already keep their ordinals if they are what they were. -EEXIST
// when one path would be both a file and a directory, or is there twice; ret_clash then is its position in `files`.
struct index_file {
    const char *path; // names_path_ok
    int64_t size;
    const char *etag;
    const char *blob_id;  // of an LFS file git's id of its pointer; NULL or "" if unknown or no LFS file
    const char *xet_hash; // "" if none
};
int index_tree_start(struct index *index, int64_t tree);
int index_tree_add(struct index *index, const struct index_file *files, size_t count, size_t *ret_clash);
// What was not added is gone, and the tree is complete. `stamp` may be all zero.
int index_tree_finish(struct index *index, const struct index_stamp *stamp, bool from_hub);
// The tree is as it was before the start.
void index_tree_abandon(struct index *index);

// Keeps the date of a tree's commit.
int index_tree_date(struct index *index, int64_t tree, int64_t date);

enum entry_kind {
    ENTRY_DIR,
    ENTRY_FILE,
    ENTRY_MISSING, // a name of which only the name is known
    ENTRY_REFUSED, // a name that must not be followed
};

struct entry {
    uint32_t ordinal;
    uint32_t parent; // ordinal of its directory
    enum entry_kind kind;
    int64_t size;                  // bytes, of an ENTRY_FILE
    char etag[NAMES_ETAG_SIZE];    // of an ENTRY_FILE
    char blob_id[NAMES_GIT_SIZE];  // see struct index_file; "" if none
    char xet_hash[NAMES_XET_SIZE]; // "" if none
    char name[INDEX_NAME_SIZE];    // "" for the top
};

// One entry by ordinal, or by its directory and name. 0, -ENOENT, -EUCLEAN.
int index_entry(struct index *index, int64_t tree, uint32_t ordinal, struct entry *ret_entry);
int index_entry_named(struct index *index, int64_t tree, uint32_t parent, const char *name, struct entry *ret_entry);

// Up to `max` entries of a directory in byte order of their names, those after `after` ("" from the start). Returns
// their number, or -EUCLEAN.
int index_entries(struct index *index, int64_t tree, uint32_t parent, const char *after, struct entry *ret_entries,
                  int max);

// Up to `max` files of a tree whose ordinals are over `after`, in order of the ordinals. Returns their number.
int index_files(struct index *index, int64_t tree, uint32_t after, struct entry *ret_entries, int max);

// The path of an entry within its tree ("" for the top), NUL-terminated; the caller frees *ret_path. -ENAMETOOLONG over
// 4096 bytes.
int index_path(struct index *index, int64_t tree, uint32_t ordinal, char **ret_path);

// A directory of an incomplete tree: the stamp it was last read with (zero if never), and replacing what is known of it
// by `entries` (name, kind, size, etag; ordinals are given here and written back). Without effect, but 0, when the
// whole list has become known meanwhile: it is the better answer.
int index_dir_stamp(struct index *index, int64_t tree, uint32_t ordinal, struct index_stamp *ret_stamp);
int index_dir_replace(struct index *index, int64_t tree, uint32_t ordinal, const struct index_stamp *stamp,
                      struct entry *entries, size_t count);
// Something in the directory is not what it was read as: it is read again when next asked for.
int index_dir_doubt(struct index *index, int64_t tree, uint32_t ordinal);

#endif
