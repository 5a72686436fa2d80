// SPDX-License-Identifier: Apache-2.0
#include "cli/term.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool bold_wanted(void)
{
    const char *no_color = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no_color && *no_color) && terminal && strcmp(terminal, "dumb") != 0;
}

void term_print(const char *text)
{
    for (const char *at = text; *at; at++) {
        unsigned char byte = (unsigned char) *at;
        bool c1 = byte == 0xc2 && (unsigned char) at[1] >= 0x80 && (unsigned char) at[1] < 0xa0;
        if (byte < 0x20 || byte == 0x7f || c1)
            printf("\\x%02x", byte);
        else
            putchar(byte);
    }
}

void term_print_title(const char *text)
{
    bool bold = bold_wanted();
    if (bold)
        fputs("\033[1m", stdout);
    term_print(text);
    if (bold)
        fputs("\033[0m", stdout);
}

void term_print_count(double count, const char *thing)
{
    printf("%.0f %s%s", count, thing, count == 1 ? "" : "s");
}

void term_bytes(double bytes, char ret_text[TERM_SIZE])
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    size_t unit = 0;
    while (bytes >= 999.95 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1000;
        unit++;
    }
    snprintf(ret_text, TERM_SIZE, "%.*f %s", unit == 0 ? 0 : 1, bytes, units[unit]);
}
