// SPDX-License-Identifier: Apache-2.0
// Against the test Hub (tests/hub/lines.py), which runs as a child process.
#include "cache/hub.h"
#include "cache/hub_token.h"
#include "cache/json_walk.h"
#include "cache/util.h"
#include "tests/unit/hub_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define tell hub_lines_tell
#define BIG 3000000
#define SHA256 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA1 "0123456789abcdef0123456789abcdef01234567"

static const char *const url = hub_lines.url, *const cdn_url = hub_lines.cdn_url;
static struct http *http;
static struct hub *hub;
static char commit[NAMES_COMMIT_SIZE];
static const struct repo repo = { REPO_MODEL, "org/name" };
static const struct repo missing = { REPO_MODEL, "org/missing" };

// How often `part` is in the Hub's log.
static int logged(const char *part)
{
    int count = 0;
    for (const char *s = tell("log"); (s = strstr(s, part)); s++)
        count++;
    return count;
}

static void new_hub(const char *endpoint, int timeout_ms)
{
    hub_free(hub);
    struct hub_options options = { .endpoint = endpoint, .timeout_ms = timeout_ms, .budget_ms = 1500, .pause_ms = 10 };
    assert_int_equal(hub_new(http, &options, &hub), 0);
}

static int start_all(void **state)
{
    (void) state;
    if (hub_lines_start() < 0)
        return -1;
    tell("add_token {\"token\":\"hf_good\",\"user\":\"me\"}");
    tell("repo {\"id\":\"org/private\",\"private\":true,\"readers\":[\"me\"],\"files\":{\"a\":\"x\",\"m.bin\":1000}}");
    tell("repo {\"id\":\"org/gated\",\"gated\":true,\"files\":{\"a\":\"x\"}}");
    tell("repo {\"id\":\"org/disabled\",\"disabled\":true,\"files\":{\"a\":\"x\"}}");
    hub_lines_string(tell("repo {\"id\":\"org/name\",\"files\":{\"config.json\":\"{\\\"a\\\": 1}\",\"empty\":\"\","
                          "\"s p/\xc3\xa9#?%%.txt\":\"odd\",\"m.safetensors\":%d,\"huge.bin\":30000000}}",
                          BIG),
                     0, commit, sizeof commit);
    return http_new(&(struct http_options){ 0 }, &http);
}

static int end_all(void **state)
{
    (void) state;
    hub_free(hub);
    http_free(http);
    hub_lines_stop();
    return 0;
}

static int fresh(void **state)
{
    (void) state;
    unsetenv("HF_TOKEN");
    tell("reset");
    new_hub(url, 300);
    return 0;
}

// ---- what comes back ----

struct got {
    struct hub_error error;
    int dones;
    char commit[NAMES_COMMIT_SIZE];
    int64_t date;
    int files;
    struct tree_file file; // "m.safetensors", or the last
    char names[4096];
    struct hub_file resolved;
    char url[1024];
    char *bytes;
    size_t len;
    int64_t first;
    int data_result;
    int pauses;
    struct hub_call *call;
};

static void note_done(struct got *got, const struct hub_error *error)
{
    got->dones++;
    got->error = *error;
}

static void on_revision(void *userdata, const struct hub_error *error, const char *sha)
{
    struct got *got = userdata;
    note_done(got, error);
    stpcpy(got->commit, sha);
}

static void on_date(void *userdata, const struct hub_error *error, int64_t date)
{
    struct got *got = userdata;
    note_done(got, error);
    got->date = date;
}

static int on_file(void *userdata, const struct tree_file *file)
{
    struct got *got = userdata;
    got->files++;
    if (strcmp(got->file.etag, "") == 0 || strlen(got->file.etag) == 40)
        got->file = *file;
    size_t len = strlen(got->names);
    snprintf(got->names + len, sizeof got->names - len, "%s|", file->path);
    return got->data_result;
}

static void on_done(void *userdata, const struct hub_error *error)
{
    note_done(userdata, error);
}

static int on_ref(void *userdata, const char *name, const char *sha)
{
    struct got *got = userdata;
    size_t len = strlen(got->names);
    snprintf(got->names + len, sizeof got->names - len, "%s|", name);
    stpcpy(got->commit, sha);
    return 0;
}

static void on_resolve(void *userdata, const struct hub_error *error, const struct hub_file *file)
{
    struct got *got = userdata;
    note_done(got, error);
    if (!file)
        return;
    got->resolved = *file;
    snprintf(got->url, sizeof got->url, "%s", file->url);
}

static int on_data(void *userdata, int64_t offset, const void *bytes, size_t len)
{
    struct got *got = userdata;
    if (got->pauses > 0) {
        got->pauses--;
        hub_resume(got->call);
        return HTTP_PAUSE;
    }
    assert_int_equal(offset, got->first + (int64_t) got->len);
    got->bytes = realloc(got->bytes, got->len + len);
    memcpy(got->bytes + got->len, bytes, len);
    got->len += len;
    return got->data_result;
}

static const struct hub_tree_handlers tree_handlers = { on_file, on_done };
static const struct hub_refs_handlers refs_handlers = { on_ref, on_done };
static const struct hub_get_handlers get_handlers = { on_data, on_done };

static void finish(struct got *got, struct hub_call *call, int expected)
{
    assert_int_equal(hub_wait(call, 20000), 0);
    hub_release(call);
    assert_int_equal(got->dones, 1);
    if (got->error.error != expected)
        fail_msg("%d instead of %d: %s", got->error.error, expected, got->error.text);
    assert_true((*got->error.text == '\0') == (expected == 0));
}

static struct got revision(const struct repo *which, const char *name, int expected)
{
    struct got got = { 0 };
    struct hub_call *call;
    assert_int_equal(hub_revision(hub, which, name, on_revision, &got, &call), 0);
    finish(&got, call, expected);
    return got;
}

static struct got tree(const struct repo *which, const char *sha, int expected)
{
    struct got got = { 0 };
    struct hub_call *call;
    assert_int_equal(hub_tree(hub, which, sha, &tree_handlers, &got, &call), 0);
    finish(&got, call, expected);
    return got;
}

static struct got resolve(const struct repo *which, const char *sha, const char *path, int expected)
{
    struct got got = { 0 };
    struct hub_call *call;
    assert_int_equal(hub_resolve(hub, which, sha, path, on_resolve, &got, &call), 0);
    finish(&got, call, expected);
    return got;
}

static void start_get(struct got *got, const char *path, int64_t first, int64_t last, int64_t size)
{
    got->first = first;
    struct hub_range range = { &repo, commit, path, first, last, size, NULL };
    assert_int_equal(hub_get(hub, &range, &get_handlers, got, &got->call), 0);
}

static struct got get(const char *path, int64_t first, int64_t last, int64_t size, int expected)
{
    struct got got = { 0 };
    start_get(&got, path, first, last, size);
    finish(&got, got.call, expected);
    return got;
}

static void assert_big(struct got *got, int64_t first, size_t len)
{
    assert_int_equal(got->len, len);
    const char *hex = tell("read {\"path\":\"m.safetensors\",\"size\":%d,\"offset\":%lld,\"length\":%zu}", BIG,
                           (long long) first, len);
    for (size_t i = 0; i < len; i++) {
        char digits[3] = { hex[1 + 2 * i], hex[2 + 2 * i], '\0' };
        if ((char) strtol(digits, NULL, 16) != got->bytes[i])
            fail_msg("byte %zu is wrong", i);
    }
    free(got->bytes);
    got->bytes = NULL;
}

static void get_big(int64_t first, int64_t last)
{
    struct got got = get("m.safetensors", first, last, BIG, 0);
    assert_big(&got, first, (size_t) (last - first + 1));
}

// ---- all is well ----

static void revisions_mean_commits(void **state)
{
    (void) state;
    static const char *const names[] = { "main", "v1.0", "feature/x", "refs/pr/1", "refs/convert/parquet" };
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(revision(&repo, names[i], 0).commit, commit);
    assert_string_equal(revision(&repo, commit, 0).commit, commit);
    assert_int_equal(logged("refs%2Fpr%2F1"), 1);
}

static void a_tree_has_all_files(void **state)
{
    (void) state;
    struct got got = tree(&repo, commit, 0);
    assert_int_equal(got.files, 5);
    assert_string_equal(got.names, "s p/\xc3\xa9#?%.txt|config.json|empty|huge.bin|m.safetensors|");
    assert_int_equal(strlen(got.file.etag), 64);
    assert_int_equal(strlen(got.file.xet_hash), 64);
}

static void a_large_tree_comes_in_pages(void **state)
{
    (void) state;
    char many[NAMES_COMMIT_SIZE];
    struct repo which = { REPO_MODEL, "org/many" };
    hub_lines_string(tell("many {\"id\":\"org/many\",\"count\":3500}"), 0, many, sizeof many);
    assert_int_equal(tree(&which, many, 0).files, 3500);
    assert_int_equal(logged("/tree/"), 4);
    // Pages that are cut off give no file twice.
    tell("fault {\"path\":\"/tree/\",\"skip\":1,\"times\":2,\"truncate_at\":50000}");
    assert_int_equal(tree(&which, many, 0).files, 3500);
    tell(
        "fault {\"path\":\"/tree/\",\"times\":1,\"headers\":{\"Link\":\"<http://evil.example/x>; rel=\\\"next\\\"\"}}");
    struct got got = tree(&which, many, -EPROTO);
    assert_non_null(strstr(got.error.text, "not on the endpoint"));
    tell("fault {\"path\":\"/tree/\",\"times\":null,\"headers\":{\"Link\":\"<?a>; rel=\\\"next\\\"\"}}");
    tree(&which, many, -ELOOP);
}

static void refs_and_dates(void **state)
{
    (void) state;
    struct got got = { 0 };
    struct hub_call *call;
    assert_int_equal(hub_refs(hub, &repo, &refs_handlers, &got, &call), 0);
    finish(&got, call, 0);
    assert_string_equal(got.names, "main|feature/x|v1.0|refs/convert/parquet|");
    assert_string_equal(got.commit, commit);
    got = (struct got){ 0 };
    assert_int_equal(hub_commit_date(hub, &repo, commit, on_date, &got, &call), 0);
    finish(&got, call, 0);
    assert_int_equal(got.date, 1709294400);
}

static void files_are_found(void **state)
{
    (void) state;
    struct got got = resolve(&repo, commit, "m.safetensors", 0);
    assert_int_equal(got.resolved.size, BIG);
    assert_int_equal(strlen(got.resolved.etag), 64);
    assert_memory_equal(got.url, cdn_url, strlen(cdn_url));
    assert_in_range(got.resolved.expires, time(NULL) + 3000, time(NULL) + 3700);
    assert_int_equal(logged("\"host\": \"cdn\""), 0);
    got = resolve(&repo, commit, "config.json", 0);
    assert_int_equal(got.resolved.size, 8);
    assert_int_equal(strlen(got.resolved.etag), 40);
    assert_non_null(strstr(got.url, "/api/resolve-cache/"));
    assert_int_equal(resolve(&repo, commit, "empty", 0).resolved.size, 0);
}

static void ranges_are_fetched(void **state)
{
    (void) state;
    get_big(0, BIG - 1);
    get_big(1234567, 2345678);
    get_big(BIG - 1, BIG - 1);
    struct got got = get("m.safetensors", BIG - 10, BIG + 1000, -1, 0);
    assert_big(&got, BIG - 10, 10);
    got = get("config.json", 0, 1000, 8, 0);
    assert_int_equal(got.len, 8);
    assert_memory_equal(got.bytes, "{\"a\": 1}", 8);
    free(got.bytes);
    got = get("s p/\xc3\xa9#?%.txt", 1, 1, 3, 0);
    assert_int_equal(got.bytes[0], 'd');
    free(got.bytes);
    assert_int_equal(get("empty", 0, 10, -1, 0).len, 0);
    get("m.safetensors", BIG, BIG + 5, BIG, -ERANGE);
    get("m.safetensors", BIG, BIG + 5, -1, -ERANGE);
}

static void a_signed_address_is_asked_for_once(void **state)
{
    (void) state;
    struct got got[8] = { 0 };
    for (int i = 0; i < 8; i++)
        start_get(&got[i], "m.safetensors", i * 1000, i * 1000 + 999, BIG);
    for (int i = 0; i < 8; i++) {
        finish(&got[i], got[i].call, 0);
        assert_big(&got[i], i * 1000, 1000);
    }
    get_big(0, 99);
    assert_int_equal(logged("/resolve/"), 1);
    assert_int_equal(logged("\"host\": \"cdn\""), 9);
}

static void what_one_is_told_all_who_wait_are_told(void **state)
{
    (void) state;
    tell("fault {\"path\":\"/resolve/\",\"delay\":0.2}");
    struct got got[8] = { 0 };
    for (int i = 0; i < 8; i++)
        start_get(&got[i], "none.bin", 0, 9, -1);
    for (int i = 0; i < 8; i++)
        finish(&got[i], got[i].call, -ENOENT);
    assert_int_equal(logged("/resolve/"), 1);
}

static void a_cancelled_leader_is_followed_by_the_next(void **state)
{
    (void) state;
    tell("fault {\"path\":\"/resolve/\",\"delay\":0.2}");
    struct got got[3] = { 0 };
    for (int i = 0; i < 3; i++)
        start_get(&got[i], "m.safetensors", i, i, BIG);
    usleep(50000);
    assert_true(hub_cancel(got[0].call));
    assert_true(hub_cancel(got[2].call));
    hub_release(got[0].call);
    hub_release(got[2].call);
    finish(&got[1], got[1].call, 0);
    assert_big(&got[1], 1, 1);
    assert_int_equal(got[0].dones + got[2].dones, 0);
}

static void a_reader_can_pause_and_stop(void **state)
{
    (void) state;
    // Its first piece is paused only once got.call is set.
    tell("fault {\"path\":\"/resolve/\",\"delay\":0.1}");
    struct got got = { .pauses = 20 };
    start_get(&got, "m.safetensors", 0, BIG - 1, BIG);
    finish(&got, got.call, 0);
    assert_big(&got, 0, BIG);
    got = (struct got){ .data_result = -ENOSPC };
    start_get(&got, "m.safetensors", 0, BIG - 1, BIG);
    finish(&got, got.call, -ENOSPC);
    free(got.bytes);
}

static void old_names_lead_to_new_ones(void **state)
{
    (void) state;
    struct repo old = { REPO_DATASET, "org/old" };
    char sha[NAMES_COMMIT_SIZE];
    hub_lines_string(tell("repo {\"id\":\"org/old\",\"type\":\"dataset\",\"files\":{\"a\":\"x\",\"b.bin\":10}}"), 0,
                     sha, sizeof sha);
    tell("rename {\"old\":\"org/old\",\"new\":\"org/new\",\"type\":\"dataset\"}");
    assert_string_equal(revision(&old, "main", 0).commit, sha);
    assert_int_equal(tree(&old, sha, 0).files, 2);
    assert_int_equal(resolve(&old, sha, "b.bin", 0).resolved.size, 10);
}

// ---- who may what ----

static void each_refusal_has_its_errno_and_sentence(void **state)
{
    (void) state;
    struct repo gated = { REPO_MODEL, "org/gated" };
    struct repo disabled = { REPO_MODEL, "org/disabled" };
    struct repo private = { REPO_MODEL, "org/private" };
    struct got got = revision(&missing, "main", -ENOENT);
    assert_int_equal(got.error.reason, HUB_NO_REPO);
    assert_non_null(strstr(got.error.text, "org/missing@main: repo missing or private"));
    assert_int_equal(revision(&private, "main", -ENOENT).error.reason, HUB_NO_REPO);
    assert_int_equal(revision(&repo, "no-such", -ENOENT).error.reason, HUB_NO_REVISION);
    assert_int_equal(get("no-such", 0, 1, -1, -ENOENT).error.reason, HUB_NO_ENTRY);
    char sha[NAMES_COMMIT_SIZE];
    stpcpy(sha, revision(&gated, "main", 0).commit);
    got = resolve(&gated, sha, "a", -EACCES);
    assert_non_null(strstr(got.error.text, "gated repo: accept its terms on the Hub, then set HF_TOKEN"));
    stpcpy(sha, revision(&disabled, "main", 0).commit);
    got = resolve(&disabled, sha, "a", -EACCES);
    assert_non_null(strstr(got.error.text, "disabled"));
    setenv("HF_TOKEN", "hf_bad", 1);
    got = revision(&repo, "main", -EACCES);
    assert_non_null(strstr(got.error.text, "does not know the token"));
    assert_null(strstr(got.error.text, "hf_bad"));
    setenv("HF_TOKEN", "hf_good", 1);
    assert_int_equal(revision(&missing, "main", -ENOENT).error.status, 404);
    resolve(&gated, commit, "a", -ENOENT);
    revision(&private, "main", 0);
    static const struct {
        int status, error;
    } others[] = { { 400, -EPROTO }, { 401, -ENOENT }, { 403, -EACCES }, { 404, -ENOENT },
                   { 410, -ENOENT }, { 418, -EPROTO }, { 451, -EACCES }, { 304, -EPROTO } };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        tell("fault {\"status\":%d}", others[i].status);
        assert_int_equal(revision(&repo, "main", others[i].error).error.status, others[i].status);
    }
}

static void the_token_goes_to_the_endpoint_alone(void **state)
{
    (void) state;
    setenv("HF_TOKEN", " hf_good\n", 1);
    get_big(0, 99);
    revision(&repo, "main", 0);
    assert_int_equal(logged("Bearer hf_good"), 2);
    assert_int_equal(logged("\"host\": \"cdn\""), 1);
    // Led elsewhere by the API as well; the same host by another name and port is another host.
    tell("clear_log");
    tell("fault {\"path\":\"/revision/\",\"status\":307,\"headers\":{\"Location\":\"%s/x\"}}", cdn_url);
    revision(&repo, "main", -EACCES);
    assert_int_equal(logged("\"host\": \"cdn\""), 1);
    assert_int_equal(logged("Bearer hf_good"), 1);
}

static void a_token_is_found_as_the_library_finds_it(void **state)
{
    (void) state;
    char dir[] = "/tmp/test_hub_XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[64];
    snprintf(path, sizeof path, "%s/token", dir);
    _cleanup_free_ char *one = NULL;
    setenv("HF_HOME", dir, 1);
    unsetenv("HF_TOKEN_PATH");
    assert_int_equal(hub_token_find(&one), 0);
    assert_null(one);
    for (int i = 0; i < 2; i++) { // read again when the file has changed
        FILE *file = fopen(path, "w");
        fprintf(file, "hf_%d\n", i);
        fclose(file);
        _cleanup_free_ char *token = NULL;
        assert_int_equal(hub_token_find(&token), 0);
        assert_non_null(token);
        assert_int_equal(token[3], '0' + i);
    }
    setenv("HF_TOKEN", "hf_a\r\nX: y", 1);
    assert_int_equal(hub_token_find(&one), 0);
    assert_null(one);
    setenv("HF_TOKEN", "hf_a", 1);
    setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes", 1);
    assert_int_equal(hub_token_find(&one), 0);
    assert_null(one);
    unsetenv("HF_HUB_DISABLE_IMPLICIT_TOKEN");
    unsetenv("HF_HOME");
    setenv("HF_TOKEN_PATH", "/nonexistent", 1);
    unlink(path);
    rmdir(dir);
}

static void offline_nothing_is_asked(void **state)
{
    (void) state;
    setenv("TRANSFORMERS_OFFLINE", "1", 1);
    new_hub(url, 300);
    assert_int_equal(revision(&repo, "main", -ENETUNREACH).error.reason, HUB_UNREACHABLE);
    unsetenv("TRANSFORMERS_OFFLINE");
    assert_int_equal(logged("\"method\""), 0);
    new_hub("http://127.0.0.1:1", 300);
    assert_non_null(strstr(revision(&repo, "main", -ENETUNREACH).error.text, "127.0.0.1 cannot be reached"));
    struct hub *none;
    assert_int_equal(hub_new(http, &(struct hub_options){ .endpoint = "file:///etc" }, &none), -EINVAL);
    assert_int_equal(hub_new(http, &(struct hub_options){ .endpoint = "huggingface.co" }, &none), -EINVAL);
}

// ---- trouble that passes, and trouble that stays ----

static void trouble_that_passes_is_not_seen(void **state)
{
    (void) state;
    for (int status = 500; status <= 504; status++) {
        tell("fault {\"status\":%d,\"times\":2}", status);
        get_big(0, 99);
        tell("fault {\"status\":%d,\"times\":2}", status);
        revision(&repo, "main", 0);
    }
    tell("fault {\"drop\":true,\"times\":2}");
    revision(&repo, "main", 0);
    tell("fault {\"path\":\"/revision/\",\"truncate_at\":20}");
    revision(&repo, "main", 0);
    tell("fault {\"path\":\"/revision/\",\"stall_at\":20}");
    revision(&repo, "main", 0);
}

static void what_was_cut_off_goes_on_where_it_stopped(void **state)
{
    (void) state;
    tell("fault {\"host\":\"cdn\",\"reset_at\":1000000}");
    tell("fault {\"host\":\"cdn\",\"truncate_at\":700000}");
    tell("fault {\"host\":\"cdn\",\"stall_at\":300000}");
    get_big(0, BIG - 1);
    assert_int_equal(logged("\"host\": \"cdn\""), 4);
    assert_int_equal(logged("bytes=0-2999999"), 2); // at the Hub, and where it led
}

static void trouble_that_stays_is_an_error(void **state)
{
    (void) state;
    tell("fault {\"status\":503,\"times\":null}");
    int64_t began = util_now_ms();
    struct got got = revision(&repo, "main", -EIO);
    assert_int_equal(got.error.reason, HUB_FAILING);
    assert_int_equal(got.error.status, 503);
    assert_in_range(util_now_ms() - began, 500, 3000);
    tell("reset");
    tell("fault {\"host\":\"cdn\",\"stall_at\":0,\"times\":null}");
    assert_int_equal(get("m.safetensors", 0, 99, BIG, -EIO).error.reason, HUB_FAILING);
    tell("reset");
    tell("fault {\"drop\":true,\"times\":null}");
    assert_int_equal(tree(&repo, commit, -EIO).error.reason, HUB_FAILING);
    // Meanwhile, others:
    tell("reset");
    tell("fault {\"path\":\"huge\",\"stall_at\":0,\"times\":null}");
    struct got slow = { 0 };
    start_get(&slow, "huge.bin", 0, 99, -1);
    began = util_now_ms();
    get_big(0, 99);
    assert_true(util_now_ms() - began < 250);
    assert_int_equal(hub_wait(slow.call, 100), slow.dones ? 0 : -ETIMEDOUT);
    hub_release(slow.call);
    free(slow.bytes);
}

static void limits_are_kept(void **state)
{
    (void) state;
    tell("fault {\"status\":429,\"headers\":{\"RateLimit\":\"\\\"api\\\";r=0;t=0\",\"Retry-After\":\"1000\"}}");
    int64_t began = util_now_ms();
    revision(&repo, "main", 0);
    assert_in_range(util_now_ms() - began, 1000, 1500);
    tell("fault {\"status\":429,\"headers\":{\"RateLimit\":\"\\\"api\\\";r=5;t=500\",\"Retry-After\":\"1\"}}");
    revision(&repo, "main", 0);
    tell("fault {\"status\":429}");
    revision(&repo, "main", 0);
    tell("fault {\"status\":429,\"headers\":{\"RateLimit\":\"\\\"api\\\";r=0;t=123\"}}");
    began = util_now_ms();
    struct got got = revision(&repo, "main", -EAGAIN);
    assert_int_equal(got.error.reason, HUB_LIMITED);
    assert_non_null(strstr(got.error.text, "in 124 s"));
    tell("clear_log");
    revision(&missing, "main", -EAGAIN); // not even asked
    assert_int_equal(logged("\"method\""), 0);
    get_big(0, 9); // another window
    assert_true(util_now_ms() - began < 500);
}

static void an_address_that_has_expired_is_asked_for_again(void **state)
{
    (void) state;
    tell("sign_for {\"seconds\":10.5}");
    get_big(0, 99);
    usleep(600000);
    tell("sign_for {\"seconds\":3600}");
    get_big(100, 199);
    assert_int_equal(logged("/resolve/"), 2);
    tell("fault {\"host\":\"cdn\",\"status\":403}");
    get_big(200, 299);
    assert_int_equal(logged("/resolve/"), 3);
    tell("fault {\"host\":\"cdn\",\"status\":403,\"times\":null}");
    assert_int_equal(get("m.safetensors", 0, 9, BIG, -EIO).error.reason, HUB_FAILING);
}

// ---- answers that are wrong ----

static void ranges_that_are_not_the_one_asked_for(void **state)
{
    (void) state;
    tell("fault {\"host\":\"cdn\",\"shift_range\":10}");
    get_big(100, 199);
    tell("fault {\"host\":\"cdn\",\"shift_range\":10,\"times\":null}");
    struct got got = get("m.safetensors", 100, 199, BIG, -EBADMSG);
    assert_int_equal(got.len, 0);
    static const char *const wrong[] = { "\"Content-Range\":null",
                                         "\"Content-Range\":\"bytes 0-99/5\"",
                                         "\"Content-Range\":\"bytes 100-199/3000001\"",
                                         "\"Content-Range\":\"bytes 100-99999999999999999999/*\"",
                                         "\"Content-Range\":\"pages 100-199/3000000\"",
                                         "\"Content-Encoding\":\"gzip\"" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tell("reset");
        tell("fault {\"host\":\"cdn\",\"headers\":{%s},\"times\":null}", wrong[i]);
        got = get("m.safetensors", 100, 199, BIG, -EBADMSG);
        assert_int_equal(got.len, 0);
        assert_int_equal(got.error.reason, HUB_NONSENSE);
    }
    tell("reset");
    tell("fault {\"host\":\"cdn\",\"headers\":{\"Content-Range\":\"bytes 100-199/*\"}}");
    get_big(100, 199);
    tell("fault {\"host\":\"cdn\",\"status\":416,\"times\":null}");
    get("m.safetensors", 100, 199, BIG, -EBADMSG);
}

static void a_whole_file_instead_of_a_range(void **state)
{
    (void) state;
    tell("fault {\"host\":\"cdn\",\"ignore_range\":true,\"times\":null}");
    get_big(0, 99);
    get_big(1000000, 1000099);
    get_big(BIG - 5, BIG - 1);
    struct got got = get("huge.bin", 29000000, 29000009, 30000000, -EOPNOTSUPP);
    assert_int_equal(got.error.reason, HUB_NO_RANGES);
    got = get("huge.bin", 0, 9, 30000001, -EBADMSG);
    assert_int_equal(got.len, 0);
}

static void what_the_endpoint_says_of_a_file_must_fit(void **state)
{
    (void) state;
    struct got got = { 0 };
    struct hub_range range = { &repo, commit, "m.safetensors", 0, 9, BIG, SHA256 };
    struct hub_call *call;
    assert_int_equal(hub_get(hub, &range, &get_handlers, &got, &call), 0);
    finish(&got, call, -EBADMSG);
    assert_int_equal(got.len, 0);
    assert_int_equal(get("m.safetensors", 0, 9, BIG + 1, -EBADMSG).len, 0);
    tell("fault {\"path\":\"/resolve/\",\"headers\":{\"X-Repo-Commit\":\"" SHA1 "\"},\"times\":null}");
    assert_int_equal(get("m.safetensors", 0, 9, BIG, -EBADMSG).len, 0);
    resolve(&repo, commit, "m.safetensors", -EBADMSG);
    tell("reset");
    // A mirror that leaves out all of it, with an ETag of its own.
    tell("fault {\"path\":\"/resolve/\",\"times\":null,\"headers\":{\"X-Repo-Commit\":null,\"X-Linked-Size\":null,"
         "\"X-Linked-ETag\":null,\"ETag\":\"\\\"65a-17\\\"\"}}");
    new_hub(url, 300);
    get_big(0, 9);
    range.etag = SHA256;
    got = (struct got){ 0 };
    assert_int_equal(hub_get(hub, &range, &get_handlers, &got, &call), 0);
    finish(&got, call, 0);
    assert_big(&got, 0, 10);
}

static void redirects_that_lead_nowhere(void **state)
{
    (void) state;
    static const char *const nowhere[] = { "file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:1/",
                                           "http://a:b@127.0.0.1/" };
    for (size_t i = 0; i < 4; i++) {
        tell("fault {\"path\":\"/resolve/\",\"status\":302,\"headers\":{\"Location\":\"%s\"}}", nowhere[i]);
        assert_int_equal(get("m.safetensors", 0, 9, BIG, -EPROTO).len, 0);
        tell("fault {\"path\":\"/revision/\",\"status\":302,\"headers\":{\"Location\":\"%s\"}}", nowhere[i]);
        revision(&repo, "main", -EPROTO);
    }
    tell("clear_log");
    tell("fault {\"status\":302,\"headers\":{\"Location\":\"/loop\"},\"times\":null}");
    assert_int_equal(get("m.safetensors", 0, 9, BIG, -ELOOP).error.reason, HUB_NONSENSE);
    assert_int_equal(logged("\"method\""), 11);
    revision(&repo, "main", -ELOOP);
}

static void a_revision_that_is_no_commit(void **state)
{
    (void) state;
    static const char *const bodies[] = { "<!DOCTYPE html><html>Log in</html>",
                                          "",
                                          "[]",
                                          "{}",
                                          "{\\\"sha\\\": \\\"main\\\"}",
                                          "{\\\"sha\\\": 5}",
                                          "{\\\"sha\\\": \\\"../../../../etc\\\"}",
                                          "{\\\"sha\\\": \\\"" SHA1 "\\\"} x",
                                          "{\\\"sha\\\": \\\"" SHA1 "\\\"",
                                          "{\\\"sha\\\": \\\"" SHA1 "\\\\u0000\\\"}" };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        tell("fault {\"path\":\"/revision/\",\"body\":\"%s\",\"headers\":{\"X-Repo-Commit\":null}}", bodies[i]);
        struct got got = revision(&repo, "main", -EBADMSG);
        assert_int_equal(got.error.reason, HUB_NONSENSE);
    }
    tell("fault {\"path\":\"/revision/\",\"body\":\"{\\\"sha\\\": \\\"" SHA1 "\\\"}\"}");
    revision(&repo, "main", -EBADMSG); // X-Repo-Commit names another
}

#define ENTRY(path, size, oid)                                                                                         \
    "[{\\\"type\\\":\\\"file\\\",\\\"path\\\":" path ",\\\"size\\\":" size ",\\\"oid\\\":\\\"" oid "\\\"}]"

static void trees_that_are_hostile(void **state)
{
    (void) state;
    static const char *const bodies[] = { ENTRY("\\\"../x\\\"", "1", SHA1),
                                          ENTRY("\\\"a/../../x\\\"", "1", SHA1),
                                          ENTRY("\\\"/etc/passwd\\\"", "1", SHA1),
                                          ENTRY("\\\"a//b\\\"", "1", SHA1),
                                          ENTRY("\\\"a\\\\u0000b\\\"", "1", SHA1),
                                          ENTRY("\\\"a\\\\ud800b\\\"", "1", SHA1),
                                          ENTRY("5", "1", SHA1),
                                          ENTRY("null", "1", SHA1),
                                          ENTRY("\\\"x\\\"", "-1", SHA1),
                                          ENTRY("\\\"x\\\"", "1.5", SHA1),
                                          ENTRY("\\\"x\\\"", "1e300", SHA1),
                                          ENTRY("\\\"x\\\"", "18446744073709551616", SHA1),
                                          ENTRY("\\\"x\\\"", "\\\"1\\\"", SHA1),
                                          ENTRY("\\\"x\\\"", "1", "../" SHA1),
                                          ENTRY("\\\"x\\\"", "1", ""),
                                          ENTRY("\\\"x\\\"", "1,\\\"lfs\\\":{\\\"oid\\\":\\\"y\\\"}", SHA1),
                                          ENTRY("\\\"x\\\"", "1,\\\"xetHash\\\":\\\"y\\\"", SHA1),
                                          "[5]",
                                          "[{}",
                                          "[{},]",
                                          "{\\\"error\\\": 1}",
                                          "<html>",
                                          "[{}]]" };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        tell("fault {\"path\":\"/tree/\",\"body\":\"%s\"}", bodies[i]);
        assert_int_equal(tree(&repo, commit, -EBADMSG).files, 0);
    }
    static const char *const harmless[] = {
        "[]", ENTRY("\\\"\\\"", "0", SHA1), "[{\\\"type\\\":\\\"submodule\\\",\\\"path\\\":\\\"x\\\"}]",
        "[{\\\"type\\\":\\\"directory\\\",\\\"path\\\":\\\"x\\\",\\\"size\\\":0}]"
    };
    for (size_t i = 0; i < 4; i++) {
        tell("fault {\"path\":\"/tree/\",\"body\":\"%s\"}", harmless[i]);
        assert_int_equal(tree(&repo, commit, 0).files, 0);
    }
    tell("fault {\"path\":\"/tree/\",\"body\":\"%s\"}", ENTRY("\\\"x\\\"", "9007199254740992", SHA1));
    assert_int_equal(tree(&repo, commit, 0).file.size, INT64_C(1) << 53);
    tell("fault {\"path\":\"/tree/\",\"body\":\"[\\\"%02000000d\\\"]\"}", 0);
    tree(&repo, commit, -E2BIG);
}

static int stop(void *userdata, const struct tree_file *file)
{
    struct got *got = userdata;
    (void) file;
    got->files++;
    assert_true(hub_cancel(got->call));
    return 0;
}

static void a_callback_may_cancel_its_own_call(void **state)
{
    (void) state;
    tell("fault {\"path\":\"/tree/\",\"delay\":0.1}");
    struct got got = { 0 };
    struct hub_tree_handlers stopping = { stop, on_done };
    assert_int_equal(hub_tree(hub, &repo, commit, &stopping, &got, &got.call), 0);
    assert_int_equal(hub_wait(got.call, 5000), 0);
    hub_release(got.call);
    assert_int_equal(got.files, 1);
    assert_int_equal(got.dones, 0);
}

static void what_is_left_ends_with_the_hub(void **state)
{
    (void) state;
    tell("fault {\"delay\":5,\"times\":null}");
    struct got got = { 0 };
    for (int i = 0; i < 10; i++)
        assert_int_equal(hub_revision(hub, &repo, "main", on_revision, &got, NULL), 0);
    hub_free(hub);
    hub = NULL;
    assert_int_equal(got.dones, 10);
    assert_int_equal(got.error.error, -ECANCELED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    const struct CMUnitTest tests[] = {
        TEST(revisions_mean_commits),
        TEST(a_tree_has_all_files),
        TEST(a_large_tree_comes_in_pages),
        TEST(refs_and_dates),
        TEST(files_are_found),
        TEST(ranges_are_fetched),
        TEST(a_signed_address_is_asked_for_once),
        TEST(what_one_is_told_all_who_wait_are_told),
        TEST(a_cancelled_leader_is_followed_by_the_next),
        TEST(a_reader_can_pause_and_stop),
        TEST(old_names_lead_to_new_ones),
        TEST(each_refusal_has_its_errno_and_sentence),
        TEST(the_token_goes_to_the_endpoint_alone),
        TEST(a_token_is_found_as_the_library_finds_it),
        TEST(offline_nothing_is_asked),
        TEST(trouble_that_passes_is_not_seen),
        TEST(what_was_cut_off_goes_on_where_it_stopped),
        TEST(trouble_that_stays_is_an_error),
        TEST(limits_are_kept),
        TEST(an_address_that_has_expired_is_asked_for_again),
        TEST(ranges_that_are_not_the_one_asked_for),
        TEST(a_whole_file_instead_of_a_range),
        TEST(what_the_endpoint_says_of_a_file_must_fit),
        TEST(redirects_that_lead_nowhere),
        TEST(a_revision_that_is_no_commit),
        TEST(trees_that_are_hostile),
        TEST(a_callback_may_cancel_its_own_call),
        TEST(what_is_left_ends_with_the_hub),
    };
    return cmocka_run_group_tests(tests, start_all, end_all);
}
