// SPDX-License-Identifier: Apache-2.0
// Whether a mount can be made at a place, asked before it is tried, so that each refusal can say what to do.
#ifndef CLI_MOUNTPOINT_H
#define CLI_MOUNTPOINT_H

#include <stdbool.h>

// The real path of `path`, also where a dead mount is; the caller frees it. 0, or EXIT_FAILURE with the message
// written.
int mountpoint_resolve(const char *path, char **ret_path);

// Checks /dev/fuse, fusermount3 and the directory at the real path `path`; what a daemon that was killed left mounted
// there is unmounted. 0, or EXIT_FAILURE with the message written.
int mountpoint_check(const char *path, bool nonempty);

#endif
