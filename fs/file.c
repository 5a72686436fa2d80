// SPDX-License-Identifier: Apache-2.0
#include "fs/file.h"

#include "cache/fetch.h"
#include "cache/log.h"
#include "cache/util.h"
#include "fs/park.h"
#include "fs/passthrough.h"
#include "fs/place.h"
#include "fs/push.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define BUCKETS 1024

// A file of a snapshot that somebody has open.
struct file {
    uint64_t nodeid;
    struct snapshot *snapshot;
    int fd; // -1: it was not whole when it was opened first
    int64_t size;
    int backing_id; // 0: cached mode
    unsigned opens; // guarded by the table's lock, as is the table
    struct file *next;
};

struct files {
    pthread_mutex_t lock; // held during the backing ioctl, never during other I/O
    struct file *by_id[BUCKETS];
    int count;
};

// One open(2).
struct handle {
    struct fs_handle listed;
    struct file *file;           // NULL: a place
    struct fetch_reader *reader; // of a file that is not whole
    pthread_mutex_t lock;
    struct push_reader pushed; // guarded by it
    // A handle is released only after its reads were answered. Only the kernel knows that where the answer is spliced:
    // this says it to the memory model, and to the sanitizer.
    atomic_uint answered;

    int fd;     // a place that is a file of the cache, or a file that has become whole since it was opened first; -1
    char *text; // a place that we made
    size_t len;
};

int files_new(struct files **ret_files)
{
    struct files *files = calloc(1, sizeof *files);
    if (!files)
        return -ENOMEM;
    pthread_mutex_init(&files->lock, NULL);
    *ret_files = files;
    return 0;
}

static void file_free(struct file *file)
{
    if (!file)
        return;
    util_close_p(&file->fd);
    free(file);
}

void files_free(struct files *files)
{
    if (!files)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (files->by_id[i]) {
            struct file *file = files->by_id[i];
            files->by_id[i] = file->next;
            file_free(file);
        }
    }
    pthread_mutex_destroy(&files->lock);
    free(files);
}

int files_open(struct files *files)
{
    UTIL_LOCKED(&files->lock);
    return files->count;
}

// The table's lock is held.
static struct file *files_find(struct files *files, uint64_t nodeid)
{
    struct file *file = files->by_id[nodeid % BUCKETS];
    while (file && file->nodeid != nodeid)
        file = file->next;
    return file;
}

// Counts one more open of a whole file that is open already; NULL if it is not.
static struct file *files_share(struct files *files, uint64_t nodeid)
{
    UTIL_LOCKED(&files->lock);
    struct file *file = files_find(files, nodeid);
    if (!file || file->fd < 0)
        return NULL;
    file->opens++;
    return file;
}

// Puts a file that was just opened into the table and finds its mode; if another thread was quicker, its file is used.
static struct file *files_add(struct fs *fs, fuse_req_t req, struct file *made)
{
    UTIL_LOCKED(&fs->files->lock);
    struct file *file = files_find(fs->files, made->nodeid);
    if (file) {
        file->opens++;
        return file;
    }
    made->opens = 1;
    made->backing_id = made->fd >= 0 ? passthrough_open(fs, req, made->fd) : 0;
    made->next = fs->files->by_id[made->nodeid % BUCKETS];
    fs->files->by_id[made->nodeid % BUCKETS] = made;
    fs->files->count++;
    return made;
}

static int file_acquire(struct fs *fs, fuse_req_t req, uint64_t nodeid, struct handle *h)
{
    h->file = files_share(fs->files, nodeid);
    if (h->file)
        return 0;
    struct snapshot *snapshot = store_snapshot(fs->store, inode_owner(nodeid));
    if (!snapshot)
        return -ESTALE;
    struct file *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    struct store_file opened;
    int error = store_file_open(fs->store, snapshot, inode_ordinal(nodeid), nodeid, &opened);
    if (error < 0) {
        free(made);
        return error;
    }
    *made = (struct file){ .nodeid = nodeid, .snapshot = snapshot, .fd = opened.fd, .size = opened.size };
    h->reader = opened.reader;
    h->file = files_add(fs, req, made);
    if (h->file != made) {
        // Whole by now, and open from when it was not: the mode stays, the bytes come from the disk.
        if (h->file->fd < 0)
            h->fd = util_take_fd(&made->fd);
        file_free(made);
    }
    return 0;
}

static void file_give_back(struct fs *fs, struct file *file)
{
    {
        UTIL_LOCKED(&fs->files->lock);
        if (--file->opens > 0)
            return;
        struct file **p = &fs->files->by_id[file->nodeid % BUCKETS];
        while (*p != file)
            p = &(*p)->next;
        *p = file->next;
        fs->files->count--;
    }
    passthrough_close(fs, file->backing_id);
    file_free(file);
}

static void handle_free(struct handle *h)
{
    if (!h)
        return;
    if (h->reader)
        fetch_close(h->reader);
    pthread_mutex_destroy(&h->lock);
    util_close_p(&h->fd);
    free(h->text);
    free(h);
}

// The file itself is in the table, and freed with that.
static void handle_free_left(struct fs_handle *handle)
{
    handle_free((struct handle *) handle);
}

static int handle_open_file(struct fs *fs, fuse_req_t req, struct handle *h, uint64_t ino, struct fuse_file_info *fi)
{
    int error = file_acquire(fs, req, ino, h);
    if (error < 0)
        return error;
    snapshot_hold(h->file->snapshot);
#ifdef FUSE_CAP_PASSTHROUGH
    fi->backing_id = h->file->backing_id;
#endif
    fi->keep_cache = h->file->backing_id == 0; // the bytes of a blob never change
    fi->noflush = !h->reader;
    return 0;
}

static int handle_open_place(struct fs *fs, struct handle *h, uint64_t ino, struct fuse_file_info *fi)
{
    const struct place *place = inodes_find(fs->inodes, ino);
    if (!place)
        return -ESTALE;
    fi->noflush = true;
    fi->direct_io = true; // never kept: it may say something else next time
    return place->kind == PLACE_HUB_TREE ? place_open(fs, place, &h->fd) : place_text(fs, place, &h->text, &h->len);
}

static void handle_close(struct fs *fs, struct handle *h)
{
    fs_handle_remove(fs, &h->listed);
    h->answered++;
    if (h->file) {
        snapshot_release(h->file->snapshot);
        file_give_back(fs, h->file);
    }
    handle_free(h);
}

void file_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct handle *h = calloc(1, sizeof *h);
    if (!h) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    h->fd = -1;
    pthread_mutex_init(&h->lock, NULL);
    int error = -EISDIR;
    uint64_t seen = store_answers(fs->store);
    if (fs_is_own(req))
        error = -ELOOP;
    else if (inode_is_file(ino))
        error = handle_open_file(fs, req, h, ino, fi);
    else if (!inode_is_dir(ino))
        error = handle_open_place(fs, h, ino, fi);
    if (error < 0) {
        handle_free(h);
        if (error == -EINPROGRESS)
            park_open(req, ino, fi, seen, file_open);
        else
            fuse_reply_err(req, -error);
        return;
    }
    fs_handle_add(fs, &h->listed, handle_free_left);
    fi->fh = (uintptr_t) h;
    if (fuse_reply_open(req, fi) < 0)
        handle_close(fs, h);
}

void file_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void) ino;
    handle_close(fs_of(req), (struct handle *) (uintptr_t) fi->fh);
    fuse_reply_err(req, 0);
}

// Answers from a descriptor, without copying where the kernel can splice. `how`: FUSE_BUF_SPLICE_MOVE takes the pages
// out of the page cache of that file, after waiting until they are written; 0 leaves them there.
static void reply_from_fd(fuse_req_t req, int fd, size_t size, off_t offset, enum fuse_buf_copy_flags how)
{
    struct fuse_bufvec data = FUSE_BUFVEC_INIT(size);
    data.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK | FUSE_BUF_FD_RETRY;
    data.buf[0].fd = fd;
    data.buf[0].pos = offset;
    fuse_reply_data(req, &data, how);
}

// From a copy: the reader may have its answer, and close, before the call that gives it has returned.
static void reply_from_text(fuse_req_t req, const struct handle *h, size_t size, size_t offset)
{
    size_t at = offset < h->len ? offset : h->len;
    size_t len = h->len - at < size ? h->len - at : size;
    _cleanup_free_ char *copy = malloc(len + 1);
    if (!copy) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    memcpy(copy, h->text + at, len);
    fuse_reply_buf(req, copy, len);
}

// A read of a file that is not whole. Replied to at once, or when its bytes have come.
struct lazy_read {
    struct fetch_read read; // first
    fuse_req_t req;
};

static void reply_from_memory(fuse_req_t req, const struct fetch_piece *pieces, int count)
{
    struct iovec *vectors = count > 0 ? calloc((size_t) count, sizeof *vectors) : NULL;
    if (!vectors) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (int i = 0; i < count; i++)
        vectors[i] = (struct iovec){ .iov_base = (void *) (uintptr_t) pieces[i].mem, .iov_len = pieces[i].len };
    fuse_reply_iov(req, vectors, count);
    free(vectors);
}

// Some of it is in memory and some on disk.
static void reply_from_both(fuse_req_t req, const struct fetch_piece *pieces, int count, size_t size)
{
    _cleanup_free_ char *buf = malloc(size);
    size_t at = 0;
    int error = buf ? 0 : ENOMEM;
    for (int i = 0; i < count && error == 0; i++) {
        const struct fetch_piece *p = &pieces[i];
        if (p->mem)
            memcpy(buf + at, p->mem, p->len);
        else if (pread(p->fd, buf + at, p->len, p->offset) != (ssize_t) p->len)
            error = EIO;
        at += p->len;
    }
    if (error != 0)
        fuse_reply_err(req, error);
    else
        fuse_reply_buf(req, buf, at);
}

static void lazy_done(struct fetch_read *read, int error, const struct fetch_piece *pieces, int count)
{
    struct lazy_read *lazy = (struct lazy_read *) (void *) read;
    bool in_memory = true, on_disk = true;
    for (int i = 0; i < count; i++) {
        in_memory &= pieces[i].mem != NULL;
        on_disk &= pieces[i].mem == NULL;
    }
    if (error < 0)
        fuse_reply_err(lazy->req, error == -ECANCELED ? EIO : -error);
    else if (in_memory)
        reply_from_memory(lazy->req, pieces, count);
    else if (on_disk && count == 1)
        reply_from_fd(lazy->req, pieces[0].fd, read->len, read->offset, 0); // they are still to be hashed
    else
        reply_from_both(lazy->req, pieces, count, read->len);
    free(lazy);
}

static void read_lazily(fuse_req_t req, struct handle *h, size_t size, off_t offset)
{
    struct lazy_read *lazy = calloc(1, sizeof *lazy);
    if (!lazy) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    lazy->read = (struct fetch_read){ .offset = offset, .len = size, .pid = fuse_req_ctx(req)->pid, .fn = lazy_done };
    lazy->req = req;
    int fd;
    int error = fetch_read(h->reader, &lazy->read, &fd);
    if (error == -EINPROGRESS) // the read is no longer ours
        return;
    free(lazy);
    h->answered++;
    if (error < 0)
        fuse_reply_err(req, error == -ECANCELED ? EIO : -error);
    else
        reply_from_fd(req, fd, size, offset, 0);
}

void file_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void) ino;
    const struct handle *h = (struct handle *) (uintptr_t) fi->fh;
    if (h->reader)
        fetch_flush(h->reader, fuse_req_ctx(req)->pid);
    fuse_reply_err(req, 0);
}

static void read_file(struct fs *fs, fuse_req_t req, struct handle *h, size_t size, off_t offset)
{
    const struct file *file = h->file;
    int fd = h->fd >= 0 ? h->fd : file->fd;
    if (offset >= file->size || size == 0) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    if ((int64_t) size > file->size - offset)
        size = (size_t) (file->size - offset);
    if (h->reader) {
        read_lazily(req, h, size, offset);
        return;
    }
    // A short answer would be filled up with zeros by the kernel, and kept.
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size != file->size) {
        log_error("%s@%s: a blob was changed while it was open", snapshot_repo(file->snapshot)->id,
                  snapshot_commit(file->snapshot));
        fuse_reply_err(req, EIO);
        return;
    }
    {
        UTIL_LOCKED(&h->lock);
        push_ahead(fs->push, &h->pushed, file->nodeid, fd, file->size, offset, (int64_t) size);
    }
    h->answered++;
    reply_from_fd(req, fd, size, offset, FUSE_BUF_SPLICE_MOVE);
}

void file_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void) ino;
    struct handle *h = (struct handle *) (uintptr_t) fi->fh;
    if (h->file) {
        read_file(fs_of(req), req, h, size, offset);
    } else if (h->fd >= 0) {
        int fd = h->fd;
        h->answered++;
        reply_from_fd(req, fd, size, offset, FUSE_BUF_SPLICE_MOVE);
    } else {
        reply_from_text(req, h, size, (size_t) offset);
    }
}
