// SPDX-License-Identifier: Apache-2.0
#include "cache/remote_reply.h"

#include "cache/index_refs.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define CHUNK ((size_t) 256 * 1024) // more than any one record
#define CHUNKS_MAX 1024             // over a million files; no repo of the Hub has that many
#define BATCH 512

// Records one after another: a tree's files (size, then path, etag, blob_id and xet_hash, each with its NUL), or refs
// (name and commit). None is divided.
struct chunk {
    struct chunk *next;
    size_t used;
    char bytes[CHUNK];
};

struct reply {
    enum reply_kind kind;
    const struct repo *repo;
    const char *name;
    reply_fn *fn;
    void *userdata;
    struct hub_call *call;
    atomic_bool begun;

    // The http thread's until `fn` is called.
    struct hub_error error;
    char commit[NAMES_COMMIT_SIZE];
    int64_t date;
    int64_t asked_ms, came_ms; // of CLOCK_REALTIME
    struct chunk *first, *last;
    size_t chunks, records;
};

static int64_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void reply_subject(const struct repo *repo, const char *name, char ret_subject[REPLY_SUBJECT_SIZE])
{
    const char *plural = repo->type == REPO_MODEL ? "" : names_type_plural(repo->type);
    snprintf(ret_subject, REPLY_SUBJECT_SIZE, "%s%s%s%s%s", plural, *plural ? "/" : "", repo->id, *name ? "@" : "",
             name);
}

struct reply *reply_new(enum reply_kind kind, const struct repo *repo, const char *name)
{
    struct reply *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->kind = kind;
    r->repo = repo;
    r->name = name;
    return r;
}

// Room for one record of `len` bytes. 0, -ENOMEM, -E2BIG.
static int room(struct reply *r, size_t len, char **ret_room)
{
    if (!r->last || CHUNK - r->last->used < len) {
        if (r->chunks == CHUNKS_MAX)
            return -E2BIG;
        struct chunk *chunk = malloc(sizeof *chunk);
        if (!chunk)
            return -ENOMEM;
        chunk->next = NULL;
        chunk->used = 0;
        *(r->last ? &r->last->next : &r->first) = chunk;
        r->last = chunk;
        r->chunks++;
    }
    *ret_room = r->last->bytes + r->last->used;
    r->last->used += len;
    r->records++;
    return 0;
}

// Copies a text with its NUL; returns what is behind it.
static char *put(char *to, const char *text, size_t len)
{
    memcpy(to, text, len + 1);
    return to + len + 1;
}

static int on_file(void *userdata, const struct tree_file *file)
{
    struct reply *r = userdata;
    size_t etag = strlen(file->etag), blob_id = strlen(file->blob_id), xet_hash = strlen(file->xet_hash);
    char *to;
    r->begun = true;
    int error = room(r, sizeof file->size + file->path_len + etag + blob_id + xet_hash + 4, &to);
    if (error < 0)
        return error;
    memcpy(to, &file->size, sizeof file->size);
    to = put(to + sizeof file->size, file->path, file->path_len);
    to = put(to, file->etag, etag);
    to = put(to, file->blob_id, blob_id);
    put(to, file->xet_hash, xet_hash);
    return 0;
}

static int on_ref(void *userdata, const char *name, const char *commit)
{
    struct reply *r = userdata;
    size_t len = strlen(name);
    char *to;
    int error = room(r, len + NAMES_COMMIT_SIZE + 1, &to);
    if (error == 0)
        put(put(to, name, len), commit, NAMES_COMMIT_SIZE - 1);
    return error;
}

static void on_done(void *userdata, const struct hub_error *error)
{
    struct reply *r = userdata;
    r->error = *error;
    r->came_ms = real_ms();
    r->fn(r->userdata);
}

static void on_revision(void *userdata, const struct hub_error *error, const char *commit)
{
    struct reply *r = userdata;
    if (error->error == 0)
        memcpy(r->commit, commit, sizeof r->commit);
    on_done(r, error);
}

static void on_date(void *userdata, const struct hub_error *error, int64_t date)
{
    struct reply *r = userdata;
    r->date = date;
    on_done(r, error);
}

void reply_start(struct reply *r, struct hub *hub, reply_fn *fn, void *userdata)
{
    static const struct hub_tree_handlers tree_handlers = { .on_file = on_file, .on_done = on_done };
    static const struct hub_refs_handlers refs_handlers = { .on_ref = on_ref, .on_done = on_done };
    r->fn = fn;
    r->userdata = userdata;
    r->asked_ms = real_ms();
    // Once that has returned 0, `r` may be gone.
    int error = 0;
    switch (r->kind) {
    case REPLY_REF:
        error = hub_revision(hub, r->repo, r->name, on_revision, r, &r->call);
        break;
    case REPLY_TREE:
        error = hub_tree(hub, r->repo, r->name, &tree_handlers, r, &r->call);
        break;
    case REPLY_DATE:
        error = hub_commit_date(hub, r->repo, r->name, on_date, r, &r->call);
        break;
    case REPLY_REFS:
        error = hub_refs(hub, r->repo, &refs_handlers, r, &r->call);
        break;
    case REPLY_REPO:
        error = -EINVAL;
        break;
    }
    if (error < 0) {
        char subject[REPLY_SUBJECT_SIZE];
        struct hub_error e = { 0 };
        reply_subject(r->repo, r->name, subject);
        hub_error_set(&e, error, HUB_STOPPED, subject, "%s", strerror(-error));
        on_done(r, &e);
    }
}

bool reply_has_begun(const struct reply *r)
{
    return r->begun;
}

const struct hub_error *reply_error(const struct reply *r)
{
    return &r->error;
}

const char *reply_commit(const struct reply *r)
{
    return r->commit;
}

// ---- into the index ----

// A cursor over the records.
struct reader {
    const struct chunk *chunk;
    size_t at;
};

static bool reader_more(struct reader *from)
{
    while (from->chunk && from->at == from->chunk->used)
        *from = (struct reader){ .chunk = from->chunk->next };
    return from->chunk != NULL;
}

static const char *take(struct reader *from)
{
    const char *text = from->chunk->bytes + from->at;
    from->at += strlen(text) + 1;
    return text;
}

static void take_file(struct reader *from, struct index_file *ret_file)
{
    memcpy(&ret_file->size, from->chunk->bytes + from->at, sizeof ret_file->size);
    from->at += sizeof ret_file->size;
    ret_file->path = take(from);
    ret_file->etag = take(from);
    ret_file->blob_id = take(from);
    ret_file->xet_hash = take(from);
}

// Adds all files to the open transaction.
static int add_files(struct reply *r, struct index *index, const atomic_bool *stop)
{
    struct index_file files[BATCH];
    struct reader from = { .chunk = r->first };
    size_t count, clash = 0;
    do {
        if (*stop)
            return -ECANCELED;
        for (count = 0; count < BATCH && reader_more(&from); count++)
            take_file(&from, &files[count]);
        int error = index_tree_add(index, files, count, &clash);
        if (error == -EEXIST) {
            char subject[REPLY_SUBJECT_SIZE];
            reply_subject(r->repo, r->name, subject);
            hub_error_set(&r->error, -EBADMSG, HUB_NONSENSE, subject,
                          "the server lists \"%.200s\" twice, or as both a file and a directory: nothing of this list "
                          "is used",
                          files[clash].path);
            error = -EBADMSG;
        }
        if (error < 0)
            return error;
    } while (count == BATCH);
    return 0;
}

static int write_tree(struct reply *r, struct index *index, const atomic_bool *stop)
{
    struct index_tree tree;
    int error = index_tree(index, r->repo, r->name, &tree);
    if (error < 0 || tree.complete) // read from disk meanwhile, by us or another mount
        return error;
    error = index_tree_start(index, tree.id);
    if (error < 0)
        return error;
    error = add_files(r, index, stop);
    if (error == 0)
        return index_tree_finish(index, &(struct index_stamp){ 0 }, true);
    index_tree_abandon(index);
    return error;
}

static int write_date(struct reply *r, struct index *index)
{
    struct index_tree tree;
    int error = index_tree(index, r->repo, r->name, &tree);
    if (error < 0 || tree.date != INDEX_NO_DATE)
        return error;
    return index_tree_date(index, tree.id, r->date);
}

static int write_refs(struct reply *r, struct index *index)
{
    struct index_ref *refs = calloc(r->records + 1, sizeof *refs);
    if (!refs)
        return -ENOMEM;
    struct reader from = { .chunk = r->first };
    size_t count = 0;
    for (; reader_more(&from); count++) {
        refs[count].name = take(&from);
        refs[count].commit = take(&from);
    }
    int error = index_refs_set(index, r->repo, refs, count, r->asked_ms, r->came_ms);
    free(refs);
    return error;
}

int reply_write(struct reply *r, struct index *index, const atomic_bool *stop)
{
    switch (r->kind) {
    case REPLY_REF:
        return index_ref_set(index, r->repo, r->name, r->commit, r->came_ms);
    case REPLY_TREE:
        return write_tree(r, index, stop);
    case REPLY_DATE:
        return write_date(r, index);
    case REPLY_REFS:
        return write_refs(r, index);
    case REPLY_REPO:
        break;
    }
    return -EINVAL;
}

void reply_free(struct reply *r)
{
    if (!r)
        return;
    if (r->call)
        hub_cancel(r->call);
    hub_release(r->call);
    while (r->first) {
        struct chunk *next = r->first->next;
        free(r->first);
        r->first = next;
    }
    free(r);
}
