// SPDX-License-Identifier: Apache-2.0
#include "cache/store.h"

#include "cache/index_refs.h"
#include "cache/log.h"
#include "cache/places.h"
#include "cache/scan.h"
#include "cache/store_parts.h"
#include "cache/util.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define CHECK_MS 200 // how often a directory that may change is looked at, at the most

static unsigned bucket_of(const struct repo *repo, const char *name)
{
    uint32_t hash = 2166136261u ^ (uint32_t) repo->type;
    for (const char *s = repo->id; *s; s++)
        hash = (hash ^ (unsigned char) *s) * 16777619u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char) *name) * 16777619u;
    return hash % STORE_BUCKETS;
}

// --- opening

// Where the index and the partial blobs are to be; NULL: nowhere.
static char *state_place(const struct store_options *options)
{
    if (options->index_in_memory)
        return NULL;
    char *dir = NULL;
    if (options->state_dir)
        dir = strdup(options->state_dir);
    else if (places_state_dir(options->cache_path, &dir) < 0)
        return NULL;
    return dir;
}

static char *index_place(const char *state_dir)
{
    char *path = NULL;
    if (state_dir && !places_is_local(state_dir))
        log_info("%s is not on a local file system: the index stays in memory", state_dir);
    else if (state_dir && asprintf(&path, "%s/index.db", state_dir) < 0)
        path = NULL;
    return path;
}

int store_open(const struct store_options *options, struct store **ret_store)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->repos_lock, NULL);
    _cleanup_free_ char *state_dir = NULL;
    int error = layout_open(options->cache_path, &store->layout);
    if (error == 0) {
        state_dir = state_place(options);
        store->index_path = index_place(state_dir);
        error = index_open(store->index_path, layout_path(store->layout), &store->index);
    }
    if (error == 0 && options->hub)
        error = store_hub_open(store, options, state_dir);
    if (error < 0) {
        store_close(store);
        return error;
    }
    *ret_store = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    store_hub_close(store);
    for (uint32_t i = 0; i < store->count; i++) {
        pthread_mutex_destroy(&store->by_number[i]->lock);
        pthread_mutex_destroy(&store->by_number[i]->ahead_lock);
        free(store->by_number[i]);
    }
    for (unsigned i = 0; i < STORE_BUCKETS; i++) {
        while (store->bindings[i]) {
            struct binding *b = store->bindings[i];
            store->bindings[i] = b->next;
            free(b);
        }
    }
    free(store->by_number);
    index_close(store->index);
    layout_close(store->layout);
    free(store->index_path);
    free(store->repos);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->repos_lock);
    free(store);
}

const struct layout *store_layout(const struct store *store)
{
    return store->layout;
}

bool store_index_in_memory(struct store *store, char ret_reason[256])
{
    return index_in_memory(store->index, ret_reason);
}

const char *store_index_path(const struct store *store)
{
    return store->index_path ? store->index_path : "";
}

// --- snapshots

const struct repo *snapshot_repo(const struct snapshot *snapshot)
{
    return &snapshot->repo;
}

const char *snapshot_commit(const struct snapshot *snapshot)
{
    return snapshot->commit;
}

uint32_t snapshot_number(const struct snapshot *snapshot)
{
    return snapshot->number;
}

int64_t snapshot_date(const struct snapshot *snapshot)
{
    return snapshot->date;
}

bool snapshot_is_void(struct store *store, const struct snapshot *snapshot)
{
    return snapshot->generation != index_generation(store->index);
}

bool snapshot_complete(const struct snapshot *snapshot)
{
    return snapshot->complete;
}

void snapshot_touch(struct snapshot *snapshot)
{
    snapshot->used_ms = util_now_ms();
}

void snapshot_hold(struct snapshot *snapshot)
{
    snapshot->holds++;
}

void snapshot_release(struct snapshot *snapshot)
{
    snapshot_touch(snapshot);
    snapshot->holds--;
}

static bool snapshot_in_use(const struct snapshot *snapshot)
{
    int64_t used = snapshot->used_ms;
    return snapshot->holds > 0 || (used != 0 && util_now_ms() - used < STORE_REF_HOLD_MS);
}

struct snapshot *store_snapshot(struct store *store, uint32_t number)
{
    UTIL_LOCKED(&store->lock);
    return number >= 1 && number <= store->count ? store->by_number[number - 1] : NULL;
}

// The store's lock is held.
static struct snapshot *snapshot_find(struct store *store, const struct repo *repo, const char *commit,
                                      unsigned generation)
{
    for (struct snapshot *s = store->by_name[bucket_of(repo, commit)]; s; s = s->next)
        if (s->generation == generation && strcmp(s->commit, commit) == 0 && names_repo_equal(&s->repo, repo))
            return s;
    return NULL;
}

// Puts a snapshot in the tables. The store's lock is held.
static int snapshot_add(struct store *store, struct snapshot *snapshot)
{
    if (store->count == store->room) {
        uint32_t room = store->room ? store->room * 2 : 64;
        struct snapshot **table = reallocarray(store->by_number, room, sizeof *table);
        if (!table)
            return -ENOMEM;
        store->by_number = table;
        store->room = room;
    }
    store->by_number[store->count++] = snapshot;
    snapshot->number = store->count;
    struct snapshot **head = &store->by_name[bucket_of(&snapshot->repo, snapshot->commit)];
    snapshot->next = *head;
    *head = snapshot;
    return 0;
}

int store_index_check(struct store *store, unsigned generation, int answer)
{
    if (answer == -EUCLEAN)
        index_forget(store->index, generation);
    if (generation != index_generation(store->index))
        return -ESTALE;
    return answer;
}

static int snapshot_make(struct store *store, const struct repo *repo, const char *commit,
                         struct snapshot **ret_snapshot)
{
    unsigned generation = index_generation(store->index);
    {
        UTIL_LOCKED(&store->lock);
        *ret_snapshot = snapshot_find(store, repo, commit, generation);
        if (*ret_snapshot)
            return 0;
    }
    struct snapshot *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    int error = store_index_check(store, generation, index_tree(store->index, repo, commit, &made->tree));
    if (error < 0) {
        free(made);
        return error;
    }
    made->repo = *repo;
    memcpy(made->commit, commit, sizeof made->commit);
    made->generation = generation;
    made->date = INDEX_NO_DATE;
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->ahead_lock, NULL);

    UTIL_LOCKED(&store->lock);
    *ret_snapshot = snapshot_find(store, repo, commit, generation);
    if (!*ret_snapshot) {
        error = snapshot_add(store, made);
        *ret_snapshot = made;
    }
    if (error < 0 || *ret_snapshot != made) {
        pthread_mutex_destroy(&made->lock);
        pthread_mutex_destroy(&made->ahead_lock);
        free(made);
    }
    return error;
}

int store_commits(struct store *store, const struct repo *repo, layout_commit_fn *fn, void *userdata)
{
    int r = 0;
    uint32_t count;
    {
        UTIL_LOCKED(&store->lock);
        count = store->count;
    }
    for (uint32_t number = 1; number <= count && r == 0; number++) {
        const struct snapshot *s = store_snapshot(store, number);
        if (names_repo_equal(&s->repo, repo) && store_has_commit(store, repo, s->commit))
            r = fn(userdata, s->commit);
    }
    return r;
}

// Asks the Hub for what the disk does not say. The snapshot's lock is held. -EINPROGRESS: it is being asked.
static int snapshot_ask(struct store *store, struct snapshot *s)
{
    if (!s->tree.complete) {
        int error = remote_tree(store->remote, &s->repo, s->commit, &s->tree);
        if (error == -EUCLEAN || error == -ENOMEM)
            return error;
        bool here = s->local || layout_has_commit(store->layout, &s->repo, s->commit);
        if (error < 0 && !here)
            return error;
        if (error == -EINPROGRESS && !s->local)
            return error;
        s->local |= error < 0; // what is on disk has to do; should the Hub answer later, all the better
        s->dated |= s->local;
    }
    if (s->tree.complete && !s->dated) {
        int error = s->tree.date == INDEX_NO_DATE ? remote_date(store->remote, &s->repo, s->commit, &s->tree) : 0;
        if (error < 0)
            return error;
    }
    return 0;
}

// A snapshot that the index can be asked about. One reading of the list of files is waited for. `ask`: the Hub may be
// asked, if there is one.
static int snapshot_ready(struct store *store, struct snapshot *s, bool ask)
{
    if (s->generation != index_generation(store->index))
        return -ESTALE;
    if (s->complete)
        return 0;
    UTIL_LOCKED(&s->lock);
    int64_t now = util_now_ms();
    if (s->complete || now < s->list_check_ms)
        return 0;
    int error = scan_tree(store->index, store->layout, &s->repo, s->commit, &s->tree);
    if (error == 0 && ask && store->online)
        error = snapshot_ask(store, s);
    error = store_index_check(store, s->generation, error);
    if (error < 0)
        return error;
    // From here on the kernel may know its times: they change no more.
    if (!s->dated && s->tree.complete && (ask || s->tree.date != INDEX_NO_DATE)) {
        s->date = s->tree.date;
        s->dated = true;
    }
    s->complete = s->tree.complete && s->dated;
    if (!s->complete)
        s->list_check_ms = util_now_ms() + CHECK_MS;
    return 0;
}

// Brings one directory up to date; a no-op where all is known.
static int dir_ready(struct store *store, struct snapshot *s, uint32_t dir, bool ask)
{
    int error = snapshot_ready(store, s, ask);
    if (error < 0 || s->complete)
        return error;
    UTIL_LOCKED(&s->lock);
    int64_t start = util_now_ms();
    if (s->checked_dir == dir && start < s->dir_check_ms)
        return 0;
    error = scan_dir(store->index, store->layout, &s->repo, s->commit, &s->tree, dir);
    // A reading that takes long is not done again at once.
    int64_t end = util_now_ms();
    s->checked_dir = dir;
    s->dir_check_ms = end + CHECK_MS + 4 * (end - start);
    return store_index_check(store, s->generation, error);
}

static int resolve_commit(struct store *store, const struct repo *repo, const char *commit, bool ask,
                          struct snapshot **ret_snapshot)
{
    struct snapshot *s;
    int error = snapshot_make(store, repo, commit, &s);
    if (error == -ESTALE) // the index was lost just now; the next one is empty and works
        error = snapshot_make(store, repo, commit, &s);
    if (error == 0)
        error = snapshot_ready(store, s, ask);
    if (error == 0)
        *ret_snapshot = s;
    return error;
}

// The ref's binding, made if need be. The store's lock is held. NULL when out of memory.
static struct binding *binding_of(struct store *store, const struct repo *repo, const char *ref)
{
    struct binding **head = &store->bindings[bucket_of(repo, ref)];
    for (struct binding *b = *head; b; b = b->next)
        if (strcmp(b->ref, ref) == 0 && names_repo_equal(&b->repo, repo))
            return b;
    size_t size = strlen(ref) + 1;
    struct binding *b = calloc(1, sizeof *b + size);
    if (!b)
        return NULL;
    b->repo = *repo;
    memcpy(b->ref, ref, size);
    b->next = *head;
    *head = b;
    return b;
}

// Replaces `commit` by the one that the ref led to before, if that is in use and still here.
static void binding_keep(struct store *store, const struct repo *repo, const char *ref, char commit[NAMES_COMMIT_SIZE])
{
    const struct snapshot *held = NULL;
    {
        UTIL_LOCKED(&store->lock);
        struct binding *b = binding_of(store, repo, ref);
        if (b && b->snapshot && strcmp(b->snapshot->commit, commit) != 0 && snapshot_in_use(b->snapshot))
            held = b->snapshot;
    }
    if (held && store_has_commit(store, repo, held->commit))
        memcpy(commit, held->commit, NAMES_COMMIT_SIZE);
}

static void binding_set(struct store *store, const struct repo *repo, const char *ref, struct snapshot *snapshot)
{
    UTIL_LOCKED(&store->lock);
    struct binding *b = binding_of(store, repo, ref);
    if (b)
        b->snapshot = snapshot;
    store_led_to(snapshot, ref);
}

void store_led_to(struct snapshot *snapshot, const char *ref)
{
    UTIL_LOCKED(&snapshot->ahead_lock);
    snprintf(snapshot->ref, sizeof snapshot->ref, "%s", ref);
}

bool store_has_commit(struct store *store, const struct repo *repo, const char *commit)
{
    if (layout_has_commit(store->layout, repo, commit))
        return true;
    struct index_tree tree;
    return store->hub && index_tree_known(store->index, repo, commit, &tree) == 0 && tree.complete && tree.from_hub;
}

// What a ref means now. Of what the cache and the Hub say the later counts; without the Hub, the cache.
static int ref_commit(struct store *store, const struct repo *repo, const char *ref, bool fresh,
                      char ret_commit[NAMES_COMMIT_SIZE])
{
    char commit[NAMES_COMMIT_SIZE];
    int64_t said, written = 0;
    int local = layout_ref(store->layout, repo, ref, ret_commit, &written);
    if (!store->hub || (!store->online && local == 0))
        return local;
    int asked = remote_ref(store->remote, repo, ref, fresh, commit, &said);
    if (asked == -EUCLEAN)
        index_forget(store->index, index_generation(store->index));
    if (asked == -EINPROGRESS && fresh)
        return asked;
    if (asked < 0)
        return local == 0 ? 0 : store->online || local != -ENOENT ? asked : local;
    if (local != 0 || said >= written)
        memcpy(ret_commit, commit, sizeof commit);
    return 0;
}

int store_ref(struct store *store, const struct repo *repo, const char *ref, bool fresh,
              char ret_commit[NAMES_COMMIT_SIZE])
{
    return names_ref_ok(ref) ? ref_commit(store, repo, ref, fresh, ret_commit) : -ENOENT;
}

int store_known(struct store *store, const struct repo *repo, const char *commit, struct snapshot **ret_snapshot)
{
    if (!names_commit_ok(commit) || !store_has_commit(store, repo, commit))
        return -ENOENT;
    return resolve_commit(store, repo, commit, false, ret_snapshot);
}

int store_resolve(struct store *store, const struct repo *repo, const char *revision, struct snapshot **ret_snapshot)
{
    if (names_commit_ok(revision)) {
        if (!store->online && !store_has_commit(store, repo, revision))
            return -ENOENT;
        return resolve_commit(store, repo, revision, true, ret_snapshot);
    }
    char commit[NAMES_COMMIT_SIZE];
    int error = store_ref(store, repo, revision, false, commit);
    if (error < 0)
        return error;
    binding_keep(store, repo, revision, commit);
    if (!store->online && !store_has_commit(store, repo, commit)) {
        log_warning("%s@%s: is commit %s, of which nothing is in the cache", repo->id, revision, commit);
        return -ENETUNREACH;
    }
    error = resolve_commit(store, repo, commit, true, ret_snapshot);
    if (error == 0)
        binding_set(store, repo, revision, *ret_snapshot);
    return error;
}

// --- entries

int store_entry(struct store *store, struct snapshot *s, uint32_t ordinal, struct entry *ret_entry)
{
    int error = snapshot_ready(store, s, true);
    if (error < 0)
        return error;
    error = store_index_check(store, s->generation, index_entry(store->index, s->tree.id, ordinal, ret_entry));
    return error == -ENOENT ? -ESTALE : error;
}

int store_lookup(struct store *store, struct snapshot *s, uint32_t dir, const char *name, struct entry *ret_entry)
{
    if (strlen(name) >= INDEX_NAME_SIZE)
        return -ENAMETOOLONG;
    int error = dir_ready(store, s, dir, true);
    if (error < 0)
        return error;
    snapshot_touch(s);
    return store_index_check(store, s->generation, index_entry_named(store->index, s->tree.id, dir, name, ret_entry));
}

int store_lookup_path(struct store *store, struct snapshot *s, const char *path, struct entry *ret_entry)
{
    *ret_entry = (struct entry){ .kind = ENTRY_DIR };
    while (*path) {
        const char *end = strchrnul(path, '/');
        char name[INDEX_NAME_SIZE];
        if (end - path >= (ptrdiff_t) sizeof name)
            return -ENOENT;
        snprintf(name, sizeof name, "%.*s", (int) (end - path), path);
        int error =
            ret_entry->kind == ENTRY_DIR ? store_lookup(store, s, ret_entry->ordinal, name, ret_entry) : -ENOTDIR;
        if (error < 0)
            return error;
        path = *end ? end + 1 : end;
    }
    return 0;
}

int store_list_start(struct store *store, struct snapshot *s, uint32_t dir, bool ask)
{
    return dir_ready(store, s, dir, ask);
}

bool store_is_listed(struct snapshot *s)
{
    if (s->complete)
        return true;
    UTIL_LOCKED(&s->lock);
    return s->tree.complete;
}

int store_files(struct store *store, struct snapshot *s, uint32_t after, struct entry *ret_entries, int max)
{
    return store_index_check(store, s->generation, index_files(store->index, s->tree.id, after, ret_entries, max));
}

int store_list(struct store *store, struct snapshot *s, uint32_t dir, const char *after, struct entry *ret_entries,
               int max)
{
    return store_index_check(store, s->generation,
                             index_entries(store->index, s->tree.id, dir, after, ret_entries, max));
}

int store_path(struct store *store, struct snapshot *s, uint32_t ordinal, char **ret_path)
{
    return store_index_check(store, s->generation, index_path(store->index, s->tree.id, ordinal, ret_path));
}
