// SPDX-License-Identifier: Apache-2.0
#include "cache/index.h"

#include "cache/index_db.h"
#include "cache/log.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#define RACY_NS 2000000000LL // a change this close to the reading may not show in the times

// SQLITE_OPEN_NOFOLLOW refuses a link anywhere in the path: the directory's own links are resolved first, those of the
// file stay refused.
static char *path_resolve(const char *path)
{
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *dir = slash ? strndup(path, (size_t) (slash - path) + 1) : strdup("./");
    _cleanup_free_ char *real = dir ? realpath(dir, NULL) : NULL;
    char *resolved = NULL;
    if (!real || asprintf(&resolved, "%s/%s", real, slash ? slash + 1 : path) < 0)
        return NULL;
    return resolved;
}

int index_open(const char *path, const char *scope, struct index **ret_index)
{
    struct index *ix = calloc(1, sizeof *ix);
    if (!ix)
        return -ENOMEM;
    snprintf(ix->scope, sizeof ix->scope, "%016llx", (unsigned long long) XXH3_64bits(scope, strlen(scope)));
    pthread_mutex_init(&ix->reader.lock, NULL);
    pthread_mutex_init(&ix->writer.lock, NULL);
    if (path) {
        char *resolved = path_resolve(path);
        int rc = resolved ? db_open(resolved, &ix->reader, &ix->writer) : SQLITE_CANTOPEN;
        if (rc == SQLITE_OK) {
            ix->path = resolved;
        } else {
            free(resolved);
            const char *why = rc == SQLITE_MISMATCH ? "not ours, or of a newer version" : sqlite3_errstr(rc);
            snprintf(ix->reason, sizeof ix->reason, "%s: %s", path, why);
            log_warning("index %s; working without it, in memory", ix->reason);
        }
    } else {
        snprintf(ix->reason, sizeof ix->reason, "no place for it");
    }
    if (!ix->path) {
        if (db_open(NULL, &ix->reader, &ix->writer) != SQLITE_OK) {
            index_close(ix);
            return -ENOMEM;
        }
    }
    *ret_index = ix;
    return 0;
}

void index_close(struct index *ix)
{
    if (!ix)
        return;
    db_close(&ix->reader, &ix->writer);
    pthread_mutex_destroy(&ix->reader.lock);
    pthread_mutex_destroy(&ix->writer.lock);
    free(ix->path);
    free(ix->last_dir);
    free(ix);
}

bool index_in_memory(struct index *ix, char ret_reason[256])
{
    UTIL_LOCKED(&ix->reader.lock);
    snprintf(ret_reason, 256, "%s", ix->reason);
    return !ix->path;
}

unsigned index_generation(struct index *ix)
{
    return ix->generation;
}

bool index_forget(struct index *ix, unsigned generation)
{
    pthread_mutex_lock(&ix->writer.lock);
    pthread_mutex_lock(&ix->reader.lock);
    bool first = ix->generation == generation;
    if (first) {
        ix->generation++;
        const char *why = *ix->writer.trouble ? ix->writer.trouble : ix->reader.trouble;
        snprintf(ix->reason, sizeof ix->reason, "%s cannot be worked with: %s", ix->path ? ix->path : "the database",
                 *why ? why : "rows that nobody of ours has written");
        log_warning("index %s; going on without it, in memory", ix->reason);
        db_close(&ix->reader, &ix->writer);
        free(ix->path);
        ix->path = NULL;
        if (db_open(NULL, &ix->reader, &ix->writer) != SQLITE_OK)
            log_error("index: out of memory");
    }
    pthread_mutex_unlock(&ix->reader.lock);
    pthread_mutex_unlock(&ix->writer.lock);
    return first;
}

// --- stamps

struct index_stamp index_stamp_of(const struct stat *st)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct index_stamp stamp = {
        .device = (int64_t) st->st_dev,
        .inode = (int64_t) st->st_ino,
        .size = st->st_size,
        .mtime_ns = st->st_mtim.tv_sec * 1000000000LL + st->st_mtim.tv_nsec,
        .ctime_ns = st->st_ctim.tv_sec * 1000000000LL + st->st_ctim.tv_nsec,
    };
    int64_t racy_from = now.tv_sec * 1000000000LL + now.tv_nsec - RACY_NS;
    if (stamp.mtime_ns > racy_from || stamp.ctime_ns > racy_from)
        stamp = (struct index_stamp){ 0 };
    return stamp;
}

bool index_stamp_equal(const struct index_stamp *a, const struct index_stamp *b)
{
    return a->ctime_ns != 0 && a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

static void bind_stamp(sqlite3_stmt *s, int at, const struct index_stamp *stamp)
{
    sqlite3_bind_int64(s, at, stamp->device);
    sqlite3_bind_int64(s, at + 1, stamp->inode);
    sqlite3_bind_int64(s, at + 2, stamp->size);
    sqlite3_bind_int64(s, at + 3, stamp->mtime_ns);
    sqlite3_bind_int64(s, at + 4, stamp->ctime_ns);
}

static struct index_stamp column_stamp(sqlite3_stmt *s, int at)
{
    return (struct index_stamp){
        .device = sqlite3_column_int64(s, at),
        .inode = sqlite3_column_int64(s, at + 1),
        .size = sqlite3_column_int64(s, at + 2),
        .mtime_ns = sqlite3_column_int64(s, at + 3),
        .ctime_ns = sqlite3_column_int64(s, at + 4),
    };
}

// --- hashes, packed when they are hex

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void bind_hash(sqlite3_stmt *s, int at, const char *hash)
{
    unsigned char packed[NAMES_ETAG_SIZE / 2];
    size_t len = strlen(hash);
    size_t n = 0;
    for (; len % 2 == 0 && n < len / 2 && n < sizeof packed; n++) {
        int high = hex_digit(hash[2 * n]), low = hex_digit(hash[2 * n + 1]);
        if (high < 0 || low < 0)
            break;
        packed[n] = (unsigned char) (high * 16 + low);
    }
    if (len > 0 && n == len / 2 && len % 2 == 0)
        sqlite3_bind_blob(s, at, packed, (int) n, SQLITE_TRANSIENT);
    else
        sqlite3_bind_text(s, at, hash, (int) len, SQLITE_TRANSIENT);
}

static void column_hash(sqlite3_stmt *s, int at, char *ret, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = sqlite3_column_blob(s, at);
    size_t n = (size_t) sqlite3_column_bytes(s, at);
    ret[0] = '\0';
    if (!bytes)
        return;
    bool packed = sqlite3_column_type(s, at) == SQLITE_BLOB;
    if ((packed ? 2 * n : n) >= size)
        return;
    for (size_t i = 0; i < n; i++) {
        if (packed) {
            ret[2 * i] = digits[bytes[i] >> 4];
            ret[2 * i + 1] = digits[bytes[i] & 15];
        } else {
            ret[i] = (char) bytes[i];
        }
    }
    ret[packed ? 2 * n : n] = '\0';
}

// --- entries

static int column_entry(sqlite3_stmt *s, struct entry *e)
{
    int64_t ordinal = sqlite3_column_int64(s, 0), parent = sqlite3_column_int64(s, 1);
    int kind = sqlite3_column_int(s, 2);
    const char *name = sqlite3_column_blob(s, 6);
    int len = sqlite3_column_bytes(s, 6);
    // A row that nobody of ours has written: the file is somebody else's work, or damaged.
    if (ordinal < 1 || ordinal > UINT32_MAX || parent < 0 || parent > UINT32_MAX || kind < 0 || kind > ENTRY_REFUSED ||
        !name || len < 1 || len >= INDEX_NAME_SIZE || memchr(name, '/', (size_t) len) || memchr(name, 0, (size_t) len))
        return -EUCLEAN;
    e->ordinal = (uint32_t) ordinal;
    e->parent = (uint32_t) parent;
    e->kind = (enum entry_kind) kind;
    e->size = sqlite3_column_int64(s, 3);
    if (e->size < 0)
        return -EUCLEAN;
    column_hash(s, 4, e->etag, sizeof e->etag);
    column_hash(s, 5, e->xet_hash, sizeof e->xet_hash);
    column_hash(s, 7, e->blob_id, sizeof e->blob_id);
    memcpy(e->name, name, (size_t) len);
    e->name[len] = '\0';
    return 0;
}

static int entry_by_ordinal(struct connection *c, int64_t tree, uint32_t ordinal, struct entry *ret_entry)
{
    if (ordinal == 0) {
        *ret_entry = (struct entry){ .kind = ENTRY_DIR };
        return 0;
    }
    int error = 0;
    DB_STATEMENT(s, c, ENTRY_BY_ORDINAL, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, tree);
    sqlite3_bind_int64(s, 2, ordinal);
    error = db_step(c, s);
    return error < 0 ? error : error == 0 ? -ENOENT : column_entry(s, ret_entry);
}

static int entry_by_name(struct connection *c, int64_t tree, uint32_t parent, const char *name, size_t len,
                         struct entry *ret_entry, int64_t *ret_pass)
{
    int error = 0;
    DB_STATEMENT(s, c, ENTRY_BY_NAME, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, tree);
    sqlite3_bind_int64(s, 2, parent);
    sqlite3_bind_blob(s, 3, name, (int) len, SQLITE_STATIC);
    error = db_step(c, s);
    if (error <= 0)
        return error < 0 ? error : -ENOENT;
    if (ret_pass)
        *ret_pass = sqlite3_column_int64(s, 8);
    return column_entry(s, ret_entry);
}

int index_entry(struct index *ix, int64_t tree, uint32_t ordinal, struct entry *ret_entry)
{
    UTIL_LOCKED(&ix->reader.lock);
    return entry_by_ordinal(&ix->reader, tree, ordinal, ret_entry);
}

int index_entry_named(struct index *ix, int64_t tree, uint32_t parent, const char *name, struct entry *ret_entry)
{
    UTIL_LOCKED(&ix->reader.lock);
    return entry_by_name(&ix->reader, tree, parent, name, strlen(name), ret_entry, NULL);
}

// Copies the rows of a statement that is bound and ready.
static int collect(struct connection *c, sqlite3_stmt *s, struct entry *ret_entries, int max)
{
    int count = 0, row;
    while (count < max && (row = db_step(c, s)) != 0) {
        if (row < 0)
            return row;
        int error = column_entry(s, &ret_entries[count]);
        if (error < 0)
            return error;
        count++;
    }
    return count;
}

int index_entries(struct index *ix, int64_t tree, uint32_t parent, const char *after, struct entry *ret_entries,
                  int max)
{
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, LIST, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, tree);
    sqlite3_bind_int64(s, 2, parent);
    sqlite3_bind_blob(s, 3, after, (int) strlen(after), SQLITE_STATIC);
    sqlite3_bind_int(s, 4, max);
    return collect(&ix->reader, s, ret_entries, max);
}

int index_files(struct index *ix, int64_t tree, uint32_t after, struct entry *ret_entries, int max)
{
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, FILES, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, tree);
    sqlite3_bind_int64(s, 2, after);
    sqlite3_bind_int(s, 3, max);
    return collect(&ix->reader, s, ret_entries, max);
}

int index_path(struct index *ix, int64_t tree, uint32_t ordinal, char **ret_path)
{
    // From the end of the buffer to its start, as the walk goes from the file up.
    char buffer[4096 + 1];
    size_t at = sizeof buffer - 1;
    buffer[at] = '\0';
    UTIL_LOCKED(&ix->reader.lock);
    while (ordinal != 0) {
        struct entry e;
        int error = entry_by_ordinal(&ix->reader, tree, ordinal, &e);
        if (error < 0)
            return error;
        size_t len = strlen(e.name);
        bool slash = at != sizeof buffer - 1;
        if (e.parent >= ordinal) // a parent is known before its children
            return -EUCLEAN;
        if (len + slash > at)
            return -ENAMETOOLONG;
        if (slash)
            buffer[--at] = '/';
        at -= len;
        memcpy(buffer + at, e.name, len);
        ordinal = e.parent;
    }
    *ret_path = strdup(buffer + at);
    return *ret_path ? 0 : -ENOMEM;
}

// --- trees

static int tree_find(struct connection *c, const char *key, const char *commit, struct index_tree *ret_tree)
{
    int error = 0;
    DB_STATEMENT(s, c, FIND_TREE, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, commit, -1, SQLITE_STATIC);
    error = db_step(c, s);
    if (error <= 0)
        return error < 0 ? error : -ENOENT;
    *ret_tree = (struct index_tree){
        .id = sqlite3_column_int64(s, 0),
        .complete = sqlite3_column_int(s, 1) != 0,
        .stamp = column_stamp(s, 2),
        .from_hub = sqlite3_column_int(s, 7) != 0,
        .date = sqlite3_column_type(s, 8) == SQLITE_INTEGER ? sqlite3_column_int64(s, 8) : INDEX_NO_DATE,
    };
    return 0;
}

static int tree_insert(struct connection *c, unsigned generation, const char *key, const char *commit)
{
    int error = 0;
    DB_STATEMENT(s, c, ADD_TREE, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, commit, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 3, (int64_t) generation << 32);
    error = db_step(c, s);
    return error < 0 ? error : 0;
}

int index_tree(struct index *ix, const struct repo *repo, const char *commit, struct index_tree *ret_tree)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    {
        UTIL_LOCKED(&ix->reader.lock);
        int error = tree_find(&ix->reader, key, commit, ret_tree);
        if (error != -ENOENT)
            return error;
    }
    UTIL_LOCKED(&ix->writer.lock);
    int error = tree_insert(&ix->writer, ix->generation, key, commit);
    return error < 0 ? error : tree_find(&ix->writer, key, commit, ret_tree);
}

int index_tree_known(struct index *ix, const struct repo *repo, const char *commit, struct index_tree *ret_tree)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    UTIL_LOCKED(&ix->reader.lock);
    return tree_find(&ix->reader, key, commit, ret_tree);
}

// Reads the tree's next ordinal and pass into the index's fields.
static int pass_load(struct index *ix)
{
    int error = 0;
    DB_STATEMENT(s, &ix->writer, GET_PASS, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, ix->tree);
    error = db_step(&ix->writer, s);
    if (error <= 0)
        return error < 0 ? error : -EUCLEAN;
    ix->next = sqlite3_column_int64(s, 0);
    ix->pass = sqlite3_column_int64(s, 1);
    ix->complete = sqlite3_column_int(s, 2) != 0;
    return 0;
}

// Begins a transaction on one tree. On success the writer's lock is held until transaction_end().
static int transaction_begin(struct index *ix, int64_t tree)
{
    int error = db_begin(ix);
    if (error < 0)
        return error;
    ix->tree = tree;
    error = db_run(&ix->writer, START_PASS, tree, 0);
    if (error == 0)
        error = pass_load(ix);
    return error < 0 ? db_end(ix, error) : 0;
}

// Commits if `error` is 0, else rolls back; gives the lock back.
static int transaction_end(struct index *ix, int error)
{
    free(ix->last_dir);
    ix->last_dir = NULL;
    return db_end(ix, error);
}

static int entry_insert(struct index *ix, struct entry *e)
{
    if (ix->next > UINT32_MAX)
        return -EUCLEAN;
    int error = 0;
    DB_STATEMENT(s, &ix->writer, ADD_ENTRY, &error);
    if (!s)
        return error;
    e->ordinal = (uint32_t) ix->next;
    sqlite3_bind_int64(s, 1, ix->tree);
    sqlite3_bind_int64(s, 2, e->parent);
    sqlite3_bind_blob(s, 3, e->name, (int) strlen(e->name), SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, e->ordinal);
    sqlite3_bind_int(s, 5, (int) e->kind);
    sqlite3_bind_int64(s, 6, e->size);
    bind_hash(s, 7, e->etag);
    bind_hash(s, 8, e->blob_id);
    bind_hash(s, 9, e->xet_hash);
    sqlite3_bind_int64(s, 10, ix->pass);
    error = db_step(&ix->writer, s);
    if (error < 0)
        return error;
    ix->next++;
    return 0;
}

static int entry_see(struct index *ix, const struct entry *e)
{
    int error = 0;
    DB_STATEMENT(s, &ix->writer, SEE_ENTRY, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, ix->tree);
    sqlite3_bind_int64(s, 2, e->parent);
    sqlite3_bind_blob(s, 3, e->name, (int) strlen(e->name), SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, ix->pass);
    bind_hash(s, 5, e->xet_hash);
    bind_hash(s, 6, e->blob_id);
    error = db_step(&ix->writer, s);
    return error < 0 ? error : 0;
}

static int entry_drop(struct index *ix, const struct entry *e)
{
    int error = 0;
    DB_STATEMENT(s, &ix->writer, DROP_ENTRY, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, ix->tree);
    sqlite3_bind_int64(s, 2, e->parent);
    sqlite3_bind_blob(s, 3, e->name, (int) strlen(e->name), SQLITE_STATIC);
    error = db_step(&ix->writer, s);
    return error < 0 ? error : 0;
}

// Puts one entry in its place, or finds it there; its ordinal is written back. -EEXIST when this pass has put something
// else there.
static int entry_put(struct index *ix, struct entry *e)
{
    struct entry old;
    int64_t pass;
    int error = entry_by_name(&ix->writer, ix->tree, e->parent, e->name, strlen(e->name), &old, &pass);
    if (error == -ENOENT)
        return entry_insert(ix, e);
    if (error < 0)
        return error;
    if (pass == ix->pass && (e->kind != ENTRY_DIR || old.kind != ENTRY_DIR))
        return -EEXIST;
    if (old.kind == e->kind && old.size == e->size && strcmp(old.etag, e->etag) == 0) {
        e->ordinal = old.ordinal;
        return entry_see(ix, e);
    }
    error = entry_drop(ix, &old);
    return error < 0 ? error : entry_insert(ix, e);
}

// The ordinal of a directory by its path, made with all above it where it is not there.
static int dir_put(struct index *ix, const char *path, size_t len, uint32_t *ret_ordinal)
{
    if (ix->last_dir && strlen(ix->last_dir) == len && memcmp(ix->last_dir, path, len) == 0) {
        *ret_ordinal = ix->last_dir_ordinal;
        return 0;
    }
    uint32_t ordinal = 0;
    for (size_t at = 0; at < len;) {
        const char *slash = memchr(path + at, '/', len - at);
        size_t part = slash ? (size_t) (slash - (path + at)) : len - at;
        struct entry e = { .parent = ordinal, .kind = ENTRY_DIR };
        assert(part < sizeof e.name);
        memcpy(e.name, path + at, part);
        int error = entry_put(ix, &e);
        if (error < 0)
            return error;
        ordinal = e.ordinal;
        at += part + 1;
    }
    free(ix->last_dir);
    ix->last_dir = strndup(path, len);
    if (!ix->last_dir)
        return -ENOMEM;
    ix->last_dir_ordinal = ordinal;
    *ret_ordinal = ordinal;
    return 0;
}

int index_tree_start(struct index *ix, int64_t tree)
{
    return transaction_begin(ix, tree);
}

int index_tree_add(struct index *ix, const struct index_file *files, size_t count, size_t *ret_clash)
{
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(files[i].path, '/');
        struct entry e = { .kind = ENTRY_FILE, .size = files[i].size };
        int error = dir_put(ix, files[i].path, slash ? (size_t) (slash - files[i].path) : 0, &e.parent);
        if (error == 0) {
            snprintf(e.name, sizeof e.name, "%s", slash ? slash + 1 : files[i].path);
            snprintf(e.etag, sizeof e.etag, "%s", files[i].etag);
            snprintf(e.blob_id, sizeof e.blob_id, "%s", files[i].blob_id ? files[i].blob_id : "");
            snprintf(e.xet_hash, sizeof e.xet_hash, "%s", files[i].xet_hash);
            error = entry_put(ix, &e);
        }
        if (error < 0) {
            *ret_clash = i;
            return error;
        }
    }
    return 0;
}

int index_tree_finish(struct index *ix, const struct index_stamp *stamp, bool from_hub)
{
    int error = db_run(&ix->writer, DROP_UNSEEN, ix->tree, ix->pass);
    if (error == 0) {
        DB_STATEMENT(s, &ix->writer, FINISH_TREE, &error);
        if (s) {
            sqlite3_bind_int64(s, 1, ix->tree);
            sqlite3_bind_int64(s, 2, ix->next);
            bind_stamp(s, 3, stamp);
            sqlite3_bind_int(s, 8, from_hub);
            error = db_step(&ix->writer, s);
        }
    }
    return transaction_end(ix, error);
}

void index_tree_abandon(struct index *ix)
{
    transaction_end(ix, -ECANCELED);
}

int index_tree_date(struct index *ix, int64_t tree, int64_t date)
{
    UTIL_LOCKED(&ix->writer.lock);
    return db_run(&ix->writer, SET_DATE, tree, date);
}

// --- directories of incomplete trees

int index_dir_stamp(struct index *ix, int64_t tree, uint32_t ordinal, struct index_stamp *ret_stamp)
{
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, GET_STAMP, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, tree);
    sqlite3_bind_int64(s, 2, ordinal);
    error = db_step(&ix->reader, s);
    if (error < 0)
        return error;
    *ret_stamp = error ? column_stamp(s, 0) : (struct index_stamp){ 0 };
    return 0;
}

int index_dir_doubt(struct index *ix, int64_t tree, uint32_t ordinal)
{
    UTIL_LOCKED(&ix->writer.lock);
    return db_run(&ix->writer, DROP_STAMP, tree, ordinal);
}

static int stamp_set(struct index *ix, uint32_t ordinal, const struct index_stamp *stamp)
{
    int error = 0;
    DB_STATEMENT(s, &ix->writer, SET_STAMP, &error);
    if (!s)
        return error;
    sqlite3_bind_int64(s, 1, ix->tree);
    sqlite3_bind_int64(s, 2, ordinal);
    bind_stamp(s, 3, stamp);
    error = db_step(&ix->writer, s);
    return error < 0 ? error : 0;
}

// Drops what a directory holds and this pass has not seen. What lies below a dropped directory can no longer be
// reached by name; its ordinals are never given again.
static int dir_drop_unseen(struct index *ix, uint32_t ordinal)
{
    struct entry *rows = malloc(64 * sizeof *rows);
    if (!rows)
        return -ENOMEM;
    char after[INDEX_NAME_SIZE] = "";
    int count, error = 0;
    do {
        DB_STATEMENT(s, &ix->writer, LIST, &error);
        if (!s)
            break;
        sqlite3_bind_int64(s, 1, ix->tree);
        sqlite3_bind_int64(s, 2, ordinal);
        sqlite3_bind_blob(s, 3, after, (int) strlen(after), SQLITE_STATIC);
        sqlite3_bind_int(s, 4, 64);
        count = collect(&ix->writer, s, rows, 64);
        for (int i = 0; i < count && error == 0; i++) {
            struct entry e;
            int64_t pass;
            error = entry_by_name(&ix->writer, ix->tree, ordinal, rows[i].name, strlen(rows[i].name), &e, &pass);
            if (error == 0 && pass != ix->pass)
                error = entry_drop(ix, &e);
            if (error == 0 && pass != ix->pass)
                error = db_run(&ix->writer, DROP_STAMP, ix->tree, e.ordinal);
        }
        if (count > 0)
            memcpy(after, rows[count - 1].name, sizeof after);
        else if (count < 0)
            error = count;
    } while (error == 0 && count == 64);
    free(rows);
    return error;
}

int index_dir_replace(struct index *ix, int64_t tree, uint32_t ordinal, const struct index_stamp *stamp,
                      struct entry *entries, size_t count)
{
    int error = transaction_begin(ix, tree);
    if (error < 0)
        return error;
    if (ix->complete)
        return transaction_end(ix, 0);
    for (size_t i = 0; i < count && error == 0; i++) {
        entries[i].parent = ordinal;
        error = entry_put(ix, &entries[i]);
        if (error == -EEXIST) // the directory changed while it was read and showed one name twice
            error = 0;
    }
    if (error == 0)
        error = dir_drop_unseen(ix, ordinal);
    if (error == 0)
        error = stamp_set(ix, ordinal, stamp);
    if (error == 0)
        error = db_run(&ix->writer, SET_NEXT, ix->next, tree);
    return transaction_end(ix, error);
}
