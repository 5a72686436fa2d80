// SPDX-License-Identifier: Apache-2.0
// What a user names: `hf://[TYPE/]ID[@REVISION][/PATH]`, or a web address copied from a browser. No I/O.
// Grammar: huggingface_hub (>= 1.20) utils/_hf_uris.py; here an id may also lack its organisation ("gpt2").
#ifndef CACHE_URI_H
#define CACHE_URI_H

#include "cache/names.h"

#include <stdbool.h>

#define URI_PATH_SIZE 4096
#define URI_ERROR_SIZE 256

struct uri {
    struct repo repo;
    char revision[NAMES_REF_SIZE]; // "": none was given
    char path[URI_PATH_SIZE];      // in the repo, without slashes at its ends; "": the root
};

// Whether `text` means the Hub and not a file: it starts with hf://, http:// or https://.
bool uri_is(const char *text);

// Reads `text`. Web addresses, which may lack their scheme, are those of huggingface.co, hf.co, hub-ci.huggingface.co,
// and of `endpoint`'s host (may be NULL), its path taken off. Of their pages, the repo's own and those of a file or
// folder (blob, raw, resolve, tree, blame) are taken. A one-part id is one only if nothing but a revision follows it;
// in a web address it is not. 0; -EINVAL, and ret_error, of URI_ERROR_SIZE, says in one line what is wrong: buckets are
// refused by name.
int uri_parse(const char *text, const char *endpoint, struct uri *ret_uri, char ret_error[URI_ERROR_SIZE]);

#endif
