// SPDX-License-Identifier: Apache-2.0
#include "cache/log.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

// What one write() puts into a pipe whole, so that the lines of several threads or processes never mix.
#define LINE_MAX_BYTES PIPE_BUF

static enum log_level shown = LOG_LEVEL_WARNING;
static bool to_syslog;

void log_set_level(enum log_level level)
{
    shown = level;
}

void log_use_syslog(bool on)
{
    if (on)
        openlog("modelmount", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    else if (to_syslog)
        closelog();
    to_syslog = on;
}

// Bytes of the well-formed UTF-8 character at `s` (RFC 3629), 0 if there is none or if it is a control character: C0,
// DEL, or C1, which some terminals obey.
static size_t printable(const unsigned char *s)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool control = s[0] == 0xc2 && s[1] < 0xa0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f;
    bool beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return control || overlong || surrogate || beyond ? 0 : len;
}

// Copies `from` into the `size` bytes at `to` without a NUL; what does not fit ends in "...". Returns the length.
static size_t sanitise(const char *from, char *to, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    static const char cut[] = "...";
    assert(size >= sizeof cut);
    const unsigned char *s = (const unsigned char *) from;
    size_t len = 0;
    size_t fits = 0; // how much can stay if the rest is cut
    while (*s) {
        size_t plain = printable(s);
        size_t need = plain ? plain : 4;
        if (len + need > size) {
            memcpy(to + fits, cut, sizeof cut - 1);
            return fits + sizeof cut - 1;
        }
        if (plain) {
            memcpy(to + len, s, plain);
            s += plain;
        } else {
            to[len] = '\\';
            to[len + 1] = 'x';
            to[len + 2] = digits[*s >> 4];
            to[len + 3] = digits[*s & 15];
            s++;
        }
        len += need;
        if (len + sizeof cut - 1 <= size)
            fits = len;
    }
    return len;
}

static __attribute__((format(printf, 3, 0))) void say(enum log_level level, int priority, const char *format,
                                                      va_list args)
{
    if (level > shown)
        return;
    int saved = errno;
    static const char prefix[] = "modelmount: ";
    const size_t prefix_len = sizeof prefix - 1;
    char text[LINE_MAX_BYTES];
    char line[LINE_MAX_BYTES];
    if (vsnprintf(text, sizeof text, format, args) < 0)
        stpcpy(text, "(a message that cannot be written)");
    memcpy(line, prefix, prefix_len);
    size_t len = prefix_len + sanitise(text, line + prefix_len, sizeof line - prefix_len - 1);
    if (to_syslog) {
        syslog(priority, "%.*s", (int) (len - prefix_len), line + prefix_len);
    } else {
        line[len] = '\n';
        // Nobody could be told that this failed.
        ssize_t written = write(STDERR_FILENO, line, len + 1);
        (void) written;
    }
    errno = saved;
}

#define SAY(level, priority)                                                                                           \
    va_list args;                                                                                                      \
    va_start(args, format);                                                                                            \
    say(level, priority, format, args);                                                                                \
    va_end(args)

void log_error(const char *format, ...)
{
    SAY(LOG_LEVEL_ERROR, LOG_ERR);
}

void log_warning(const char *format, ...)
{
    SAY(LOG_LEVEL_WARNING, LOG_WARNING);
}

void log_info(const char *format, ...)
{
    SAY(LOG_LEVEL_INFO, LOG_INFO);
}

void log_debug(const char *format, ...)
{
    SAY(LOG_LEVEL_DEBUG, LOG_DEBUG);
}
