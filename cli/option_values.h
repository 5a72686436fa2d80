// SPDX-License-Identifier: Apache-2.0
// The values that options of `mount` take: each of these reads one and sets it. False, and nothing set, when it is
// wrong.
#ifndef CLI_OPTION_VALUES_H
#define CLI_OPTION_VALUES_H

#include "cli/options.h"

bool option_set_uid(struct options *options, const char *value);
bool option_set_gid(struct options *options, const char *value);
bool option_set_umask(struct options *options, const char *value);
bool option_set_mtime(struct options *options, const char *value);
bool option_set_state_dir(struct options *options, const char *value);
bool option_set_cache_dir(struct options *options, const char *value);
bool option_set_endpoint(struct options *options, const char *value);
bool option_set_connections(struct options *options, const char *value);
bool option_set_timeout(struct options *options, const char *value);
bool option_set_ref_ttl(struct options *options, const char *value);

#endif
