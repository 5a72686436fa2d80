// SPDX-License-Identifier: Apache-2.0
#include "cache/remote.h"

#include "cache/index_refs.h"
#include "cache/log.h"
#include "cache/remote_reply.h"
#include "cache/remote_table.h"
#include "cache/url.h"
#include "cache/util.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define MIN_MS 1000          // an answer counts so long at least: those who wait for it must find it
#define REFUSED_MS 10000     // how long a refusal counts: accepting terms should show soon
#define FAILED_MS 5000       // what may pass
#define UNREACHABLE_MS 10000 // nothing is asked for so long after the Hub could not be reached
#define PROBE_MS 2000        // the bound of a wait while the Hub has not been heard of since

struct remote {
    struct hub *hub;
    struct index *index;
    char *host; // of the endpoint, for messages
    int ttl_ms, wait_ms;
    pthread_t clerk;
    atomic_bool stopping;

    pthread_mutex_t lock; // guards what follows
    pthread_cond_t changed;
    struct table table;
    struct question *arrived, **arrived_end; // their replies have come
    struct remote_waiter *waiters;
    uint64_t answers;
    int64_t heard_ms;       // when the Hub last answered anything
    bool silent;            // it could not be reached since
    int64_t unreachable_ms; // nothing is asked until then
};

static int64_t longer(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// ---- asking ----

static void on_reply(void *userdata);

static int64_t bound_ms(const struct remote *r, const struct question *q)
{
    if (q->kind == REPLY_DATE)
        return REMOTE_DATE_WAIT_MS;
    return r->silent && r->wait_ms > PROBE_MS ? PROBE_MS : r->wait_ms;
}

// With the lock held.
static bool is_missing(const struct remote *r, const struct repo *repo, int64_t now)
{
    const struct question *q = table_find(&r->table, REPLY_REPO, repo, "");
    return q && q->answer < 0 && now < q->until_ms;
}

// What can be said without a request, with the lock held: 0 or an error that counts, -EINPROGRESS when it is under way,
// 1 when it has to be asked. `again`: that it was answered well is no answer.
static int answer_now(struct remote *r, struct question *q, const struct repo *repo, bool again, int64_t now)
{
    if (q && !q->open && now < q->until_ms) {
        bool of_index = q->answer == 0 || q->answer == -EUCLEAN;
        if ((!of_index || q->generation == index_generation(r->index)) && !(again && q->answer == 0))
            return q->answer;
    }
    if (is_missing(r, repo, now))
        return -ENOENT;
    if (r->stopping || now < r->unreachable_ms || hub_is_offline(r->hub))
        return -ENETUNREACH;
    if (!q || !q->open)
        return 1;
    if (q->overdue && now < q->until_ms)
        return q->answer;
    if (q->overdue) {
        q->overdue = false;
        q->due_ms = now + bound_ms(r, q);
        pthread_cond_signal(&r->changed);
    }
    return -EINPROGRESS;
}

// Sees to it that a question is asked. 0: it was answered well a moment ago; -EINPROGRESS: it is under way; an answer.
static int ask(struct remote *r, enum reply_kind kind, const struct repo *repo, const char *name, bool again)
{
    struct question *q;
    struct reply *reply;
    {
        UTIL_LOCKED(&r->lock);
        int64_t now = util_now_ms();
        q = table_find(&r->table, kind, repo, name);
        int answer = answer_now(r, q, repo, again, now);
        if (answer <= 0)
            return answer;
        if (q)
            table_open(&r->table, q);
        else
            q = table_add(&r->table, kind, repo, name, &answer);
        if (!q)
            return answer == -EAGAIN ? -EIO : answer;
        q->remote = r;
        reply = reply_new(kind, &q->repo, q->name);
        if (!reply) {
            table_answer(&r->table, q, -ENOMEM, 0);
            return -ENOMEM;
        }
        q->reply = reply;
        q->asked_ms = now;
        q->due_ms = now + bound_ms(r, q);
        pthread_cond_signal(&r->changed);
    }
    reply_start(reply, r->hub, on_reply, q);
    return -EINPROGRESS;
}

// Asks for a commit's date beside its list, so that both come at once.
static int ask_tree(struct remote *r, const struct repo *repo, const char *commit, bool dated, bool again)
{
    if (!dated)
        ask(r, REPLY_DATE, repo, commit, false);
    return ask(r, REPLY_TREE, repo, commit, again);
}

// ---- the clerk ----

// On the http thread, or wherever a question could not even be asked.
static void on_reply(void *userdata)
{
    struct question *q = userdata;
    struct remote *r = q->remote;
    UTIL_LOCKED(&r->lock);
    q->arrived = NULL;
    *r->arrived_end = q;
    r->arrived_end = &q->arrived;
    pthread_cond_signal(&r->changed);
}

static struct question *next_arrived(struct remote *r)
{
    struct question *q = r->arrived;
    if (q) {
        r->arrived = q->arrived;
        if (!r->arrived)
            r->arrived_end = &r->arrived;
    }
    return q;
}

// The one that is due; NULL and *ret_due_ms, when the next will be.
static struct question *next_due(const struct remote *r, int64_t now, int64_t *ret_due_ms)
{
    *ret_due_ms = INT64_MAX;
    for (struct question *q = TAILQ_FIRST(&r->table.open); q; q = TAILQ_NEXT(q, at)) {
        if (q->overdue)
            continue;
        if (q->due_ms <= now)
            return q;
        if (q->due_ms < *ret_due_ms)
            *ret_due_ms = q->due_ms;
    }
    return NULL;
}

// Counts an answer and calls the waiters. The lock is held before and after, not meanwhile.
static void wake(struct remote *r)
{
    r->answers++;
    struct remote_waiter *waiter = r->waiters;
    r->waiters = NULL;
    pthread_mutex_unlock(&r->lock);
    while (waiter) {
        struct remote_waiter *next = waiter->next;
        waiter->fn(waiter);
        waiter = next;
    }
    pthread_mutex_lock(&r->lock);
}

static void set_text(struct remote *r, struct question *q, const char *text)
{
    free(q->text);
    q->text = *text ? strdup(text) : NULL;
    q->text_at = r->answers;
}

// Keeps in mind that there is no such repo, or that there is.
static void mark_repo(struct remote *r, const struct repo *repo, bool missing, const char *text)
{
    struct question *mark = table_find(&r->table, REPLY_REPO, repo, "");
    int ignored;
    if (!mark && missing)
        mark = table_add(&r->table, REPLY_REPO, repo, "", &ignored);
    if (!mark)
        return;
    set_text(r, mark, text);
    table_answer(&r->table, mark, missing ? -ENOENT : 0, missing ? util_now_ms() + longer(r->ttl_ms, MIN_MS) : 0);
}

// What the Hub's answer, or that there is none, says of the Hub.
static void mark_hub(struct remote *r, const struct hub_error *e)
{
    int64_t now = util_now_ms();
    if (e->error == 0 || e->status != 0) {
        r->heard_ms = now;
        r->silent = false;
        r->unreachable_ms = 0;
    } else if (e->reason == HUB_UNREACHABLE) {
        r->silent = true;
        r->unreachable_ms = now + UNREACHABLE_MS;
    }
}

static int answer_of(const struct hub_error *e)
{
    switch (e->reason) {
    case HUB_FINE:
        return 0;
    case HUB_NO_REPO:
    case HUB_NO_REVISION:
    case HUB_NO_ENTRY:
        return -ENOENT;
    case HUB_REFUSED:
        return -EACCES;
    case HUB_UNREACHABLE:
        return -ENETUNREACH;
    case HUB_NONSENSE:
    case HUB_NO_RANGES:
    case HUB_NO_RANGE:
        return -EBADMSG;
    case HUB_LIMITED:
    case HUB_FAILING:
        return -EIO;
    case HUB_STOPPED:
        break;
    }
    return e->error == -ENOMEM ? -ENOMEM : e->error == -E2BIG ? -EBADMSG : -EIO;
}

// For how long an answer counts.
static int64_t lasts_ms(const struct remote *r, const struct question *q, int answer)
{
    switch (answer) {
    case 0:
        return q->kind == REPLY_REFS ? longer(r->ttl_ms, MIN_MS) : MIN_MS;
    case -ENOENT:
        return longer(r->ttl_ms, MIN_MS);
    case -EACCES:
        return REFUSED_MS;
    default:
        return FAILED_MS;
    }
}

// With the lock held. A list that waited for this date alone is answered with it.
static void finish(struct remote *r, struct question *q, int answer)
{
    int64_t now = util_now_ms();
    // A mirror that has no dates will not have them later.
    bool forever = q->kind == REPLY_DATE && answer < 0 && answer != -ENETUNREACH && answer != -EUCLEAN &&
                   !is_missing(r, &q->repo, now);
    table_answer(&r->table, q, answer, forever ? INT64_MAX : now + lasts_ms(r, q, answer));
    if (q->kind == REPLY_DATE) {
        struct question *tree = table_find(&r->table, REPLY_TREE, &q->repo, q->name);
        if (tree && tree->open && tree->written)
            finish(r, tree, 0);
    }
}

static void report(bool warn, const char *text)
{
    if (warn)
        log_warning("%s", text);
    else
        log_info("%s", text);
}

// Whoever looks up a ref will look inside.
static void ask_ahead(struct remote *r, const struct repo *repo, const char *commit)
{
    struct index_tree tree;
    if (index_tree(r->index, repo, commit, &tree) == 0 && !tree.complete)
        ask_tree(r, repo, commit, tree.date != INDEX_NO_DATE, false);
}

// Writes what has come for a question, which is open and so stays in its place. 0 or an error.
static int write_down(struct remote *r, struct question *q)
{
    const struct hub_error *e = reply_error(q->reply);
    int answer = answer_of(e);
    if (answer == 0) {
        answer = reply_write(q->reply, r->index, &r->stopping);
        if (answer == 0 && q->kind == REPLY_REF)
            ask_ahead(r, &q->repo, reply_commit(q->reply));
    } else if (answer == -ENOENT && q->kind == REPLY_REF) {
        int dropped = index_ref_drop(r->index, &q->repo, q->name);
        if (dropped < 0)
            answer = dropped;
    }
    return answer;
}

// Why there is no good answer, unless index_forget() will say so.
static void explain(const struct question *q, int answer, char ret_text[512])
{
    const struct hub_error *e = reply_error(q->reply);
    if (*e->text) {
        snprintf(ret_text, 512, "%s", e->text);
    } else if (answer != -EUCLEAN && answer != -ECANCELED) {
        char subject[REPLY_SUBJECT_SIZE];
        reply_subject(&q->repo, q->name, subject);
        snprintf(ret_text, 512, "%.400s: %s", subject, strerror(-answer));
    }
}

// The lock is held before and after, not meanwhile.
static void settle(struct remote *r, struct question *q)
{
    pthread_mutex_unlock(&r->lock);
    unsigned generation = index_generation(r->index);
    const struct hub_error said = *reply_error(q->reply);
    int answer = write_down(r, q);
    char text[sizeof said.text] = "";
    if (answer < 0)
        explain(q, answer, text);
    if (*text) // a date is worth no warning
        report(q->kind != REPLY_DATE && !q->reported, text);
    if (answer == -ECANCELED)
        answer = -ENETUNREACH;
    pthread_mutex_lock(&r->lock);
    mark_hub(r, &said);
    if (said.reason == HUB_NO_REPO)
        mark_repo(r, &q->repo, true, said.text);
    else if (said.error == 0)
        mark_repo(r, &q->repo, false, "");
    set_text(r, q, text);
    struct reply *reply = util_take_ptr(q->reply);
    q->generation = generation;
    const struct question *date = answer == 0 && q->kind == REPLY_TREE && !q->overdue
                                      ? table_find(&r->table, REPLY_DATE, &q->repo, q->name)
                                      : NULL;
    if (date && date->open) {
        q->written = true;
        q->due_ms = util_now_ms() + REMOTE_DATE_WAIT_MS;
    } else {
        finish(r, q, answer);
        wake(r);
    }
    pthread_mutex_unlock(&r->lock);
    reply_free(reply);
    pthread_mutex_lock(&r->lock);
}

// Enough of waiting: an answer for now. The lock is held before and after, not meanwhile.
static void let_go(struct remote *r, struct question *q)
{
    if (q->written) {
        finish(r, q, 0);
        wake(r);
        return;
    }
    int64_t now = util_now_ms();
    q->overdue = true;
    q->answer = -EIO;
    q->until_ms = q->kind == REPLY_DATE ? INT64_MAX : now + FAILED_MS;
    if (q->kind == REPLY_DATE) {
        wake(r);
        return;
    }
    char subject[REPLY_SUBJECT_SIZE], text[REPLY_SUBJECT_SIZE + 100];
    reply_subject(&q->repo, q->name, subject);
    snprintf(text, sizeof text, "%s: no answer from %s for %lld s: going on without it", subject, r->host,
             (long long) (now - q->asked_ms + 500) / 1000);
    // Not a word from anybody since: the Hub is as good as gone.
    if (r->heard_ms < q->asked_ms && !reply_has_begun(q->reply)) {
        q->answer = -ENETUNREACH;
        r->silent = true;
        r->unreachable_ms = now + UNREACHABLE_MS;
    }
    set_text(r, q, text);
    bool first = !q->reported;
    q->reported = true;
    pthread_mutex_unlock(&r->lock);
    report(first, text);
    pthread_mutex_lock(&r->lock);
    wake(r);
}

static void *clerk(void *userdata)
{
    struct remote *r = userdata;
    pthread_mutex_lock(&r->lock);
    while (!r->stopping) {
        int64_t due_ms;
        struct question *q = next_arrived(r);
        if (q) {
            settle(r, q);
            continue;
        }
        q = next_due(r, util_now_ms(), &due_ms);
        if (q) {
            let_go(r, q);
        } else if (due_ms == INT64_MAX) {
            pthread_cond_wait(&r->changed, &r->lock);
        } else {
            struct timespec until = { .tv_sec = due_ms / 1000, .tv_nsec = due_ms % 1000 * 1000000 };
            pthread_cond_timedwait(&r->changed, &r->lock, &until);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

// ---- what others call ----

int remote_new(struct hub *hub, struct index *index, const struct remote_options *options, struct remote **ret_remote)
{
    struct remote *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->host = url_host(hub_endpoint(hub));
    if (!r->host) {
        free(r);
        return -ENOMEM;
    }
    r->hub = hub;
    r->index = index;
    r->ttl_ms = options->ref_ttl_ms;
    r->wait_ms = options->wait_ms > 0 ? options->wait_ms : REMOTE_WAIT_MS;
    r->arrived_end = &r->arrived;
    table_init(&r->table);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = pthread_create(&r->clerk, NULL, clerk, r);
    if (error != 0) {
        pthread_cond_destroy(&r->changed);
        pthread_mutex_destroy(&r->lock);
        free(r->host);
        free(r);
        return -error;
    }
    *ret_remote = r;
    return 0;
}

void remote_stop(struct remote *r)
{
    {
        UTIL_LOCKED(&r->lock);
        if (r->stopping)
            return;
        r->stopping = true;
        pthread_cond_signal(&r->changed);
    }
    pthread_join(r->clerk, NULL);
    pthread_mutex_lock(&r->lock);
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

void remote_free(struct remote *r)
{
    if (!r)
        return;
    remote_stop(r);
    table_free(&r->table);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->host);
    free(r);
}

int remote_ref(struct remote *r, const struct repo *repo, const char *ref, bool fresh,
               char ret_commit[NAMES_COMMIT_SIZE], int64_t *ret_seen)
{
    for (bool again = false;; again = true) {
        char commit[NAMES_COMMIT_SIZE];
        int64_t seen;
        int known = index_ref(r->index, repo, ref, commit, &seen);
        if (known < 0 && known != -ENOENT)
            return known;
        int64_t age = known == 0 ? real_ms() - seen : 0;
        // What was waited for must do, however short the time to live.
        bool young = age >= 0 && age < (fresh ? longer(r->ttl_ms, MIN_MS) : r->ttl_ms);
        if (known < 0 || !young) {
            int answer = ask(r, REPLY_REF, repo, ref, again);
            if (answer == 0)
                continue; // and has just come into the index
            if (known < 0 || answer == -EUCLEAN || (answer == -EINPROGRESS && fresh))
                return answer;
            if (answer == -ENOENT) {
                int error = index_ref_drop(r->index, repo, ref);
                return error < 0 ? error : -ENOENT;
            }
        }
        memcpy(ret_commit, commit, sizeof commit);
        if (ret_seen)
            *ret_seen = seen;
        return 0;
    }
}

int remote_tree(struct remote *r, const struct repo *repo, const char *commit, struct index_tree *tree)
{
    if (tree->complete)
        return 0;
    for (bool again = false;; again = true) {
        struct index_tree now;
        int error = index_tree(r->index, repo, commit, &now);
        if (error < 0)
            return error;
        bool waits = false; // for its date
        if (now.complete) {
            UTIL_LOCKED(&r->lock);
            const struct question *q = table_find(&r->table, REPLY_TREE, repo, commit);
            waits = q && q->open && !q->overdue && !r->stopping;
        }
        if (now.complete && !waits) {
            *tree = now;
            return 0;
        }
        int answer = waits ? -EINPROGRESS : ask_tree(r, repo, commit, now.date != INDEX_NO_DATE, again);
        if (answer < 0)
            return answer;
    }
}

int remote_date(struct remote *r, const struct repo *repo, const char *commit, struct index_tree *tree)
{
    for (bool asked = false; tree->date == INDEX_NO_DATE; asked = true) {
        struct index_tree now;
        int error = index_tree(r->index, repo, commit, &now);
        if (error < 0)
            return error;
        tree->date = now.date;
        if (asked || now.date != INDEX_NO_DATE)
            break;
        int answer = ask(r, REPLY_DATE, repo, commit, false);
        if (answer == -EINPROGRESS || answer == -EUCLEAN)
            return answer;
    }
    return 0;
}

int remote_refs(struct remote *r, const struct repo *repo)
{
    return ask(r, REPLY_REFS, repo, "", false);
}

bool remote_is_missing(struct remote *r, const struct repo *repo)
{
    UTIL_LOCKED(&r->lock);
    return is_missing(r, repo, util_now_ms());
}

static const char *latest(const struct questions *list, const struct repo *repo, const char *text, uint64_t *at)
{
    for (const struct question *q = TAILQ_FIRST(list); q; q = TAILQ_NEXT(q, at)) {
        if (q->text && names_repo_equal(&q->repo, repo) && (!text || q->text_at >= *at)) {
            text = q->text;
            *at = q->text_at;
        }
    }
    return text;
}

void remote_error(struct remote *r, const struct repo *repo, char ret_text[512])
{
    char subject[REPLY_SUBJECT_SIZE];
    reply_subject(repo, "", subject);
    UTIL_LOCKED(&r->lock);
    uint64_t at = 0;
    const char *text = latest(&r->table.answered, repo, NULL, &at);
    text = latest(&r->table.open, repo, text, &at);
    if (text)
        snprintf(ret_text, 512, "%s", text);
    else if (hub_is_offline(r->hub))
        snprintf(ret_text, 512, "%.400s: not in the cache, and offline: unset HF_HUB_OFFLINE to fetch it", subject);
    else if (util_now_ms() < r->unreachable_ms)
        snprintf(ret_text, 512, "%.300s: %.100s could not be reached a moment ago: check the network", subject,
                 r->host);
    else
        ret_text[0] = '\0';
}

uint64_t remote_answers(struct remote *r)
{
    UTIL_LOCKED(&r->lock);
    return r->answers;
}

void remote_wait(struct remote *r, uint64_t seen, struct remote_waiter *waiter)
{
    {
        UTIL_LOCKED(&r->lock);
        if (r->answers == seen && !r->stopping) {
            waiter->next = r->waiters;
            r->waiters = waiter;
            return;
        }
    }
    waiter->fn(waiter);
}
