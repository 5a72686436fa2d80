// SPDX-License-Identifier: Apache-2.0
#include "fs/status.h"

#include "cache/survey.h"
#include "fs/file.h"
#include "fs/passthrough.h"
#include "fs/push.h"
#include "fs/root.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void add_index(struct fs *fs, cJSON *status)
{
    char reason[256];
    bool in_memory = store_index_in_memory(fs->store, reason);
    cJSON *index = cJSON_AddObjectToObject(status, "index");
    cJSON_AddStringToObject(index, "path", in_memory ? "" : store_index_path(fs->store));
    cJSON_AddBoolToObject(index, "in_memory", in_memory);
    cJSON_AddStringToObject(index, "reason", reason);
}

static void add_pair(cJSON *status, const char *name, int64_t files, int64_t bytes)
{
    cJSON *pair = cJSON_AddObjectToObject(status, name);
    cJSON_AddNumberToObject(pair, "files", (double) files);
    cJSON_AddNumberToObject(pair, "bytes", (double) bytes);
}

static void add_partial(cJSON *status, const struct survey *survey)
{
    cJSON *partial = cJSON_AddObjectToObject(status, "partial");
    cJSON_AddNumberToObject(partial, "files", (double) survey->partial_files);
    cJSON_AddNumberToObject(partial, "bytes", (double) survey->partial_bytes);
    cJSON_AddNumberToObject(partial, "present_bytes", (double) survey->present_bytes);
}

// "models/org/name".
static void repo_text(const struct repo *repo, char ret_text[NAMES_ID_SIZE + 16])
{
    snprintf(ret_text, NAMES_ID_SIZE + 16, "%s/%s", names_type_plural(repo->type), repo->id);
}

static void add_repo(void *userdata, const struct repo *repo, const struct survey *survey)
{
    cJSON *details = userdata, *detail = cJSON_CreateObject();
    char text[NAMES_ID_SIZE + 16];
    repo_text(repo, text);
    cJSON_AddStringToObject(detail, "repo", text);
    add_pair(detail, "whole", survey->whole_files, survey->whole_bytes);
    add_partial(detail, survey);
    add_pair(detail, "absent", survey->absent_files, survey->absent_bytes);
    cJSON_AddItemToArray(details, detail);
}

static int add_survey(struct fs *fs, cJSON *status)
{
    struct survey sum;
    cJSON *details = cJSON_CreateArray();
    int error = survey_all(fs->store, add_repo, details, &sum);
    if (error < 0) {
        cJSON_Delete(details);
        return error;
    }
    cJSON_AddNumberToObject(status, "repos", (double) sum.repos);
    cJSON_AddNumberToObject(status, "snapshots", (double) sum.snapshots);
    cJSON_AddNumberToObject(status, "files", (double) sum.files);
    cJSON_AddNumberToObject(status, "bytes", (double) sum.bytes);
    add_pair(status, "whole", sum.whole_files, sum.whole_bytes);
    add_partial(status, &sum);
    add_pair(status, "absent", sum.absent_files, sum.absent_bytes);
    cJSON_AddItemToObject(status, "repos_detail", details);
    return 0;
}

static void add_progress(void *userdata, const struct fetch_progress *progress)
{
    cJSON *list = userdata, *one = cJSON_CreateObject();
    char text[NAMES_ID_SIZE + 16];
    repo_text(progress->repo, text);
    cJSON_AddStringToObject(one, "repo", text);
    cJSON_AddStringToObject(one, "commit", progress->commit);
    cJSON_AddStringToObject(one, "path", progress->path);
    cJSON_AddNumberToObject(one, "size", (double) progress->size);
    cJSON_AddNumberToObject(one, "present_bytes", (double) progress->present);
    cJSON_AddNumberToObject(one, "bytes_per_second", (double) progress->bytes_per_second);
    cJSON_AddItemToArray(list, one);
}

static void add_hub(struct fs *fs, cJSON *status)
{
    cJSON_AddStringToObject(status, "endpoint", store_endpoint(fs->store));
    cJSON_AddBoolToObject(status, "offline", !store_is_online(fs->store));
    cJSON_AddBoolToObject(status, "publish", fs->options->publish);
    if (fs->root) {
        char text[NAMES_ID_SIZE + 16];
        repo_text(root_repo(fs->root), text);
        cJSON_AddStringToObject(status, "repo", text);
        cJSON_AddStringToObject(status, "commit", root_commit(fs->root));
    }
    struct fetch_stats stats;
    fetch_stats(store_fetch(fs->store), &stats);
    cJSON *network = cJSON_AddObjectToObject(status, "network");
    cJSON_AddNumberToObject(network, "bytes", (double) stats.network_bytes);
    cJSON_AddNumberToObject(network, "bytes_per_second", (double) stats.bytes_per_second);
    cJSON_AddNumberToObject(network, "requests", (double) stats.requests);
    cJSON_AddNumberToObject(network, "retries", (double) stats.retries);
    cJSON_AddNumberToObject(network, "errors", (double) stats.errors);
    cJSON_AddNumberToObject(network, "waiting_reads", (double) stats.waiting_reads);
    cJSON_AddNumberToObject(network, "unkept_bytes", (double) stats.unkept_bytes);
    cJSON_AddStringToObject(network, "last_error", stats.last_error);
    cJSON_AddBoolToObject(network, "disk_full", stats.disk_full);
    cJSON_AddNumberToObject(status, "disk_bytes", (double) stats.disk_bytes);
    fetch_list(store_fetch(fs->store), add_progress, cJSON_AddArrayToObject(status, "fetching"));
}

static void add_read_path(struct fs *fs, cJSON *status)
{
    const char *reason, *advice;
    passthrough_explain(fs, &reason, &advice);
    cJSON *path = cJSON_AddObjectToObject(status, "read_path");
    cJSON_AddStringToObject(path, "mode", fs->passthrough ? "passthrough" : "splice");
    cJSON_AddStringToObject(path, "reason", reason);
    cJSON_AddStringToObject(path, "advice", advice);
}

int status_text(struct fs *fs, char **ret_text)
{
    cJSON *status = cJSON_CreateObject();
    cJSON_AddStringToObject(status, "version", MODELMOUNT_VERSION);
    cJSON_AddNumberToObject(status, "pid", getpid());
    cJSON_AddStringToObject(status, "mountpoint", fs->mountpoint);
    cJSON_AddStringToObject(status, "cache", fs->cache_path);
    cJSON_AddBoolToObject(status, "cache_exists", layout_exists(store_layout(fs->store)));
    add_index(fs, status);
    int error = add_survey(fs, status);
    add_hub(fs, status);
    add_read_path(fs, status);
    cJSON_AddNumberToObject(status, "open_files", files_open(fs->files));
    cJSON_AddNumberToObject(status, "pushed_bytes", (double) push_bytes(fs->push));
    *ret_text = error == 0 ? cJSON_Print(status) : NULL;
    cJSON_Delete(status);
    return error < 0 ? error : *ret_text ? 0 : -ENOMEM;
}
