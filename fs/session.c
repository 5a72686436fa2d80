// SPDX-License-Identifier: Apache-2.0
#include "fs/session.h"

#include "cache/log.h"
#include "cache/util.h"
#include "fs/dir.h"
#include "fs/file.h"
#include "fs/fs.h"
#include "fs/notify.h"
#include "fs/park.h"
#include "fs/passthrough.h"
#include "fs/push.h"
#include "fs/root.h"
#include "fs/xattr.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#define MAX_WORKERS 16
// Page faults and readahead count as background requests; at the kernel's default of 12 a parallel loader fills the
// queue and stops.
#define MAX_BACKGROUND 1024

// --- requests of our own

// The workers, by thread id; libfuse keeps them to the end, so an id is never another program's.
static atomic_int worker_ids[MAX_WORKERS * 2];
static atomic_int worker_count;

bool fs_is_own(fuse_req_t req)
{
    static _Thread_local bool known;
    if (!known) {
        int at = worker_count++;
        if (at < (int) (sizeof worker_ids / sizeof *worker_ids))
            worker_ids[at] = gettid();
        known = true;
    }
    int pid = fuse_req_ctx(req)->pid;
    int count = worker_count;
    for (int i = 0; i < count && i < (int) (sizeof worker_ids / sizeof *worker_ids); i++)
        if (worker_ids[i] == pid)
            return true;
    return false;
}

// --- handles

void fs_handle_add(struct fs *fs, struct fs_handle *handle, void (*free)(struct fs_handle *handle))
{
    handle->free = free;
    UTIL_LOCKED(&fs->handles_lock);
    handle->prev = NULL;
    handle->next = fs->handles;
    if (fs->handles)
        fs->handles->prev = handle;
    fs->handles = handle;
}

void fs_handle_remove(struct fs *fs, struct fs_handle *handle)
{
    UTIL_LOCKED(&fs->handles_lock);
    if (handle->prev)
        handle->prev->next = handle->next;
    else
        fs->handles = handle->next;
    if (handle->next)
        handle->next->prev = handle->prev;
}

// After the last worker has gone.
static void handles_free(struct fs *fs)
{
    while (fs->handles) {
        struct fs_handle *handle = fs->handles;
        fs_handle_remove(fs, handle);
        handle->free(handle);
    }
}

// --- operations of the whole file system

static void session_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fs *fs = userdata;
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
    conn->want |= conn->capable & (FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_ASYNC_READ |
                                   FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS);
    // Contents never change, and a listing always wants attributes: it takes a tenth of the time.
    conn->want &= ~(unsigned) (FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA);
    passthrough_init(fs, conn);
}

static void session_statfs(fuse_req_t req, fuse_ino_t ino)
{
    (void) ino;
    struct statvfs st;
    int error = layout_statvfs(store_layout(fs_of(req)->store), &st);
    if (error < 0) {
        fuse_reply_err(req, -error);
        return;
    }
    st.f_namemax = INDEX_NAME_SIZE - 1;
    fuse_reply_statfs(req, &st);
}

static struct fuse_lowlevel_ops session_ops(bool xattr)
{
    // What is not here is answered with ENOSYS once and not asked again; extended attributes for one: answering them
    // costs four requests a file in `ls -l`.
    return (struct fuse_lowlevel_ops){
        .init = session_init,
        .statfs = session_statfs,
        .lookup = dir_lookup,
        .forget = dir_forget,
        .forget_multi = dir_forget_multi,
        .getattr = dir_getattr,
        .opendir = dir_opendir,
        .readdir = dir_readdir,
        .readdirplus = dir_readdirplus,
        .releasedir = dir_releasedir,
        .open = file_open,
        .read = file_read,
        .flush = file_flush,
        .release = file_release,
        .getxattr = xattr ? xattr_get : NULL,
        .listxattr = xattr ? xattr_list : NULL,
    };
}

// --- signals

// Waits for SIGTERM or SIGINT and ends the session: first all threads but the workers.
struct guard {
    struct fs *fs;
    pthread_t thread;
    pthread_t main;
    atomic_bool done;
};

static void guard_wake(int signal)
{
    (void) signal; // only so that the main thread's wait is interrupted
}

static sigset_t guard_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return set;
}

static void *guard_run(void *userdata)
{
    struct guard *guard = userdata;
    sigset_t set = guard_signals();
    int signal = 0;
    sigwait(&set, &signal);
    // While workers still answer: who may be waiting for them ends, and who waits for the Hub is answered.
    push_stop(guard->fs->push);
    store_stop(guard->fs->store);
    notify_stop(guard->fs);
    park_stop(guard->fs);
    if (guard->done)
        return NULL;
    log_info("%s: unmounting: %s", guard->fs->mountpoint, strsignal(signal));
    fuse_session_exit(guard->fs->session);
    // The main thread may be just before its wait: wake it until it has seen it.
    while (!guard->done) {
        pthread_kill(guard->main, SIGUSR1);
        usleep(10000);
    }
    return NULL;
}

// Before any thread starts: the signals are for the guard alone.
static void guard_prepare(void)
{
    struct sigaction action = { .sa_handler = guard_wake };
    sigset_t set = guard_signals();
    sigaction(SIGUSR1, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int guard_start(struct guard *guard, struct fs *fs)
{
    guard->fs = fs;
    guard->main = pthread_self();
    return -pthread_create(&guard->thread, NULL, guard_run, guard);
}

// The loop has ended, by a signal or because the mount is gone.
static void guard_stop(struct guard *guard)
{
    guard->done = true;
    pthread_kill(guard->thread, SIGTERM);
    pthread_join(guard->thread, NULL);
}

// --- mounting

static __attribute__((format(printf, 2, 0))) void log_from_libfuse(enum fuse_log_level level, const char *format,
                                                                   va_list args)
{
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    if (level <= FUSE_LOG_ERR)
        log_error("%s", line);
    else
        log_debug("%s", line);
}

static int mount_arguments(const struct fs *fs, struct fuse_args *args)
{
    const struct session_options *o = fs->options;
    char *options = NULL;
    _cleanup_free_ char *name = NULL;
    int failed = asprintf(&name, "fsname=%s", o->fsname ? o->fsname : fs->cache_path) < 0;
    failed = failed || fuse_opt_add_opt(&options, "ro,nosuid,nodev,default_permissions,subtype=modelmount") < 0 ||
             fuse_opt_add_opt_escaped(&options, name) < 0 ||
             (o->allow_other && fuse_opt_add_opt(&options, "allow_other") < 0) ||
             (o->kernel_options && *o->kernel_options && fuse_opt_add_opt(&options, o->kernel_options) < 0);
    failed = failed || fuse_opt_add_arg(args, "modelmount") < 0 || fuse_opt_add_arg(args, "-o") < 0 ||
             fuse_opt_add_arg(args, options) < 0;
    free(options);
    return failed ? -ENOMEM : 0;
}

static int session_mount(struct fs *fs)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    int error = mount_arguments(fs, &args);
    if (error == 0) {
        struct fuse_lowlevel_ops ops = session_ops(fs->options->xattr);
        fs->session = fuse_session_new(&args, &ops, sizeof ops, fs);
        if (!fs->session)
            error = -EINVAL;
    }
    fuse_opt_free_args(&args);
    if (error < 0) {
        log_error("%s: cannot mount: %s", fs->mountpoint, strerror(-error));
        return error;
    }
    if (fuse_session_mount(fs->session, fs->mountpoint) < 0) {
        log_error("%s: cannot mount (see the line above)", fs->mountpoint);
        return -EIO;
    }
    return 0;
}

static int session_loop(struct fs *fs)
{
    int error = push_start(fs->session, &fs->push);
    if (error < 0) {
        log_error("%s: no threads to be had: %s", fs->mountpoint, strerror(-error));
        return error;
    }
    struct guard guard = { 0 };
    error = notify_start(fs);
    if (error == 0)
        error = park_start(fs);
    if (error == 0)
        error = guard_start(&guard, fs);
    if (error < 0) {
        push_stop(fs->push);
        store_stop(fs->store);
        notify_stop(fs);
        park_stop(fs);
        return error;
    }
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_max_threads(config, MAX_WORKERS);
    fuse_loop_cfg_set_idle_threads(config, MAX_WORKERS);
    error = fuse_session_loop_mt(fs->session, config);
    fuse_loop_cfg_destroy(config);
    guard_stop(&guard);
    return error < 0 ? error : 0;
}

static int fs_open(struct fs *fs)
{
    const struct session_options *o = fs->options;
    struct store_hub_options hub = {
        .endpoint = o->endpoint,
        .offline = o->offline,
        .connections = o->connections,
        .timeout_ms = o->timeout_ms,
        .ref_ttl_ms = o->ref_ttl_ms,
        .publish = o->publish,
        .on_bad = notify_bad,
        .userdata = fs,
    };
    struct store_options options = {
        .cache_path = fs->cache_path,
        .state_dir = o->state_dir,
        .index_in_memory = o->index_in_memory,
        .hub = &hub,
    };
    int error = store_open(&options, &fs->store);
    if (error < 0)
        log_error("%s: cannot be used as a cache: %s", fs->cache_path, strerror(-error));
    if (error == 0)
        error = inodes_new(&fs->inodes);
    if (error == 0)
        error = files_new(&fs->files);
    if (error == 0 && o->uri)
        error = root_open(fs);
    return error;
}

static void fs_close(struct fs *fs)
{
    if (fs->store)
        store_stop(fs->store);
    if (fs->session)
        fuse_session_destroy(fs->session);
    push_free(fs->push);
    notify_free(fs);
    park_free(fs);
    handles_free(fs);
    pthread_mutex_destroy(&fs->handles_lock);
    files_free(fs->files);
    root_free(fs->root);
    inodes_free(fs->inodes);
    store_close(fs->store);
}

// A path that stays right when the working directory changes; one that does not exist yet is taken as it is written.
static char *path_absolute(const char *path)
{
    char *absolute = realpath(path, NULL);
    if (absolute || *path == '/')
        return absolute ? absolute : strdup(path);
    _cleanup_free_ char *cwd = get_current_dir_name();
    return cwd && asprintf(&absolute, "%s/%s", cwd, path) >= 0 ? absolute : NULL;
}

// One descriptor for each file that is open, which may be many.
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int session_run(const struct session_options *options, void (*ready)(void *userdata, int error), void *userdata)
{
    _cleanup_free_ char *cache_path = path_absolute(options->cache_path);
    _cleanup_free_ char *mountpoint = path_absolute(options->mountpoint);
    struct fs fs = { .options = options, .cache_path = cache_path, .mountpoint = mountpoint };
    pthread_mutex_init(&fs.handles_lock, NULL);
    raise_file_limit();
    guard_prepare();
    mallopt(M_ARENA_MAX, 2); // an arena per worker would cost more memory than it saves time
    fuse_set_log_func(log_from_libfuse);
    int error = cache_path && mountpoint ? fs_open(&fs) : -ENOMEM;
    if (error == 0)
        error = session_mount(&fs);
    ready(userdata, error);
    if (error == 0) {
        error = session_loop(&fs);
        fuse_session_unmount(fs.session);
        log_info("%s: unmounted", mountpoint);
    }
    fs_close(&fs);
    return error < 0 ? 1 : 0;
}
