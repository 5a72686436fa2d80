// SPDX-License-Identifier: Apache-2.0
#include "cache/http_easy.h"

#include "cache/util.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define CONNECT_TIMEOUT_MS 30000
#define RECEIVE_BUFFER (256 * 1024L)

int http_certificates_find(struct http_certificates *ret_certificates)
{
    static const char *const names[] = { "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR" };
    struct http_certificates found = { 0 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (!value || !*value)
            continue;
        struct stat st;
        bool is_dir = strcmp(names[i], "SSL_CERT_DIR") == 0 || (stat(value, &st) == 0 && S_ISDIR(st.st_mode));
        char **place = is_dir ? &found.dir : &found.file;
        if (*place || (!is_dir && found.dir))
            continue;
        *place = strdup(value);
        if (!*place) {
            http_certificates_free(&found);
            return -ENOMEM;
        }
    }
    *ret_certificates = found;
    return 0;
}

void http_certificates_free(struct http_certificates *certificates)
{
    free(certificates->file);
    free(certificates->dir);
}

static bool has_control(const char *s)
{
    for (; *s; s++)
        if ((unsigned char) *s < 0x20 || *s == 0x7f)
            return true;
    return false;
}

static int make_headers(const struct http_request *request, struct curl_slist **ret_headers)
{
    struct curl_slist *list = NULL;
    // Nothing said would mean: any encoding.
    const char *identity = request->compressed ? NULL : "Accept-Encoding: identity";
    const char *const none = NULL;
    const char *const *header = request->headers ? request->headers : &none;
    for (;;) {
        const char *line = identity ? identity : *header++;
        identity = NULL;
        if (!line)
            break;
        if (has_control(line)) {
            curl_slist_free_all(list);
            return -EINVAL;
        }
        struct curl_slist *longer = curl_slist_append(list, line);
        if (!longer) {
            curl_slist_free_all(list);
            return -ENOMEM;
        }
        list = longer;
    }
    *ret_headers = list;
    return 0;
}

static CURLcode set_range(CURL *easy, const struct http_request *request)
{
    if (request->first < 0)
        return CURLE_OK;
    char range[48];
    if (request->last >= 0)
        snprintf(range, sizeof range, "%lld-%lld", (long long) request->first, (long long) request->last);
    else
        snprintf(range, sizeof range, "%lld-", (long long) request->first);
    return curl_easy_setopt(easy, CURLOPT_RANGE, range);
}

static CURLcode allow_web_only(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

// One of the two says where: curl's default for the other would let in certificates that nobody named.
static CURLcode set_certificates(CURL *easy, const struct http_certificates *certificates)
{
    if (!certificates->file && !certificates->dir)
        return CURLE_OK;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_CAINFO, certificates->file);
    return code == CURLE_OK ? curl_easy_setopt(easy, CURLOPT_CAPATH, certificates->dir) : code;
}

static CURLcode set_up(CURL *easy, const struct http_request *request, const char *user_agent,
                       const struct http_certificates *certificates)
{
    int connect_ms = request->connect_timeout_ms > 0 ? request->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, request->url);
#define SET(option, value)                                                                                             \
    do {                                                                                                               \
        if (code == CURLE_OK)                                                                                          \
            code = curl_easy_setopt(easy, option, value);                                                              \
    } while (0)
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long) connect_ms);
    // Without TLS there is nothing to be told of HTTP/2 before the first answer: all other requests would wait for
    // that.
    bool tls = strncasecmp(request->url, "https:", 6) == 0;
    SET(CURLOPT_HTTP_VERSION, tls ? (long) CURL_HTTP_VERSION_2TLS : (long) CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PIPEWAIT, tls ? 1L : 0L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
    SET(CURLOPT_USERAGENT, user_agent);
#if LIBCURL_VERSION_NUM >= 0x075700
    // Without it, giving up a transfer waits for its name look-up, and all others with it.
    SET(CURLOPT_QUICK_EXIT, 1L);
#endif
    if (request->method == HTTP_HEAD)
        SET(CURLOPT_NOBODY, 1L);
    if (request->compressed && request->first < 0)
        SET(CURLOPT_ACCEPT_ENCODING, "");
#undef SET
    if (code == CURLE_OK)
        code = allow_web_only(easy);
    if (code == CURLE_OK)
        code = set_range(easy, request);
    return code == CURLE_OK ? set_certificates(easy, certificates) : code;
}

int http_easy_new(const struct http_request *request, const char *user_agent,
                  const struct http_certificates *certificates, CURL **ret_easy, struct curl_slist **ret_headers)
{
    if (strncasecmp(request->url, "http://", 7) != 0 && strncasecmp(request->url, "https://", 8) != 0)
        return -EINVAL;
    struct curl_slist *headers = NULL;
    int r = make_headers(request, &headers);
    if (r < 0)
        return r;
    CURL *easy = curl_easy_init();
    if (!easy || set_up(easy, request, user_agent, certificates) != CURLE_OK ||
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) != CURLE_OK) {
        curl_easy_cleanup(easy);
        curl_slist_free_all(headers);
        return -ENOMEM;
    }
    *ret_easy = easy;
    *ret_headers = headers;
    return 0;
}

static int system_error(CURL *easy, int otherwise)
{
    long number = 0;
    curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &number);
    return number > 0 && number < 4096 ? -(int) number : otherwise;
}

int http_easy_errno(CURL *easy, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return 0;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_OPERATION_TIMEDOUT: // of connecting: curl is given no other time limit
        return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return system_error(easy, -ECONNREFUSED);
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_CONNECT_ERROR: // a connection cut during the handshake, more often than a server without a common
                                  // cipher
        return -ECONNRESET;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
        return -EKEYREJECTED;
    case CURLE_BAD_CONTENT_ENCODING:
        return -EBADMSG;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PROXY:
        return -EPROTO;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    default:
        return -EIO;
    }
}
