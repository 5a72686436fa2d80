// SPDX-License-Identifier: Apache-2.0
#include "cli/holders.h"

#include "cache/util.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

static bool lies_in(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static bool link_lies_in(const char *link, const char *dir)
{
    char target[PATH_MAX];
    ssize_t len = readlink(link, target, sizeof target - 1);
    if (len < 0)
        return false;
    target[len] = '\0';
    return lies_in(target, dir);
}

static bool descriptor_lies_in(const char *process, const char *dir)
{
    char path[64];
    snprintf(path, sizeof path, "%s/fd", process);
    _cleanup_closedir_ DIR *fds = opendir(path);
    for (const struct dirent *entry; fds && (entry = readdir(fds));) {
        _cleanup_free_ char *link = NULL;
        if (asprintf(&link, "%s/%s", path, entry->d_name) >= 0 && link_lies_in(link, dir))
            return true;
    }
    return false;
}

static bool mapping_lies_in(const char *process, const char *dir)
{
    char path[64];
    snprintf(path, sizeof path, "%s/maps", process);
    _cleanup_fclose_ FILE *maps = fopen(path, "re");
    _cleanup_free_ char *line = NULL;
    size_t line_size = 0;
    while (maps && getline(&line, &line_size, maps) > 0) {
        const char *file = strchr(line, '/');
        if (file && lies_in(file, dir))
            return true;
    }
    return false;
}

static bool holds(const char *process, const char *dir)
{
    char cwd[64], root[64];
    snprintf(cwd, sizeof cwd, "%s/cwd", process);
    snprintf(root, sizeof root, "%s/root", process);
    return link_lies_in(cwd, dir) || link_lies_in(root, dir) || descriptor_lies_in(process, dir) ||
           mapping_lies_in(process, dir);
}

static void read_name(const char *process, char *name, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "%s/comm", process);
    snprintf(name, size, "?");
    _cleanup_fclose_ FILE *file = fopen(path, "re");
    if (file && fgets(name, (int) size, file))
        name[strcspn(name, "\n")] = '\0';
}

bool holders_find(const char *dir, char *names, size_t size)
{
    size_t len = 0;
    _cleanup_closedir_ DIR *proc = opendir("/proc");
    for (const struct dirent *entry; proc && (entry = readdir(proc));) {
        if (!isdigit((unsigned char) entry->d_name[0]) || atoi(entry->d_name) == getpid())
            continue;
        char process[32], name[32];
        snprintf(process, sizeof process, "/proc/%.20s", entry->d_name);
        if (!holds(process, dir))
            continue;
        read_name(process, name, sizeof name);
        int n = snprintf(names + len, size - len, "%s%s (pid %.20s)", len ? ", " : "", name, entry->d_name);
        if ((size_t) n >= size - len) {
            names[len] = '\0';
            break;
        }
        len += (size_t) n;
    }
    return len > 0;
}
