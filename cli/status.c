// SPDX-License-Identifier: Apache-2.0
// `modelmount status`: what mounts say of themselves.
#include "cli/status.h"
#include "cache/log.h"
#include "cache/util.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/mounts.h"
#include "cli/term.h"

#include <errno.h>
#include <string.h>

static const char help[] = "Usage: modelmount status [--json] [MOUNTPOINT]\n"
                           "\n"
                           "Says which cache MOUNTPOINT shows, what is in it, how its files are read and, where\n"
                           "that is not the fast way, why and what to do. Without MOUNTPOINT: all your mounts.\n"
                           "\n"
                           "  --json      print what the mount says as it is, one JSON object per mount\n"
                           "  -h, --help  print this\n";

static double number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

// NULL when there is no such string or it is empty.
static const char *text(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsString(item) && *item->valuestring ? item->valuestring : NULL;
}

static void print_line(const char *label, const char *value)
{
    printf("  %-11s", label);
    term_print(value);
    putchar('\n');
}

static void print_files(const char *label, const cJSON *amount)
{
    char bytes[TERM_SIZE];
    term_bytes(number(amount, "bytes"), bytes);
    printf("  %-11s", label);
    term_print_count(number(amount, "files"), "file");
    printf(", %s\n", bytes);
}

static void print_reads(const cJSON *status)
{
    const cJSON *path = cJSON_GetObjectItemCaseSensitive(status, "read_path");
    const char *mode = text(path, "mode");
    const char *reason = text(path, "reason");
    const char *advice = text(path, "advice");
    bool fast = mode && strcmp(mode, "passthrough") == 0;
    print_line("reads",
               fast ? "passthrough: the kernel reads the cache's files itself" : "through the daemon (splice)");
    if (!fast && reason)
        print_line("  because", reason);
    if (!fast && advice)
        print_line("  faster", advice);
    if (number(status, "pushed_bytes") > 0) {
        char bytes[TERM_SIZE];
        term_bytes(number(status, "pushed_bytes"), bytes);
        printf("  %-11s%s ahead of readers\n", "pushed", bytes);
    }
}

static void print_index(const cJSON *index)
{
    const char *reason = text(index, "reason");
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(index, "in_memory"))) {
        const char *path = text(index, "path");
        print_line("index", path ? path : "?");
        return;
    }
    print_line("index", "in memory");
    if (reason)
        print_line("  because", reason);
}

static void print_status(const cJSON *status)
{
    const char *mountpoint = text(status, "mountpoint");
    const char *cache = text(status, "cache");
    const char *version = text(status, "version");
    term_print_title(mountpoint ? mountpoint : "?");
    putchar('\n');
    print_line("cache", cache ? cache : "?");
    if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(status, "cache_exists")))
        print_line("", "(not there yet)");
    printf("  %-11s", "contents");
    term_print_count(number(status, "repos"), "repo");
    fputs(", ", stdout);
    term_print_count(number(status, "snapshots"), "snapshot");
    putchar('\n');
    print_files("files", status);
    print_files("  on disk", cJSON_GetObjectItemCaseSensitive(status, "whole"));
    print_files("  absent", cJSON_GetObjectItemCaseSensitive(status, "absent"));
    print_reads(status);
    print_index(cJSON_GetObjectItemCaseSensitive(status, "index"));
    printf("  %-11s%.0f\n", "open files", number(status, "open_files"));
    printf("  %-11spid %.0f, modelmount %s\n", "process", number(status, "pid"), version ? version : "?");
}

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
    print_status(status);
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
