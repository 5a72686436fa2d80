// SPDX-License-Identifier: Apache-2.0
// `modelmount status`: what mounts say of themselves.
#include "cli/status.h"
#include "cache/log.h"
#include "cache/util.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/mounts.h"
#include "cli/status_text.h"

#include <errno.h>
#include <string.h>

static const char help[] = "Usage: modelmount status [--json] [MOUNTPOINT]\n"
                           "\n"
                           "Says which cache MOUNTPOINT shows, what of it is on disk, what is being fetched from\n"
                           "the Hub, how files are read and, where that is not the fast way, why and what to do.\n"
                           "Without MOUNTPOINT: all your mounts.\n"
                           "\n"
                           "  --json      print what the mount says as it is, one JSON object per mount\n"
                           "  -h, --help  print this\n";

int status_say_failure(const struct mount *mount, int error)
{
    if (error == -ENOTCONN)
        log_error("%s: its daemon is dead: modelmount unmount %s", mount->mountpoint, mount->mountpoint);
    else if (error == -ETIMEDOUT)
        log_error("%s: its daemon does not answer: is it stopped, or its disk stuck?", mount->mountpoint);
    else if (error == -EACCES)
        log_error("%s: mounted by uid %u without allow_other: only that user and root can ask it", mount->mountpoint,
                  (unsigned) mount->uid);
    else
        log_error("%s/.modelmount/status: %s", mount->mountpoint, strerror(-error));
    return EXIT_FAILURE;
}

static int show(const struct mount *mount, bool json)
{
    if (json) {
        _cleanup_free_ char *raw = NULL;
        int r = control_read(mount, &raw);
        if (r < 0)
            return status_say_failure(mount, r);
        fputs(raw, stdout);
        if (!*raw || raw[strlen(raw) - 1] != '\n')
            putchar('\n');
        return EXIT_SUCCESS;
    }
    cJSON *status;
    int r = control_status(mount, &status);
    if (r < 0)
        return status_say_failure(mount, r);
    status_text_print(status);
    cJSON_Delete(status);
    return EXIT_SUCCESS;
}

static int show_one(const char *path, bool json)
{
    struct mount *mount;
    if (mounts_lookup(path, &mount) < 0)
        return EXIT_FAILURE;
    int r = EXIT_FAILURE;
    if (mounts_is_ours(mount))
        r = show(mount, json);
    else
        log_error("%s: not a modelmount mount but one of type %s", mount->mountpoint, mount->type);
    mounts_free(mount, 1);
    return r;
}

static bool for_caller(const struct mount *mount)
{
    return mounts_is_ours(mount) && (geteuid() == 0 || mount->uid == getuid() || mount->allow_other);
}

static int show_all(bool json)
{
    struct mount *mounts;
    size_t count, shown = 0;
    int r = mounts_read(&mounts, &count);
    if (r < 0) {
        log_error("/proc/self/mountinfo: %s", strerror(-r));
        return EXIT_FAILURE;
    }
    int code = EXIT_SUCCESS;
    for (size_t i = 0; i < count; i++) {
        if (!for_caller(&mounts[i]))
            continue;
        if (shown++ > 0 && !json)
            putchar('\n');
        if (show(&mounts[i], json) != EXIT_SUCCESS)
            code = EXIT_FAILURE;
    }
    mounts_free(mounts, count);
    if (shown > 0)
        return code;
    log_error("nothing mounted: modelmount MOUNTPOINT mounts the hub cache");
    return EXIT_FAILURE;
}

int status_main(int argc, char **argv)
{
    int json = 0;
    const char *path;
    int r = arguments_parse(argc, argv, "json", help, &json, &path);
    if (r != 0)
        return r == 1 ? EXIT_SUCCESS : r;
    return path ? show_one(path, json) : show_all(json);
}
