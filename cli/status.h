// SPDX-License-Identifier: Apache-2.0
// What is said of a mount that cannot be asked.
#ifndef CLI_STATUS_H
#define CLI_STATUS_H

#include "cli/mounts.h"

// Writes the message for an error of control_read(). Returns EXIT_FAILURE.
int status_say_failure(const struct mount *mount, int error);

#endif
