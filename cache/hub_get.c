// SPDX-License-Identifier: Apache-2.0
// Files: where they are, and ranges of them. For each file whose bytes are on another host the signed address is kept,
// a "place". The call that first needs it leads: it asks the endpoint; the others that come meanwhile wait for it.
#include "cache/hub_call.h"
#include "cache/url.h"
#include "cache/util.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#define PLACES_MAX 1024
#define DISCARD_MAX                                                                                                    \
    ((int64_t) 16 * 1024 * 1024) // of a file that comes whole instead of the range: more is not worth it
#define EXPIRES_EARLY_S 10
#define STRIKES_MAX 2

struct get {
    struct hub_call call; // first
    struct hub_get_handlers handlers;
    void *userdata;
    char *key;    // of the place
    int64_t next; // the next byte wanted
    int64_t last; // the last one
    int64_t size; // of the file, -1: not known yet
    char want_etag[NAMES_ETAG_SIZE];
    char want_commit[NAMES_COMMIT_SIZE];
    int64_t at;  // of the next byte of this answer, in the file
    int64_t end; // behind the last byte of this answer, INT64_MAX: not told
    bool whole;  // this answer is a 200
    int strikes; // answers that did not fit
    int refusals;
    bool waiting;
    struct get *next_waiter;
};

// ---- places ----

// Moves the place to the front; makes it if it is missing. NULL when out of memory.
static struct hub_place *find_place(struct hub *hub, const char *key)
{
    int count = 0;
    struct hub_place **oldest = NULL;
    struct hub_place *place = NULL;
    for (struct hub_place **at = &hub->places; *at; at = &(*at)->next, count++) {
        if (strcmp((*at)->key, key) == 0) {
            place = *at;
            *at = place->next;
            break;
        }
        if (!(*at)->leader && !(*at)->waiters)
            oldest = at;
    }
    if (!place && count >= PLACES_MAX && oldest) {
        struct hub_place *old = *oldest;
        *oldest = old->next;
        free(old->key);
        free(old->url);
        free(old);
    }
    if (!place) {
        place = calloc(1, sizeof *place);
        if (place)
            place->key = strdup(key);
        if (!place || !place->key) {
            free(place);
            return NULL;
        }
    }
    place->next = hub->places;
    hub->places = place;
    return place;
}

static bool leads(const struct get *get)
{
    for (const struct hub_place *place = get->call.hub->places; place; place = place->next)
        if (place->leader == &get->call)
            return true;
    return false;
}

static void wait_for_place(struct hub_place *place, struct get *get)
{
    struct get **at = (struct get **) (void *) &place->waiters;
    while (*at)
        at = &(*at)->next_waiter;
    *at = get;
    get->next_waiter = NULL;
    get->waiting = true;
}

static struct get *first_waiter(struct hub_place *place)
{
    struct get *get = (struct get *) place->waiters;
    if (get) {
        place->waiters = get->next_waiter ? &get->next_waiter->call : NULL;
        get->waiting = false;
    }
    return get;
}

static void stop_waiting(struct get *get)
{
    struct hub_place *place = find_place(get->call.hub, get->key);
    struct get **at = (struct get **) (void *) &place->waiters;
    while (*at != get)
        at = &(*at)->next_waiter;
    *at = get->next_waiter;
    get->waiting = false;
}

// Seconds since 1970 until which a signed address is good: CloudFront's Expires, S3's X-Amz-Date and X-Amz-Expires.
static int64_t expiry_of(const char *url)
{
    const char *query = strchr(url, '?');
    const char *expires = query ? strstr(query, "Expires=") : NULL;
    if (!expires)
        return INT64_MAX;
    long long seconds = strtoll(expires + 8, NULL, 10);
    if (expires[-1] == '?' || expires[-1] == '&')
        return seconds;
    const char *date = strstr(query, "X-Amz-Date=");
    struct tm tm = { 0 };
    if (!date || !strptime(date + 11, "%Y%m%dT%H%M%S", &tm) || seconds < 0 || seconds > INT32_MAX)
        return INT64_MAX;
    return timegm(&tm) + seconds;
}

// The leader knows the way: the others go. `url` NULL: to the endpoint itself.
static void settle_place(struct get *get, const char *url)
{
    struct hub_place *place = find_place(get->call.hub, get->key);
    if (!place || place->leader != &get->call)
        return;
    place->leader = NULL;
    free(place->url);
    place->url = url ? strdup(url) : NULL;
    place->expires = url ? expiry_of(url) : INT64_MAX;
    place->direct = !url;
    // One at a time: what their callbacks do may change the list. An address that is hardly good makes the next a
    // leader.
    while (place && place->waiters && !place->leader) {
        hub_call_go(&first_waiter(place)->call);
        place = find_place(get->call.hub, get->key);
    }
}

static void forget_place(struct get *get)
{
    struct hub_place *place = find_place(get->call.hub, get->key);
    if (!place)
        return;
    free(place->url);
    place->url = NULL;
    place->direct = false;
}

static bool concerns_all(const struct hub_error *error)
{
    return error->reason == HUB_NO_REPO || error->reason == HUB_NO_REVISION || error->reason == HUB_NO_ENTRY ||
           error->reason == HUB_REFUSED;
}

// The leader has ended without a way: what it met all will meet, or else the next one tries.
static void get_on_over(struct hub_call *call)
{
    struct get *get = (struct get *) call;
    if (get->waiting)
        stop_waiting(get);
    if (!leads(get))
        return;
    struct hub_place *place = find_place(call->hub, get->key);
    place->leader = NULL;
    struct get *one = first_waiter(place);
    while (one && concerns_all(&call->error)) {
        one->call.error = call->error;
        hub_call_finish(&one->call);
        place = find_place(call->hub, get->key);
        one = place && !place->leader ? first_waiter(place) : NULL;
    }
    if (one)
        hub_call_go(&one->call);
}

// ---- a range ----

static int get_prepare(struct hub_call *call, struct http_request *request)
{
    struct get *get = (struct get *) call;
    request->first = get->next;
    request->last = get->last;
    if (get->next > get->last) {
        hub_error_set(&call->error, -ERANGE, HUB_NO_RANGE, call->subject, "the range lies beyond the end of the file");
        return -ERANGE;
    }
    if (call->redirects > 0)
        return 0;
    struct hub_place *place = find_place(call->hub, get->key);
    if (!place)
        return -ENOMEM;
    if (place->url && place->expires - EXPIRES_EARLY_S > time(NULL)) {
        free(call->url);
        call->url = strdup(place->url);
        return call->url ? 0 : -ENOMEM;
    }
    if (place->direct)
        return 0;
    if (place->leader && place->leader != call) {
        wait_for_place(place, get);
        return HUB_STOP;
    }
    place->leader = call;
    return 0;
}

// An answer that does not fit: perhaps another server gives a better one.
static __attribute__((format(printf, 2, 3))) int misfit(struct get *get, const char *format, ...)
{
    struct hub_call *call = &get->call;
    char what[200];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    hub_error_set(&call->error, -EBADMSG, HUB_NONSENSE, call->subject,
                  "the server's answer does not fit (%s): a broken mirror or proxy?", what);
    forget_place(get);
    return ++get->strikes <= STRIKES_MAX ? HUB_AGAIN : -EBADMSG;
}

// "bytes 0-99/1000"; "*" as the total, or as the range of a 416, is -1.
static bool read_content_range(const char *s, int64_t *ret_first, int64_t *ret_last, int64_t *ret_total)
{
    long long first = -1;
    long long last = -1;
    long long total = -1;
    char star = '\0';
    if (!s || strncasecmp(s, "bytes ", 6) != 0)
        return false;
    s += 6;
    // 15 digits are more than 2^53 needs, and less than overflows.
    if (sscanf(s, "*/%15lld", &total) != 1 && sscanf(s, "%15lld-%15lld/%15lld", &first, &last, &total) != 3 &&
        (sscanf(s, "%15lld-%15lld/%c", &first, &last, &star) != 3 || star != '*'))
        return false;
    *ret_first = first;
    *ret_last = last;
    *ret_total = star ? -1 : total;
    return true;
}

static bool is_hash(const char *s)
{
    size_t len = strlen(s);
    return (len == 40 || len == 64) && strspn(s, "0123456789abcdef") == len;
}

// Whether the endpoint speaks of the file that is wanted: 0, or an error.
static int check_facts(struct get *get)
{
    struct hub_call *call = &get->call;
    if (*call->commit && strcmp(call->commit, get->want_commit) != 0)
        return misfit(get, "another commit");
    // A mirror's own ETags are no hashes, and say nothing.
    if (*get->want_etag && is_hash(call->etag) && strcmp(call->etag, get->want_etag) != 0)
        return misfit(get, "another ETag");
    if (get->size >= 0 && call->linked_size >= 0 && call->linked_size != get->size)
        return misfit(get, "%lld bytes instead of %lld", (long long) call->linked_size, (long long) get->size);
    return 0;
}

static int check_size(struct get *get, int64_t total)
{
    if (total >= 0 && get->size >= 0 && total != get->size)
        return misfit(get, "%lld bytes instead of %lld", (long long) total, (long long) get->size);
    if (get->size < 0)
        get->size = total;
    if (get->size >= 0 && get->last >= get->size)
        get->last = get->size - 1;
    return 0;
}

static int read_part(struct get *get, const struct http_head *head)
{
    int64_t first;
    int64_t last;
    int64_t total;
    if (!read_content_range(http_head_value(head, "Content-Range", 0), &first, &last, &total) || first < 0)
        return misfit(get, "no Content-Range");
    if (first != get->next || last < first || last > get->last || (total >= 0 && last >= total))
        return misfit(get, "bytes %lld to %lld instead of %lld to %lld", (long long) first, (long long) last,
                      (long long) get->next, (long long) get->last);
    get->whole = false;
    get->at = first;
    get->end = last + 1;
    return check_size(get, total);
}

static int read_whole(struct get *get, const struct http_head *head)
{
    const char *length = http_head_value(head, "Content-Length", 0);
    int64_t total = length ? strtoll(length, NULL, 10) : -1;
    get->whole = true;
    get->at = 0;
    get->end = INT64_MAX;
    int r = check_size(get, total);
    if (r != 0)
        return r;
    if (get->next > DISCARD_MAX) {
        hub_error_set(&get->call.error, -EOPNOTSUPP, HUB_NO_RANGES, get->call.subject,
                      "the server knows no ranges: download the file, or use another HF_ENDPOINT");
        return -EOPNOTSUPP;
    }
    return 0;
}

static int read_no_range(struct get *get, const struct http_head *head)
{
    int64_t first;
    int64_t last;
    int64_t total = -1;
    struct hub_call *call = &get->call;
    (void) read_content_range(http_head_value(head, "Content-Range", 0), &first, &last, &total);
    if (get->size > get->next)
        return misfit(get, "416 for a range within the file");
    if (total == 0 && get->next == 0) {
        get->size = 0;
        return HUB_STOP;
    }
    hub_error_set(&call->error, -ERANGE, HUB_NO_RANGE, call->subject,
                  "the range lies beyond the end of the file (416)");
    return -ERANGE;
}

static int get_on_redirect(struct hub_call *call, const struct http_head *head)
{
    (void) head;
    struct get *get = (struct get *) call;
    int r = hub_call_at_endpoint(call) ? check_facts(get) : 0;
    if (r == 0 && !url_same_origin(call->next_url, call->hub->endpoint))
        settle_place(get, call->next_url);
    return r;
}

static int get_on_head(struct hub_call *call, const struct http_head *head)
{
    struct get *get = (struct get *) call;
    int status = http_head_status(head);
    const char *encoding = http_head_value(head, "Content-Encoding", 0);
    if (encoding && strcasecmp(encoding, "identity") != 0)
        return misfit(get, "compressed without being asked to");
    int r = check_facts(get);
    if (r == 0)
        r = status == 206   ? read_part(get, head)
            : status == 200 ? read_whole(get, head)
            : status == 416 ? read_no_range(get, head)
                            : misfit(get, "status %d", status);
    if (r == 0)
        settle_place(get, hub_call_at_endpoint(call) ? NULL : call->url);
    return r;
}

static int get_on_data(struct hub_call *call, const char *bytes, size_t len)
{
    struct get *get = (struct get *) call;
    if ((int64_t) len > get->end - get->at)
        return misfit(get, "more bytes than were announced");
    int64_t skip = get->next > get->at ? get->next - get->at : 0;
    int64_t there = (int64_t) len - skip;
    int64_t wanted = get->last + 1 - get->next;
    size_t n = there <= 0 ? 0 : (size_t) (there < wanted ? there : wanted);
    if (n > 0) {
        int r = get->handlers.on_data(get->userdata, get->next, bytes + skip, n);
        if (r != 0 || call->over)
            return r > 0 && r != HTTP_PAUSE ? -ECANCELED : r;
        get->next += (int64_t) n;
        hub_call_good(call);
    }
    get->at += (int64_t) len;
    // The rest of a whole file is not wanted; that of a part is nothing, and the connection can be kept.
    return get->whole && get->next > get->last && get->at != get->size ? HUB_STOP : 0;
}

static int get_on_end(struct hub_call *call)
{
    struct get *get = (struct get *) call;
    if (get->next > get->last || (get->size >= 0 && get->next >= get->size))
        return 0;
    if (get->whole && get->size < 0) // of unknown length: this was its end
        return 0;
    hub_error_set(&call->error, -EIO, HUB_FAILING, call->subject,
                  "the server's answers end too early: try again later");
    return HUB_AGAIN;
}

// A signed address that is no longer good, most likely.
static int get_on_refused(struct hub_call *call)
{
    struct get *get = (struct get *) call;
    forget_place(get);
    if (++get->refusals <= 1)
        return 0;
    hub_error_set(&call->error, -EIO, HUB_FAILING, call->subject,
                  "the host of the file refuses the address that the Hub gave: try again later");
    return HUB_AGAIN;
}

static void get_on_done(struct hub_call *call)
{
    struct get *get = (struct get *) call;
    get->handlers.on_done(get->userdata, &call->error);
}

static void get_destroy(struct hub_call *call)
{
    free(((struct get *) call)->key);
}

static char *file_url(const struct hub *hub, const struct repo *repo, const char *commit, const char *path)
{
    _cleanup_free_ char *encoded = url_encode(path, true);
    const char *plural = repo->type == REPO_MODEL ? "" : names_type_plural(repo->type);
    char *url = NULL;
    if (!encoded || asprintf(&url, "%s/%s%s%s/resolve/%s/%s", hub->endpoint, plural, *plural ? "/" : "", repo->id,
                             commit, encoded) < 0)
        return NULL;
    return url;
}

static char *file_subject(const struct repo *repo, const char *commit, const char *path)
{
    const char *plural = repo->type == REPO_MODEL ? "" : names_type_plural(repo->type);
    char *subject = NULL;
    return asprintf(&subject, "%s%s%s@%.12s/%s", plural, *plural ? "/" : "", repo->id, commit, path) < 0 ? NULL
                                                                                                         : subject;
}

int hub_get(struct hub *hub, const struct hub_range *range, const struct hub_get_handlers *handlers, void *userdata,
            struct hub_call **ret_call)
{
    static const struct hub_call_kind kind = {
        .window = HUB_WINDOW_RESOLVERS,
        .with_416 = true,
        .prepare = get_prepare,
        .on_redirect = get_on_redirect,
        .on_head = get_on_head,
        .on_data = get_on_data,
        .on_end = get_on_end,
        .on_refused = get_on_refused,
        .on_done = get_on_done,
        .on_over = get_on_over,
        .destroy = get_destroy,
    };
    struct get *get = calloc(1, sizeof *get);
    if (!get)
        return -ENOMEM;
    get->handlers = *handlers;
    get->userdata = userdata;
    get->next = range->first;
    get->last = range->last;
    get->size = range->size;
    if (get->size >= 0 && get->last >= get->size)
        get->last = get->size - 1;
    snprintf(get->want_etag, sizeof get->want_etag, "%s", range->etag ? range->etag : "");
    snprintf(get->want_commit, sizeof get->want_commit, "%s", range->commit);
    char *url = file_url(hub, range->repo, range->commit, range->path);
    get->key = url ? strdup(url) : NULL;
    if (!get->key) {
        free(url);
        url = NULL;
    }
    return hub_call_start(hub, &kind, &get->call, file_subject(range->repo, range->commit, range->path), url, ret_call);
}

// ---- where a file is ----

struct resolve {
    struct hub_call call; // first
    hub_resolve_fn *fn;
    void *userdata;
    char *url;
    int64_t size;
    char want_commit[NAMES_COMMIT_SIZE];
};

// Also an empty file has an answer to this: 416, with its size.
static int resolve_prepare(struct hub_call *call, struct http_request *request)
{
    (void) call;
    request->first = request->last = 0;
    return 0;
}

static int resolve_at(struct resolve *resolve, const char *url, int64_t size)
{
    struct hub_call *call = &resolve->call;
    if (*call->commit && strcmp(call->commit, resolve->want_commit) != 0) {
        hub_error_set(&call->error, -EBADMSG, HUB_NONSENSE, call->subject, "the server answers with another commit");
        return -EBADMSG;
    }
    free(resolve->url);
    resolve->url = strdup(url);
    resolve->size = call->linked_size >= 0 ? call->linked_size : size;
    return resolve->url ? HUB_STOP : -ENOMEM;
}

static int resolve_on_redirect(struct hub_call *call, const struct http_head *head)
{
    (void) head;
    if (call->linked_size < 0 || url_same_origin(call->next_url, call->hub->endpoint))
        return 0;
    return resolve_at((struct resolve *) call, call->next_url, -1);
}

static int resolve_on_head(struct hub_call *call, const struct http_head *head)
{
    int64_t first;
    int64_t last;
    int64_t total = -1;
    const char *length = http_head_value(head, "Content-Length", 0);
    if (!read_content_range(http_head_value(head, "Content-Range", 0), &first, &last, &total) && length &&
        http_head_status(head) == 200)
        total = strtoll(length, NULL, 10);
    return resolve_at((struct resolve *) call, call->url, total);
}

static int resolve_on_data(struct hub_call *call, const char *bytes, size_t len)
{
    (void) call;
    (void) bytes;
    (void) len;
    return HUB_STOP;
}

static int resolve_on_end(struct hub_call *call)
{
    (void) call;
    return 0;
}

static void resolve_on_done(struct hub_call *call)
{
    struct resolve *resolve = (struct resolve *) call;
    struct hub_file file = { .size = resolve->size, .url = resolve->url };
    if (call->error.error) {
        resolve->fn(resolve->userdata, &call->error, NULL);
        return;
    }
    file.expires = expiry_of(file.url);
    stpcpy(file.etag, call->etag);
    resolve->fn(resolve->userdata, &call->error, &file);
}

static void resolve_destroy(struct hub_call *call)
{
    free(((struct resolve *) call)->url);
}

int hub_resolve(struct hub *hub, const struct repo *repo, const char *commit, const char *path, hub_resolve_fn *fn,
                void *userdata, struct hub_call **ret_call)
{
    static const struct hub_call_kind kind = {
        .window = HUB_WINDOW_RESOLVERS,
        .with_416 = true,
        .prepare = resolve_prepare,
        .on_redirect = resolve_on_redirect,
        .on_head = resolve_on_head,
        .on_data = resolve_on_data,
        .on_end = resolve_on_end,
        .on_done = resolve_on_done,
        .destroy = resolve_destroy,
    };
    struct resolve *resolve = calloc(1, sizeof *resolve);
    if (!resolve)
        return -ENOMEM;
    resolve->fn = fn;
    resolve->userdata = userdata;
    snprintf(resolve->want_commit, sizeof resolve->want_commit, "%s", commit);
    return hub_call_start(hub, &kind, &resolve->call, file_subject(repo, commit, path),
                          file_url(hub, repo, commit, path), ret_call);
}
