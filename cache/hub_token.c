// SPDX-License-Identifier: Apache-2.0
#include "cache/hub_token.h"

#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <strings.h>

#define TOKEN_MAX 4096

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

bool hub_variable_is_true(const char *name)
{
    static const char *const yes[] = { "1", "ON", "YES", "TRUE" };
    const char *value = variable(name);
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    return false;
}

// The home directory: as root without a HOME of its own choice, that of SUDO_USER, whose cache it is.
static int find_home(char **ret_home)
{
    const char *user = geteuid() == 0 ? variable("SUDO_USER") : NULL;
    const char *home = variable("HOME");
    if (home && !user) {
        *ret_home = strdup(home);
        return *ret_home ? 0 : -ENOMEM;
    }
    char buffer[16384];
    struct passwd entry;
    struct passwd *found = NULL;
    if (user)
        getpwnam_r(user, &entry, buffer, sizeof buffer, &found);
    else
        getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &found);
    if (!found && !home)
        return -ENOENT;
    *ret_home = strdup(found ? found->pw_dir : home);
    return *ret_home ? 0 : -ENOMEM;
}

// A path whose "~/" is the home directory. -ENOENT, -ENOMEM.
static int expand(const char *path, const char *end, char **ret_path)
{
    _cleanup_free_ char *home = NULL;
    if (*path == '~' && (path[1] == '/' || path[1] == '\0')) {
        int r = find_home(&home);
        if (r < 0)
            return r;
        path++;
    }
    return asprintf(ret_path, "%s%s%s", home ? home : "", path, end) < 0 ? -ENOMEM : 0;
}

static int token_path(char **ret_path)
{
    if (variable("HF_TOKEN_PATH"))
        return expand(variable("HF_TOKEN_PATH"), "", ret_path);
    if (variable("HF_HOME"))
        return expand(variable("HF_HOME"), "/token", ret_path);
    if (variable("XDG_CACHE_HOME"))
        return expand(variable("XDG_CACHE_HOME"), "/huggingface/token", ret_path);
    return expand("~/.cache", "/huggingface/token", ret_path);
}

// A FIFO must not hold us up: O_NONBLOCK.
static int read_file(const char *path, char text[TOKEN_MAX + 1])
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, TOKEN_MAX);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    return 0;
}

static int clean(const char *text, char **ret_token)
{
    text += strspn(text, " \t\r\n");
    size_t len = strcspn(text, " \t\r\n");
    if (len == 0)
        return 0;
    bool good = text[len + strspn(text + len, " \t\r\n")] == '\0';
    for (size_t i = 0; i < len; i++)
        good = good && text[i] > 0x20 && text[i] < 0x7f;
    if (!good) {
        log_warning("the token found is none: spaces or special characters in it; going on without");
        return 0;
    }
    *ret_token = strndup(text, len);
    return *ret_token ? 0 : -ENOMEM;
}

int hub_token_find(char **ret_token)
{
    *ret_token = NULL;
    if (hub_variable_is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        return 0;
    const char *value = variable("HF_TOKEN");
    if (!value)
        value = variable("HUGGING_FACE_HUB_TOKEN");
    if (value)
        return clean(value, ret_token);
    _cleanup_free_ char *path = NULL;
    int r = token_path(&path);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    char text[TOKEN_MAX + 1];
    return read_file(path, text) < 0 ? 0 : clean(text, ret_token);
}
