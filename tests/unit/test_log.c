// SPDX-License-Identifier: Apache-2.0
#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static int saved_stderr = -1;
static int pipe_fds[2] = { -1, -1 };

static int catch_stderr(void **state)
{
    (void) state;
    saved_stderr = dup(STDERR_FILENO);
    // A packet pipe keeps the bounds of each write.
    if (saved_stderr < 0 || pipe2(pipe_fds, O_NONBLOCK | O_DIRECT) < 0)
        return -1;
    return dup2(pipe_fds[1], STDERR_FILENO) < 0 ? -1 : 0;
}

static int release_stderr(void **state)
{
    (void) state;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    log_set_level(LOG_LEVEL_WARNING);
    return 0;
}

// What one write() put on stderr, "" if nothing.
static const char *written(void)
{
    static char buffer[PIPE_BUF + 1];
    ssize_t n = read(pipe_fds[0], buffer, sizeof buffer - 1);
    buffer[n < 0 ? 0 : n] = '\0';
    return buffer;
}

static void a_message_is_one_line_in_one_write(void **state)
{
    (void) state;
    log_error("%s: %d", "models/a/b", 42);
    assert_string_equal(written(), "modelmount: models/a/b: 42\n");
    assert_string_equal(written(), "");
}

static void levels_are_obeyed(void **state)
{
    (void) state;
    log_info("no");
    log_debug("no");
    assert_string_equal(written(), "");
    log_warning("yes");
    assert_string_equal(written(), "modelmount: yes\n");
    log_set_level(LOG_LEVEL_ERROR);
    log_warning("no");
    assert_string_equal(written(), "");
    log_set_level(LOG_LEVEL_DEBUG);
    log_info("one");
    log_debug("two");
    assert_string_equal(written(), "modelmount: one\n");
    assert_string_equal(written(), "modelmount: two\n");
}

static void hostile_names_are_defused(void **state)
{
    (void) state;
    log_error("%s", "a\nmodelmount: forged\r\t\x1b[2J\x7f");
    assert_string_equal(written(), "modelmount: a\\x0amodelmount: forged\\x0d\\x09\\x1b[2J\\x7f\n");
    // C1 controls, bare and as UTF-8; a cut character, overlong ones, a surrogate, beyond Unicode.
    log_error("%s", "\x9b\xc2\x9b\xe2\x82\xc0\xaf\xe0\x80\x80\xed\xa0\x80\xf4\x90\x80\x80\xf0\x80\x80\x80");
    assert_null(strpbrk(written(), "\x9b\x80\xc2\xe2\xc0\xe0\xed\xf4\xf0"));
    log_error("%s", "caf\xc3\xa9 \xe6\x96\x87 \xf0\x9f\xa4\x97 100% %s");
    assert_string_equal(written(), "modelmount: caf\xc3\xa9 \xe6\x96\x87 \xf0\x9f\xa4\x97 100% %s\n");
}

static void a_long_message_is_cut_to_one_write(void **state)
{
    (void) state;
    static const char fill[] = { 'a', '\n' };
    for (size_t i = 0; i < sizeof fill; i++) {
        char text[3 * PIPE_BUF];
        memset(text, fill[i], sizeof text - 1);
        text[sizeof text - 1] = '\0';
        log_error("%s", text);
        const char *line = written();
        assert_true(strlen(line) > PIPE_BUF - 16);
        assert_true(strlen(line) <= PIPE_BUF);
        if (fill[i] == '\n')
            assert_string_equal(line + strlen(line) - 8, "\\x0a...\n");
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        assert_string_equal(written(), "");
    }
}

static void errno_survives(void **state)
{
    (void) state;
    errno = ELOOP;
    log_error("x");
    assert_int_equal(errno, ELOOP);
    close(STDERR_FILENO);
    log_error("nobody hears this");
    assert_int_equal(errno, ELOOP);
}

static void syslog_gets_it_instead(void **state)
{
    (void) state;
    log_use_syslog(true);
    errno = ELOOP;
    log_error("modelmount's unit test: not an error");
    assert_int_equal(errno, ELOOP);
    assert_string_equal(written(), "");
    log_use_syslog(false);
    log_error("back");
    assert_string_equal(written(), "modelmount: back\n");
}

#define CAUGHT(test) cmocka_unit_test_setup_teardown(test, catch_stderr, release_stderr)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAUGHT(a_message_is_one_line_in_one_write), CAUGHT(levels_are_obeyed), CAUGHT(hostile_names_are_defused),
        CAUGHT(a_long_message_is_cut_to_one_write), CAUGHT(errno_survives),    CAUGHT(syslog_gets_it_instead),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
