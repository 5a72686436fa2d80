// SPDX-License-Identifier: Apache-2.0
// Questions to the test Hub (tests/hub/lines.py), which runs as a child process: each asked once, kept, asked again.
#include "cache/index_refs.h"
#include "cache/remote.h"
#include "cache/util.h"
#include "tests/unit/hub_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>

#define tell hub_lines_tell
#define OLD_COMMIT "0123456789abcdef0123456789abcdef01234567"
#define SHA1 "da39a3ee5e6b4b0d3255bfef95601890afd80709"
#define TTL_MS 60000

static const char *const url = hub_lines.url;
static struct http *http;
static struct hub *hub;
static struct index *ix;
static struct remote *remote;
static char commit[NAMES_COMMIT_SIZE];
static char log_path[] = "/tmp/modelmount-remote-XXXXXX";
static char index_file[sizeof log_path + 16];
static int log_fd, stderr_fd;
static const struct repo repo = { REPO_MODEL, "org/name" };
static const struct repo missing = { REPO_DATASET, "org/missing" };

// How many requests have `part` in their log entry.
static int requests(const char *part)
{
    int count = 0;
    for (const char *s = tell("log"); (s = strstr(s, part)); s++)
        count++;
    return count;
}

// How many lines of our own log have `part` in them.
static int logged(const char *part)
{
    char text[512];
    int count = 0;
    _cleanup_fclose_ FILE *file = fopen(log_path, "r");
    assert_non_null(file);
    while (fgets(text, sizeof text, file))
        count += strncmp(text, "modelmount: ", 12) == 0 && strstr(text, part) != NULL;
    return count;
}

static int start_all(void **state)
{
    (void) state;
    if (hub_lines_start() < 0)
        return -1;
    log_fd = mkostemp(log_path, O_APPEND);
    stderr_fd = dup(2);
    if (log_fd < 0 || stderr_fd < 0)
        return -1;
    hub_lines_string(
        tell("repo {\"id\":\"org/name\",\"files\":{\"config.json\":\"{}\",\"sub/m.safetensors\":3000000}}"), 0, commit,
        sizeof commit);
    return http_new(&(struct http_options){ 0 }, &http);
}

static int end_all(void **state)
{
    (void) state;
    http_free(http);
    unlink(log_path);
    close(log_fd);
    close(stderr_fd);
    hub_lines_stop();
    return 0;
}

static void close_remote(void)
{
    remote_free(remote);
    hub_free(hub);
    remote = NULL;
    hub = NULL;
}

static void open_remote(const char *endpoint, bool offline, int ttl_ms, int wait_ms)
{
    close_remote();
    struct hub_options how = {
        .endpoint = endpoint, .offline = offline, .timeout_ms = 3000, .budget_ms = 300, .pause_ms = 10
    };
    assert_int_equal(hub_new(http, &how, &hub), 0);
    struct remote_options options = { .ref_ttl_ms = ttl_ms, .wait_ms = wait_ms };
    assert_int_equal(remote_new(hub, ix, &options, &remote), 0);
}

static int fresh(void **state)
{
    (void) state;
    tell("reset");
    tell("clear_log");
    assert_int_equal(ftruncate(log_fd, 0), 0);
    dup2(log_fd, 2);
    snprintf(index_file, sizeof index_file, "%s.db", log_path);
    assert_int_equal(index_open(index_file, "/cache", &ix), 0);
    open_remote(url, false, TTL_MS, 0);
    return 0;
}

static int over(void **state)
{
    (void) state;
    close_remote();
    index_close(ix);
    ix = NULL;
    static const char *const suffixes[] = { "", "-wal", "-shm" };
    for (int i = 0; i < 3; i++) {
        snprintf(index_file, sizeof index_file, "%s.db%s", log_path, suffixes[i]);
        unlink(index_file);
    }
    dup2(stderr_fd, 2);
    return 0;
}

// ---- asking, and waiting for the answer ----

struct waiting {
    struct remote_waiter waiter; // first
    sem_t woken;
    atomic_int calls;
};

static void on_woken(struct remote_waiter *waiter)
{
    struct waiting *w = (struct waiting *) waiter;
    w->calls++;
    sem_post(&w->woken);
}

static void await(uint64_t seen)
{
    struct waiting w = { .waiter = { .fn = on_woken } };
    sem_init(&w.woken, 0, 0);
    remote_wait(remote, seen, &w.waiter);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    if (sem_timedwait(&w.woken, &until) != 0)
        fail_msg("no answer in 20 s");
    assert_int_equal(w.calls, 1);
    sem_destroy(&w.woken);
}

#define UNTIL_ANSWERED(call)                                                                                           \
    ({                                                                                                                 \
        int answer_;                                                                                                   \
        uint64_t seen_ = remote_answers(remote);                                                                       \
        while ((answer_ = (call)) == -EINPROGRESS) {                                                                   \
            await(seen_);                                                                                              \
            seen_ = remote_answers(remote);                                                                            \
        }                                                                                                              \
        answer_;                                                                                                       \
    })

static int ask_ref(const struct repo *which, const char *ref, char ret_commit[NAMES_COMMIT_SIZE])
{
    return UNTIL_ANSWERED(remote_ref(remote, which, ref, false, ret_commit, NULL));
}

static int ask_tree(const struct repo *which, const char *sha, struct index_tree *ret_tree)
{
    assert_int_equal(index_tree(ix, which, sha, ret_tree), 0);
    return UNTIL_ANSWERED(remote_tree(remote, which, sha, ret_tree));
}

// Waits until nothing is under way any more, that is until the requests with `part` are so many.
static void settle(const char *part, int count)
{
    for (int i = 0; i < 200 && requests(part) < count; i++)
        usleep(10000);
    usleep(50000);
    assert_int_equal(requests(part), count);
}

static int64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// ---- refs ----

static void *ask_main(void *userdata)
{
    char got[NAMES_COMMIT_SIZE];
    atomic_int *good = userdata;
    if (ask_ref(&repo, "main", got) == 0 && strcmp(got, commit) == 0)
        ++*good;
    return NULL;
}

static void a_hundred_who_ask_at_once_make_one_request(void **state)
{
    (void) state;
    tell("fault {\"path\":\"/revision/\",\"delay\":0.1}");
    pthread_t threads[100];
    atomic_int good = 0;
    for (int i = 0; i < 100; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_main, &good), 0);
    for (int i = 0; i < 100; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(good, 100);
    assert_int_equal(requests("/revision/"), 1);
    // Whoever looks up a ref will look inside.
    settle("/tree/", 1);
    settle("/commits/", 1);
    struct index_tree tree;
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_int_equal(requests("/tree/"), 1);
}

static void an_answer_is_kept_with_its_time(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    int64_t seen = 0;
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    open_remote(url, false, TTL_MS, 0);
    assert_int_equal(remote_ref(remote, &repo, "main", true, got, &seen), 0);
    assert_string_equal(got, commit);
    assert_in_range(seen, real_ms() - 10000, real_ms());
    assert_int_equal(requests("/revision/"), 1);
}

static void a_no_is_kept_and_said_of_all_of_the_repo(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE], text[512];
    assert_false(remote_is_missing(remote, &missing));
    assert_int_equal(ask_ref(&missing, "main", got), -ENOENT);
    assert_true(remote_is_missing(remote, &missing));
    assert_int_equal(remote_ref(remote, &missing, "main", false, got, NULL), -ENOENT);
    assert_int_equal(remote_ref(remote, &missing, "other", true, got, NULL), -ENOENT);
    assert_int_equal(remote_refs(remote, &missing), -ENOENT);
    struct index_tree tree;
    assert_int_equal(index_tree(ix, &missing, commit, &tree), 0);
    assert_int_equal(remote_tree(remote, &missing, commit, &tree), -ENOENT);
    assert_int_equal(remote_date(remote, &missing, commit, &tree), 0);
    assert_int_equal(requests("\"method\""), 1);
    assert_int_equal(logged("missing or private"), 1);
    remote_error(remote, &missing, text);
    assert_non_null(strstr(text, "datasets/org/missing@main: repo missing or private"));

    assert_int_equal(ask_ref(&repo, "no-such", got), -ENOENT);
    assert_int_equal(remote_ref(remote, &repo, "no-such", true, got, NULL), -ENOENT);
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_false(remote_is_missing(remote, &repo));
    assert_int_equal(requests("no-such"), 1);
    assert_int_equal(logged("no-such: no such revision"), 1);
}

static void a_repo_that_has_come_is_no_longer_missing(void **state)
{
    (void) state;
    const struct repo late = { REPO_MODEL, "org/late" };
    char got[NAMES_COMMIT_SIZE];
    open_remote(url, false, 1, 0); // and so a second
    assert_int_equal(ask_ref(&late, "main", got), -ENOENT);
    assert_true(remote_is_missing(remote, &late));
    tell("repo {\"id\":\"org/late\",\"files\":{\"a\":\"x\"}}");
    usleep(1100000);
    assert_false(remote_is_missing(remote, &late));
    assert_int_equal(ask_ref(&late, "main", got), 0);
    assert_false(remote_is_missing(remote, &late));
}

static void a_stale_ref_is_answered_at_once_and_asked_again_behind(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    assert_int_equal(index_ref_set(ix, &repo, "main", OLD_COMMIT, real_ms() - TTL_MS - 1000), 0);
    uint64_t seen = remote_answers(remote);
    assert_int_equal(remote_ref(remote, &repo, "main", false, got, NULL), 0);
    assert_string_equal(got, OLD_COMMIT);
    await(seen);
    assert_int_equal(remote_ref(remote, &repo, "main", false, got, NULL), 0);
    assert_string_equal(got, commit);

    // Who wants it fresh waits.
    assert_int_equal(index_ref_set(ix, &repo, "main", OLD_COMMIT, real_ms() - TTL_MS - 1000), 0);
    usleep(1100000);
    assert_int_equal(remote_ref(remote, &repo, "main", true, got, NULL), -EINPROGRESS);
    assert_int_equal(UNTIL_ANSWERED(remote_ref(remote, &repo, "main", true, got, NULL)), 0);
    assert_string_equal(got, commit);

    // Gone from the Hub: gone here.
    assert_int_equal(index_ref_set(ix, &repo, "gone", OLD_COMMIT, 5), 0);
    seen = remote_answers(remote);
    assert_int_equal(remote_ref(remote, &repo, "gone", false, got, NULL), 0);
    await(seen);
    assert_int_equal(ask_ref(&repo, "gone", got), -ENOENT);
    assert_int_equal(index_ref(ix, &repo, "gone", got, NULL), -ENOENT);
}

static void a_stale_ref_is_kept_while_the_hub_fails(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    assert_int_equal(index_ref_set(ix, &repo, "main", OLD_COMMIT, 5), 0);
    tell("fault {\"status\":503,\"times\":null}");
    for (int want_fresh = 0; want_fresh < 2; want_fresh++) {
        assert_int_equal(UNTIL_ANSWERED(remote_ref(remote, &repo, "main", want_fresh, got, NULL)), 0);
        assert_string_equal(got, OLD_COMMIT);
    }
    assert_int_equal(ask_ref(&repo, "other", got), -EIO);
    int asked = requests("/revision/");
    assert_int_equal(ask_ref(&repo, "other", got), -EIO);
    assert_int_equal(requests("/revision/"), asked);
    assert_int_equal(logged("org/name@other: the server keeps failing"), 1);
}

static int note_ref(void *userdata, const char *ref, const char *sha)
{
    assert_string_equal(sha, commit);
    snprintf((char *) userdata + strlen(userdata), 200 - strlen(userdata), "%s ", ref);
    return 0;
}

static void all_refs_come_at_once(void **state)
{
    (void) state;
    char text[200] = "", got[NAMES_COMMIT_SIZE];
    assert_int_equal(index_ref_set(ix, &repo, "gone", OLD_COMMIT, 5), 0);
    assert_int_equal(UNTIL_ANSWERED(remote_refs(remote, &repo)), 0);
    assert_int_equal(remote_refs(remote, &repo), 0);
    assert_int_equal(index_refs(ix, &repo, note_ref, text), 0);
    assert_string_equal(text, "feature/x main refs/convert/parquet v1.0 ");
    assert_int_equal(remote_ref(remote, &repo, "v1.0", true, got, NULL), 0);
    assert_int_equal(requests("\"method\""), 1);
    assert_true(index_knows_repo(ix, &repo));
}

// ---- trees and dates ----

static void a_tree_comes_into_the_index_with_its_date(void **state)
{
    (void) state;
    struct index_tree tree;
    struct entry e;
    tell("fault {\"path\":\"/commits/\",\"delay\":0.3}");
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_true(tree.complete && tree.from_hub);
    assert_int_equal(tree.date, 1709294400);
    assert_int_equal(index_entry_named(ix, tree.id, 0, "sub", &e), 0);
    assert_int_equal(index_entry_named(ix, tree.id, e.ordinal, "m.safetensors", &e), 0);
    assert_int_equal(e.size, 3000000);
    assert_int_equal(strlen(e.etag), 64);
    assert_int_equal(strlen(e.xet_hash), 64);
    assert_int_equal(index_tree(ix, &repo, commit, &tree), 0);
    assert_true(tree.complete);
    assert_int_equal(remote_tree(remote, &repo, commit, &tree), 0);
    assert_int_equal(remote_date(remote, &repo, commit, &tree), 0);
    assert_int_equal(requests("\"method\""), 2);
}

static void a_large_tree_is_all_there(void **state)
{
    (void) state;
    const struct repo which = { REPO_MODEL, "org/many" };
    char many[NAMES_COMMIT_SIZE];
    struct index_tree tree;
    hub_lines_string(tell("many {\"id\":\"org/many\",\"count\":3500}"), 0, many, sizeof many);
    assert_int_equal(ask_tree(&which, many, &tree), 0);
    struct entry *files = calloc(4000, sizeof *files);
    assert_int_equal(index_files(ix, tree.id, 0, files, 4000), 3500);
    free(files);
}

static void a_mirror_without_dates_is_not_asked_twice(void **state)
{
    (void) state;
    struct index_tree tree;
    tell("fault {\"path\":\"/commits/\",\"status\":404,\"times\":null}");
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_true(tree.complete);
    assert_true(tree.date == INDEX_NO_DATE);
    assert_int_equal(remote_date(remote, &repo, commit, &tree), 0);
    assert_int_equal(requests("/commits/"), 1);
    assert_int_equal(logged(""), 0);
}

static void a_slow_date_is_not_waited_for(void **state)
{
    (void) state;
    struct index_tree tree;
    tell("fault {\"path\":\"/commits/\",\"delay\":3.5}");
    // Else the silence would end the request.
    close_remote();
    struct hub_options how = { .endpoint = url, .timeout_ms = 5000 };
    assert_int_equal(hub_new(http, &how, &hub), 0);
    assert_int_equal(remote_new(hub, ix, &(struct remote_options){ .ref_ttl_ms = TTL_MS }, &remote), 0);
    int64_t began = util_now_ms();
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_in_range(util_now_ms() - began, REMOTE_DATE_WAIT_MS, 3400);
    assert_true(tree.date == INDEX_NO_DATE);
    for (int i = 0; i < 100 && tree.date == INDEX_NO_DATE; i++) {
        usleep(50000);
        assert_int_equal(index_tree(ix, &repo, commit, &tree), 0);
    }
    assert_int_equal(remote_date(remote, &repo, commit, &tree), 0);
    assert_int_equal(tree.date, 1709294400);
    assert_int_equal(requests("/commits/"), 1);
}

#define FILE_ENTRY(path)                                                                                               \
    "{\\\"type\\\":\\\"file\\\",\\\"path\\\":\\\"" path "\\\",\\\"size\\\":1,\\\"oid\\\":\\\"" SHA1 "\\\"}"

static void a_bad_list_leaves_nothing(void **state)
{
    (void) state;
    static const char *const bodies[] = {
        "[" FILE_ENTRY("good") "," FILE_ENTRY("../evil") "]",
        "[" FILE_ENTRY("good") "," FILE_ENTRY("a/b") "," FILE_ENTRY("a") "]",
        "[" FILE_ENTRY("twice") "," FILE_ENTRY("twice") "]",
    };
    for (int i = 0; i < 3; i++) {
        char text[512];
        struct index_tree tree;
        struct entry e[4];
        open_remote(url, false, TTL_MS, 0); // which knows nothing of the last one's failure
        tell("fault {\"path\":\"/tree/\",\"body\":\"%s\"}", bodies[i]);
        assert_int_equal(ask_tree(&repo, commit, &tree), -EBADMSG);
        assert_int_equal(remote_tree(remote, &repo, commit, &tree), -EBADMSG);
        assert_int_equal(index_tree(ix, &repo, commit, &tree), 0);
        assert_false(tree.complete);
        assert_int_equal(index_entries(ix, tree.id, 0, "", e, 4), 0);
        remote_error(remote, &repo, text);
        assert_non_null(strstr(text, "nothing of this list is used"));
        assert_non_null(strstr(text, commit));
        assert_int_equal(logged("nothing of this list is used"), i + 1);
    }
    assert_int_equal(logged("lists \"a\" twice, or as both"), 1);
    assert_false(index_knows_repo(ix, &repo));
}

static void a_lost_index_is_filled_anew(void **state)
{
    (void) state;
    struct index_tree tree;
    char got[NAMES_COMMIT_SIZE];
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_int_equal(UNTIL_ANSWERED(remote_refs(remote, &repo)), 0);
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_true(index_forget(ix, index_generation(ix)));
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_string_equal(got, commit);
    assert_int_equal(remote_refs(remote, &repo), -EINPROGRESS);
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_true(tree.complete);
    assert_int_equal(tree.date, 1709294400);
}

static void an_index_that_cannot_be_written_is_the_callers_to_forget(void **state)
{
    (void) state;
    struct index_tree tree;
    tell("fault {\"path\":\"/tree/\",\"delay\":0.3}");
    assert_int_equal(index_tree(ix, &repo, commit, &tree), 0);
    assert_int_equal(remote_tree(remote, &repo, commit, &tree), -EINPROGRESS);
    sqlite3 *db;
    snprintf(index_file, sizeof index_file, "%s.db", log_path);
    assert_int_equal(sqlite3_open(index_file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(db, 5000), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DROP TABLE entry", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    unsigned generation = index_generation(ix);
    assert_int_equal(UNTIL_ANSWERED(remote_tree(remote, &repo, commit, &tree)), -EUCLEAN);
    assert_true(index_forget(ix, generation));
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    assert_true(tree.complete);
}

// ---- no Hub ----

static void a_refusal_is_kept_for_a_while(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE], text[512];
    tell("fault {\"status\":403,\"times\":null}");
    assert_int_equal(ask_ref(&repo, "main", got), -EACCES);
    assert_int_equal(remote_ref(remote, &repo, "main", true, got, NULL), -EACCES);
    assert_int_equal(requests("\"method\""), 1);
    assert_int_equal(logged("org/name@main: forbidden"), 1);
    remote_error(remote, &repo, text);
    assert_non_null(strstr(text, "org/name@main: forbidden"));
    tell("reset");
    assert_int_equal(ask_ref(&repo, "v1.0", got), 0);
}

static void offline_what_is_known_is_answered_and_nothing_asked(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE], text[512];
    struct index_tree tree;
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_int_equal(ask_tree(&repo, commit, &tree), 0);
    tell("clear_log");
    open_remote(url, true, 0, 0);
    assert_int_equal(remote_ref(remote, &repo, "main", true, got, NULL), 0);
    assert_string_equal(got, commit);
    tree.complete = false;
    assert_int_equal(remote_tree(remote, &repo, commit, &tree), 0);
    assert_true(tree.complete);
    assert_int_equal(remote_ref(remote, &repo, "v1.0", false, got, NULL), -ENETUNREACH);
    assert_int_equal(remote_refs(remote, &repo), -ENETUNREACH);
    assert_int_equal(index_tree(ix, &repo, OLD_COMMIT, &tree), 0);
    assert_int_equal(remote_tree(remote, &repo, OLD_COMMIT, &tree), -ENETUNREACH);
    assert_int_equal(remote_date(remote, &repo, OLD_COMMIT, &tree), 0);
    remote_error(remote, &repo, text);
    assert_non_null(strstr(text, "offline"));
    assert_int_equal(requests("\"method\""), 0);
}

static void a_hub_that_cannot_be_reached_is_let_alone_for_a_while(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE], text[512];
    struct index_tree tree;
    open_remote("http://127.0.0.1:1", false, TTL_MS, 0);
    assert_int_equal(ask_ref(&repo, "main", got), -ENETUNREACH);
    int64_t began = util_now_ms();
    assert_int_equal(remote_ref(remote, &repo, "v1.0", true, got, NULL), -ENETUNREACH);
    assert_int_equal(remote_refs(remote, &missing), -ENETUNREACH);
    assert_int_equal(index_tree(ix, &missing, commit, &tree), 0);
    assert_int_equal(remote_tree(remote, &missing, commit, &tree), -ENETUNREACH);
    assert_int_equal(index_ref_set(ix, &repo, "known", OLD_COMMIT, 5), 0);
    assert_int_equal(remote_ref(remote, &repo, "known", true, got, NULL), 0);
    assert_true(util_now_ms() - began < 500);
    remote_error(remote, &missing, text);
    assert_non_null(strstr(text, "datasets/org/missing: 127.0.0.1 could not be reached"));
    assert_false(remote_is_missing(remote, &missing));
    assert_int_equal(logged("cannot be reached"), 1);
}

static void a_late_answer_takes_the_place_of_none(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    open_remote(url, false, TTL_MS, 600);
    tell("fault {\"path\":\"/revision/main\",\"delay\":1.8}");
    int64_t began = util_now_ms();
    assert_int_equal(remote_ref(remote, &repo, "main", false, got, NULL), -EINPROGRESS);
    assert_int_equal(ask_ref(&repo, "v1.0", got), 0); // so the Hub is there
    assert_int_equal(ask_ref(&repo, "main", got), -EIO);
    assert_in_range(util_now_ms() - began, 600, 1700);
    assert_int_equal(remote_ref(remote, &repo, "main", true, got, NULL), -EIO);
    assert_int_equal(logged("no answer from"), 1);
    for (int i = 0; i < 100 && index_ref(ix, &repo, "main", got, NULL) != 0; i++)
        usleep(20000);
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_string_equal(got, commit);
    assert_int_equal(requests("/revision/main"), 1);
    assert_int_equal(logged(""), 1);
}

static void silence_counts_as_unreachable_until_something_is_heard(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    open_remote(url, false, TTL_MS, 500);
    tell("fault {\"path\":\"/revision/main\",\"delay\":0.9}");
    assert_int_equal(ask_ref(&repo, "main", got), -ENETUNREACH);
    assert_int_equal(remote_ref(remote, &repo, "v1.0", false, got, NULL), -ENETUNREACH);
    for (int i = 0; i < 100 && index_ref(ix, &repo, "main", got, NULL) != 0; i++)
        usleep(20000);
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_int_equal(ask_ref(&repo, "v1.0", got), 0);
}

// ---- waiters ----

static void ask_on(struct remote_waiter *waiter)
{
    struct waiting *w = (struct waiting *) waiter;
    char got[NAMES_COMMIT_SIZE];
    // As one does whose question was not answered: it must not go on for ever.
    uint64_t seen = remote_answers(remote);
    w->calls++;
    if (remote_ref(remote, &repo, "main", true, got, NULL) == -EINPROGRESS)
        remote_wait(remote, seen, waiter);
}

static void each_waiter_is_called_once_also_at_the_end(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    struct waiting waiting[50];
    tell("fault {\"delay\":5,\"times\":null}");
    assert_int_equal(remote_ref(remote, &repo, "main", false, got, NULL), -EINPROGRESS);
    assert_int_equal(remote_refs(remote, &repo), -EINPROGRESS);
    uint64_t seen = remote_answers(remote);
    for (int i = 0; i < 50; i++) {
        waiting[i] = (struct waiting){ .waiter = { .fn = i % 2 ? on_woken : ask_on } };
        sem_init(&waiting[i].woken, 0, 0);
        remote_wait(remote, seen, &waiting[i].waiter);
    }
    for (int i = 0; i < 50; i++)
        assert_int_equal(waiting[i].calls, 0);
    int64_t began = util_now_ms();
    remote_free(remote);
    remote = NULL;
    assert_true(util_now_ms() - began < 500);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(waiting[i].calls, 1);
        sem_destroy(&waiting[i].woken);
    }
}

static void who_comes_late_is_called_at_once(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    uint64_t seen = remote_answers(remote);
    assert_int_equal(ask_ref(&repo, "main", got), 0);
    assert_true(remote_answers(remote) > seen);
    struct waiting w = { .waiter = { .fn = on_woken } };
    sem_init(&w.woken, 0, 0);
    remote_wait(remote, seen, &w.waiter);
    assert_int_equal(w.calls, 1);
    sem_destroy(&w.woken);
}

static void no_more_is_remembered_than_there_is_room_for(void **state)
{
    (void) state;
    char got[NAMES_COMMIT_SIZE];
    for (int i = 0; i < 5000; i += 100) {
        for (int k = i; k < i + 100; k++) {
            struct repo which = { REPO_MODEL, "" };
            snprintf(which.id, sizeof which.id, "none/n%d", k);
            assert_int_equal(remote_ref(remote, &which, "main", false, got, NULL), -EINPROGRESS);
        }
        struct repo last = { REPO_MODEL, "" };
        snprintf(last.id, sizeof last.id, "none/n%d", i + 99);
        assert_int_equal(ask_ref(&last, "main", got), -ENOENT);
    }
    assert_true(remote_is_missing(remote, &(struct repo){ REPO_MODEL, "none/n4999" }));
    assert_false(remote_is_missing(remote, &(struct repo){ REPO_MODEL, "none/n0" }));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, over)
    const struct CMUnitTest tests[] = {
        TEST(a_hundred_who_ask_at_once_make_one_request),
        TEST(an_answer_is_kept_with_its_time),
        TEST(a_no_is_kept_and_said_of_all_of_the_repo),
        TEST(a_repo_that_has_come_is_no_longer_missing),
        TEST(a_stale_ref_is_answered_at_once_and_asked_again_behind),
        TEST(a_stale_ref_is_kept_while_the_hub_fails),
        TEST(all_refs_come_at_once),
        TEST(a_tree_comes_into_the_index_with_its_date),
        TEST(a_large_tree_is_all_there),
        TEST(a_mirror_without_dates_is_not_asked_twice),
        TEST(a_slow_date_is_not_waited_for),
        TEST(a_bad_list_leaves_nothing),
        TEST(a_lost_index_is_filled_anew),
        TEST(an_index_that_cannot_be_written_is_the_callers_to_forget),
        TEST(a_refusal_is_kept_for_a_while),
        TEST(offline_what_is_known_is_answered_and_nothing_asked),
        TEST(a_hub_that_cannot_be_reached_is_let_alone_for_a_while),
        TEST(a_late_answer_takes_the_place_of_none),
        TEST(silence_counts_as_unreachable_until_something_is_heard),
        TEST(each_waiter_is_called_once_also_at_the_end),
        TEST(who_comes_late_is_called_at_once),
        TEST(no_more_is_remembered_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, start_all, end_all);
}
