// SPDX-License-Identifier: Apache-2.0
// Unmounting: umount2(2) for root, the set-user-ID program fusermount3(1) for everybody else.
#ifndef CLI_FUSERMOUNT_H
#define CLI_FUSERMOUNT_H

#include <stdbool.h>

// Whether fusermount3 is where libfuse looks for it: /usr/bin, then PATH.
bool fusermount_found(void);

// Unmounts the absolute path `mountpoint`; `lazy` detaches it even when it is in use. 0, -EBUSY, -ENOENT when there is
// no fusermount3, -EIO with fusermount3's own words in ret_message (else ""), -errno.
int fusermount_unmount(const char *mountpoint, bool lazy, char ret_message[256]);

#endif
