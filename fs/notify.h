// SPDX-License-Identifier: Apache-2.0
// Tells the kernel that bytes it keeps of a file are wrong. From a thread of its own: such a call waits for reads of
// that file which are under way, so it must never come from a thread that answers them, nor with a lock held.
#ifndef FS_NOTIFY_H
#define FS_NOTIFY_H

#include "fs/fs.h"

// 0, -ENOMEM, -errno of the thread.
int notify_start(struct fs *fs);
// While workers still answer reads.
void notify_stop(struct fs *fs);
// When nothing calls notify_bad() any more.
void notify_free(struct fs *fs);

// Has the kernel forget all bytes of a file, later. `userdata` is the struct fs: this is store_hub_options.on_bad.
void notify_bad(void *userdata, uint64_t nodeid);

#endif
