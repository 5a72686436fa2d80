// SPDX-License-Identifier: Apache-2.0
#include "cli/source.h"

#include "cache/log.h"
#include "cache/names.h"
#include "cache/places.h"
#include "cache/util.h"

#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

char *source_absolute(const char *path)
{
    char *absolute = NULL;
    while (path[0] == '.' && path[1] == '/')
        for (path += 2; *path == '/';)
            path++;
    if (*path == '/') {
        absolute = strdup(path);
    } else {
        _cleanup_free_ char *here = getcwd(NULL, 0);
        bool stay = !*path || strcmp(path, ".") == 0;
        if (!here || asprintf(&absolute, "%s%s%s", here, stay ? "" : "/", stay ? "" : path) < 0)
            return NULL;
    }
    for (size_t len = absolute ? strlen(absolute) : 0; len > 1 && absolute[len - 1] == '/'; len--)
        absolute[len - 1] = '\0';
    return absolute;
}

// realpath(3) of the part of the absolute `path` that exists, with the rest after it. NULL when that fails.
static char *real_as_far_as_it_exists(const char *path)
{
    _cleanup_free_ char *head = strdup(path);
    if (!head)
        return NULL;
    char *real;
    while (!(real = realpath(head, NULL)) && errno == ENOENT && head[1]) {
        char *slash = strrchr(head, '/');
        slash[slash == head] = '\0';
    }
    const char *rest = path + strlen(head);
    char *joined = NULL;
    if (real && asprintf(&joined, "%s%s", real, rest) < 0)
        joined = NULL;
    free(real);
    return joined;
}

static bool lies_in(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0' || strcmp(dir, "/") == 0);
}

static int check_overlap(const char *cache, const char *mountpoint)
{
    _cleanup_free_ char *real = real_as_far_as_it_exists(cache);
    if (!real) {
        log_error("%s: %s", cache, strerror(errno));
        return EXIT_FAILURE;
    }
    struct stat a, b;
    bool same = stat(real, &a) == 0 && stat(mountpoint, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    if (same || lies_in(mountpoint, real))
        log_error("%s: %s the cache %s: choose a mountpoint outside of it", mountpoint, same ? "is" : "lies in", cache);
    else if (lies_in(real, mountpoint))
        log_error("%s: the cache %s lies in it and would be hidden: choose another mountpoint", mountpoint, cache);
    else
        return 0;
    return EXIT_FAILURE;
}

static bool has_repo(DIR *dir)
{
    for (const struct dirent *entry; (entry = readdir(dir));) {
        struct repo repo;
        if (names_repo_from_folder(entry->d_name, &repo))
            return true;
    }
    return false;
}

static void say_unreadable(const char *cache)
{
    struct stat st;
    const struct passwd *owner = stat(cache, &st) == 0 ? getpwuid(st.st_uid) : NULL;
    if (owner)
        log_error("%s: you may not read it (it belongs to %s): ask its owner for read access, or "
                  "mount it as root with -o allow_other",
                  cache, owner->pw_name);
    else
        log_error("%s: you may not read it: ask its owner for read access, or mount it as root "
                  "with -o allow_other",
                  cache);
}

int source_check(const char *cache, bool notes)
{
    _cleanup_closedir_ DIR *dir = opendir(cache);
    if (dir) {
        _cleanup_free_ char *hub = NULL;
        if (!notes || has_repo(dir))
            return 0;
        bool parent = asprintf(&hub, "%s/hub", cache) >= 0 && access(hub, F_OK) == 0;
        log_warning("note: %s: no repo in it yet%s%s%s", cache, parent ? ": did you mean " : "", parent ? hub : "",
                    parent ? "?" : "");
        return 0;
    }
    switch (errno) {
    case ENOENT:
        if (notes)
            log_warning("note: %s: not there yet: nothing is listed until something is downloaded", cache);
        return 0;
    case ENOTDIR:
        log_error("%s: not a directory: name the hub cache, the one with models--… in it", cache);
        return EXIT_FAILURE;
    case EACCES:
        say_unreadable(cache);
        return EXIT_FAILURE;
    default:
        log_error("%s: %s", cache, strerror(errno));
        return EXIT_FAILURE;
    }
}

int source_find(const char *source, const char *mountpoint, char **ret_cache)
{
    _cleanup_free_ char *cache = NULL;
    if (source) {
        cache = source_absolute(source);
    } else if (places_hub_cache(&cache) == -ENOENT) {
        log_error("no home directory is known: name the cache's directory");
        return EXIT_FAILURE;
    }
    if (!cache) {
        log_error("%s: %s", source ? source : "the default cache", strerror(ENOMEM));
        return EXIT_FAILURE;
    }
    int r = mountpoint ? check_overlap(cache, mountpoint) : 0;
    if (r == 0)
        *ret_cache = util_take_ptr(cache);
    return r;
}
