// SPDX-License-Identifier: Apache-2.0
// How one curl handle is set up, and what curl's errors mean. Only http.c calls this.
#ifndef CACHE_HTTP_EASY_H
#define CACHE_HTTP_EASY_H

#include "cache/http.h"

#include <curl/curl.h>

// Where certificates are, from the environment; NULL: curl's own place.
struct http_certificates {
    char *file;
    char *dir;
};

int http_certificates_find(struct http_certificates *ret_certificates);
void http_certificates_free(struct http_certificates *certificates);

// A handle for `request`, without callbacks. *ret_headers must live as long as the handle. -EINVAL, -ENOMEM.
int http_easy_new(const struct http_request *request, const char *user_agent,
                  const struct http_certificates *certificates, CURL **ret_easy, struct curl_slist **ret_headers);

// The errno of a transfer that ended with `code`, see http_handlers.on_done.
int http_easy_errno(CURL *easy, CURLcode code);

#endif
