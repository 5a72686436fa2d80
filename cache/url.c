// SPDX-License-Identifier: Apache-2.0
#include "cache/url.h"

#include "cache/util.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

static void cleanup_url(CURLU **url)
{
    curl_url_cleanup(*url);
}
#define _cleanup_url_ __attribute__((cleanup(cleanup_url)))

static void cleanup_part(char **part)
{
    curl_free(*part);
}
#define _cleanup_part_ __attribute__((cleanup(cleanup_part)))

// One part of an address; NULL if it has none. To be freed with curl_free().
static char *part_of(CURLU *url, CURLUPart which, unsigned flags)
{
    char *part = NULL;
    return curl_url_get(url, which, &part, flags) == CURLUE_OK ? part : NULL;
}

static bool is_web(CURLU *url)
{
    _cleanup_part_ char *scheme = part_of(url, CURLUPART_SCHEME, 0);
    return scheme && (strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0);
}

static CURLU *parse(const char *text)
{
    CURLU *url = curl_url();
    if (url && (curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK || !is_web(url))) {
        curl_url_cleanup(url);
        url = NULL;
    }
    return url;
}

int url_join(const char *base, const char *reference, char **ret_url)
{
    _cleanup_url_ CURLU *url = curl_url();
    if (!url)
        return -ENOMEM;
    CURLUcode code = curl_url_set(url, CURLUPART_URL, base, 0);
    if (code == CURLUE_OK)
        code = curl_url_set(url, CURLUPART_URL, reference, CURLU_URLENCODE | CURLU_ALLOW_SPACE | CURLU_DISALLOW_USER);
    if (code == CURLUE_OUT_OF_MEMORY)
        return -ENOMEM;
    if (code != CURLUE_OK || !is_web(url))
        return -EPROTO;
    curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
    _cleanup_part_ char *whole = part_of(url, CURLUPART_URL, 0);
    if (!whole)
        return -EPROTO;
    char *copy = strdup(whole);
    if (!copy)
        return -ENOMEM;
    *ret_url = copy;
    return 0;
}

bool url_same_origin(const char *a, const char *b)
{
    _cleanup_url_ CURLU *one = parse(a);
    _cleanup_url_ CURLU *other = parse(b);
    if (!one || !other)
        return false;
    static const CURLUPart parts[] = { CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        _cleanup_part_ char *mine = part_of(one, parts[i], CURLU_DEFAULT_PORT);
        _cleanup_part_ char *yours = part_of(other, parts[i], CURLU_DEFAULT_PORT);
        if (!mine || !yours || strcasecmp(mine, yours) != 0)
            return false;
    }
    return true;
}

char *url_host(const char *url)
{
    _cleanup_url_ CURLU *parsed = parse(url);
    _cleanup_part_ char *host = parsed ? part_of(parsed, CURLUPART_HOST, 0) : NULL;
    return host ? strdup(host) : NULL;
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c));
}

char *url_encode(const char *text, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";
    char *encoded = malloc(3 * strlen(text) + 1);
    if (!encoded)
        return NULL;
    char *end = encoded;
    for (; *text; text++) {
        if (is_unreserved(*text) || (keep_slash && *text == '/')) {
            *end++ = *text;
        } else {
            *end++ = '%';
            *end++ = digits[(unsigned char) *text >> 4];
            *end++ = digits[(unsigned char) *text & 15];
        }
    }
    *end = '\0';
    return encoded;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

char *url_decode(const char *text, size_t len)
{
    char *decoded = malloc(len + 1);
    if (!decoded)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int high = text[i] == '%' && len - i > 2 ? hex_digit(text[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
        if (low < 0) {
            decoded[n++] = text[i];
            continue;
        }
        if (high == 0 && low == 0) {
            free(decoded);
            return NULL;
        }
        decoded[n++] = (char) (high << 4 | low);
        i += 2;
    }
    decoded[n] = '\0';
    return decoded;
}
