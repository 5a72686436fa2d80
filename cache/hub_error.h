// SPDX-License-Identifier: Apache-2.0
// What went wrong between us and the Hub: an errno for programs, a reason for the cache, a sentence for people. No I/O.
#ifndef CACHE_HUB_ERROR_H
#define CACHE_HUB_ERROR_H

#include "cache/http.h"

#include <stdbool.h>
#include <stdint.h>

enum hub_reason {
    HUB_FINE,
    HUB_NO_REPO,     // missing, or private: the Hub does not say which. -ENOENT
    HUB_NO_REVISION, // -ENOENT
    HUB_NO_ENTRY,    // -ENOENT
    HUB_REFUSED,     // gated, disabled, no rights, a bad token. -EACCES
    HUB_LIMITED,     // too many requests, for longer than the budget. -EAGAIN
    HUB_UNREACHABLE, // offline, or no connection. -ENETUNREACH
    HUB_FAILING,     // 5xx, resets or silence until the budget was spent. -EIO
    HUB_NONSENSE,    // an answer that does not fit what was asked. -EBADMSG, -E2BIG, -ELOOP, -EPROTO
    HUB_NO_RANGES,   // the server sends whole files only, and this one is too far to skip. -EOPNOTSUPP
    HUB_NO_RANGE,    // beyond the end of the file. -ERANGE
    HUB_STOPPED,     // a handler's own error, or -ECANCELED
};

struct hub_error {
    int error; // 0 or -errno
    enum hub_reason reason;
    int status;     // of the last answer, 0 if none
    char text[512]; // "org/name@main: why: what to do"; "" when all is well
};

// Writes "<subject>: <message>" with control characters as '?'.
void hub_error_set(struct hub_error *error, int code, enum hub_reason reason, const char *subject, const char *format,
                   ...) __attribute__((format(printf, 5, 6)));

// Reads an answer of the Hub that is neither 2xx nor a redirect (huggingface_hub utils/_http.py hf_raise_for_status).
// True if asking again may help; *ret_wait_ms is then how long the Hub says to wait first, -1 if it does not say.
// `with_token`: one was sent.
bool hub_error_from_head(const struct http_head *head, const char *subject, bool with_token,
                         struct hub_error *ret_error, int64_t *ret_wait_ms);

// Reads the end of a request without a whole answer (http_handlers.on_done). True if asking again may help.
bool hub_error_from_result(int result, const char *text, const char *subject, const char *host,
                           struct hub_error *ret_error);

// How long the headers of a 429 or 503 say to wait: RateLimit if nothing is left in it, else Retry-After in seconds.
// ms, or -1.
int64_t hub_error_wait_ms(const struct http_head *head);

#endif
