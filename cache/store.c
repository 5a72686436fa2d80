// SPDX-License-Identifier: Apache-2.0
#include "cache/store.h"

#include "cache/log.h"
#include "cache/places.h"
#include "cache/scan.h"
#include "cache/util.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define BUCKETS 1024
#define CHECK_MS 200       // how often a directory that may change is looked at, at the most
#define REPOS_CHECK_MS 400 // the cache's own, which is read each time: a repo's link may come to life without a trace

struct snapshot {
    struct repo repo;
    char commit[NAMES_COMMIT_SIZE];
    uint32_t number;
    unsigned generation; // of the index it belongs to; void when that has moved on
    struct snapshot *next;

    atomic_bool complete;
    atomic_int holds;
    atomic_llong used_ms; // 0: never

    pthread_mutex_t lock;   // guards what follows: one reading at a time
    struct index_tree tree; // the id is constant
    int64_t list_check_ms;  // when trees/<commit>.json is looked for again
    uint32_t checked_dir;   // the directory that was looked at last, and when it is again
    int64_t dir_check_ms;
};

// The commit that a ref led to last.
struct binding {
    struct repo repo;
    struct binding *next;
    struct snapshot *snapshot;
    char ref[];
};

struct store {
    struct layout *layout;
    struct index *index;
    char *index_path; // NULL: nowhere

    pthread_mutex_t lock; // guards what follows
    struct snapshot *by_name[BUCKETS];
    struct binding *bindings[BUCKETS];
    struct snapshot **by_number; // number n at n - 1
    uint32_t count, room;

    pthread_mutex_t repos_lock; // guards what follows; taken before nothing else
    struct repo *repos;         // sorted
    size_t repo_count, repo_room;
    int64_t repos_check_ms;
};

static unsigned bucket_of(const struct repo *repo, const char *name)
{
    uint32_t hash = 2166136261u ^ (uint32_t) repo->type;
    for (const char *s = repo->id; *s; s++)
        hash = (hash ^ (unsigned char) *s) * 16777619u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char) *name) * 16777619u;
    return hash % BUCKETS;
}

// --- opening

// Where the index is to be; NULL: in memory.
static char *index_place(const struct store_options *options)
{
    if (options->index_in_memory)
        return NULL;
    _cleanup_free_ char *dir = NULL;
    if (options->state_dir)
        dir = strdup(options->state_dir);
    else if (places_state_dir(options->cache_path, &dir) < 0)
        return NULL;
    if (dir && !places_is_local(dir)) {
        log_info("%s is not on a local file system: the index stays in memory", dir);
        return NULL;
    }
    char *path = NULL;
    return dir && asprintf(&path, "%s/index.db", dir) >= 0 ? path : NULL;
}

int store_open(const struct store_options *options, struct store **ret_store)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return -ENOMEM;
    pthread_mutex_init(&store->lock, NULL);
    pthread_mutex_init(&store->repos_lock, NULL);
    int error = layout_open(options->cache_path, &store->layout);
    if (error == 0) {
        store->index_path = index_place(options);
        error = index_open(store->index_path, layout_path(store->layout), &store->index);
    }
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
    for (uint32_t i = 0; i < store->count; i++) {
        pthread_mutex_destroy(&store->by_number[i]->lock);
        free(store->by_number[i]);
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
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

// --- repos

static int repo_compare(const void *a, const void *b)
{
    const struct repo *x = a, *y = b;
    return x->type != y->type ? (x->type < y->type ? -1 : 1) : strcmp(x->id, y->id);
}

static int repos_add(void *userdata, const struct repo *repo)
{
    struct store *store = userdata;
    if (store->repo_count == store->repo_room) {
        size_t room = store->repo_room ? store->repo_room * 2 : 64;
        struct repo *repos = reallocarray(store->repos, room, sizeof *repos);
        if (!repos)
            return -ENOMEM;
        store->repos = repos;
        store->repo_room = room;
    }
    store->repos[store->repo_count++] = *repo;
    return 0;
}

// Reads the cache's directory, if that was not done just now. repos_lock is held.
static int repos_ready(struct store *store)
{
    if (util_now_ms() < store->repos_check_ms)
        return 0;
    store->repo_count = 0;
    int error = layout_repos(store->layout, repos_add, store);
    if (error < 0)
        return error;
    if (store->repo_count > 0)
        qsort(store->repos, store->repo_count, sizeof *store->repos, repo_compare);
    store->repos_check_ms = util_now_ms() + REPOS_CHECK_MS;
    return 0;
}

// The first repo that is not before `repo`. repos_lock is held.
static size_t repos_from(const struct store *store, const struct repo *repo)
{
    size_t low = 0, high = store->repo_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (repo_compare(&store->repos[middle], repo) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool store_has_repo(struct store *store, const struct repo *repo)
{
    UTIL_LOCKED(&store->repos_lock);
    if (repos_ready(store) < 0)
        return false;
    size_t at = repos_from(store, repo);
    return at < store->repo_count && names_repo_equal(&store->repos[at], repo);
}

bool store_has_org(struct store *store, enum repo_type type, const char *org)
{
    struct repo first = { .type = type };
    size_t len = (size_t) snprintf(first.id, sizeof first.id, "%s/", org);
    UTIL_LOCKED(&store->repos_lock);
    if (repos_ready(store) < 0)
        return false;
    size_t at = repos_from(store, &first);
    return at < store->repo_count && store->repos[at].type == type && strncmp(store->repos[at].id, first.id, len) == 0;
}

ssize_t store_repos(struct store *store, struct repo **ret_repos)
{
    UTIL_LOCKED(&store->repos_lock);
    int error = repos_ready(store);
    if (error < 0)
        return error;
    struct repo *repos = calloc(store->repo_count + 1, sizeof *repos);
    if (!repos)
        return -ENOMEM;
    if (store->repo_count > 0)
        memcpy(repos, store->repos, store->repo_count * sizeof *repos);
    *ret_repos = repos;
    return (ssize_t) store->repo_count;
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

// What an answer of the index is worth. -EUCLEAN empties it; when that happened since `generation` was read, by
// whomever, the answer may be of another tree, or of none: -ESTALE.
static int index_check(struct store *store, unsigned generation, int answer)
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
    int error = index_check(store, generation, index_tree(store->index, repo, commit, &made->tree));
    if (error < 0) {
        free(made);
        return error;
    }
    made->repo = *repo;
    memcpy(made->commit, commit, sizeof made->commit);
    made->generation = generation;
    pthread_mutex_init(&made->lock, NULL);

    UTIL_LOCKED(&store->lock);
    *ret_snapshot = snapshot_find(store, repo, commit, generation);
    if (!*ret_snapshot) {
        error = snapshot_add(store, made);
        *ret_snapshot = made;
    }
    if (error < 0 || *ret_snapshot != made) {
        pthread_mutex_destroy(&made->lock);
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
        if (names_repo_equal(&s->repo, repo) && layout_has_commit(store->layout, repo, s->commit))
            r = fn(userdata, s->commit);
    }
    return r;
}

// A snapshot that the index can be asked about. One reading of the list of files is waited for.
static int snapshot_ready(struct store *store, struct snapshot *s)
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
    error = index_check(store, s->generation, error);
    if (error < 0)
        return error;
    s->complete = s->tree.complete;
    s->list_check_ms = util_now_ms() + CHECK_MS;
    return 0;
}

// Brings one directory up to date; a no-op where all is known.
static int dir_ready(struct store *store, struct snapshot *s, uint32_t dir)
{
    int error = snapshot_ready(store, s);
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
    return index_check(store, s->generation, error);
}

static int resolve_commit(struct store *store, const struct repo *repo, const char *commit,
                          struct snapshot **ret_snapshot)
{
    struct snapshot *s;
    int error = snapshot_make(store, repo, commit, &s);
    if (error == -ESTALE) // the index was lost just now; the next one is empty and works
        error = snapshot_make(store, repo, commit, &s);
    if (error == 0)
        error = snapshot_ready(store, s);
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
    if (held && layout_has_commit(store->layout, repo, held->commit))
        memcpy(commit, held->commit, NAMES_COMMIT_SIZE);
}

static void binding_set(struct store *store, const struct repo *repo, const char *ref, struct snapshot *snapshot)
{
    UTIL_LOCKED(&store->lock);
    struct binding *b = binding_of(store, repo, ref);
    if (b)
        b->snapshot = snapshot;
}

int store_resolve(struct store *store, const struct repo *repo, const char *revision, struct snapshot **ret_snapshot)
{
    if (names_commit_ok(revision)) {
        if (!layout_has_commit(store->layout, repo, revision))
            return -ENOENT;
        return resolve_commit(store, repo, revision, ret_snapshot);
    }
    if (!names_ref_ok(revision))
        return -ENOENT;
    char commit[NAMES_COMMIT_SIZE];
    int error = layout_ref(store->layout, repo, revision, commit);
    if (error < 0)
        return error;
    binding_keep(store, repo, revision, commit);
    if (!layout_has_commit(store->layout, repo, commit)) {
        log_warning("%s@%s: is commit %s, of which nothing is in the cache", repo->id, revision, commit);
        return -ENETUNREACH;
    }
    error = resolve_commit(store, repo, commit, ret_snapshot);
    if (error == 0)
        binding_set(store, repo, revision, *ret_snapshot);
    return error;
}

// --- entries

int store_entry(struct store *store, struct snapshot *s, uint32_t ordinal, struct entry *ret_entry)
{
    int error = snapshot_ready(store, s);
    if (error < 0)
        return error;
    error = index_check(store, s->generation, index_entry(store->index, s->tree.id, ordinal, ret_entry));
    return error == -ENOENT ? -ESTALE : error;
}

int store_lookup(struct store *store, struct snapshot *s, uint32_t dir, const char *name, struct entry *ret_entry)
{
    if (strlen(name) >= INDEX_NAME_SIZE)
        return -ENAMETOOLONG;
    int error = dir_ready(store, s, dir);
    if (error < 0)
        return error;
    snapshot_touch(s);
    return index_check(store, s->generation, index_entry_named(store->index, s->tree.id, dir, name, ret_entry));
}

int store_list_start(struct store *store, struct snapshot *s, uint32_t dir)
{
    return dir_ready(store, s, dir);
}

int store_files(struct store *store, struct snapshot *s, uint32_t after, struct entry *ret_entries, int max)
{
    return index_check(store, s->generation, index_files(store->index, s->tree.id, after, ret_entries, max));
}

int store_list(struct store *store, struct snapshot *s, uint32_t dir, const char *after, struct entry *ret_entries,
               int max)
{
    return index_check(store, s->generation, index_entries(store->index, s->tree.id, dir, after, ret_entries, max));
}

int store_path(struct store *store, struct snapshot *s, uint32_t ordinal, char **ret_path)
{
    return index_check(store, s->generation, index_path(store->index, s->tree.id, ordinal, ret_path));
}

// --- files

// Opens the bytes of an entry, and nothing else than them.
static int file_open(struct store *store, const struct snapshot *s, const struct entry *e, const char *path,
                     int *ret_fd)
{
    if (e->kind == ENTRY_REFUSED)
        return -EPERM;
    if (e->kind != ENTRY_FILE)
        return e->kind == ENTRY_DIR ? -EISDIR : -ENOENT;
    bool plain = scan_is_identity(e->etag);
    _cleanup_close_ int fd = -1;
    int error =
        layout_file_open(store->layout, &s->repo, s->commit, path, plain ? "" : e->etag, e->xet_hash, e->size, &fd);
    if (error < 0)
        return error;
    if (plain) {
        struct stat st;
        char identity[NAMES_ETAG_SIZE];
        if (fstat(fd, &st) < 0)
            return -errno;
        scan_identity(&st, identity);
        if (strcmp(identity, e->etag) != 0)
            return -ESTALE;
    }
    *ret_fd = util_take_fd(&fd);
    return 0;
}

static const char *file_problem(int error)
{
    switch (error) {
    case -ENOENT:
        return "not in the cache";
    case -EPERM:
        return "refused: its link leads out of the repo's blobs and the shared store";
    case -EIO:
        return "its blob has another size than the commit says";
    default:
        return strerror(-error);
    }
}

// An open found something else than what the directory was read as: it is read again, and the kernel is told to look
// the name up anew. Of a commit whose list is known nothing else is right.
static int file_doubt(struct store *store, struct snapshot *s, const struct entry *e)
{
    if (s->complete)
        return -EIO;
    int error = index_check(store, s->generation, index_dir_doubt(store->index, s->tree.id, e->parent));
    UTIL_LOCKED(&s->lock);
    s->dir_check_ms = 0;
    return error < 0 ? error : -ESTALE;
}

int store_file_open(struct store *store, struct snapshot *s, uint32_t ordinal, int *ret_fd, int64_t *ret_size)
{
    struct entry e;
    int error = store_entry(store, s, ordinal, &e);
    if (error < 0)
        return error;
    snapshot_touch(s);
    _cleanup_free_ char *path = NULL;
    error = store_path(store, s, ordinal, &path);
    if (error == 0)
        error = file_open(store, s, &e, path, ret_fd);
    if (error == -ESTALE || (error == -EIO && !s->complete))
        error = file_doubt(store, s, &e);
    if (error < 0) {
        if (error == -ESTALE)
            return error;
        log_warning("%s@%s: %s: %s", s->repo.id, s->commit, path ? path : "?", file_problem(error));
        return error == -ENOENT ? -ENETUNREACH : error;
    }
    *ret_size = e.size;
    return 0;
}

bool store_file_whole(struct store *store, struct snapshot *s, const struct entry *e)
{
    _cleanup_close_ int fd = -1;
    _cleanup_free_ char *path = NULL;
    return store_path(store, s, e->ordinal, &path) == 0 && file_open(store, s, e, path, &fd) == 0;
}
