// SPDX-License-Identifier: Apache-2.0
// Output for people.
#ifndef CLI_TERM_H
#define CLI_TERM_H

#include <stdint.h>

#define TERM_SIZE 24 // bytes of a formatted number

// Prints `text` in bold when stdout is a terminal and NO_COLOR (https://no-color.org) is not set. Control characters
// are printed as \xNN, as the log does.
void term_print_title(const char *text);

// Prints `text` with its control characters as \xNN.
void term_print(const char *text);

// "1 file", "2 files".
void term_print_count(double count, const char *thing);

// "1.2 GB": decimal units, as `hf cache ls` has them.
void term_bytes(double bytes, char ret_text[TERM_SIZE]);

#endif
