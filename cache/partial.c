// SPDX-License-Identifier: Apache-2.0
#include "cache/partial.h"

#include "cache/datafile.h"
#include "cache/index_partial.h"
#include "cache/log.h"
#include "cache/util.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define OPEN_TRIES 50 // 10 ms apart, while another process is making or removing the data file

struct partials {
    // Constant.
    struct index *index;
    int dir_fd;
    bool has_dir; // of our own, where files may have names
    uid_t uid;
    gid_t gid;

    pthread_mutex_t lock;
    struct partial *list; // guarded by lock
};

struct partial {
    // Constant.
    struct partials *all;
    char etag[NAMES_ETAG_SIZE];
    int64_t size;

    // Guarded by all->lock.
    struct partial *next;
    unsigned refs;
    bool listed;

    pthread_mutex_t work;
    // Set by the first to hold `work`, then constant.
    bool opened;
    int open_error;
    int fd;
    struct index_partial row;
    // Guarded by `work`.
    bool named;           // there is a data file of that name, and a row
    unsigned char *saved; // the bits that are in the row

    pthread_mutex_t lock;
    // Guarded by `lock`.
    struct blockmap map;
    bool owner;
    bool discarded;
    unsigned losses; // failed syncs
};

int partials_unnamed(struct partials *all, int64_t size, int *ret_fd)
{
    return datafile_unnamed(all->dir_fd, size, ret_fd);
}

int64_t partials_present(struct partials *all, const char *etag, int64_t size)
{
    struct index_partial row;
    _cleanup_free_ unsigned char *bits = NULL;
    size_t len;
    struct blockmap map;
    int64_t present = 0;
    if (index_partial_load(all->index, etag, &row, &bits, &len) < 0 || row.size != size ||
        blockmap_init(&map, size) < 0)
        return 0;
    if (blockmap_load(&map, bits, len))
        present = map.present;
    blockmap_free(&map);
    return present;
}

// --- one partial

// Takes over the row's map if it is about `id`. 1 if so, 0 if there is no such row, -ENOMEM, -EUCLEAN.
static int map_load(struct partial *p, const struct index_partial *id)
{
    struct index_partial row;
    _cleanup_free_ unsigned char *bits = NULL;
    size_t len;
    int error = index_partial_load(p->all->index, p->etag, &row, &bits, &len);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    if (!datafile_same(&row, id))
        return 0;
    UTIL_LOCKED(&p->lock);
    if (!blockmap_load(&p->map, bits, len))
        return 0;
    memcpy(p->saved, bits, len);
    return 1;
}

// As the holder of the lock: the map if it is about this file, which is a new one of the right size otherwise. -EAGAIN
// when the file was removed, to be made anew.
static int adopt(struct partial *p, int fd, struct stat *st)
{
    struct index_partial id = datafile_identity(fd, st);
    // A file with a second name was published by somebody who then died.
    int known = st->st_size == p->size && st->st_nlink == 1 ? map_load(p, &id) : 0;
    if (known != 0)
        return known < 0 ? known : 0;
    // The row goes for good before there can be a file that it might seem to describe.
    int error = index_partial_drop(p->all->index, p->etag);
    if (error < 0)
        return error;
    if (st->st_size != 0) {
        // Not emptied: others may have it open and trust what they know of it.
        return unlinkat(p->all->dir_fd, p->etag, 0) < 0 ? -errno : -EAGAIN;
    }
    if (geteuid() == 0 && fchown(fd, p->all->uid, p->all->gid) < 0)
        return -errno;
    if (ftruncate(fd, p->size) < 0 || fstat(fd, st) < 0)
        return -errno;
    return 0;
}

// As a follower. -EAGAIN while the owner is still making the file.
static int follow(struct partial *p, int fd, const struct stat *st)
{
    if (st->st_size != p->size)
        return st->st_size == 0 ? -EAGAIN : -EINVAL;
    struct index_partial id = datafile_identity(fd, st);
    int known = map_load(p, &id);
    return known < 0 ? known : 0;
}

// Opens the data file by its name. -EAGAIN: try again.
static int open_named(struct partial *p)
{
    int dir = p->all->dir_fd;
    _cleanup_close_ int fd = openat(dir, p->etag, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno == ELOOP ? -EEXIST : -errno;
    if (!S_ISREG(st.st_mode))
        return -EEXIST;
    bool owner = datafile_lock(fd);
    if (!datafile_is_named(dir, p->etag, &st) || fstat(fd, &st) < 0)
        return -EAGAIN;
    int error = owner ? adopt(p, fd, &st) : follow(p, fd, &st);
    if (error < 0)
        return error;
    p->row = datafile_identity(fd, &st);
    p->fd = util_take_fd(&fd);
    p->named = true;
    p->owner = owner; // nobody else can see it yet
    return 0;
}

static int partial_open(struct partial *p)
{
    char reason[256];
    if (!p->all->has_dir || index_in_memory(p->all->index, reason)) {
        p->owner = true;
        return datafile_unnamed(p->all->dir_fd, p->size, &p->fd);
    }
    int error = -EAGAIN;
    for (int i = 0; error == -EAGAIN && i < OPEN_TRIES; i++) {
        if (i > 1)
            nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        error = open_named(p);
    }
    return error;
}

static struct partial *partial_new(struct partials *all, const char *etag, int64_t size)
{
    struct partial *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = (struct partial){ .all = all, .size = size, .refs = 1, .fd = -1 };
    memcpy(p->etag, etag, strlen(etag) + 1);
    pthread_mutex_init(&p->work, NULL);
    pthread_mutex_init(&p->lock, NULL);
    if (blockmap_init(&p->map, size) == 0)
        p->saved = calloc(p->map.len + 1, 1);
    return p;
}

static void partial_free(struct partial *p)
{
    util_close_p(&p->fd);
    blockmap_free(&p->map);
    free(p->saved);
    pthread_mutex_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

// The next to acquire it gets a new one. With all->lock held.
static void unlist(struct partial *p)
{
    if (!p->listed)
        return;
    struct partial **at = &p->all->list;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->listed = false;
}

// The struct of an etag, made if there is none, with a reference for the caller.
static int table_get(struct partials *all, const char *etag, int64_t size, struct partial **ret_partial)
{
    UTIL_LOCKED(&all->lock);
    struct partial *p = all->list;
    while (p && strcmp(p->etag, etag) != 0)
        p = p->next;
    if (p && p->size != size)
        return -EINVAL;
    if (p) {
        p->refs++;
    } else {
        p = partial_new(all, etag, size);
        if (!p || !p->saved) {
            if (p)
                partial_free(p);
            return -ENOMEM;
        }
        p->next = all->list;
        p->listed = true;
        all->list = p;
    }
    *ret_partial = p;
    return 0;
}

// Gives a reference back. False, with nothing done, if it is the last one and `last` does not allow that.
static bool table_put(struct partial *p, bool last)
{
    // Closing lets the lock on the data file fall. It is done before another thread can open that file anew.
    UTIL_LOCKED(&p->all->lock);
    if (p->refs == 1 && !last)
        return false;
    if (--p->refs == 0) {
        unlist(p);
        partial_free(p);
    }
    return true;
}

int partial_acquire(struct partials *all, const char *etag, int64_t size, struct partial **ret_partial)
{
    if (!names_etag_ok(etag) || size < 0)
        return -EINVAL;
    struct partial *p = NULL;
    int error = table_get(all, etag, size, &p);
    if (error < 0)
        return error;
    pthread_mutex_lock(&p->work);
    if (!p->opened) {
        p->opened = true;
        p->open_error = partial_open(p);
        if (p->open_error < 0) { // those who wait for this one fail with it, the next one tries anew
            UTIL_LOCKED(&all->lock);
            unlist(p);
        }
    }
    error = p->open_error;
    pthread_mutex_unlock(&p->work);
    if (error < 0) {
        table_put(p, true);
        return error;
    }
    *ret_partial = p;
    return 0;
}

void partial_release(struct partial *p)
{
    if (!p || table_put(p, false))
        return;
    partial_sync(p);
    table_put(p, true);
}

int partial_refresh(struct partial *p)
{
    UTIL_LOCKED(&p->work);
    pthread_mutex_lock(&p->lock);
    bool owner = p->owner, discarded = p->discarded;
    pthread_mutex_unlock(&p->lock);
    if (owner || discarded)
        return discarded ? -ESTALE : 1;
    struct stat st;
    bool taken = datafile_lock(p->fd);
    if (fstat(p->fd, &st) < 0 || !datafile_is_named(p->all->dir_fd, p->etag, &st)) {
        pthread_mutex_lock(&p->lock);
        p->discarded = true;
        blockmap_clear(&p->map);
        pthread_mutex_unlock(&p->lock);
        p->named = false;
        pthread_mutex_lock(&p->all->lock);
        unlist(p);
        pthread_mutex_unlock(&p->all->lock);
        return -ESTALE;
    }
    int known = map_load(p, &p->row);
    if (known < 0)
        return known;
    pthread_mutex_lock(&p->lock);
    p->owner = taken;
    pthread_mutex_unlock(&p->lock);
    return taken;
}

// --- asking

bool partial_is_owner(struct partial *p)
{
    UTIL_LOCKED(&p->lock);
    return p->owner;
}

int64_t partial_size(const struct partial *p)
{
    return p->size;
}

int partial_fd(const struct partial *p)
{
    return p->fd;
}

bool partial_has(struct partial *p, int64_t offset, int64_t len)
{
    UTIL_LOCKED(&p->lock);
    return !p->discarded && blockmap_has(&p->map, offset, len);
}

bool partial_whole(struct partial *p)
{
    UTIL_LOCKED(&p->lock);
    return !p->discarded && p->map.present == p->size;
}

int64_t partial_present_bytes(struct partial *p)
{
    UTIL_LOCKED(&p->lock);
    return p->map.present;
}

bool partial_missing(struct partial *p, int64_t offset, int64_t len, int64_t *ret_from, int64_t *ret_to)
{
    UTIL_LOCKED(&p->lock);
    return blockmap_missing(&p->map, offset, len, ret_from, ret_to);
}

// --- writing

static int write_all(int fd, const char *buf, size_t len, int64_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, buf, len, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? -EIO : errno == EDQUOT ? -ENOSPC : -errno;
        buf += n;
        offset += n;
        len -= (size_t) n;
    }
    return 0;
}

int partial_write(struct partial *p, int64_t offset, const void *buf, size_t len)
{
    if (offset < 0 || offset > p->size || len > (uint64_t) (p->size - offset))
        return -EINVAL;
    pthread_mutex_lock(&p->lock);
    bool owner = p->owner, discarded = p->discarded;
    unsigned losses = p->losses;
    pthread_mutex_unlock(&p->lock);
    if (discarded || !owner)
        return discarded ? -ESTALE : -EBUSY;
    int error = write_all(p->fd, buf, len, offset);
    if (error < 0)
        return error;
    UTIL_LOCKED(&p->lock);
    if (p->discarded)
        return -ESTALE;
    if (p->losses != losses) // a sync failed meanwhile, and may have lost these bytes too
        return -EIO;
    return blockmap_add(&p->map, offset, (int64_t) len);
}

// The sync failed: the kernel has dropped pages or will, and nobody can tell which. With `work` held.
static int sync_failed(struct partial *p, int error)
{
    log_warning("partial/%s: writing it to the disk failed: %s; fetching that part again", p->etag, strerror(error));
    UTIL_LOCKED(&p->lock);
    p->losses++;
    blockmap_load(&p->map, p->saved, p->map.len);
    return error == ENOSPC || error == EDQUOT ? -ENOSPC : -EIO;
}

int partial_sync(struct partial *p)
{
    UTIL_LOCKED(&p->work);
    pthread_mutex_lock(&p->lock);
    bool discarded = p->discarded, ours = p->owner && p->named;
    size_t len = p->map.len;
    // What is in the map now was written before the fdatasync begins.
    _cleanup_free_ unsigned char *bits = ours && !discarded ? malloc(len + 1) : NULL;
    if (bits)
        memcpy(bits, p->map.bits, len);
    pthread_mutex_unlock(&p->lock);
    if (discarded || !ours)
        return discarded ? -ESTALE : 0;
    if (!bits)
        return -ENOMEM;
    if (memcmp(bits, p->saved, len) == 0)
        return 0;
    if (fdatasync(p->fd) < 0)
        return sync_failed(p, errno);
    int error = index_partial_save(p->all->index, p->etag, &p->row, bits, len);
    if (error < 0)
        return error;
    memcpy(p->saved, bits, len);
    return 0;
}

// --- the end of a partial

// Row and name go; nobody acquires it any more. With `work` held.
static int forget(struct partial *p, bool owner)
{
    int error = 0;
    if (p->named && owner) {
        error = index_partial_drop(p->all->index, p->etag);
        struct stat st;
        if (fstat(p->fd, &st) == 0 && datafile_is_named(p->all->dir_fd, p->etag, &st))
            unlinkat(p->all->dir_fd, p->etag, 0);
    }
    p->named = false;
    UTIL_LOCKED(&p->all->lock);
    unlist(p);
    return error;
}

int partial_discard(struct partial *p)
{
    UTIL_LOCKED(&p->work);
    pthread_mutex_lock(&p->lock);
    bool owner = p->owner;
    p->discarded = true;
    blockmap_clear(&p->map);
    pthread_mutex_unlock(&p->lock);
    int error = forget(p, owner);
    return error < 0 || owner ? error : -EBUSY;
}

int partial_published(struct partial *p)
{
    UTIL_LOCKED(&p->work);
    return forget(p, partial_is_owner(p));
}

// --- all of them

// Throws a data file away that nobody uses and no row vouches for.
static int check_file(struct partials *all, const char *name)
{
    if (datafile_is_leftover(name))
        return unlinkat(all->dir_fd, name, 0) < 0 ? -errno : 0;
    if (!names_etag_ok(name))
        return 0;
    _cleanup_close_ int fd = openat(all->dir_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    if (!datafile_lock(fd) || !datafile_is_named(all->dir_fd, name, &st) || fstat(fd, &st) < 0)
        return 0;
    struct index_partial id = datafile_identity(fd, &st), row;
    _cleanup_free_ unsigned char *bits = NULL;
    size_t len;
    int error = index_partial_load(all->index, name, &row, &bits, &len);
    if (error < 0 && error != -ENOENT)
        return error;
    if (error == 0 && datafile_same(&id, &row) && st.st_nlink == 1)
        return 0;
    error = index_partial_drop(all->index, name);
    return error < 0 ? error : unlinkat(all->dir_fd, name, 0) < 0 ? -errno : 0;
}

static int check_files(struct partials *all)
{
    int fd = openat(all->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return -errno;
    const struct dirent *d;
    int error = 0;
    while (error == 0 && (d = readdir(dir)))
        error = check_file(all, d->d_name);
    return error;
}

static int check_rows(struct partials *all)
{
    char etag[NAMES_ETAG_SIZE] = "";
    int error;
    while ((error = index_partial_next(all->index, etag, etag)) == 0) {
        struct stat st;
        if (fstatat(all->dir_fd, etag, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
            error = index_partial_drop(all->index, etag);
        if (error < 0)
            return error;
    }
    return error == -ENOENT ? 0 : error;
}

static int open_dir(const char *state_dir, struct partials *all)
{
    if (!state_dir) {
        const char *tmp = getenv("TMPDIR");
        all->dir_fd = open(tmp && *tmp ? tmp : "/var/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return all->dir_fd < 0 ? -errno : 0;
    }
    _cleanup_close_ int state = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    if (state < 0 || fstat(state, &st) < 0)
        return -errno;
    bool made = mkdirat(state, "partial", 0700) == 0;
    if (!made && errno != EEXIST)
        return -errno;
    all->dir_fd = openat(state, "partial", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (all->dir_fd < 0)
        return -errno;
    if (made && geteuid() == 0 && fchown(all->dir_fd, st.st_uid, st.st_gid) < 0)
        return -errno;
    all->has_dir = true;
    all->uid = st.st_uid;
    all->gid = st.st_gid;
    return 0;
}

int partials_open(const char *state_dir, struct index *index, struct partials **ret_partials)
{
    struct partials *all = calloc(1, sizeof *all);
    if (!all)
        return -ENOMEM;
    *all = (struct partials){ .index = index, .dir_fd = -1 };
    pthread_mutex_init(&all->lock, NULL);
    int error = open_dir(state_dir, all);
    if (error < 0) {
        partials_close(all);
        return error;
    }
    char reason[256];
    if (all->has_dir && !index_in_memory(index, reason)) { // an index that was lost for now must not cost the files
        error = check_files(all);
        if (error == 0)
            error = check_rows(all);
        if (error < 0)
            log_warning("%s/partial: cannot be tidied: %s", state_dir, strerror(-error));
    }
    *ret_partials = all;
    return 0;
}

void partials_close(struct partials *all)
{
    if (!all)
        return;
    assert(!all->list);
    util_close_p(&all->dir_fd);
    pthread_mutex_destroy(&all->lock);
    free(all);
}
