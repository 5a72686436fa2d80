// SPDX-License-Identifier: Apache-2.0
// The command line of `mount`, with the conventions of mount(8) and of its helpers.
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "fs/session.h"

// What the user asked for. Strings point into argv, but for those that options_free() frees.
struct options {
    struct session_options session; // cache_path is not set yet
    char *state_dir;                // what session's point to
    char *kernel_options;
    char *endpoint;
    char *fsname;
    struct uri *uri;
    char *cache_dir;
    const char *source; // the cache's directory, as SOURCE or --cache-dir names it; NULL: the default cache
    bool uid_given;
    bool gid_given;
    int verbosity; // number of -v
    bool help;
};

// Reads argv, which getopt may reorder, and HF_ENDPOINT. 0, or the exit code with the message written. *options is
// written in either case and the caller gives it to options_free().
int options_parse(int argc, char **argv, struct options *options);
void options_free(struct options *options);

#endif
