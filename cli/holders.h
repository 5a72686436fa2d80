// SPDX-License-Identifier: Apache-2.0
// Who keeps a mount busy, as far as /proc tells: working directories, open files and mapped files.
#ifndef CLI_HOLDERS_H
#define CLI_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>

// Writes the other programs that have something below the absolute `dir` in use, "bash (pid 17), python3 (pid 42)", to
// `names`; those that do not fit or that the caller may not look into are left out. False when none was found.
bool holders_find(const char *dir, char *names, size_t size);

#endif
