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
#include <math.h>
#include <string.h>

static const char help[] = "Usage: modelmount ls [--json] [MOUNTPOINT|CACHE]\n"
                           "\n"
                           "Lists the repos of a mount or of a cache directory (default: the hub cache): type, id,\n"
                           "number of files, how many of them are partial or absent, bytes on disk, revisions.\n"
                           "A file that several snapshots share counts in each of them.\n"
                           "\n"
                           "  --json      print a JSON array, with commits\n"
                           "  -h, --help  print this\n";

// What is printed of one repo.
struct row {
    struct repo repo;
    cJSON *refs;    // object: name to commit
    cJSON *commits; // array: those that no ref points at
    struct survey survey;
    int64_t partial_files;
    int64_t partial_bytes;
    int64_t present_bytes; // of these, those on disk
    const cJSON *detail;   // what a mount says of the repo; NULL: nothing
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

// "datasets/org/name", as a mount names repos. False when it is none.
static bool repo_from_text(const char *text, struct repo *ret_repo)
{
    char id[NAMES_ID_SIZE];
    for (int i = 0; text && i < NAMES_REPO_TYPES; i++) {
        size_t len = strlen(names_type_plural((enum repo_type) i));
        if (strncmp(text, names_type_plural((enum repo_type) i), len) != 0 || text[len] != '/' ||
            strlen(text + len + 1) >= sizeof id)
            continue;
        stpcpy(id, text + len + 1);
        char *slash = strchr(id, '/');
        if (slash)
            *slash = '\0';
        return names_repo_make((enum repo_type) i, slash ? id : NULL, slash ? slash + 1 : id, ret_repo);
    }
    return false;
}

static bool same_repo(const struct repo *a, const struct repo *b)
{
    return a->type == b->type && strcmp(a->id, b->id) == 0;
}

static int64_t count_of(const cJSON *detail, const char *what, const char *unit)
{
    const cJSON *amount = cJSON_GetObjectItemCaseSensitive(detail, what);
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(amount, unit);
    // Above 2^53 a number in JSON is no count.
    return cJSON_IsNumber(count) && fabs(count->valuedouble) < 0x1p53 ? (int64_t) count->valuedouble : 0;
}

// What a mount says of a repo, which it knows better than the disk alone tells.
static void take_detail(struct row *row)
{
    const cJSON *detail = row->detail;
    struct survey *survey = &row->survey;
    survey->whole_files = count_of(detail, "whole", "files");
    survey->whole_bytes = count_of(detail, "whole", "bytes");
    survey->absent_files = count_of(detail, "absent", "files");
    survey->absent_bytes = count_of(detail, "absent", "bytes");
    row->partial_files = count_of(detail, "partial", "files");
    row->partial_bytes = count_of(detail, "partial", "bytes");
    row->present_bytes = count_of(detail, "partial", "present_bytes");
    survey->files = survey->whole_files + row->partial_files + survey->absent_files;
    survey->bytes = survey->whole_bytes + row->partial_bytes + survey->absent_bytes;
}

// Finds the repos that the mount knows, and adds those that the cache's directory does not show yet.
static int add_details(struct rows *rows, const cJSON *details)
{
    const cJSON *detail;
    cJSON_ArrayForEach (detail, details) {
        struct repo repo;
        if (!repo_from_text(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(detail, "repo")), &repo))
            continue;
        size_t at = 0;
        while (at < rows->count && !same_repo(&rows->list[at].repo, &repo))
            at++;
        int r = at < rows->count ? 0 : add_repo(rows, &repo);
        if (r < 0)
            return r;
        rows->list[at].detail = detail;
    }
    return 0;
}

// A mount of one repo shows no other.
static void keep_only(struct rows *rows, const struct repo *repo)
{
    size_t kept = 0;
    for (size_t i = 0; i < rows->count; i++) {
        if (same_repo(&rows->list[i].repo, repo)) {
            rows->list[kept++] = rows->list[i];
            continue;
        }
        cJSON_Delete(rows->list[i].refs);
        cJSON_Delete(rows->list[i].commits);
    }
    rows->count = kept;
}

// `status` is the mount's, NULL without one.
static int collect_repos(struct store *store, const cJSON *status, struct rows *rows)
{
    int r = layout_repos(store_layout(store), add_repo, rows);
    if (r == 0)
        r = add_details(rows, cJSON_GetObjectItemCaseSensitive(status, "repos_detail"));
    struct repo only;
    if (repo_from_text(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(status, "repo")), &only))
        keep_only(rows, &only);
    if (rows->count > 0)
        qsort(rows->list, rows->count, sizeof *rows->list, compare_rows);
    return r;
}

static int collect(struct store *store, const cJSON *status, struct rows *rows)
{
    const struct layout *layout = store_layout(store);
    int r = collect_repos(store, status, rows);
    for (size_t i = 0; i < rows->count && r == 0; i++) {
        struct row *row = &rows->list[i];
        r = layout_refs(layout, &row->repo, add_ref, row);
        if (r == 0)
            r = layout_commits(layout, &row->repo, add_commit, row);
        if (r == 0)
            r = survey_repo(store, &row->repo, &row->survey);
        if (r == 0 && row->detail)
            take_detail(row);
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
    char title[NAMES_ID_SIZE + 80];
    snprintf(title, sizeof title, "%-7s  %-*s  %8s  %8s  %8s  %9s  %s", "TYPE", id_width, "ID", "FILES", "PARTIAL",
             "ABSENT", "ON DISK", "REVISIONS");
    term_print_title(title);
    putchar('\n');
    for (size_t i = 0; i < rows->count; i++) {
        const struct row *row = &rows->list[i];
        char bytes[TERM_SIZE];
        term_bytes((double) (row->survey.whole_bytes + row->present_bytes), bytes);
        _cleanup_free_ char *revisions = revisions_text(row);
        printf("%-7s  %-*s  %8lld  %8lld  %8lld  %9s  ", names_type(row->repo.type), id_width, row->repo.id,
               (long long) row->survey.files, (long long) row->partial_files, (long long) row->survey.absent_files,
               bytes);
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
        if (row->detail) {
            add_amount(object, "partial", row->partial_files, row->partial_bytes);
            cJSON_AddNumberToObject(cJSON_GetObjectItemCaseSensitive(object, "partial"), "present_bytes",
                                    (double) row->present_bytes);
        }
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

// `status` is that of the mount, NULL without one.
static int list_cache(const char *cache, const cJSON *status, bool json)
{
    struct store *store;
    int r = store_open(&(struct store_options){ .cache_path = cache }, &store);
    if (r < 0) {
        log_error("%s: %s", cache, strerror(-r));
        return EXIT_FAILURE;
    }
    struct rows rows = { 0 };
    int code = collect(store, status, &rows) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    if (code == EXIT_SUCCESS && json)
        code = print_json(&rows);
    else if (code == EXIT_SUCCESS && rows.count > 0)
        print_table(&rows);
    rows_free(&rows);
    store_close(store);
    return code;
}

// What the mount says of itself, and the cache that it says it shows. EXIT_FAILURE with the message written.
static int ask_mount(const struct mount *mount, cJSON **ret_status, char **ret_cache)
{
    int r = control_status(mount, ret_status);
    if (r < 0) {
        *ret_status = NULL;
        return status_say_failure(mount, r);
    }
    const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(*ret_status, "cache"));
    *ret_cache = path ? strdup(path) : NULL;
    if (*ret_cache)
        return EXIT_SUCCESS;
    log_error("%s: the mount does not say what it shows", mount->mountpoint);
    return EXIT_FAILURE;
}

static int find_cache(const char *path, cJSON **ret_status, char **ret_cache)
{
    if (path && address_is_hub(path, NULL)) {
        log_error("%s: a mount or a cache directory can be listed, not the Hub: mount it, then ls MOUNTPOINT", path);
        return EXIT_USAGE;
    }
    struct mount *mount = NULL;
    _cleanup_free_ char *real = NULL;
    if (path && mounts_resolve(path, &real) == 0 && mounts_find(real, &mount) == 0) {
        bool ours = mounts_is_ours(mount);
        int r = ours ? ask_mount(mount, ret_status, ret_cache) : EXIT_SUCCESS;
        mounts_free(mount, 1);
        if (ours)
            return r;
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
    cJSON *status = NULL;
    r = find_cache(path, &status, &cache);
    if (r == 0)
        r = source_check(cache, !status);
    if (r == 0)
        r = list_cache(cache, status, json);
    cJSON_Delete(status);
    return r;
}
