// SPDX-License-Identifier: Apache-2.0
#include "cache/index_partial.h"

#include "cache/index_db.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

int index_partial_load(struct index *ix, const char *etag, struct index_partial *ret_row, unsigned char **ret_map,
                       size_t *ret_len)
{
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, GET_PARTIAL, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, etag, -1, SQLITE_STATIC);
    error = db_step(&ix->reader, s);
    if (error <= 0)
        return error < 0 ? error : -ENOENT;
    const void *map = sqlite3_column_blob(s, 5);
    size_t len = (size_t) sqlite3_column_bytes(s, 5);
    unsigned char *copy = malloc(len + 1);
    if (!copy)
        return -ENOMEM;
    if (map)
        memcpy(copy, map, len);
    *ret_row = (struct index_partial){
        .size = sqlite3_column_int64(s, 0),
        .block = sqlite3_column_int64(s, 1),
        .device = sqlite3_column_int64(s, 2),
        .inode = sqlite3_column_int64(s, 3),
        .born = sqlite3_column_int64(s, 4),
    };
    *ret_map = copy;
    *ret_len = map ? len : 0;
    return 0;
}

int index_partial_save(struct index *ix, const char *etag, const struct index_partial *row, const unsigned char *map,
                       size_t len)
{
    UTIL_LOCKED(&ix->writer.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->writer, SAVE_PARTIAL, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, etag, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, row->size);
    sqlite3_bind_int64(s, 3, row->block);
    sqlite3_bind_int64(s, 4, row->device);
    sqlite3_bind_int64(s, 5, row->inode);
    sqlite3_bind_int64(s, 6, row->born);
    sqlite3_bind_blob64(s, 7, map, len, SQLITE_STATIC);
    error = db_step(&ix->writer, s);
    return error < 0 ? error : 0;
}

static int row_delete(struct connection *c, const char *etag)
{
    int error = 0;
    DB_STATEMENT(s, c, DROP_PARTIAL, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, etag, -1, SQLITE_STATIC);
    error = db_step(c, s);
    return error < 0 ? error : 0;
}

int index_partial_drop(struct index *ix, const char *etag)
{
    UTIL_LOCKED(&ix->writer.lock);
    int error = db_durable(&ix->writer, true);
    if (error == 0)
        error = row_delete(&ix->writer, etag);
    int back = db_durable(&ix->writer, false);
    return error < 0 ? error : back;
}

int index_partial_next(struct index *ix, const char *after, char ret_etag[NAMES_ETAG_SIZE])
{
    UTIL_LOCKED(&ix->reader.lock);
    int error = 0;
    DB_STATEMENT(s, &ix->reader, NEXT_PARTIAL, &error);
    if (!s)
        return error;
    sqlite3_bind_text(s, 1, after, -1, SQLITE_STATIC);
    error = db_step(&ix->reader, s);
    if (error <= 0)
        return error < 0 ? error : -ENOENT;
    const char *etag = (const char *) sqlite3_column_text(s, 0);
    if (!etag || !names_etag_ok(etag)) // nobody of ours has written that
        return -EUCLEAN;
    snprintf(ret_etag, NAMES_ETAG_SIZE, "%s", etag);
    return 0;
}
