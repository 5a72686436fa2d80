// SPDX-License-Identifier: Apache-2.0
// The hub cache's directories as huggingface_hub lays them out. Reads only; keeps nothing in memory but the path, so
// that what others do to the cache is seen at the next call. Every call is thread-safe.
//
// What is followed: the cache itself, a repo, and `blobs`, `snapshots`, `refs`, `trees`, `.no_exist` in it may be links
// that belong to root or to the user whom this process runs as, and so must every link on the way from there. A file in
// a snapshot may be a link, relative or absolute, that ends in its own repo's `blobs` or in the cache's shared store
// (huggingface_hub utils/_shared_blobs.py). Nothing else is followed, and what is checked is what was opened, never a
// path that may change in between: EPERM.
#ifndef CACHE_LAYOUT_H
#define CACHE_LAYOUT_H

#include "cache/names.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

struct layout;

// `path` is made absolute. The directory need not exist: the cache then is empty until somebody makes it. 0, -ENOTDIR
// when it is something else, -EACCES when it cannot be read, -EPERM when it is somebody else's link, -ENOMEM, -errno.
int layout_open(const char *path, struct layout **ret_layout);
void layout_close(struct layout *layout);
const char *layout_path(const struct layout *layout);
bool layout_exists(const struct layout *layout);

// Of the file system the cache (or its nearest existing parent) lies on. 0 or -errno.
int layout_statvfs(const struct layout *layout, struct statvfs *ret_stat);

// Whether that is an overlayfs, which costs one level of stacking with FUSE passthrough.
bool layout_on_overlay(const struct layout *layout);

// Callbacks return 0 to go on; anything else stops the walk and is returned by it.
typedef int layout_repo_fn(void *userdata, const struct repo *repo);
typedef int layout_ref_fn(void *userdata, const char *ref, const char *commit);
typedef int layout_commit_fn(void *userdata, const char *commit);

// Every directory (or link to one) with a repo's folder name, in no order. 0 (also when there is no cache), -errno.
int layout_repos(const struct layout *layout, layout_repo_fn *fn, void *userdata);
bool layout_has_repo(const struct layout *layout, const struct repo *repo);

// The refs that hold a commit, in no order: `refs/refs/pr/1` is called "refs/pr/1". Files that hold no commit and
// temporaries are passed over. 0 (also when the repo or its refs are missing), -errno.
int layout_refs(const struct layout *layout, const struct repo *repo, layout_ref_fn *fn, void *userdata);

// The commit a ref points at. A trailing newline is allowed, a file that is being rewritten (empty) is read again for
// up to 50 ms. *ret_written_ms, which may be NULL, is when it was written (ms of CLOCK_REALTIME). 0, -ENOENT, -errno.
int layout_ref(const struct layout *layout, const struct repo *repo, const char *ref,
               char ret_commit[NAMES_COMMIT_SIZE], int64_t *ret_written_ms);

// Every commit that has a directory in `snapshots`, in no order; what `hf cache rm` and `prune` leave in `trees` does
// not count. 0, -errno.
int layout_commits(const struct layout *layout, const struct repo *repo, layout_commit_fn *fn, void *userdata);
// Whether anything is known of a commit: a directory in `snapshots` or its list in `trees`.
bool layout_has_commit(const struct layout *layout, const struct repo *repo, const char *commit);

// The blobs of a repo that are regular files, with their sizes in bytes, in no order. 0 (also when there are none),
// -errno.
typedef int layout_blob_fn(void *userdata, const char *etag, int64_t size);
int layout_blobs(const struct layout *layout, const struct repo *repo, layout_blob_fn *fn, void *userdata);

// Opens `trees/<commit>.json` for reading. 0, -ENOENT, -errno.
int layout_tree_open(const struct layout *layout, const struct repo *repo, const char *commit, int *ret_fd,
                     struct stat *ret_stat);

// Opens `snapshots/<commit>/<dir>` (`dir` "" for the top) for reading with fdopendir. No link below `snapshots` is
// followed. 0, -ENOENT, -ENOTDIR, -EPERM (a link is in the way), -errno.
int layout_dir_open(const struct layout *layout, const struct repo *repo, const char *commit, const char *dir,
                    int *ret_fd);

// Whether there is a file or a link at `snapshots/<commit>/<path>`, wherever it leads.
bool layout_has_file(const struct layout *layout, const struct repo *repo, const char *commit, const char *path);

// What one name in a snapshot's directory is.
struct layout_entry {
    enum layout_kind {
        LAYOUT_DIR,
        LAYOUT_FILE,
        LAYOUT_MISSING, // a link whose blob is not there: size unknown, etag as the link has it
        LAYOUT_REFUSED, // a link that ends elsewhere, a device, a socket, …
    } kind;
    int64_t size;               // bytes, of a LAYOUT_FILE
    char etag[NAMES_ETAG_SIZE]; // the blob's name; "" for a regular file in the snapshot (no symlinks)
};

// Looks at `name` in the directory `dir_fd` that layout_dir_open() gave. 0, -ENOENT, -errno.
int layout_entry(const struct layout *layout, const struct repo *repo, int dir_fd, const char *name,
                 struct layout_entry *ret_entry);

// Opens the bytes of one file for reading: `blobs/<etag>`, else the snapshot's own link or regular file at `path`, else
// the shared store's `xet_hash` ("" if none); the first that is a regular file of `size` bytes. A link to a blob of
// another digest than `etag` does not count. `etag` "" when only a regular file in the snapshot is known. 0, -ENOENT
// when none of them is there, -EPERM when the only one is refused, -EIO when the only one has another size, -errno.
int layout_file_open(const struct layout *layout, const struct repo *repo, const char *commit, const char *path,
                     const char *etag, const char *xet_hash, int64_t size, int *ret_fd);

// Whether `.no_exist/<commit>/<path>` says that the Hub has no such file.
bool layout_no_exist(const struct layout *layout, const struct repo *repo, const char *commit, const char *path);

#endif
