// SPDX-License-Identifier: Apache-2.0
#include "cli/mounts.h"

#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

// The kernel writes space, tab, newline and backslash as three octal digits.
static void unescape(char *s)
{
    char *to = s;
    for (const char *from = s; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' &&
            from[3] <= '7') {
            *to = (char) ((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

// The number after `key` in comma-separated `options`, -1 if it is not there.
static long long option_number(const char *options, const char *key)
{
    size_t len = strlen(key);
    for (const char *at = options; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, key, len) == 0)
            return atoll(at + len);
    }
    return -1;
}

static bool option_given(const char *options, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = options; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return true;
    }
    return false;
}

static void release(struct mount *mount)
{
    free(mount->mountpoint);
    free(mount->type);
    free(mount->source);
}

// "36 35 98:0 /root /mountpoint rw,noatime shared:1 - ext3 /dev/root rw,errors=continue". False if it is not so.
static bool parse_line(char *line, struct mount *ret_mount)
{
    char *rest = line;
    char *mountpoint = NULL;
    for (int field = 0; field < 5; field++)
        mountpoint = strsep(&rest, " ");
    char *tail = rest ? strstr(rest, " - ") : NULL;
    if (!mountpoint || !tail)
        return false;
    tail += 3;
    char *type = strsep(&tail, " ");
    char *source = strsep(&tail, " ");
    if (!source || !tail)
        return false;
    unescape(mountpoint);
    unescape(source);
    *ret_mount = (struct mount){
        .mountpoint = strdup(mountpoint),
        .type = strdup(type),
        .source = strdup(source),
        .uid = (uid_t) option_number(tail, "user_id="),
        .gid = (gid_t) option_number(tail, "group_id="),
        .allow_other = option_given(tail, "allow_other"),
    };
    return true;
}

int mounts_read(struct mount **ret_mounts, size_t *ret_count)
{
    _cleanup_fclose_ FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    struct mount *mounts = NULL;
    size_t count = 0;
    _cleanup_free_ char *line = NULL;
    size_t line_size = 0;
    for (ssize_t len; (len = getline(&line, &line_size, file)) > 0;) {
        if (line[len - 1] == '\n')
            line[len - 1] = '\0';
        struct mount mount;
        if (!parse_line(line, &mount))
            continue;
        struct mount *grown = reallocarray(mounts, count + 1, sizeof *mounts);
        if (!grown || !mount.mountpoint || !mount.type || !mount.source) {
            release(&mount);
            mounts_free(grown ? grown : mounts, count);
            return -ENOMEM;
        }
        mounts = grown;
        mounts[count++] = mount;
    }
    *ret_mounts = mounts;
    *ret_count = count;
    return 0;
}

void mounts_free(struct mount *mounts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        release(&mounts[i]);
    free(mounts);
}

int mounts_find(const char *mountpoint, struct mount **ret_mount)
{
    struct mount *mounts;
    size_t count;
    int r = mounts_read(&mounts, &count);
    if (r < 0)
        return r;
    struct mount *found = NULL;
    for (size_t i = 0; i < count; i++)
        if (strcmp(mounts[i].mountpoint, mountpoint) == 0)
            found = &mounts[i];
    if (found) {
        struct mount first = mounts[0];
        mounts[0] = *found;
        *found = first;
        for (size_t i = 1; i < count; i++)
            release(&mounts[i]);
        *ret_mount = mounts;
        return 0;
    }
    mounts_free(mounts, count);
    return -ENOENT;
}

bool mounts_is_ours(const struct mount *mount)
{
    return strcmp(mount->type, MOUNTS_TYPE) == 0;
}

int mounts_resolve(const char *path, char **ret_path)
{
    char *real = realpath(path, NULL);
    if (real) {
        *ret_path = real;
        return 0;
    }
    int error = errno;
    if (error != ENOTCONN && error != EIO && error != EACCES)
        return -error;

    // The last component is the mountpoint itself, and no link: links are read without the daemon.
    _cleanup_free_ char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    for (size_t len = strlen(copy); len > 1 && copy[len - 1] == '/'; len--)
        copy[len - 1] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -error;
    if (slash)
        *slash = '\0';
    _cleanup_free_ char *parent = realpath(slash ? (*copy ? copy : "/") : ".", NULL);
    if (!parent)
        return -error;
    if (asprintf(ret_path, "%s/%s", parent[1] ? parent : "", name) < 0)
        return -ENOMEM;
    return 0;
}

int mounts_lookup(const char *path, struct mount **ret_mount)
{
    _cleanup_free_ char *real = NULL;
    int r = mounts_resolve(path, &real);
    if (r < 0) {
        log_error("%s: %s", path, strerror(-r));
        return r;
    }
    r = mounts_find(real, ret_mount);
    if (r == -ENOENT)
        log_error("%s: nothing is mounted there: modelmount status lists the mounts", real);
    else if (r < 0)
        log_error("/proc/self/mountinfo: %s", strerror(-r));
    return r;
}
