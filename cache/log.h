// SPDX-License-Identifier: Apache-2.0
// One place for what the program has to say while it runs: stderr in the foreground, syslog in the background.
#ifndef CACHE_LOG_H
#define CACHE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

// Shows messages up to `level` (the start is LOG_LEVEL_WARNING). Call before threads start.
void log_set_level(enum log_level level);

// Sends what follows to syslog (`true`, facility daemon, ident "modelmount") or to stderr (`false`, the start).
// Call before threads start.
void log_use_syslog(bool on);

// Each writes one line, "modelmount: " before it on stderr; control characters in it are written as \xNN, so that a
// hostile file name can neither forge a line nor talk to the terminal. errno is left as it was. Thread-safe.
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
