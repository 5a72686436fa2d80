// SPDX-License-Identifier: Apache-2.0
// What is mounted where, by /proc/self/mountinfo (proc_pid_mountinfo(5)). No call here touches the mounts themselves,
// so a dead or stuck one cannot hang it.
#ifndef CLI_MOUNTS_H
#define CLI_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MOUNTS_TYPE "fuse.modelmount"

struct mount {
    char *mountpoint; // absolute, without links
    char *type;       // of the file system: "ext4", "fuse.modelmount"
    char *source;
    uid_t uid; // who mounted, for FUSE; else (uid_t) -1 and (gid_t) -1
    gid_t gid;
    bool allow_other;
};

// All mounts, in the order they were made. The caller frees them with mounts_free(). 0 or -errno.
int mounts_read(struct mount **ret_mounts, size_t *ret_count);
void mounts_free(struct mount *mounts, size_t count);

// The uppermost mount at exactly `mountpoint` (as mounts_resolve() gives it). The caller frees it with
// mounts_free(…, 1). 0, -ENOENT when nothing is mounted there, -errno.
int mounts_find(const char *mountpoint, struct mount **ret_mount);

// Whether the mount is one of this program's.
bool mounts_is_ours(const struct mount *mount);

// realpath(3) that also finds its way to a mountpoint whose daemon is dead. The caller frees *ret_path. 0 or -errno.
int mounts_resolve(const char *path, char **ret_path);

// What the user means by `path`: the mount at it. As mounts_find(), with the message written when it fails.
int mounts_lookup(const char *path, struct mount **ret_mount);

#endif
