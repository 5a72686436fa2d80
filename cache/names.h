// SPDX-License-Identifier: Apache-2.0
// Names of repos, revisions, blobs and paths: what is well formed, and how each is written as one directory name. No
// I/O.
#ifndef CACHE_NAMES_H
#define CACHE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum repo_type { REPO_MODEL, REPO_DATASET, REPO_SPACE, REPO_KERNEL };
#define NAMES_REPO_TYPES 4

#define NAMES_ID_SIZE 198       // "org/name": two parts of at most 96 bytes, the slash, the NUL
#define NAMES_FOLDER_SIZE 256   // "datasets--org--name"
#define NAMES_COMMIT_SIZE 41    // 40 hex digits and the NUL
#define NAMES_REF_SIZE 256      // a ref's name; longer ones are not refs of the Hub
#define NAMES_REVISION_SIZE 768 // a ref as one path component, each '/' and '%' as three bytes
#define NAMES_ETAG_SIZE 129     // a blob's name: SHA-256, git SHA-1, or what a mirror calls it
#define NAMES_GIT_SIZE 65       // git's id of a blob: 40 or 64 hex digits and the NUL
#define NAMES_XET_SIZE 65       // a Xet hash: 64 hex digits and the NUL

struct repo {
    enum repo_type type;
    char id[NAMES_ID_SIZE];
};

// "model", and "models" as folders and API paths have it. Static strings.
const char *names_type(enum repo_type type);
const char *names_type_plural(enum repo_type type);

// The type whose plural is `name` ("models"). False if there is none.
bool names_type_from_plural(const char *name, enum repo_type *ret_type);

bool names_repo_equal(const struct repo *a, const struct repo *b);

// Whether `part` can be an organisation or a repo's name by the rules of huggingface_hub (utils/_validators.py):
// 1 to 96 of [A-Za-z0-9_.-], no '-' or '.' at an end, no "--" or "..", and no ".git" at the end.
bool names_id_part_ok(const char *part);

// "models--org--name" or "models--name" to a repo, as repo_folder_name() in huggingface_hub's file_download.py writes
// it. False for every other name, such as those of strangers.
bool names_repo_from_folder(const char *folder, struct repo *ret_repo);
void names_repo_folder(const struct repo *repo, char ret_folder[NAMES_FOLDER_SIZE]);

// A repo from its type, organisation (NULL for the old canonical ones) and name. False if that is not well formed.
bool names_repo_make(enum repo_type type, const char *org, const char *name, struct repo *ret_repo);

// 40 lower-case hex digits.
bool names_commit_ok(const char *s);

// 64 lower-case hex digits.
bool names_xet_ok(const char *s);

// The Xet hash that `s` is in either case, as huggingface_hub takes it (utils/_xet.py), in lower case. False if it is
// none.
bool names_xet_copy(const char *s, char ret_hash[NAMES_XET_SIZE]);

// Whether `s` can be a blob's name: 1 to 128 printable ASCII bytes without '/', no '.' at the start, and none of the
// temporary names: "*.incomplete", "tmp_*", "*.tmp", "*.lock".
bool names_etag_ok(const char *s);

// Whether `s` can be a ref: not empty, at most NAMES_REF_SIZE - 1 bytes, no control character, no empty, "." or ".."
// component, and not a temporary of huggingface_hub ("<ref>.<8 hex>.tmp").
bool names_ref_ok(const char *s);

// A ref as one path component and back: '/' is %2F, '%' is %25. Decoding takes either case of hex digit and no other
// escape. False if the result does not fit or, decoding, if the input is no such component or the result no ref.
bool names_revision_encode(const char *ref, char ret_component[NAMES_REVISION_SIZE]);
bool names_revision_decode(const char *component, char ret_ref[NAMES_REF_SIZE]);

// Whether the `len` bytes at `path` are a relative path of a file in a repo: no NUL, components of 1 to 255 bytes
// divided by single slashes, none of them "." or "..", at most 4095 bytes in all.
bool names_path_ok(const char *path, size_t len);

#endif
