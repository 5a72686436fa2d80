// SPDX-License-Identifier: Apache-2.0
// `modelmount ls`: the repos of a cache, or of the cache behind a mount.
#include "cache/log.h"
#include "cache/store.h"
#include "cache/survey.h"
#include "cache/util.h"
#include "cli/address.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/mounts.h"
#include "cli/source.h"
#include "cli/status.h"
#include "cli/term.h"

#include <errno.h>
#include <string.h>

static const char help[] = "Usage: modelmount ls [--json] [MOUNTPOINT|SOURCE]\n"
                           "\n"
                           "Lists the repos of a mount or of a cache directory (default: the hub cache): type, id,\n"
                           "number of files, how many of them are absent, bytes on disk, revisions. A file that\n"
                           "several snapshots share counts in each of them.\n"
                           "\n"
                           "  --json      print a JSON array, with commits\n"
                           "  -h, --help  print this\n";

// What is printed of one repo.
struct row {
    struct repo repo;
    cJSON *refs;    // object: name to commit
    cJSON *commits; // array: those that no ref points at
    struct survey survey;
};

struct rows {
    struct row *list;
    size_t count;
};

static void rows_free(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        cJSON_Delete(rows->list[i].refs);
        cJSON_Delete(rows->list[i].commits);
    }
    free(rows->list);
}

static int add_ref(void *userdata, const char *ref, const char *commit)
{
    struct row *row = userdata;
    return cJSON_AddStringToObject(row->refs, ref, commit) ? 0 : -ENOMEM;
}

static int add_commit(void *userdata, const char *commit)
{
    struct row *row = userdata;
    const cJSON *ref;
    cJSON_ArrayForEach (ref, row->refs) {
        if (strcmp(ref->valuestring, commit) == 0)
            return 0;
    }
    return cJSON_AddItemToArray(row->commits, cJSON_CreateString(commit)) ? 0 : -ENOMEM;
}

static int add_repo(void *userdata, const struct repo *repo)
{
    struct rows *rows = userdata;
    struct row *grown = reallocarray(rows->list, rows->count + 1, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    rows->list = grown;
    grown[rows->count++] = (struct row){
        .repo = *repo,
        .refs = cJSON_CreateObject(),
        .commits = cJSON_CreateArray(),
    };
    return 0;
}

static int compare_rows(const void *a, const void *b)
{
    const struct row *one = a, *other = b;
    if (one->repo.type != other->repo.type)
        return one->repo.type < other->repo.type ? -1 : 1;
    return strcmp(one->repo.id, other->repo.id);
}

static int collect(struct store *store, struct rows *rows)
{
    const struct layout *layout = store_layout(store);
    int r = layout_repos(layout, add_repo, rows);
    if (rows->count > 0)
        qsort(rows->list, rows->count, sizeof *rows->list, compare_rows);
    for (size_t i = 0; i < rows->count && r == 0; i++) {
        struct row *row = &rows->list[i];
        r = layout_refs(layout, &row->repo, add_ref, row);
        if (r == 0)
            r = layout_commits(layout, &row->repo, add_commit, row);
        if (r == 0)
            r = survey_repo(store, &row->repo, &row->survey);
        if (r < 0)
            log_error("%s: %s", row->repo.id, strerror(-r));
    }
    return r;
}

// "main, refs/pr/1, 2 commits"; the caller frees it. NULL without memory.
static char *revisions_text(const struct row *row)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    const char *comma = "";
    const cJSON *ref;
    cJSON_ArrayForEach (ref, row->refs) {
        fprintf(out, "%s%s", comma, ref->string);
        comma = ", ";
    }
    int commits = cJSON_GetArraySize(row->commits);
    if (commits > 0)
        fprintf(out, "%s%d commit%s", comma, commits, commits == 1 ? "" : "s");
    fclose(out);
    return text;
}

static void print_table(const struct rows *rows)
{
    int id_width = 2;
    for (size_t i = 0; i < rows->count; i++) {
        int len = (int) strlen(rows->list[i].repo.id);
        id_width = len > id_width ? len : id_width;
    }
    char title[NAMES_ID_SIZE + 64];
    snprintf(title, sizeof title, "%-7s  %-*s  %8s  %8s  %9s  %s", "TYPE", id_width, "ID", "FILES", "ABSENT", "ON DISK",
             "REVISIONS");
    term_print_title(title);
    putchar('\n');
    for (size_t i = 0; i < rows->count; i++) {
        const struct row *row = &rows->list[i];
        char bytes[TERM_SIZE];
        term_bytes((double) row->survey.whole_bytes, bytes);
        _cleanup_free_ char *revisions = revisions_text(row);
        printf("%-7s  %-*s  %8lld  %8lld  %9s  ", names_type(row->repo.type), id_width, row->repo.id,
               (long long) row->survey.files, (long long) row->survey.absent_files, bytes);
        term_print(revisions ? revisions : "?");
        putchar('\n');
    }
}

static void add_amount(cJSON *object, const char *name, int64_t files, int64_t bytes)
{
    cJSON *amount = cJSON_AddObjectToObject(object, name);
    cJSON_AddNumberToObject(amount, "files", (double) files);
    cJSON_AddNumberToObject(amount, "bytes", (double) bytes);
}

static int print_json(struct rows *rows)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < rows->count; i++) {
        struct row *row = &rows->list[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "type", names_type(row->repo.type));
        cJSON_AddStringToObject(object, "id", row->repo.id);
        cJSON_AddItemToObject(object, "refs", util_take_ptr(row->refs));
        cJSON_AddItemToObject(object, "commits", util_take_ptr(row->commits));
        cJSON_AddNumberToObject(object, "snapshots", (double) row->survey.snapshots);
        cJSON_AddNumberToObject(object, "files", (double) row->survey.files);
        cJSON_AddNumberToObject(object, "bytes", (double) row->survey.bytes);
        add_amount(object, "whole", row->survey.whole_files, row->survey.whole_bytes);
        add_amount(object, "absent", row->survey.absent_files, row->survey.absent_bytes);
        cJSON_AddItemToArray(array, object);
    }
    char *text = cJSON_Print(array);
    cJSON_Delete(array);
    if (!text) {
        log_error("%s", strerror(ENOMEM));
        return EXIT_FAILURE;
    }
    puts(text);
    cJSON_free(text);
    return EXIT_SUCCESS;
}

static int list_cache(const char *cache, bool json)
{
    struct store *store;
    int r = store_open(&(struct store_options){ .cache_path = cache }, &store);
    if (r < 0) {
        log_error("%s: %s", cache, strerror(-r));
        return EXIT_FAILURE;
    }
    struct rows rows = { 0 };
    int code = collect(store, &rows) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    if (code == EXIT_SUCCESS && json)
        code = print_json(&rows);
    else if (code == EXIT_SUCCESS && rows.count > 0)
        print_table(&rows);
    rows_free(&rows);
    store_close(store);
    return code;
}

// The cache that the mount says it shows; the caller frees it. NULL with the message written.
static char *cache_of_mount(const struct mount *mount)
{
    cJSON *status;
    int r = control_status(mount, &status);
    if (r < 0) {
        status_say_failure(mount, r);
        return NULL;
    }
    const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(status, "cache"));
    char *cache = path ? strdup(path) : NULL;
    if (!cache)
        log_error("%s: the mount does not say what it shows", mount->mountpoint);
    cJSON_Delete(status);
    return cache;
}

static int find_cache(const char *path, char **ret_cache)
{
    if (path && address_is_hub(path, NULL)) {
        log_error("%s: a mount or a cache directory can be listed, not the Hub: mount it, then ls MOUNTPOINT", path);
        return EXIT_USAGE;
    }
    struct mount *mount = NULL;
    _cleanup_free_ char *real = NULL;
    if (path && mounts_resolve(path, &real) == 0 && mounts_find(real, &mount) == 0) {
        bool ours = mounts_is_ours(mount);
        if (ours)
            *ret_cache = cache_of_mount(mount);
        mounts_free(mount, 1);
        if (ours)
            return *ret_cache ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    return source_find(path, NULL, ret_cache);
}

int ls_main(int argc, char **argv)
{
    int json = 0;
    const char *path;
    int r = arguments_parse(argc, argv, "json", help, &json, &path);
    if (r != 0)
        return r == 1 ? EXIT_SUCCESS : r;
    _cleanup_free_ char *cache = NULL;
    r = find_cache(path, &cache);
    if (r == 0)
        r = source_check(cache, true);
    if (r == 0)
        r = list_cache(cache, json);
    return r;
}
