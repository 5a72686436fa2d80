// SPDX-License-Identifier: Apache-2.0
// The index's connections to SQLite: its schema and statements, and what becomes of a file that cannot be used. For
// index.c and index_*.c alone.
#ifndef CACHE_INDEX_DB_H
#define CACHE_INDEX_DB_H

#include "cache/names.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum statement {
    FIND_TREE,
    ADD_TREE,
    BEGIN,
    COMMIT,
    ROLLBACK,
    START_PASS,
    GET_PASS,
    SET_NEXT,
    FINISH_TREE,
    SET_DATE,
    DROP_UNSEEN,
    ENTRY_BY_ORDINAL,
    ENTRY_BY_NAME,
    ADD_ENTRY,
    SEE_ENTRY,
    DROP_ENTRY,
    LIST,
    FILES,
    GET_STAMP,
    SET_STAMP,
    DROP_STAMP,
    GET_PARTIAL,
    SAVE_PARTIAL,
    DROP_PARTIAL,
    NEXT_PARTIAL,
    GET_REF,
    SET_REF,
    DROP_REF,
    DROP_REFS_BEFORE,
    REFS,
    KNOWS_REPO,
    STATEMENTS,
};

struct connection {
    pthread_mutex_t lock;
    sqlite3 *db; // in memory both connections have the same
    sqlite3_stmt *statements[STATEMENTS];
    char trouble[128]; // what was wrong last
};

struct index {
    struct connection reader, writer;
    char *path;       // guarded by both locks; NULL in memory
    char reason[256]; // likewise
    char scope[17];   // constant; part of every tree's key
    atomic_uint generation;

    // The reading of a whole list; guarded by writer.lock, which is held from start to end.
    int64_t tree;
    int64_t next;
    int64_t pass;
    bool complete;  // the tree was when the transaction began
    char *last_dir; // the directory of the file added last, and its ordinal
    uint32_t last_dir_ordinal;
};

// An error of SQLite as -ENOMEM or -EUCLEAN.
int db_error(struct connection *c, int rc);

// The statement, reset and ready to bind; prepared when first used. NULL and *ret_error otherwise.
sqlite3_stmt *db_statement(struct connection *c, enum statement which, int *ret_error);
void db_statement_done(sqlite3_stmt **statement);

// A statement that is reset at the end of the scope.
#define DB_STATEMENT(name, connection, which, ret_error)                                                               \
    __attribute__((cleanup(db_statement_done))) sqlite3_stmt *name = db_statement(connection, which, ret_error)

// Runs a statement to its next row. 1 with a row, 0 without, or an error.
int db_step(struct connection *c, sqlite3_stmt *statement);

// Runs a statement that has up to two integers to bind and gives no rows. 0 or an error.
int db_run(struct connection *c, enum statement which, int64_t a, int64_t b);

// Whether the commits that follow are on stable storage when they return (else a power cut may undo the last ones, in
// their order). Outside of a transaction only. 0 or an error.
int db_durable(struct connection *c, bool on);

// A repo's rows have this: the index's scope and the repo's folder.
#define DB_KEY_SIZE (17 + NAMES_FOLDER_SIZE)
void db_key(const struct index *ix, const struct repo *repo, char ret_key[DB_KEY_SIZE]);

// A transaction of this thread, which has the writer's lock until its end. In memory it has the reader's too: both are
// one connection there, and nobody may see what could be taken back. 0 or an error; then nothing is held.
int db_begin(struct index *ix);

// Commits if `error` is 0, else rolls back. Returns the error, if only the commit's.
int db_end(struct index *ix, int error);

// Both connections on the file at `path`, which must have no link in it; one that is damaged or of an older version is
// made anew. NULL: both are one database in memory. SQLITE_OK, or the code: SQLITE_MISMATCH for a file that is not ours
// or of a newer version.
int db_open(const char *path, struct connection *reader, struct connection *writer);
void db_close(struct connection *reader, struct connection *writer);

#endif
