// SPDX-License-Identifier: Apache-2.0
// The calls whose answer is JSON.
#include "cache/hub_call.h"
#include "cache/json_walk.h"
#include "cache/url.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#define PAGE_MAX ((size_t) 64 * 1024 * 1024)
#define PAGES_MAX 20000
#define SHA256_LEN 64
#define SHA1_LEN 40

static void delete_json(cJSON **json)
{
    cJSON_Delete(*json);
}
#define _cleanup_json_ __attribute__((cleanup(delete_json)))

// What all of them have in common: an answer that is walked.
struct query {
    struct hub_call call; // first
    struct json_walk *walk;
    json_walk_fn *on_value;
    char kind; // '[' or '{'
    void *userdata;
    char content_type[64];
};

static void query_destroy(struct hub_call *call)
{
    json_walk_free(((struct query *) call)->walk);
}

static int nonsense(struct hub_call *call, int code, const char *what)
{
    hub_error_set(&call->error, code, HUB_NONSENSE, call->subject, "%s: is HF_ENDPOINT right?", what);
    return code;
}

static int not_json(struct query *q)
{
    char text[160];
    snprintf(text, sizeof text, "the server answered with %s that is not the Hub's JSON",
             *q->content_type ? q->content_type : "something");
    return nonsense(&q->call, -EBADMSG, text);
}

static int query_on_head(struct hub_call *call, const struct http_head *head)
{
    struct query *q = (struct query *) call;
    const char *type = http_head_value(head, "Content-Type", 0);
    snprintf(q->content_type, sizeof q->content_type, "%.*s", type ? (int) strcspn(type, "; ") : 0, type ? type : "");
    json_walk_free(q->walk);
    q->walk = json_walk_new(q->kind, PAGE_MAX, q->on_value, q);
    return q->walk ? 0 : -ENOMEM;
}

static int query_on_data(struct hub_call *call, const char *bytes, size_t len)
{
    struct query *q = (struct query *) call;
    int r = json_walk_feed(q->walk, bytes, len);
    if (call->error.error == r) // described already, or fine
        return r;
    if (r == -EBADMSG)
        return not_json(q);
    if (r == -E2BIG)
        return nonsense(call, r, "the answer, or an entry of it, is larger than any of the Hub's");
    return r;
}

// The end of an answer: 0 if it was whole.
static int query_end(struct query *q)
{
    return q->walk && json_walk_end(q->walk) == 0 ? 0 : not_json(q);
}

static char *api_url(const struct hub *hub, const struct repo *repo, const char *what, const char *revision,
                     const char *query)
{
    _cleanup_free_ char *encoded = url_encode(revision, false);
    char *url = NULL;
    if (!encoded || asprintf(&url, "%s/api/%s/%s/%s%s%s%s", hub->endpoint, names_type_plural(repo->type), repo->id,
                             what, *encoded ? "/" : "", encoded, query) < 0)
        return NULL;
    return url;
}

static char *subject_of(const struct repo *repo, const char *revision)
{
    char *subject = NULL;
    const char *plural = repo->type == REPO_MODEL ? "" : names_type_plural(repo->type);
    return asprintf(&subject, "%s%s%s%s%s", plural, *plural ? "/" : "", repo->id, *revision ? "@" : "", revision) < 0
               ? NULL
               : subject;
}

static int query_start(struct hub *hub, const struct hub_call_kind *kind, struct query *q, const struct repo *repo,
                       const char *what, const char *revision, const char *query, void *userdata,
                       struct hub_call **ret_call)
{
    if (!q)
        return -ENOMEM;
    q->userdata = userdata;
    return hub_call_start(hub, kind, &q->call, subject_of(repo, revision), api_url(hub, repo, what, revision, query),
                          ret_call);
}

// ---- a revision ----

struct revision {
    struct query query; // first
    hub_revision_fn *fn;
    char sha[NAMES_COMMIT_SIZE];
};

static int revision_on_value(void *userdata, const char *key, const char *value, size_t len)
{
    struct revision *rev = userdata;
    if (strcmp(key, "sha") != 0)
        return 0;
    _cleanup_json_ cJSON *json = json_parse(value, len);
    const char *sha = cJSON_GetStringValue(json);
    if (!sha || !names_commit_ok(sha))
        return nonsense(&rev->query.call, -EBADMSG, "the server named a commit that is none");
    stpcpy(rev->sha, sha);
    return 0;
}

static int revision_on_end(struct hub_call *call)
{
    struct revision *rev = (struct revision *) call;
    int r = query_end(&rev->query);
    if (r < 0)
        return r;
    if (!*rev->sha || (*call->commit && strcmp(call->commit, rev->sha) != 0))
        return nonsense(call, -EBADMSG, "the server named no commit, or two");
    return 0;
}

static void revision_on_done(struct hub_call *call)
{
    struct revision *rev = (struct revision *) call;
    rev->fn(rev->query.userdata, &call->error, rev->sha);
}

int hub_revision(struct hub *hub, const struct repo *repo, const char *revision, hub_revision_fn *fn, void *userdata,
                 struct hub_call **ret_call)
{
    static const struct hub_call_kind kind = {
        .window = HUB_WINDOW_API,
        .compressed = true,
        .on_head = query_on_head,
        .on_data = query_on_data,
        .on_end = revision_on_end,
        .on_done = revision_on_done,
        .destroy = query_destroy,
    };
    struct revision *rev = calloc(1, sizeof *rev);
    if (!rev)
        return -ENOMEM;
    rev->query.kind = '{';
    rev->query.on_value = revision_on_value;
    rev->fn = fn;
    return query_start(hub, &kind, &rev->query, repo, "revision", revision, "", userdata, ret_call);
}

// ---- a tree ----

struct tree {
    struct query query; // first
    struct hub_tree_handlers handlers;
    char *next; // page
    int pages;
    // Of this page. After a page was cut off it is asked for again, and what was given already is passed over, if it is
    // still the same.
    size_t seen, given;
    XXH64_hash_t seen_hash, given_hash;
};

static bool is_hex(const char *s, size_t len)
{
    return strlen(s) == len && strspn(s, "0123456789abcdef") == len;
}

static int bad_entry(struct tree *tree, const char *path, const char *what)
{
    hub_error_set(&tree->query.call.error, -EBADMSG, HUB_NONSENSE, tree->query.call.subject,
                  "the server lists \"%.200s\" with %s: nothing of this list is used", path, what);
    return -EBADMSG;
}

// Hands on one entry of type "file" with a path that is not empty.
static int give_file(struct tree *tree, const cJSON *json, const char *path)
{
    struct tree_file file = { .path = path, .path_len = strlen(path) };
    if (!names_path_ok(path, file.path_len))
        return bad_entry(tree, path, "a path that is none");
    const cJSON *lfs = json_member(json, "lfs");
    const char *oid = json_string(json, "oid");
    const char *sha256 = json_string(lfs, "oid");
    const char *xet = json_string(json, "xetHash");
    const cJSON *lfs_size = json_member(lfs, "size");
    file.size = json_size(lfs_size ? lfs_size : json_member(json, "size"));
    if (file.size < 0)
        return bad_entry(tree, path, "a size that is none");
    if (lfs ? !sha256 || !is_hex(sha256, SHA256_LEN) : !oid || (!is_hex(oid, SHA1_LEN) && !is_hex(oid, SHA256_LEN)))
        return bad_entry(tree, path, "a hash that is none");
    stpcpy(file.etag, lfs ? sha256 : oid);
    if (lfs && oid && (is_hex(oid, SHA1_LEN) || is_hex(oid, SHA256_LEN)))
        stpcpy(file.blob_id, oid);
    if (xet && !names_xet_copy(xet, file.xet_hash))
        return bad_entry(tree, path, "a Xet hash that is none");
    int r = tree->handlers.on_file(tree->query.userdata, &file);
    return r <= 0 ? r : -ECANCELED;
}

static int tree_on_value(void *userdata, const char *key, const char *value, size_t len)
{
    (void) key;
    struct tree *tree = userdata;
    if (tree->query.call.over) // cancelled by on_file
        return -ECANCELED;
    tree->seen++;
    tree->seen_hash = XXH3_64bits_withSeed(value, len, tree->seen_hash);
    if (tree->seen <= tree->given) {
        if (tree->seen == tree->given && tree->seen_hash != tree->given_hash)
            return nonsense(&tree->query.call, -EBADMSG, "the server lists one commit differently each time");
        return 0;
    }
    _cleanup_json_ cJSON *json = json_parse(value, len);
    const char *path = json_string(json, "path");
    const char *type = json_string(json, "type");
    if (!cJSON_IsObject(json))
        return bad_entry(tree, "", "no such thing");
    tree->given = tree->seen;
    tree->given_hash = tree->seen_hash;
    if (!type || strcmp(type, "file") != 0 || (path && !*path))
        return 0;
    return path ? give_file(tree, json, path) : bad_entry(tree, "", "no path");
}

// The target of rel="next" in a Link header (RFC 8288). 1, 0 if there is none, -ENOMEM.
static int next_link(const struct http_head *head, char **ret_target)
{
    const char *value;
    for (int i = 0; (value = http_head_value(head, "Link", i)); i++) {
        while ((value = strchr(value, '<'))) {
            const char *end = strchr(value, '>');
            if (!end)
                break;
            size_t len = strcspn(end, ",<"); // the parameters
            const char *rel = strcasestr(end, "rel=");
            if (rel && rel < end + len &&
                (strncasecmp(rel + 4, "\"next\"", 6) == 0 || strncasecmp(rel + 4, "next", 4) == 0)) {
                *ret_target = strndup(value + 1, (size_t) (end - value - 1));
                return *ret_target ? 1 : -ENOMEM;
            }
            value = end + len;
        }
    }
    return 0;
}

static int tree_on_head(struct hub_call *call, const struct http_head *head)
{
    struct tree *tree = (struct tree *) call;
    free(tree->next);
    tree->next = NULL;
    tree->seen = 0;
    tree->seen_hash = 0;
    _cleanup_free_ char *target = NULL;
    int r = next_link(head, &target);
    if (r > 0)
        r = url_join(call->url, target, &tree->next);
    if (r == -ENOMEM)
        return r;
    if (r < 0 || (tree->next && !url_same_origin(tree->next, call->hub->endpoint)))
        return nonsense(call, -EPROTO, "the next page of the list is not on the endpoint");
    return query_on_head(call, head);
}

static int tree_on_end(struct hub_call *call)
{
    struct tree *tree = (struct tree *) call;
    int r = query_end(&tree->query);
    if (r < 0)
        return r;
    if (tree->seen < tree->given)
        return nonsense(call, -EBADMSG, "the server lists one commit differently each time");
    if (!tree->next)
        return 0;
    if (++tree->pages > PAGES_MAX || strcmp(tree->next, call->start_url) == 0)
        return nonsense(call, -ELOOP, "the pages of the list never end");
    free(call->start_url);
    call->start_url = util_take_ptr(tree->next);
    tree->given = 0;
    tree->given_hash = 0;
    return HUB_NEXT;
}

static void tree_on_done(struct hub_call *call)
{
    struct tree *tree = (struct tree *) call;
    tree->handlers.on_done(tree->query.userdata, &call->error);
}

static void tree_destroy(struct hub_call *call)
{
    free(((struct tree *) call)->next);
    query_destroy(call);
}

int hub_tree(struct hub *hub, const struct repo *repo, const char *commit, const struct hub_tree_handlers *handlers,
             void *userdata, struct hub_call **ret_call)
{
    static const struct hub_call_kind kind = {
        .window = HUB_WINDOW_API,
        .compressed = true,
        .on_head = tree_on_head,
        .on_data = query_on_data,
        .on_end = tree_on_end,
        .on_done = tree_on_done,
        .destroy = tree_destroy,
    };
    struct tree *tree = calloc(1, sizeof *tree);
    if (!tree)
        return -ENOMEM;
    tree->query.kind = '[';
    tree->query.on_value = tree_on_value;
    tree->handlers = *handlers;
    return query_start(hub, &kind, &tree->query, repo, "tree", commit, "?recursive=true", userdata, ret_call);
}

// ---- refs ----

// Kept as text until the answer is whole, so that a second try gives no ref twice.
enum { BRANCHES, TAGS, CONVERTS, REF_LISTS };
struct refs {
    struct query query; // first
    struct hub_refs_handlers handlers;
    cJSON *lists[REF_LISTS];
};

static int refs_on_value(void *userdata, const char *key, const char *value, size_t len)
{
    static const char *const names[REF_LISTS] = { "branches", "tags", "converts" };
    struct refs *refs = userdata;
    for (int i = 0; i < REF_LISTS; i++) {
        if (strcmp(key, names[i]) != 0)
            continue;
        if (!value)
            return nonsense(&refs->query.call, -E2BIG, "more refs than any repo of the Hub has");
        cJSON_Delete(refs->lists[i]);
        refs->lists[i] = json_parse(value, len);
        if (!cJSON_IsArray(refs->lists[i]) && !cJSON_IsNull(refs->lists[i]))
            return not_json(&refs->query);
    }
    return 0;
}

static int give_refs(struct refs *refs, int which)
{
    const cJSON *entry;
    cJSON_ArrayForEach (entry, refs->lists[which]) {
        const char *name = json_string(entry, which == CONVERTS ? "ref" : "name");
        const char *commit = json_string(entry, "targetCommit");
        if (!name || !commit || !names_ref_ok(name) || !names_commit_ok(commit))
            continue;
        int r = refs->handlers.on_ref(refs->query.userdata, name, commit);
        if (r != 0 || refs->query.call.over)
            return r < 0 ? r : -ECANCELED;
    }
    return 0;
}

static int refs_on_end(struct hub_call *call)
{
    struct refs *refs = (struct refs *) call;
    int r = query_end(&refs->query);
    for (int i = 0; i < REF_LISTS && r == 0 && !call->over; i++)
        r = give_refs(refs, i);
    return r;
}

static void refs_on_done(struct hub_call *call)
{
    struct refs *refs = (struct refs *) call;
    refs->handlers.on_done(refs->query.userdata, &call->error);
}

static void refs_destroy(struct hub_call *call)
{
    for (int i = 0; i < REF_LISTS; i++)
        cJSON_Delete(((struct refs *) call)->lists[i]);
    query_destroy(call);
}

int hub_refs(struct hub *hub, const struct repo *repo, const struct hub_refs_handlers *handlers, void *userdata,
             struct hub_call **ret_call)
{
    static const struct hub_call_kind kind = {
        .window = HUB_WINDOW_API,
        .compressed = true,
        .on_head = query_on_head,
        .on_data = query_on_data,
        .on_end = refs_on_end,
        .on_done = refs_on_done,
        .destroy = refs_destroy,
    };
    struct refs *refs = calloc(1, sizeof *refs);
    if (!refs)
        return -ENOMEM;
    refs->query.kind = '{';
    refs->query.on_value = refs_on_value;
    refs->handlers = *handlers;
    return query_start(hub, &kind, &refs->query, repo, "refs", "", "", userdata, ret_call);
}

// ---- the date of a commit ----

struct date {
    struct query query; // first
    hub_date_fn *fn;
    char commit[NAMES_COMMIT_SIZE];
    int64_t seconds;
    bool known;
};

// "2024-03-01T12:00:00.000Z"
static bool read_date(const char *text, int64_t *ret_seconds)
{
    struct tm tm = { 0 };
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        return false;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    if (strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0)
        return false;
    *ret_seconds = timegm(&tm);
    return true;
}

static int date_on_value(void *userdata, const char *key, const char *value, size_t len)
{
    (void) key;
    struct date *date = userdata;
    _cleanup_json_ cJSON *json = json_parse(value, len);
    const char *id = json_string(json, "id");
    const char *text = json_string(json, "date");
    if (!id || strcmp(id, date->commit) != 0 || !text || !read_date(text, &date->seconds))
        return nonsense(&date->query.call, -EBADMSG, "the server gives no date for this commit");
    date->known = true;
    return HUB_STOP;
}

static int date_on_end(struct hub_call *call)
{
    struct date *date = (struct date *) call;
    return date->known ? 0 : not_json(&date->query);
}

static void date_on_done(struct hub_call *call)
{
    struct date *date = (struct date *) call;
    date->fn(date->query.userdata, &call->error, date->seconds);
}

int hub_commit_date(struct hub *hub, const struct repo *repo, const char *commit, hub_date_fn *fn, void *userdata,
                    struct hub_call **ret_call)
{
    static const struct hub_call_kind kind = {
        .window = HUB_WINDOW_API,
        .compressed = true,
        .on_head = query_on_head,
        .on_data = query_on_data,
        .on_end = date_on_end,
        .on_done = date_on_done,
        .destroy = query_destroy,
    };
    struct date *date = calloc(1, sizeof *date);
    if (!date)
        return -ENOMEM;
    date->query.kind = '[';
    date->query.on_value = date_on_value;
    date->fn = fn;
    snprintf(date->commit, sizeof date->commit, "%s", commit);
    return query_start(hub, &kind, &date->query, repo, "commits", commit, "", userdata, ret_call);
}
