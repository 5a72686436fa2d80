// SPDX-License-Identifier: Apache-2.0
// Makes files and directories in a hub cache as the cache's owner would: with its owner and group, and modes after the
// cache directory's. A daemon run by root takes on the owner's identity for file access (setfsuid(2), this thread's
// alone), so that nothing the owner puts in its way can make it do what the owner could not.
#ifndef CACHE_OWNED_H
#define CACHE_OWNED_H

#include <stdbool.h>
#include <sys/types.h>

struct owned {
    int cache_fd;
    dev_t device;
    uid_t uid; // of what is made
    gid_t gid;
    mode_t dir_mode, file_mode;
    bool switched; // this thread acts as uid and gid
};

// Opens the cache directory, made with the parents it lacks as the user's umask says, and takes on its owner's
// identity. Every success is to be followed by owned_end(), in the same thread. 0 or -errno.
int owned_begin(struct owned *o, const char *cache_path);
void owned_end(struct owned *o);

// Gives a file of this process's, which is on the cache's device, to the cache's owner, with the mode of files. 0,
// -EPERM when it is somebody else's and this is not root.
int owned_give(const struct owned *o, int fd);

// Opens a directory, made if it is not there; *ret_made, which may be NULL, says whether it was. `trusted`: it may be a
// link as beneath_open_trusted() has it; else no link is followed: -EPERM. 0 or -errno.
int owned_dir(const struct owned *o, int at, const char *name, bool trusted, int *ret_fd, bool *ret_made);

// Makes all directories of the relative path `path` but its last component, following no link, and opens the last of
// them. *ret_name is that component, within `path`. 0, -EPERM when a link is in the way, -errno.
int owned_parents(const struct owned *o, int at, const char *path, int *ret_fd, const char **ret_name);

// Makes a file that must not be there, open for writing. 0 or -errno.
int owned_file(const struct owned *o, int at, const char *name, mode_t mode, int *ret_fd);

// Makes a link. 0 or -errno.
int owned_symlink(const struct owned *o, const char *target, int at, const char *name);

#endif
