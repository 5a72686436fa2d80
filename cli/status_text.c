// SPDX-License-Identifier: Apache-2.0
#include "cli/status_text.h"

#include "cli/term.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FETCHING_SHOWN 10
#define REPOS_SHOWN 20
#define COMMIT_SHOWN 7 // digits of a commit

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static double number(const cJSON *object, const char *name)
{
    const cJSON *item = member(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

// NULL when there is no such string or it is empty.
static const char *text(const cJSON *object, const char *name)
{
    const cJSON *item = member(object, name);
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

static bool is_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(member(object, name));
}

static void print_bytes(double amount)
{
    char bytes[TERM_SIZE];
    term_bytes(amount, bytes);
    fputs(bytes, stdout);
}

// "1 file, 20.0 MB of 1.2 GB".
static void print_partial(const cJSON *amount)
{
    term_print_count(number(amount, "files"), "file");
    fputs(", ", stdout);
    print_bytes(number(amount, "present_bytes"));
    fputs(" of ", stdout);
    print_bytes(number(amount, "bytes"));
}

// What is known of one repo or of all, by where it is.
static void print_amounts(const cJSON *object)
{
    const cJSON *partial = member(object, "partial");
    print_files("  on disk", member(object, "whole"));
    if (number(partial, "files") > 0) {
        printf("  %-11s", "  partial");
        print_partial(partial);
        putchar('\n');
    }
    print_files("  absent", member(object, "absent"));
}

static void print_hub(const cJSON *status)
{
    const char *endpoint = text(status, "endpoint");
    const char *repo = text(status, "repo");
    const char *commit = text(status, "commit");
    if (endpoint) {
        printf("  %-11s", "hub");
        term_print(endpoint);
        puts(is_true(status, "offline") ? " (offline: nothing is fetched)" : "");
    }
    if (repo) {
        printf("  %-11s", "repo");
        term_print(repo);
        if (commit) {
            fputs(" at ", stdout);
            term_print(commit);
        }
        putchar('\n');
    }
}

static void print_network(const cJSON *status)
{
    const cJSON *network = member(status, "network");
    if (!network)
        return;
    printf("  %-11s", "network");
    print_bytes(number(network, "bytes"));
    fputs(" in ", stdout);
    term_print_count(number(network, "requests"), "request");
    if (number(network, "bytes_per_second") > 0) {
        fputs(", ", stdout);
        print_bytes(number(network, "bytes_per_second"));
        fputs("/s", stdout);
    }
    if (number(network, "retries") > 0)
        printf(", %.0f tried again", number(network, "retries"));
    if (number(network, "errors") > 0)
        printf(", %.0f failed", number(network, "errors"));
    putchar('\n');
    if (number(network, "waiting_reads") > 0) {
        printf("  %-11s", "waiting");
        term_print_count(number(network, "waiting_reads"), "read");
        putchar('\n');
    }
    if (number(status, "disk_bytes") > 0) {
        printf("  %-11s", "from disk");
        print_bytes(number(status, "disk_bytes"));
        putchar('\n');
    }
    if (number(network, "unkept_bytes") > 0) {
        printf("  %-11s", "not kept");
        print_bytes(number(network, "unkept_bytes"));
        puts(" handed on to readers without a place on disk");
    }
    if (is_true(network, "disk_full"))
        print_line("disk full", "files are still read, but not kept: make room (hf cache rm, hf cache prune)");
    const char *last_error = text(network, "last_error");
    if (last_error)
        print_line("last error", last_error);
}

// "  models/org/name@1234567: model.safetensors: 45 %, 450.0 MB of 1.0 GB, 20.0 MB/s".
static void print_fetched_file(const cJSON *file)
{
    const char *repo = text(file, "repo");
    const char *commit = text(file, "commit");
    const char *path = text(file, "path");
    double size = number(file, "size"), present = number(file, "present_bytes");
    printf("  %-11s", "");
    term_print(repo ? repo : "?");
    if (commit) {
        char digits[COMMIT_SHOWN + 1];
        snprintf(digits, sizeof digits, "%s", commit);
        putchar('@');
        term_print(digits);
    }
    fputs(": ", stdout);
    term_print(path ? path : "?");
    // Not rounded up: what is not whole is not 100 %.
    printf(": %d %%, ", size > 0 && present <= size ? (int) (present / size * 100) : 0);
    print_bytes(present);
    fputs(" of ", stdout);
    print_bytes(size);
    if (number(file, "bytes_per_second") > 0) {
        fputs(", ", stdout);
        print_bytes(number(file, "bytes_per_second"));
        fputs("/s", stdout);
    }
    putchar('\n');
}

static void print_repo(const cJSON *repo)
{
    const char *name = text(repo, "repo");
    const cJSON *partial = member(repo, "partial");
    printf("  %-11s", "");
    term_print(name ? name : "?");
    fputs(": ", stdout);
    term_print_count(number(member(repo, "whole"), "files"), "file");
    fputs(" on disk, ", stdout);
    print_bytes(number(member(repo, "whole"), "bytes"));
    if (number(partial, "files") > 0) {
        fputs("; partial: ", stdout);
        print_partial(partial);
    }
    const cJSON *absent = member(repo, "absent");
    if (number(absent, "files") > 0) {
        fputs("; absent: ", stdout);
        term_print_count(number(absent, "files"), "file");
        fputs(", ", stdout);
        print_bytes(number(absent, "bytes"));
    }
    putchar('\n');
}

// A title with the number of what follows, then the first of them.
static void print_list(const char *title, const cJSON *list, int shown, void (*print)(const cJSON *one))
{
    int count = cJSON_GetArraySize(list);
    if (count == 0)
        return;
    printf("  %-11s%d\n", title, count);
    const cJSON *one;
    int at = 0;
    cJSON_ArrayForEach (one, list) {
        if (at++ == shown)
            break;
        print(one);
    }
    if (count > shown)
        printf("  %-11s… and %d more: --json\n", "", count - shown);
}

static void print_reads(const cJSON *status)
{
    const cJSON *path = member(status, "read_path");
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
    if (!is_true(index, "in_memory")) {
        const char *path = text(index, "path");
        print_line("index", path ? path : "?");
        return;
    }
    print_line("index", "in memory");
    if (reason)
        print_line("  because", reason);
}

void status_text_print(const cJSON *status)
{
    const char *mountpoint = text(status, "mountpoint");
    const char *cache = text(status, "cache");
    const char *version = text(status, "version");
    term_print_title(mountpoint ? mountpoint : "?");
    putchar('\n');
    print_hub(status);
    print_line("cache", cache ? cache : "?");
    if (cJSON_IsFalse(member(status, "cache_exists")))
        print_line("", "(not there yet)");
    if (cJSON_IsFalse(member(status, "publish")))
        print_line("", "(nothing is added to it: what is fetched stays in the state directory)");
    printf("  %-11s", "contents");
    term_print_count(number(status, "repos"), "repo");
    fputs(", ", stdout);
    term_print_count(number(status, "snapshots"), "snapshot");
    putchar('\n');
    print_files("files", status);
    print_amounts(status);
    print_network(status);
    print_list("fetching", member(status, "fetching"), FETCHING_SHOWN, print_fetched_file);
    if (!text(status, "repo"))
        print_list("by repo", member(status, "repos_detail"), REPOS_SHOWN, print_repo);
    print_reads(status);
    print_index(member(status, "index"));
    printf("  %-11s%.0f\n", "open files", number(status, "open_files"));
    printf("  %-11spid %.0f, modelmount %s\n", "process", number(status, "pid"), version ? version : "?");
}
