// SPDX-License-Identifier: Apache-2.0
#include "cli/status_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

// What is printed of `json`; the caller frees it.
static char *printed(const char *json)
{
    cJSON *status = cJSON_Parse(json);
    assert_non_null(status);
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int real = dup(STDOUT_FILENO);
    assert_true(real >= 0 && dup2(fileno(file), STDOUT_FILENO) >= 0);
    status_text_print(status);
    fflush(stdout);
    assert_true(dup2(real, STDOUT_FILENO) >= 0);
    close(real);
    cJSON_Delete(status);
    long size = ftell(file);
    assert_true(fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0);
    rewind(file);
    char *text = calloc(1, (size_t) size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t) size, file), size);
    fclose(file);
    return text;
}

// Every line of `lines` stands in what is printed of `json`.
static void says(const char *json, const char *const lines[])
{
    char *text = printed(json);
    for (size_t i = 0; lines[i]; i++)
        if (!strstr(text, lines[i]))
            fail_msg("no \"%s\" in:\n%s", lines[i], text);
    free(text);
}

static void says_not(const char *json, const char *const words[])
{
    char *text = printed(json);
    for (size_t i = 0; words[i]; i++)
        if (strstr(text, words[i]))
            fail_msg("\"%s\" in:\n%s", words[i], text);
    free(text);
}

static void the_hub_and_the_repo(void **state)
{
    (void) state;
    says("{\"endpoint\":\"https://hub.corp\",\"offline\":false}",
         (const char *[]){ "  hub        https://hub.corp\n", NULL });
    says("{\"endpoint\":\"https://hub.corp\",\"offline\":true,\"publish\":false}",
         (const char *[]){ "https://hub.corp (offline", "stays in the state directory", NULL });
    says("{\"repo\":\"datasets/org/name\",\"commit\":\"0123456789012345678901234567890123456789\"}",
         (const char *[]){ "  repo       datasets/org/name at 0123456789012345678901234567890123456789\n", NULL });
}

static void a_mount_that_never_fetches_says_nothing_of_it(void **state)
{
    (void) state;
    says_not("{\"whole\":{\"files\":1,\"bytes\":2},\"partial\":{\"files\":0,\"bytes\":0,\"present_bytes\":0}}",
             (const char *[]){ "hub", "partial", "network", "fetching", "by repo", "disk full", NULL });
}

static void the_network(void **state)
{
    (void) state;
    says("{\"partial\":{\"files\":1,\"bytes\":1000000000,\"present_bytes\":450000000},\"disk_bytes\":3400000,"
         "\"network\":{\"bytes\":1200000,\"bytes_per_second\":20000000,\"requests\":130,\"retries\":2,\"errors\":1,"
         "\"waiting_reads\":3,\"unkept_bytes\":120000,\"last_error\":\"org/name: \\u001b[2J\",\"disk_full\":true}}",
         (const char *[]){ "    partial  1 file, 450.0 MB of 1.0 GB\n",
                           "  network    1.2 MB in 130 requests, 20.0 MB/s, 2 tried again, 1 failed\n",
                           "  waiting    3 reads\n", "  from disk  3.4 MB\n", "  not kept   120.0 kB ", "  disk full  ",
                           "hf cache rm", "  last error org/name: \\x1b[2J\n", NULL });
    says_not("{\"network\":{\"bytes\":0,\"requests\":1,\"last_error\":\"\",\"disk_full\":false}}",
             (const char *[]){ "requests", "/s", "waiting", "from disk", "not kept", "disk full", "last error", NULL });
}

#define FETCHED                                                                                                        \
    "{\"repo\":\"models/org/name\",\"commit\":\"0123456789\",\"path\":\"a.bin\",\"size\":1000,\"present_bytes\":999}"
#define TEN(x) x "," x "," x "," x "," x "," x "," x "," x "," x "," x

static void what_is_fetched(void **state)
{
    (void) state;
    says("{\"fetching\":[" TEN(FETCHED) "]}",
         (const char *[]){ "  fetching   10\n", "models/org/name@0123456: a.bin: 99 %, 999 B of 1.0 kB\n", NULL });
    says_not("{\"fetching\":[" TEN(FETCHED) "]}", (const char *[]){ "more", NULL });
    says("{\"fetching\":[" TEN(FETCHED) "," FETCHED "]}",
         (const char *[]){ "  fetching   11\n", "… and 1 more: --json\n", NULL });
    says("{\"fetching\":[{\"commit\":\"\\u001b[2J\",\"size\":0}]}", (const char *[]){ "?@\\x1b[2J: ?: 0 %", NULL });
    says("{\"fetching\":[{\"size\":0},{\"size\":1,\"present_bytes\":1e300},7]}", (const char *[]){ "?: ?: 0 %", NULL });
}

#define REPO                                                                                                           \
    "{\"repo\":\"models/org/name\",\"whole\":{\"files\":2,\"bytes\":10},\"partial\":{\"files\":1,\"bytes\":20,"        \
    "\"present_bytes\":5},\"absent\":{\"files\":3,\"bytes\":30}}"

static void repos(void **state)
{
    (void) state;
    says("{\"repos_detail\":[" REPO "]}",
         (const char *[]){
             "models/org/name: 2 files on disk, 10 B; partial: 1 file, 5 B of 20 B; absent: 3 files, 30 B\n", NULL });
    says("{\"repos_detail\":[" TEN(REPO) "," TEN(REPO) "," REPO "]}",
         (const char *[]){ "  by repo    21\n", "… and 1 more: --json\n", NULL });
    says_not("{\"repo\":\"models/org/name\",\"repos_detail\":[" REPO "]}", (const char *[]){ "by repo", NULL });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_hub_and_the_repo),
        cmocka_unit_test(a_mount_that_never_fetches_says_nothing_of_it),
        cmocka_unit_test(the_network),
        cmocka_unit_test(what_is_fetched),
        cmocka_unit_test(repos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
