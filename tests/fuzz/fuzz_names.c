// SPDX-License-Identifier: Apache-2.0
// What names.h takes can be written and read again, and never leaves a directory.
#include "cache/names.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static bool is_one_component(const char *s)
{
    return *s && !strchr(s, '/') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0 && strlen(s) < 1024;
}

static void folders(const char *s)
{
    struct repo repo, again;
    char folder[NAMES_FOLDER_SIZE];
    if (names_repo_from_folder(s, &repo)) {
        names_repo_folder(&repo, folder);
        check(strcmp(folder, s) == 0 && is_one_component(folder) && strlen(folder) <= 255);
    }
    const char *slash = strchr(s, '/');
    char *org = slash ? strndup(s, (size_t) (slash - s)) : NULL;
    if (names_repo_make(REPO_KERNEL, org, slash ? slash + 1 : s, &repo)) {
        check(strcmp(repo.id, s) == 0);
        names_repo_folder(&repo, folder);
        check(names_repo_from_folder(folder, &again) && names_repo_equal(&repo, &again));
    }
    free(org);
}

static void revisions(const char *s)
{
    char component[NAMES_REVISION_SIZE], ref[NAMES_REF_SIZE];
    if (names_ref_ok(s)) {
        check(names_path_ok(s, strlen(s)) && names_revision_encode(s, component));
        check(is_one_component(component) && names_revision_decode(component, ref) && strcmp(ref, s) == 0);
    }
    if (names_revision_decode(s, ref))
        check(names_ref_ok(ref) && is_one_component(s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *s = malloc(size + 1); // so that a read beyond the end is seen
    if (size)
        memcpy(s, data, size);
    s[size] = '\0';
    folders(s);
    revisions(s);
    enum repo_type type;
    if (names_type_from_plural(s, &type))
        check(strcmp(names_type_plural(type), s) == 0);
    if (names_id_part_ok(s) || names_etag_ok(s))
        check(is_one_component(s));
    if (names_commit_ok(s) || names_xet_ok(s))
        check(names_etag_ok(s));
    char *path = malloc(size ? size : 1);
    if (size)
        memcpy(path, data, size);
    if (names_path_ok(path, size))
        check(size > 0 && size < 4096 && path[0] != '/' && path[size - 1] != '/' && strlen(s) == size &&
              !strstr(s, "/../") && !strstr(s, "//"));
    free(path);
    free(s);
    return 0;
}
