// SPDX-License-Identifier: Apache-2.0
#include "cache/names.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#define ID_PART_MAX 96
#define PATH_BYTES_MAX 4095
#define SEPARATOR "--"

static const struct {
    const char *name;
    const char *plural;
} types[NAMES_REPO_TYPES] = {
    [REPO_MODEL] = { "model", "models" },
    [REPO_DATASET] = { "dataset", "datasets" },
    [REPO_SPACE] = { "space", "spaces" },
    [REPO_KERNEL] = { "kernel", "kernels" },
};

// The C locale's classes, whatever the program's locale is.
static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_lower_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static bool is_lower_hex_of(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!is_lower_hex(s[i]))
            return false;
    return s[len] == '\0';
}

static bool starts_with(const char *s, const char *start)
{
    return strncmp(s, start, strlen(start)) == 0;
}

static bool ends_with(const char *s, size_t len, const char *end)
{
    size_t end_len = strlen(end);
    return len >= end_len && memcmp(s + len - end_len, end, end_len) == 0;
}

const char *names_type(enum repo_type type)
{
    assert((unsigned) type < NAMES_REPO_TYPES);
    return types[type].name;
}

const char *names_type_plural(enum repo_type type)
{
    assert((unsigned) type < NAMES_REPO_TYPES);
    return types[type].plural;
}

bool names_type_from_plural(const char *name, enum repo_type *ret_type)
{
    for (int i = 0; i < NAMES_REPO_TYPES; i++) {
        if (strcmp(name, types[i].plural) == 0) {
            *ret_type = (enum repo_type) i;
            return true;
        }
    }
    return false;
}

bool names_repo_equal(const struct repo *a, const struct repo *b)
{
    return a->type == b->type && strcmp(a->id, b->id) == 0;
}

static bool id_part_ok(const char *part, size_t len)
{
    if (len < 1 || len > ID_PART_MAX || !is_word(part[0]) || !is_word(part[len - 1]))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!is_word(part[i]) && part[i] != '-' && part[i] != '.')
            return false;
        if (i > 0 && part[i] == part[i - 1] && !is_word(part[i]))
            return false;
    }
    return !ends_with(part, len, ".git");
}

bool names_id_part_ok(const char *part)
{
    return id_part_ok(part, strnlen(part, ID_PART_MAX + 1));
}

static bool make_repo(enum repo_type type, const char *org, size_t org_len, const char *name, size_t name_len,
                      struct repo *ret_repo)
{
    if ((org && !id_part_ok(org, org_len)) || !id_part_ok(name, name_len))
        return false;
    struct repo repo = { .type = type };
    char *end = repo.id;
    if (org) {
        end = (char *) mempcpy(end, org, org_len);
        *end++ = '/';
    }
    memcpy(end, name, name_len);
    *ret_repo = repo;
    return true;
}

bool names_repo_make(enum repo_type type, const char *org, const char *name, struct repo *ret_repo)
{
    return make_repo(type, org, org ? strnlen(org, ID_PART_MAX + 1) : 0, name, strnlen(name, ID_PART_MAX + 1),
                     ret_repo);
}

bool names_repo_from_folder(const char *folder, struct repo *ret_repo)
{
    const char *first = strstr(folder, SEPARATOR);
    if (!first)
        return false;
    for (int i = 0; i < NAMES_REPO_TYPES; i++) {
        size_t len = strlen(types[i].plural);
        if (len != (size_t) (first - folder) || memcmp(folder, types[i].plural, len) != 0)
            continue;
        const char *org = first + strlen(SEPARATOR);
        const char *second = strstr(org, SEPARATOR);
        const char *name = second ? second + strlen(SEPARATOR) : org;
        return make_repo((enum repo_type) i, second ? org : NULL, second ? (size_t) (second - org) : 0, name,
                         strlen(name), ret_repo);
    }
    return false;
}

void names_repo_folder(const struct repo *repo, char ret_folder[NAMES_FOLDER_SIZE])
{
    char *end = stpcpy(ret_folder, names_type_plural(repo->type));
    end = stpcpy(end, SEPARATOR);
    for (const char *s = repo->id; *s; s++) {
        if (*s == '/')
            end = stpcpy(end, SEPARATOR);
        else
            *end++ = *s;
    }
    *end = '\0';
}

bool names_commit_ok(const char *s)
{
    return is_lower_hex_of(s, NAMES_COMMIT_SIZE - 1);
}

bool names_xet_ok(const char *s)
{
    return is_lower_hex_of(s, NAMES_XET_SIZE - 1);
}

bool names_xet_copy(const char *s, char ret_hash[NAMES_XET_SIZE])
{
    char hash[NAMES_XET_SIZE];
    if (strlen(s) != sizeof hash - 1)
        return false;
    for (size_t i = 0; i < sizeof hash; i++)
        hash[i] = s[i] >= 'A' && s[i] <= 'F' ? (char) (s[i] | 0x20) : s[i];
    if (!names_xet_ok(hash))
        return false;
    memcpy(ret_hash, hash, sizeof hash);
    return true;
}

bool names_etag_ok(const char *s)
{
    size_t len = strnlen(s, NAMES_ETAG_SIZE);
    if (len < 1 || len > NAMES_ETAG_SIZE - 1 || s[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++)
        if (s[i] < 0x20 || s[i] > 0x7e || s[i] == '/')
            return false;
    return !starts_with(s, "tmp_") && !ends_with(s, len, ".incomplete") && !ends_with(s, len, ".tmp") &&
           !ends_with(s, len, ".lock");
}

// "<something>.<8 hex>.tmp"
static bool is_ref_temporary(const char *component, size_t len)
{
    static const char end[] = ".tmp";
    const size_t hex = 8;
    const size_t tail = 1 + hex + sizeof end - 1;
    if (len <= tail || !ends_with(component, len, end) || component[len - tail] != '.')
        return false;
    for (size_t i = len - tail + 1; i < len - tail + 1 + hex; i++)
        if (!is_lower_hex(component[i]))
            return false;
    return true;
}

static bool is_dots(const char *component, size_t len)
{
    return (len == 1 && component[0] == '.') || (len == 2 && memcmp(component, "..", 2) == 0);
}

bool names_ref_ok(const char *s)
{
    size_t len = strnlen(s, NAMES_REF_SIZE);
    if (len > NAMES_REF_SIZE - 1)
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char) s[i] < 0x20 || s[i] == 0x7f)
            return false;
    for (;;) {
        const char *slash = strchr(s, '/');
        size_t n = slash ? (size_t) (slash - s) : strlen(s);
        if (n == 0 || is_dots(s, n))
            return false;
        if (!slash)
            return !is_ref_temporary(s, n);
        s = slash + 1;
    }
}

bool names_revision_encode(const char *ref, char ret_component[NAMES_REVISION_SIZE])
{
    char out[NAMES_REVISION_SIZE];
    size_t len = 0;
    for (const char *s = ref; *s; s++) {
        const char *escape = *s == '/' ? "%2F" : *s == '%' ? "%25" : NULL;
        size_t n = escape ? 3 : 1;
        if (len + n >= sizeof out)
            return false;
        memcpy(out + len, escape ? escape : s, n);
        len += n;
    }
    out[len] = '\0';
    memcpy(ret_component, out, len + 1);
    return true;
}

bool names_revision_decode(const char *component, char ret_ref[NAMES_REF_SIZE])
{
    char out[NAMES_REF_SIZE];
    size_t len = 0;
    for (const char *s = component; *s; s++) {
        char c = *s;
        if (c == '/')
            return false;
        if (c == '%') {
            if (s[1] != '2' || s[2] == '\0' || !strchr("Ff5", s[2]))
                return false;
            c = s[2] == '5' ? '%' : '/';
            s += 2;
        }
        if (len + 1 >= sizeof out)
            return false;
        out[len++] = c;
    }
    out[len] = '\0';
    if (!names_ref_ok(out))
        return false;
    memcpy(ret_ref, out, len + 1);
    return true;
}

bool names_path_ok(const char *path, size_t len)
{
    if (len > PATH_BYTES_MAX || memchr(path, '\0', len))
        return false;
    const char *end = path + len;
    for (;;) {
        const char *slash = memchr(path, '/', (size_t) (end - path));
        size_t n = (size_t) ((slash ? slash : end) - path);
        if (n < 1 || n > NAME_MAX || is_dots(path, n))
            return false;
        if (!slash)
            return true;
        path = slash + 1;
    }
}
