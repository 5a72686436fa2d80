// SPDX-License-Identifier: Apache-2.0
// Where in a command line the Hub is meant: its endpoint, and a repo as hf:// URI or web address.
#ifndef CLI_ADDRESS_H
#define CLI_ADDRESS_H

#include "cache/uri.h"

// What a right endpoint is, for messages.
#define ADDRESS_ENDPOINT_WANTED "an address such as https://huggingface.co, without user, password, '?' or '#'"

// Whether `text` can be an endpoint; what cache/hub.h refuses is none. A user or password is refused too: whoever sees
// the program's arguments or its status would read it.
bool address_is_endpoint(const char *text);

// Whether `text` means something on the Hub, well-formed or not: an hf:// URI, a web address, or one without its
// scheme, huggingface.co/org/name, where no file has that name. `endpoint` may be NULL.
bool address_is_hub(const char *text, const char *endpoint);

// The URI as it stands in /proc/mounts: hf://datasets/org/name@revision/path. The caller frees it. NULL without memory.
char *address_text(const struct uri *uri);

#endif
