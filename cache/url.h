// SPDX-License-Identifier: Apache-2.0
// Web addresses, by the parser that curl itself uses, so that what is judged here is what is asked there. No I/O.
#ifndef CACHE_URL_H
#define CACHE_URL_H

#include <stdbool.h>
#include <stddef.h>

// Where `reference` leads from `base`, without a fragment. The caller frees *ret_url. -EPROTO if it is no address,
// neither http nor https, or carries a user or a password; -ENOMEM.
int url_join(const char *base, const char *reference, char **ret_url);

// Whether both have the same scheme, host and port; false if one is no address.
bool url_same_origin(const char *a, const char *b);

// The host of an http(s) address, for messages. The caller frees it. NULL if there is none.
char *url_host(const char *url);

// `text` with all but unreserved characters (RFC 3986) written as %XX; '/' is kept if `keep_slash`. The caller frees
// it. NULL when out of memory.
char *url_encode(const char *text, bool keep_slash);

// `text` with each %XX as the byte it stands for; what is no such escape stays, as Python's unquote() has it. The
// caller frees it. NULL when out of memory, or where an escape is a NUL.
char *url_decode(const char *text, size_t len);

#endif
