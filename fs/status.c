// SPDX-License-Identifier: Apache-2.0
#include "fs/status.h"

#include "cache/survey.h"
#include "fs/file.h"
#include "fs/passthrough.h"
#include "fs/push.h"

#include <cjson/cJSON.h>
#include <errno.h>
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

static int add_survey(struct fs *fs, cJSON *status)
{
    struct survey survey;
    int error = survey_all(fs->store, &survey);
    if (error < 0)
        return error;
    cJSON_AddNumberToObject(status, "repos", (double) survey.repos);
    cJSON_AddNumberToObject(status, "snapshots", (double) survey.snapshots);
    cJSON_AddNumberToObject(status, "files", (double) survey.files);
    cJSON_AddNumberToObject(status, "bytes", (double) survey.bytes);
    add_pair(status, "whole", survey.whole_files, survey.whole_bytes);
    add_pair(status, "absent", survey.absent_files, survey.absent_bytes);
    return 0;
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
    add_read_path(fs, status);
    cJSON_AddNumberToObject(status, "open_files", files_open(fs->files));
    cJSON_AddNumberToObject(status, "pushed_bytes", (double) push_bytes(fs->push));
    *ret_text = error == 0 ? cJSON_Print(status) : NULL;
    cJSON_Delete(status);
    return error < 0 ? error : *ret_text ? 0 : -ENOMEM;
}
