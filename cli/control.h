// SPDX-License-Identifier: Apache-2.0
// The channel from the command line to a mount: its files .modelmount/pid and .modelmount/status.
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include "cli/mounts.h"

#include <cjson/cJSON.h>

// Each asks in a process of its own, so that a daemon that hangs holds up nobody for longer than said here. Root asks a
// user's mount as that user, since FUSE lets nobody else in. Errors: -ENOTCONN when the daemon is dead, -ETIMEDOUT when
// it does not answer, -EACCES when the mount is somebody else's, -errno.

// The process that serves the mount, as it sees itself. Waits at most five seconds.
int control_pid(const struct mount *mount, pid_t *ret_pid);

// What the mount says of itself, JSON; the caller frees *ret_text. Waits at most a minute: a cache that is new to the
// daemon is counted first. One that does not answer at all is found out as fast as by control_pid().
int control_read(const struct mount *mount, char **ret_text);

// The same, parsed; the caller gives it to cJSON_Delete(). -EBADMSG when it is no JSON object.
int control_status(const struct mount *mount, cJSON **ret_status);

#endif
