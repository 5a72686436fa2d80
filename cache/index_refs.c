// SPDX-License-Identifier: Apache-2.0
#include "cache/index_refs.h"

#include "cache/index_db.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

static int ref_set(struct connection *c, const char *key, const char *ref, const char *commit, int64_t seen)
{
    int error = 0;
    DB_STATEMENT(s, c, SET_REF, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, ref, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, commit, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, seen);
    error = db_step(c, s);
    return error < 0 ? error : 0;
}

int index_ref_set(struct index *ix, const struct repo *repo, const char *ref, const char *commit, int64_t seen)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    UTIL_LOCKED(&ix->writer.lock);
    return ref_set(&ix->writer, key, ref, commit, seen);
}

int index_ref(struct index *ix, const struct repo *repo, const char *ref, char ret_commit[NAMES_COMMIT_SIZE],
              int64_t *ret_seen)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, GET_REF, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, ref, -1, SQLITE_STATIC);
    error = db_step(&ix->reader, s);
    if (error <= 0)
        return error < 0 ? error : -ENOENT;
    const char *commit = (const char *) sqlite3_column_text(s, 0);
    if (!commit || !names_commit_ok(commit)) // nobody of ours has written that
        return -EUCLEAN;
    memcpy(ret_commit, commit, NAMES_COMMIT_SIZE);
    if (ret_seen)
        *ret_seen = sqlite3_column_int64(s, 1);
    return 0;
}

int index_ref_drop(struct index *ix, const struct repo *repo, const char *ref)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    UTIL_LOCKED(&ix->writer.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->writer, DROP_REF, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 2, ref, -1, SQLITE_STATIC);
    error = db_step(&ix->writer, s);
    return error < 0 ? error : 0;
}

static int refs_drop_before(struct connection *c, const char *key, int64_t seen)
{
    int error = 0;
    DB_STATEMENT(s, c, DROP_REFS_BEFORE, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, seen);
    error = db_step(c, s);
    return error < 0 ? error : 0;
}

int index_refs_set(struct index *ix, const struct repo *repo, const struct index_ref *refs, size_t count,
                   int64_t asked_ms, int64_t seen_ms)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    int error = db_begin(ix);
    if (error < 0)
        return error;
    // The clock may have been set back between the two.
    error = refs_drop_before(&ix->writer, key, asked_ms < seen_ms ? asked_ms : seen_ms);
    for (size_t i = 0; i < count && error == 0; i++)
        error = ref_set(&ix->writer, key, refs[i].name, refs[i].commit, seen_ms);
    return db_end(ix, error);
}

// Names and commits in turn, each with its NUL.
struct texts {
    char *bytes;
    size_t len, room;
};

static int texts_add(struct texts *t, const char *text)
{
    size_t len = strlen(text) + 1;
    if (t->len + len > t->room) {
        size_t room = 2 * t->room + len + 512;
        char *bytes = realloc(t->bytes, room);
        if (!bytes)
            return -ENOMEM;
        t->bytes = bytes;
        t->room = room;
    }
    memcpy(t->bytes + t->len, text, len);
    t->len += len;
    return 0;
}

static int refs_collect(struct index *ix, const char *key, struct texts *texts)
{
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0, row;
    DB_STATEMENT(s, &ix->reader, REFS, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    while ((row = db_step(&ix->reader, s)) > 0) {
        const char *name = (const char *) sqlite3_column_text(s, 0);
        const char *commit = (const char *) sqlite3_column_text(s, 1);
        if (!name || !commit || !names_ref_ok(name) || !names_commit_ok(commit))
            return -EUCLEAN;
        error = texts_add(texts, name);
        if (error == 0)
            error = texts_add(texts, commit);
        if (error < 0)
            return error;
    }
    return row;
}

int index_refs(struct index *ix, const struct repo *repo, index_ref_fn *fn, void *userdata)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    struct texts texts = { 0 };
    int result = refs_collect(ix, key, &texts);
    for (const char *name = texts.bytes; result == 0 && name && name < texts.bytes + texts.len;) {
        const char *commit = name + strlen(name) + 1;
        result = fn(userdata, name, commit);
        name = commit + strlen(commit) + 1;
    }
    free(texts.bytes);
    return result;
}

bool index_knows_repo(struct index *ix, const struct repo *repo)
{
    char key[DB_KEY_SIZE];
    db_key(ix, repo, key);
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, KNOWS_REPO, &error);
    if (!s)
        return false;
    sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC);
    return db_step(&ix->reader, s) == 1;
}
