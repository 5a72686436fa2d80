// SPDX-License-Identifier: Apache-2.0
// The test Hub (tests/hub/lines.py) as a child process of a unit test, which is run from the top of the source tree.
#ifndef TESTS_UNIT_HUB_LINES_H
#define TESTS_UNIT_HUB_LINES_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    FILE *to, *from;
    pid_t pid;
    char *line;
    size_t line_size;
    char url[64], cdn_url[64];
} hub_lines;

// The `which`-th string of a line of JSON, from 0 on.
static inline void hub_lines_string(const char *from, int which, char *to, size_t size)
{
    for (int i = 0; i < 2 * which + 1; i++)
        from = strchr(from, '"') + 1;
    snprintf(to, size, "%.*s", (int) strcspn(from, "\""), from);
}

// Sends a line, gives the answer, which is good until the next.
static inline __attribute__((format(printf, 1, 2))) const char *hub_lines_tell(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(hub_lines.to, format, args);
    va_end(args);
    fputc('\n', hub_lines.to);
    fflush(hub_lines.to);
    if (getline(&hub_lines.line, &hub_lines.line_size, hub_lines.from) < 0)
        fail_msg("the test Hub has ended");
    if (strncmp(hub_lines.line, "{\"error\"", 8) == 0)
        fail_msg("%s: %s", format, hub_lines.line);
    return hub_lines.line;
}

// Starts it, with nothing in the environment that says something else. 0 or -1.
static inline int hub_lines_start(void)
{
    static const char *const clean[] = { "HF_TOKEN",       "HUGGING_FACE_HUB_TOKEN",
                                         "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
                                         "HF_ENDPOINT",    "http_proxy" };
    for (size_t i = 0; i < sizeof clean / sizeof *clean; i++)
        unsetenv(clean[i]);
    setenv("HF_TOKEN_PATH", "/nonexistent", 1);
    int in[2];
    int out[2];
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        return -1;
    hub_lines.pid = fork();
    if (hub_lines.pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execlp("python3", "python3", "-m", "tests.hub.lines", (char *) NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    hub_lines.to = fdopen(in[1], "w");
    hub_lines.from = fdopen(out[0], "r");
    if (getline(&hub_lines.line, &hub_lines.line_size, hub_lines.from) < 0)
        return -1;
    hub_lines_string(hub_lines.line, 0, hub_lines.url, sizeof hub_lines.url);
    hub_lines_string(hub_lines.line, 1, hub_lines.cdn_url, sizeof hub_lines.cdn_url);
    return 0;
}

static inline void hub_lines_stop(void)
{
    fclose(hub_lines.to);
    fclose(hub_lines.from);
    free(hub_lines.line);
    waitpid(hub_lines.pid, NULL, 0);
}

#endif
