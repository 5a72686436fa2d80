// SPDX-License-Identifier: Apache-2.0
#include "cache/index_db.h"

#include "cache/index.h"
#include "cache/log.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define APPLICATION_ID 0x6d6d6e74 // "mmnt"
#define SCHEMA_VERSION 2
#define OPEN_BUSY_MS 500
#define OLDER_VERSION SQLITE_NOTICE // a code that no function of SQLite returns

static const char SCHEMA[] =
    "CREATE TABLE tree (id INTEGER PRIMARY KEY, repo TEXT NOT NULL, hash TEXT NOT NULL,"
    " complete INTEGER NOT NULL DEFAULT 0, hub INTEGER NOT NULL DEFAULT 0, date INTEGER, next INTEGER NOT NULL DEFAULT "
    "1, pass INTEGER NOT NULL DEFAULT 0,"
    " device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER, UNIQUE (repo, hash));"
    // Clustered by directory and name: a listing is one scan. etag, blob and xet are packed when they are hex.
    "CREATE TABLE entry (tree INTEGER NOT NULL, parent INTEGER NOT NULL, name BLOB NOT NULL,"
    " ordinal INTEGER NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL, etag, blob, xet, pass INTEGER NOT NULL,"
    " PRIMARY KEY (tree, parent, name)) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX entry_ordinal ON entry (tree, ordinal);"
    "CREATE TABLE dir (tree INTEGER NOT NULL, ordinal INTEGER NOT NULL, device INTEGER, inode INTEGER,"
    " size INTEGER, mtime INTEGER, ctime INTEGER, PRIMARY KEY (tree, ordinal)) WITHOUT ROWID;"
    "CREATE TABLE partial (etag TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, block INTEGER NOT NULL,"
    " device INTEGER NOT NULL, inode INTEGER NOT NULL, born INTEGER NOT NULL, map BLOB NOT NULL);"
    // What the Hub says that a ref means, and when it said so. Never mixed with what refs/ of the hub cache says.
    "CREATE TABLE ref (repo TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, seen INTEGER NOT NULL,"
    " PRIMARY KEY (repo, name)) WITHOUT ROWID;";

#define ENTRY_COLUMNS "ordinal, parent, kind, size, etag, xet, name, blob"

static const char *const SQL[STATEMENTS] = {
    [FIND_TREE] =
        "SELECT id, complete, device, inode, size, mtime, ctime, hub, date FROM tree WHERE repo = ? AND hash = ?",
    // Ids of a database in memory that took another's place begin above all of that one's.
    [ADD_TREE] = "INSERT INTO tree (id, repo, hash) SELECT max(coalesce(max(id), 0), ?3) + 1, ?1, ?2 FROM tree"
                 " WHERE true ON CONFLICT DO NOTHING",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [START_PASS] = "UPDATE tree SET pass = pass + 1 WHERE id = ?",
    [GET_PASS] = "SELECT next, pass, complete FROM tree WHERE id = ?",
    [SET_NEXT] = "UPDATE tree SET next = ? WHERE id = ?",
    [FINISH_TREE] = "UPDATE tree SET complete = 1, next = ?2, device = ?3, inode = ?4, size = ?5, mtime = ?6,"
                    " ctime = ?7, hub = ?8 WHERE id = ?1",
    [SET_DATE] = "UPDATE tree SET date = ?2 WHERE id = ?1",
    [DROP_UNSEEN] = "DELETE FROM entry WHERE tree = ? AND pass <> ?",
    [ENTRY_BY_ORDINAL] = "SELECT " ENTRY_COLUMNS " FROM entry WHERE tree = ? AND ordinal = ?",
    [ENTRY_BY_NAME] = "SELECT " ENTRY_COLUMNS ", pass FROM entry WHERE tree = ? AND parent = ? AND name = ?",
    [ADD_ENTRY] = "INSERT INTO entry (tree, parent, name, ordinal, kind, size, etag, blob, xet, pass)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [SEE_ENTRY] = "UPDATE entry SET pass = ?4, xet = ?5, blob = ?6 WHERE tree = ?1 AND parent = ?2 AND name = ?3",
    [DROP_ENTRY] = "DELETE FROM entry WHERE tree = ? AND parent = ? AND name = ?",
    [LIST] = "SELECT " ENTRY_COLUMNS " FROM entry WHERE tree = ? AND parent = ? AND name > ? ORDER BY name LIMIT ?",
    [FILES] = "SELECT " ENTRY_COLUMNS " FROM entry WHERE tree = ? AND ordinal > ? AND kind <> 0"
              " ORDER BY ordinal LIMIT ?",
    [GET_STAMP] = "SELECT device, inode, size, mtime, ctime FROM dir WHERE tree = ? AND ordinal = ?",
    [SET_STAMP] = "INSERT OR REPLACE INTO dir (tree, ordinal, device, inode, size, mtime, ctime)"
                  " VALUES (?, ?, ?, ?, ?, ?, ?)",
    [DROP_STAMP] = "DELETE FROM dir WHERE tree = ? AND ordinal = ?",
    [GET_PARTIAL] = "SELECT size, block, device, inode, born, map FROM partial WHERE etag = ?",
    [SAVE_PARTIAL] = "INSERT OR REPLACE INTO partial (etag, size, block, device, inode, born, map)"
                     " VALUES (?, ?, ?, ?, ?, ?, ?)",
    [DROP_PARTIAL] = "DELETE FROM partial WHERE etag = ?",
    [NEXT_PARTIAL] = "SELECT etag FROM partial WHERE etag > ? ORDER BY etag LIMIT 1",
    [GET_REF] = "SELECT hash, seen FROM ref WHERE repo = ? AND name = ?",
    [SET_REF] = "INSERT OR REPLACE INTO ref (repo, name, hash, seen) VALUES (?, ?, ?, ?)",
    [DROP_REF] = "DELETE FROM ref WHERE repo = ? AND name = ?",
    [DROP_REFS_BEFORE] = "DELETE FROM ref WHERE repo = ? AND seen < ? AND name NOT GLOB 'refs/pr/*'",
    [REFS] = "SELECT name, hash FROM ref WHERE repo = ? ORDER BY name",
    [KNOWS_REPO] = "SELECT 1 WHERE EXISTS (SELECT 1 FROM ref WHERE repo = ?1)"
                   " OR EXISTS (SELECT 1 FROM tree WHERE repo = ?1 AND hub = 1 AND complete = 1)",
};

int db_error(struct connection *c, int rc)
{
    if (rc == SQLITE_NOMEM)
        return -ENOMEM;
    snprintf(c->trouble, sizeof c->trouble, "%s", sqlite3_errmsg(c->db));
    return -EUCLEAN;
}

sqlite3_stmt *db_statement(struct connection *c, enum statement which, int *ret_error)
{
    if (!c->statements[which]) {
        int rc = sqlite3_prepare_v3(c->db, SQL[which], -1, SQLITE_PREPARE_PERSISTENT, &c->statements[which], NULL);
        if (rc != SQLITE_OK) {
            *ret_error = db_error(c, rc);
            return NULL;
        }
    }
    return c->statements[which];
}

void db_statement_done(sqlite3_stmt **s)
{
    if (*s) {
        sqlite3_reset(*s);
        sqlite3_clear_bindings(*s);
    }
}

int db_step(struct connection *c, sqlite3_stmt *s)
{
    int rc = sqlite3_step(s);
    return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : db_error(c, rc);
}

int db_run(struct connection *c, enum statement which, int64_t a, int64_t b)
{
    int error = 0;
    DB_STATEMENT(s, c, which, &error);
    if (!s)
        return error;
    int parameters = sqlite3_bind_parameter_count(s);
    if (parameters > 0)
        sqlite3_bind_int64(s, 1, a);
    if (parameters > 1)
        sqlite3_bind_int64(s, 2, b);
    error = db_step(c, s);
    return error < 0 ? error : 0;
}

int db_durable(struct connection *c, bool on)
{
    // This pragma acts when it is prepared, so it cannot be one of the statements above.
    int rc = sqlite3_exec(c->db, on ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : db_error(c, rc);
}

void db_key(const struct index *ix, const struct repo *repo, char ret_key[DB_KEY_SIZE])
{
    char folder[NAMES_FOLDER_SIZE];
    names_repo_folder(repo, folder);
    snprintf(ret_key, DB_KEY_SIZE, "%s/%s", ix->scope, folder);
}

static void unlock(struct index *ix)
{
    if (!ix->path)
        pthread_mutex_unlock(&ix->reader.lock);
    pthread_mutex_unlock(&ix->writer.lock);
}

int db_begin(struct index *ix)
{
    pthread_mutex_lock(&ix->writer.lock);
    if (!ix->path)
        pthread_mutex_lock(&ix->reader.lock);
    int error = db_run(&ix->writer, BEGIN, 0, 0);
    if (error < 0)
        unlock(ix);
    return error;
}

int db_end(struct index *ix, int error)
{
    if (error == 0)
        error = db_run(&ix->writer, COMMIT, 0, 0);
    if (error < 0)
        db_run(&ix->writer, ROLLBACK, 0, 0);
    unlock(ix);
    return error;
}

static void connection_finalize(struct connection *c)
{
    for (int i = 0; i < STATEMENTS; i++) {
        sqlite3_finalize(c->statements[i]);
        c->statements[i] = NULL;
    }
}

static int64_t pragma_number(sqlite3 *db, const char *sql, int *ret_rc)
{
    sqlite3_stmt *s = NULL;
    int64_t value = 0;
    int rc = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_step(s);
        if (rc == SQLITE_ROW)
            value = sqlite3_column_int64(s, 0);
        rc = rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
    }
    sqlite3_finalize(s);
    *ret_rc = rc;
    return value;
}

// Makes the tables if the file is new. SQLITE_OK, or the code; OLDER_VERSION; SQLITE_MISMATCH for a database that is
// not ours or newer.
static int schema_ensure(sqlite3 *db)
{
    int rc;
    int64_t version = pragma_number(db, "PRAGMA user_version", &rc);
    if (rc != SQLITE_OK)
        return rc;
    int64_t id = pragma_number(db, "PRAGMA application_id", &rc);
    if (rc != SQLITE_OK)
        return rc;
    int64_t tables = pragma_number(db, "SELECT count(*) FROM sqlite_schema", &rc);
    if (rc != SQLITE_OK)
        return rc;
    if (id == APPLICATION_ID && version == SCHEMA_VERSION) {
        // Looks only at the pages that every look-up starts from; damage elsewhere is found when it is met.
        pragma_number(db, "SELECT count(*) FROM (SELECT 1 FROM tree, entry, dir, partial, ref LIMIT 1)", &rc);
        return rc == SQLITE_ERROR ? SQLITE_CORRUPT : rc;
    }
    if (id == APPLICATION_ID && version > 0 && version < SCHEMA_VERSION)
        return OLDER_VERSION;
    if (id != 0 || version != 0 || tables != 0)
        return SQLITE_MISMATCH;
    char *sql = sqlite3_mprintf("BEGIN IMMEDIATE; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
                                SCHEMA, APPLICATION_ID, SCHEMA_VERSION);
    if (!sql)
        return SQLITE_NOMEM;
    rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_free(sql);
    if (rc == SQLITE_ERROR) {
        // Another process made the tables between our look and our BEGIN.
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        version = pragma_number(db, "PRAGMA user_version", &rc);
        if (rc == SQLITE_OK && version != SCHEMA_VERSION)
            rc = SQLITE_MISMATCH;
    }
    return rc;
}

// Run by root in a user's state dir, the files are that user's: SQLite gives the others the owner of the first.
static void database_give(const char *path)
{
    _cleanup_free_ char *dir = strdup(path);
    struct stat st;
    if (geteuid() != 0 || !dir)
        return;
    *strrchr(dir, '/') = '\0';
    _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd >= 0 && stat(dir, &st) == 0 && st.st_uid != 0 && fchown(fd, st.st_uid, st.st_gid) < 0)
        log_info("index %s: stays root's: %s", path, strerror(errno));
}

static int database_open(const char *path, sqlite3 **ret_db)
{
    sqlite3 *db = NULL;
    if (path)
        database_give(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_NOFOLLOW;
    int rc = sqlite3_open_v2(path ? path : ":memory:", &db, flags, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_extended_result_codes(db, 0);
        sqlite3_busy_timeout(db, OPEN_BUSY_MS);
        sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        // Our own database needs no foreign triggers or views; synchronous=NORMAL can lose the last commits in a power
        // cut but never damages: what is lost is read again.
        rc =
            sqlite3_exec(db,
                         "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -2048;"
                         "PRAGMA journal_size_limit = 4194304; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON",
                         NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK)
        rc = schema_ensure(db);
    if (rc != SQLITE_OK) {
        sqlite3_close(db);
        return rc;
    }
    sqlite3_busy_timeout(db, INDEX_BUSY_MS);
    *ret_db = db;
    return SQLITE_OK;
}

static void database_delete(const char *path)
{
    static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        _cleanup_free_ char *name = NULL;
        if (asprintf(&name, "%s%s", path, suffixes[i]) >= 0)
            unlink(name);
    }
}

int db_open(const char *path, struct connection *reader, struct connection *writer)
{
    int rc = database_open(path, &writer->db);
    if (path && (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == OLDER_VERSION)) {
        log_warning("index %s is %s: made anew", path, rc == OLDER_VERSION ? "of an older version" : "damaged");
        database_delete(path);
        rc = database_open(path, &writer->db);
    }
    if (rc == SQLITE_OK && path)
        rc = database_open(path, &reader->db);
    else
        reader->db = writer->db;
    if (rc != SQLITE_OK)
        db_close(reader, writer);
    return rc;
}

void db_close(struct connection *reader, struct connection *writer)
{
    connection_finalize(reader);
    connection_finalize(writer);
    if (reader->db != writer->db)
        sqlite3_close(reader->db);
    sqlite3_close(writer->db);
    reader->db = writer->db = NULL;
}
