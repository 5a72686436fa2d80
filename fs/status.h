// SPDX-License-Identifier: Apache-2.0
// .modelmount/status: the mount in JSON, as `modelmount status` reads it.
#ifndef FS_STATUS_H
#define FS_STATUS_H

#include "fs/fs.h"

// Made afresh at each call. The caller frees *ret_text. 0 or -errno. Thread-safe.
int status_text(struct fs *fs, char **ret_text);

#endif
