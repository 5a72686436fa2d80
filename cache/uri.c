// SPDX-License-Identifier: Apache-2.0
// A web address is first turned into what would stand after hf://, then both are read alike.
#include "cache/uri.h"

#include "cache/url.h"
#include "cache/util.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#define SCHEME "hf://"
#define BUCKETS "buckets"
#define TEXT_MAX 8192

static __attribute__((format(printf, 2, 3))) int invalid(char *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, URI_ERROR_SIZE, format, args);
    va_end(args);
    return -EINVAL;
}

static bool starts_with(const char *s, const char *start)
{
    return strncasecmp(s, start, strlen(start)) == 0;
}

bool uri_is(const char *text)
{
    return strncmp(text, SCHEME, strlen(SCHEME)) == 0 || starts_with(text, "https://") || starts_with(text, "http://");
}

// ---- web addresses ----

struct piece {
    const char *start;
    size_t len;
};

static bool piece_is(struct piece piece, const char *text)
{
    return piece.len == strlen(text) && strncasecmp(piece.start, text, piece.len) == 0;
}

// Host (no user, no port) and path (no query, no fragment) of an address with or without its scheme.
static void split_address(const char *text, struct piece *ret_host, struct piece *ret_path)
{
    const char *after = strstr(text, "://");
    const char *host = after ? after + 3 : text;
    const char *path = host + strcspn(host, "/?#");
    *ret_path = (struct piece){ path, strcspn(path, "?#") };
    const char *at = memrchr(host, '@', (size_t) (path - host));
    if (at)
        host = at + 1;
    size_t len = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
    if (len > (size_t) (path - host))
        len = (size_t) (path - host);
    *ret_host = (struct piece){ host, len };
}

// Whether `host` is one of the Hub's; takes the endpoint's own path off `path` if it is the endpoint's.
static bool is_hub(struct piece host, const char *endpoint, struct piece *path)
{
    static const char *const hosts[] = { "huggingface.co", "hf.co", "hub-ci.huggingface.co" };
    if (endpoint) {
        struct piece own_host;
        struct piece own_path;
        split_address(endpoint, &own_host, &own_path);
        while (own_path.len > 0 && own_path.start[own_path.len - 1] == '/')
            own_path.len--;
        if (own_host.len == host.len && strncasecmp(own_host.start, host.start, host.len) == 0) {
            if (own_path.len <= path->len && memcmp(own_path.start, path->start, own_path.len) == 0 &&
                (own_path.len == path->len || path->start[own_path.len] == '/')) {
                path->start += own_path.len;
                path->len -= own_path.len;
            }
            return true;
        }
    }
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (piece_is(host, hosts[i]))
            return true;
    return false;
}

// Takes the next segment of a path; empty ones are passed over. False at the end.
static bool next_segment(struct piece *path, struct piece *ret_segment)
{
    while (path->len > 0 && *path->start == '/') {
        path->start++;
        path->len--;
    }
    const char *slash = memchr(path->start, '/', path->len);
    size_t len = slash ? (size_t) (slash - path->start) : path->len;
    *ret_segment = (struct piece){ path->start, len };
    path->start += len;
    path->len -= len;
    return len > 0;
}

static bool is_type(struct piece segment)
{
    for (int i = 0; i < NAMES_REPO_TYPES; i++)
        if (piece_is(segment, names_type_plural((enum repo_type) i)))
            return true;
    return piece_is(segment, BUCKETS);
}

// Appends the segment decoded, but for its slashes: one segment stays one. False if it holds a NUL.
static bool put_decoded(FILE *out, struct piece segment)
{
    _cleanup_free_ char *decoded = url_decode(segment.start, segment.len);
    if (!decoded)
        return false;
    for (const char *s = decoded; *s; s++)
        fputs(*s == '/' ? "%2F" : (const char[]){ *s, '\0' }, out);
    return true;
}

// Puts what would stand after hf:// into `out`.
static int read_page(const char *text, struct piece path, FILE *out, char *error)
{
    static const char *const actions[] = { "blame", "blob", "raw", "resolve", "tree" };
    struct piece org;
    struct piece name;
    struct piece action;
    struct piece segment;
    bool any = next_segment(&path, &org);
    if (any && is_type(org)) {
        fprintf(out, "%.*s/", (int) org.len, org.start);
        if (piece_is(org, BUCKETS))
            return 0;
        any = next_segment(&path, &org);
    }
    if (!any || !next_segment(&path, &name))
        return invalid(error, "%.100s: not the page of a repo: the address has no organisation/name", text);
    fprintf(out, "%.*s/%.*s", (int) org.len, org.start, (int) name.len, name.start);
    if (!next_segment(&path, &action))
        return 0;
    bool known = false;
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        known |= piece_is(action, actions[i]);
    if (!known)
        return invalid(error, "%.100s: not the page of a repo, a file or a folder (/%.20s)", text, action.start);
    for (char before = '@'; next_segment(&path, &segment); before = '/') {
        fputc(before, out);
        if (!put_decoded(out, segment))
            return invalid(error, "%.100s: a NUL in a name", text);
    }
    return 0;
}

static int read_address(const char *text, const char *endpoint, char **ret_body, char *error)
{
    struct piece host;
    struct piece path;
    split_address(text, &host, &path);
    if (!is_hub(host, endpoint, &path)) {
        if (strstr(text, "://"))
            return invalid(error, "%.100s: not an address of the Hub or of the endpoint", text);
        return invalid(error, "%.100s: expected hf://[TYPE/]ID[@REVISION][/PATH] or an address of the Hub", text);
    }
    size_t size;
    FILE *out = open_memstream(ret_body, &size);
    if (!out)
        return invalid(error, "out of memory");
    int r = read_page(text, path, out, error);
    return fclose(out) == 0 ? r : invalid(error, "out of memory");
}

// ---- hf:// ----

// Takes "models/" and the like off the front.
static int take_type(const char **body, enum repo_type *ret_type, char *error)
{
    *ret_type = REPO_MODEL;
    size_t len = strcspn(*body, "/");
    struct piece first = { *body, len };
    const char *rest = (*body)[len] ? *body + len + 1 : *body + len;
    if (piece_is(first, BUCKETS) || piece_is(first, "bucket"))
        return invalid(error, "buckets cannot be mounted, only models, datasets, spaces and kernels");
    for (int i = 0; i < NAMES_REPO_TYPES; i++) {
        enum repo_type type = (enum repo_type) i;
        const char *plural = names_type_plural(type);
        if (piece_is(first, names_type(type)) && memcmp(first.start, names_type(type), len) == 0)
            return invalid(error, "the type is written in the plural: " SCHEME "%s/ID", plural);
        if (len != strlen(plural) || memcmp(first.start, plural, len) != 0)
            continue;
        if (rest[strspn(rest, "/")] == '\0')
            return invalid(error, "no repo is named: expected " SCHEME "%s/ID", plural);
        *ret_type = type;
        *body = rest;
    }
    return 0;
}

// Bytes of a revision that has slashes of its own at the start of `s`, refs/pr/N or refs/convert/X; 0 if there is none.
static size_t special_revision(const char *s)
{
    static const char pr[] = "refs/pr/";
    static const char convert[] = "refs/convert/";
    size_t len = 0;
    size_t start = 0;
    if (strncmp(s, pr, sizeof pr - 1) == 0) {
        start = sizeof pr - 1;
        len = strspn(s + start, "0123456789");
    } else if (strncmp(s, convert, sizeof convert - 1) == 0) {
        start = sizeof convert - 1;
        len = strspn(s + start, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    }
    return len > 0 && (s[start + len] == '/' || s[start + len] == '\0') ? start + len : 0;
}

static int read_revision(const char *s, size_t len, struct uri *uri, char *error)
{
    if (len == 0)
        return invalid(error, "no revision after the '@'");
    _cleanup_free_ char *revision = url_decode(s, len);
    if (!revision || !names_ref_ok(revision))
        return invalid(error, "%.*s: not a revision", (int) (len < 100 ? len : 100), s);
    stpcpy(uri->revision, revision);
    return 0;
}

static int read_id(const char *id, struct uri *uri, char *error)
{
    enum repo_type type = uri->repo.type;
    char copy[NAMES_ID_SIZE];
    if (strlen(id) >= sizeof copy)
        return invalid(error, "%.100s: longer than any id of a repo", id);
    stpcpy(copy, id);
    char *slash = strchr(copy, '/');
    if (slash)
        *slash = '\0';
    if (!names_repo_make(type, slash ? copy : NULL, slash ? slash + 1 : copy, &uri->repo))
        return invalid(error, "%.100s: not the id of a repo: expected organisation/name", id);
    return 0;
}

static int read_path(const char *path, struct uri *uri, char *error)
{
    size_t len = strlen(path);
    if (len > 0 && (len >= sizeof uri->path || !names_path_ok(path, len)))
        return invalid(error, "%.100s: not a path in a repo", path);
    stpcpy(uri->path, path);
    return 0;
}

// `body` has no slashes at its ends.
static int read_body(char *body, struct uri *uri, char *error)
{
    if (*body == '\0')
        return invalid(error, "no repo is named: expected " SCHEME "[TYPE/]ID[@REVISION][/PATH]");
    char *first = strchr(body, '/');
    char *second = first ? strchr(first + 1, '/') : NULL;
    char *at = strchr(body, '@');
    char *path = second;
    if (at && (!second || at < second)) { // one further on is part of a file's name
        size_t len = special_revision(at + 1);
        if (len == 0)
            len = strcspn(at + 1, "/");
        int r = read_revision(at + 1, len, uri, error);
        if (r < 0)
            return r;
        path = at[1 + len] ? at + 1 + len : NULL;
        *at = '\0';
    }
    if (path)
        *path++ = '\0';
    int r = read_id(body, uri, error);
    return r < 0 ? r : read_path(path ? path : "", uri, error);
}

int uri_parse(const char *text, const char *endpoint, struct uri *ret_uri, char ret_error[URI_ERROR_SIZE])
{
    if (strnlen(text, TEXT_MAX) == TEXT_MAX)
        return invalid(ret_error, "longer than anything on the Hub");
    _cleanup_free_ char *page = NULL;
    const char *body = text + strlen(SCHEME);
    if (strncmp(text, SCHEME, strlen(SCHEME)) != 0) {
        int r = read_address(text, endpoint, &page, ret_error);
        if (r < 0)
            return r;
        body = page;
    }
    struct uri uri = { 0 };
    int r = take_type(&body, &uri.repo.type, ret_error);
    if (r < 0)
        return r;
    _cleanup_free_ char *copy = strdup(body + strspn(body, "/"));
    if (!copy)
        return invalid(ret_error, "out of memory");
    for (size_t len = strlen(copy); len > 0 && copy[len - 1] == '/'; len--)
        copy[len - 1] = '\0';
    r = read_body(copy, &uri, ret_error);
    if (r == 0)
        *ret_uri = uri;
    return r;
}
