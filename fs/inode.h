// SPDX-License-Identifier: Apache-2.0
// What a FUSE nodeid stands for. Three kinds, told apart by the top bits:
//
//   place   the directories above the snapshots and the few files that are not in one; kept in a table while the kernel
//           knows them
//   dir     a directory of a snapshot: view (31 bits) and ordinal (32 bits). A view is a snapshot as entered by one
//           path, so that a directory has one nodeid per path (two names for one would confuse getcwd)
//   file    a file of a snapshot: the snapshot's number (29 bits) and ordinal; the same by whatever path
//
// The last two are found again without a table. All functions are thread-safe.
#ifndef FS_INODE_H
#define FS_INODE_H

#include "cache/names.h"

#include <stdbool.h>
#include <stdint.h>

enum place_kind {
    PLACE_ROOT,
    PLACE_TYPE,          // models
    PLACE_ORG,           // models/<org>, and the repo of that name alone
    PLACE_REPO,          // models/<org>/<name>
    PLACE_REFS,          // models/<org>/<name>/refs/…; rest: "refs", "refs/pr"
    PLACE_HUB,           // hub
    PLACE_HUB_REPO,      // hub/models--org--name
    PLACE_HUB_REFS,      // …/refs and the directories in it; rest: "" or "refs/pr"
    PLACE_HUB_REF,       // a file in it; rest: the ref
    PLACE_HUB_SNAPSHOTS, // …/snapshots
    PLACE_HUB_TREES,     // …/trees
    PLACE_HUB_TREE,      // a file in it; rest: the commit
    PLACE_HUB_MISSES,    // …/.no_exist and the directories in it; rest: "", commit, commit/path
    PLACE_HUB_MISS,      // a file in it; rest: commit/path
    PLACE_CONTROL,       // .modelmount
    PLACE_PID,           // .modelmount/pid
    PLACE_STATUS,        // .modelmount/status
};

struct place {
    uint64_t nodeid;
    enum place_kind kind;
    struct repo repo; // PLACE_TYPE: the type alone; PLACE_ORG: the organisation as id
    uint64_t lookups;
    struct place *next_by_id, *next_by_name;
    char rest[];
};

bool place_is_dir(enum place_kind kind);

struct snapshot;

struct view {
    uint32_t number;
    struct snapshot *snapshot;
    struct view *next;
    char name[]; // the path of its top below the mount point: "models/org/name/main"
};

struct inodes;

// 0 or -ENOMEM.
int inodes_new(struct inodes **ret_inodes);
void inodes_free(struct inodes *inodes);

// The place of that kind, repo (NULL: none) and rest, made if the kernel does not know it. It counts as looked up once
// more: inodes_forget() takes that back. NULL when out of memory.
struct place *inodes_place(struct inodes *inodes, enum place_kind kind, const struct repo *repo, const char *rest);

// The place of a nodeid, or NULL. It stays valid while the kernel has a request on it under way.
struct place *inodes_find(struct inodes *inodes, uint64_t nodeid);
void inodes_forget(struct inodes *inodes, uint64_t nodeid, uint64_t lookups);

// The view of a snapshot by a path; lives as long as the table. NULL when out of memory.
struct view *inodes_view(struct inodes *inodes, const char *name, struct snapshot *snapshot);
struct view *inodes_view_find(struct inodes *inodes, uint32_t number);

static inline uint64_t inode_dir(uint32_t view, uint32_t ordinal)
{
    return 1ULL << 63 | (uint64_t) view << 32 | ordinal;
}

static inline uint64_t inode_file(uint32_t snapshot, uint32_t ordinal)
{
    return 1ULL << 62 | (uint64_t) snapshot << 32 | ordinal;
}

static inline bool inode_is_dir(uint64_t nodeid)
{
    return nodeid >> 63;
}

static inline bool inode_is_file(uint64_t nodeid)
{
    return nodeid >> 62 == 1;
}

// The view of a dir's nodeid, or the snapshot's number of a file's.
static inline uint32_t inode_owner(uint64_t nodeid)
{
    return (uint32_t) (nodeid >> 32) & (inode_is_dir(nodeid) ? 0x7fffffff : 0x1fffffff);
}

static inline uint32_t inode_ordinal(uint64_t nodeid)
{
    return (uint32_t) nodeid;
}

#endif
