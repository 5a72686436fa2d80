// SPDX-License-Identifier: Apache-2.0
#include "cli/address.h"

#include "cache/url.h"
#include "cache/util.h"

#include <string.h>
#include <sys/stat.h>

bool address_is_endpoint(const char *text)
{
    _cleanup_free_ char *host = url_host(text);
    const char *scheme = strstr(text, "://");
    if (!host || !scheme || strpbrk(text, "?#"))
        return false;
    size_t authority = strcspn(scheme + 3, "/");
    return !memchr(scheme + 3, '@', authority);
}

bool address_is_hub(const char *text, const char *endpoint)
{
    if (uri_is(text))
        return true;
    struct stat st;
    size_t len = strcspn(text, "/");
    if (!text[len] || len == 0 || strstr(text, "://") || lstat(text, &st) == 0)
        return false;
    // The host decides, whatever page of it is meant.
    _cleanup_free_ char *page = NULL;
    struct uri uri;
    char error[URI_ERROR_SIZE];
    return asprintf(&page, "%.*s/org/name", (int) len, text) >= 0 && uri_parse(page, endpoint, &uri, error) == 0;
}

// Whether hf:// URIs have this revision with its slashes: refs/pr/N, refs/convert/X.
static bool has_own_slashes(const char *revision)
{
    static const char pr[] = "refs/pr/";
    static const char convert[] = "refs/convert/";
    const char *rest = revision;
    if (strncmp(revision, pr, sizeof pr - 1) == 0) {
        rest += sizeof pr - 1;
        return *rest && !rest[strspn(rest, "0123456789")];
    }
    if (strncmp(revision, convert, sizeof convert - 1) != 0)
        return false;
    rest += sizeof convert - 1;
    return *rest && !rest[strspn(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")];
}

char *address_text(const struct uri *uri)
{
    _cleanup_free_ char *revision = url_encode(uri->revision, has_own_slashes(uri->revision));
    bool model = uri->repo.type == REPO_MODEL;
    char *text = NULL;
    if (!revision ||
        asprintf(&text, "hf://%s%s%s%s%s%s%s", model ? "" : names_type_plural(uri->repo.type), model ? "" : "/",
                 uri->repo.id, *revision ? "@" : "", revision, *uri->path ? "/" : "", uri->path) < 0)
        return NULL;
    return text;
}
