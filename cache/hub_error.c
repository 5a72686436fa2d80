// SPDX-License-Identifier: Apache-2.0
#include "cache/hub_error.h"

#include "cache/util.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#define WAIT_MAX_S 86400

void hub_error_set(struct hub_error *error, int code, enum hub_reason reason, const char *subject, const char *format,
                   ...)
{
    error->error = code;
    error->reason = reason;
    size_t n = (size_t) snprintf(error->text, sizeof error->text, "%s: ", subject);
    va_list args;
    va_start(args, format);
    if (n < sizeof error->text)
        vsnprintf(error->text + n, sizeof error->text - n, format, args);
    va_end(args);
    for (char *s = error->text; *s; s++)
        if ((unsigned char) *s < 0x20 || *s == 0x7f)
            *s = '?';
}

// A number of digits only, after spaces; -1 if there is none.
static int64_t seconds(const char *s)
{
    s += strspn(s, " \t");
    if (*s < '0' || *s > '9')
        return -1;
    int64_t value = 0;
    for (; *s >= '0' && *s <= '9'; s++)
        value = value < WAIT_MAX_S ? value * 10 + *s - '0' : WAIT_MAX_S;
    s += strspn(s, " \t");
    return *s == '\0' || *s == ';' || *s == ',' ? value : -1;
}

// The parameter `name` of a structured field such as `"api";r=0;t=55`; -1 if there is none.
static int64_t parameter(const char *field, char name)
{
    while ((field = strchr(field, ';'))) {
        field += 1 + strspn(field + 1, " \t");
        if (*field != name)
            continue;
        const char *equals = field + 1 + strspn(field + 1, " \t");
        if (*equals == '=')
            return seconds(equals + 1);
    }
    return -1;
}

int64_t hub_error_wait_ms(const struct http_head *head)
{
    const char *limit = http_head_value(head, "RateLimit", 0);
    if (limit && parameter(limit, 'r') == 0 && parameter(limit, 't') >= 0)
        return (parameter(limit, 't') + 1) * 1000; // whole seconds: never too early
    const char *after = http_head_value(head, "Retry-After", 0);
    int64_t wait = after ? seconds(after) : -1;
    return wait < 0 ? -1 : (wait < WAIT_MAX_S ? wait : WAIT_MAX_S) * 1000;
}

static bool is(const char *value, const char *wanted)
{
    return value && strcasecmp(value, wanted) == 0;
}

bool hub_error_from_head(const struct http_head *head, const char *subject, bool with_token,
                         struct hub_error *ret_error, int64_t *ret_wait_ms)
{
    int status = http_head_status(head);
    const char *code = http_head_value(head, "X-Error-Code", 0);
    const char *message = http_head_value(head, "X-Error-Message", 0);
    const char *login =
        with_token ? "check that the token may read it" : "if it is private, set HF_TOKEN or run `hf auth login`";
    struct hub_error e = { .status = status };
    *ret_wait_ms = -1;
    if (is(code, "RevisionNotFound")) {
        hub_error_set(&e, -ENOENT, HUB_NO_REVISION, subject, "no such revision: see the branches and tags on the Hub");
    } else if (is(code, "EntryNotFound")) {
        hub_error_set(&e, -ENOENT, HUB_NO_ENTRY, subject, "no such file on the Hub at this revision");
    } else if (is(code, "GatedRepo")) {
        hub_error_set(&e, -EACCES, HUB_REFUSED, subject, "gated repo: accept its terms on the Hub, then %s",
                      with_token ? "check that HF_TOKEN belongs to that account" : "set HF_TOKEN");
    } else if (is(code, "DisabledRepo") || is(message, "Access to this resource is disabled.")) {
        hub_error_set(&e, -EACCES, HUB_REFUSED, subject, "the Hub has disabled this repo: ask its owner");
    } else if (status == 401 && is(message, "Invalid credentials in Authorization header")) {
        hub_error_set(&e, -EACCES, HUB_REFUSED, subject, "the Hub does not know the token: set another HF_TOKEN");
    } else if (is(code, "RepoNotFound") || status == 401) {
        hub_error_set(&e, -ENOENT, HUB_NO_REPO, subject, "repo missing or private: check the name; %s", login);
    } else if (status == 404 || status == 410) {
        hub_error_set(&e, -ENOENT, HUB_NO_ENTRY, subject, "not found on the Hub (%d)", status);
    } else if (status == 403 || status == 451) {
        hub_error_set(&e, -EACCES, HUB_REFUSED, subject, "forbidden (%d%s%.150s): %s", status, message ? ": " : "",
                      message ? message : "", login);
    } else if (status == 416) {
        hub_error_set(&e, -ERANGE, HUB_NO_RANGE, subject, "the range lies beyond the end of the file (416)");
    } else if (status == 429) {
        *ret_wait_ms = hub_error_wait_ms(head);
        hub_error_set(&e, -EAGAIN, HUB_LIMITED, subject, "too many requests: %s",
                      with_token ? "try again later" : "try again later, or set HF_TOKEN for a higher limit");
        *ret_error = e;
        return true;
    } else if (status >= 500 || status == 408 || status == 425) {
        *ret_wait_ms = hub_error_wait_ms(head);
        hub_error_set(&e, -EIO, HUB_FAILING, subject, "the server keeps failing (%d): try again later", status);
        *ret_error = e;
        return true;
    } else {
        hub_error_set(&e, -EPROTO, HUB_NONSENSE, subject, "the server answered %d%s%.150s: is HF_ENDPOINT right?",
                      status, message ? ": " : "", message ? message : "");
    }
    *ret_error = e;
    return false;
}

bool hub_error_from_result(int result, const char *text, const char *subject, const char *host,
                           struct hub_error *ret_error)
{
    struct hub_error e = { 0 };
    bool again = false;
    switch (result) {
    case -EHOSTUNREACH:
    case -ECONNREFUSED:
    case -ENETUNREACH:
    case -ENETDOWN:
    case -EHOSTDOWN:
    case -ETIMEDOUT:
    case -ECONNRESET:
    case -EIO:
        again = true;
        break;
    default:
        break;
    }
    if (again && result != -ETIMEDOUT && result != -ECONNRESET && result != -EIO)
        hub_error_set(&e, -ENETUNREACH, HUB_UNREACHABLE, subject,
                      "%s cannot be reached (%.150s): check the network and HF_ENDPOINT", host, text);
    else if (again)
        hub_error_set(&e, -EIO, HUB_FAILING, subject, "%s keeps failing (%.150s): try again later", host, text);
    else if (result == -EKEYREJECTED)
        hub_error_set(&e, -EACCES, HUB_REFUSED, subject,
                      "the certificate of %s is not trusted (%.150s): name your own with SSL_CERT_FILE", host, text);
    else if (result == -ENOMEM)
        hub_error_set(&e, -ENOMEM, HUB_STOPPED, subject, "out of memory");
    else if (result == -ECANCELED)
        hub_error_set(&e, -ECANCELED, HUB_STOPPED, subject, "given up");
    else
        hub_error_set(&e, result == -EBADMSG ? -EBADMSG : -EPROTO, HUB_NONSENSE, subject,
                      "%s does not speak HTTP as it should (%.150s)", host, text);
    *ret_error = e;
    return again;
}
