// SPDX-License-Identifier: Apache-2.0
// Opens what lies below a directory without being led out of it by a link.
#ifndef CACHE_BENEATH_H
#define CACHE_BENEATH_H

// Opens the relative path `path` (no "." or ".." in it, of any length) below `dir_fd`, following no link at all, as
// openat2(2) does with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; where that is missing or forbidden (containers), one
// component after the other. O_CLOEXEC is added to `flags`. 0, -EPERM when a link is in the way,
// -errno.
int beneath_open(int dir_fd, const char *path, int flags, int *ret_fd);

// Opens the directory `name`, one component below `dir_fd`. It may be a link, to anywhere, as long as that and every
// further link on its way belongs to root or to the user whom this process runs as. O_DIRECTORY and O_CLOEXEC are
// added to `flags`. 0, -EPERM when a link belongs to somebody else, -ENOTDIR, -ELOOP after 40 links, -errno.
int beneath_open_trusted(int dir_fd, const char *name, int flags, int *ret_fd);

// Opens the directory `path`, which may lead upwards, through links or be absolute, as long as it crosses into no other
// mount: so it can never ask a FUSE daemon, which may be this very process. With O_PATH. 0, -EXDEV when a mount is in
// the way, -ENOSYS where openat2(2) is missing or forbidden, -errno.
int beneath_open_same_mount(int at, const char *path, int *ret_fd);

#endif
