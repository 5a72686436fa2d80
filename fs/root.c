// SPDX-License-Identifier: Apache-2.0
#include "fs/root.h"

#include "cache/log.h"
#include "cache/uri.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define BATCH 64

struct root {
    struct repo repo;
    char commit[NAMES_COMMIT_SIZE];
    char path[URI_PATH_SIZE];

    pthread_mutex_t lock; // guards what follows: void when the index was lost
    struct view *view;
    uint32_t ordinal;
};

// --- waiting, before anything is mounted

struct pause {
    struct remote_waiter waiter; // first
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
};

static void pause_end(struct remote_waiter *waiter)
{
    struct pause *pause = (struct pause *) (void *) waiter;
    UTIL_LOCKED(&pause->lock);
    pause->done = true;
    pthread_cond_signal(&pause->changed);
}

static void wait_for_answer(struct fs *fs, uint64_t seen)
{
    struct pause pause = { .waiter.fn = pause_end };
    pthread_mutex_init(&pause.lock, NULL);
    pthread_cond_init(&pause.changed, NULL);
    store_wait(fs->store, seen, &pause.waiter);
    pthread_mutex_lock(&pause.lock);
    while (!pause.done)
        pthread_cond_wait(&pause.changed, &pause.lock);
    pthread_mutex_unlock(&pause.lock);
    pthread_cond_destroy(&pause.changed);
    pthread_mutex_destroy(&pause.lock);
}

static int wait_ref(struct fs *fs, const struct repo *repo, const char *ref, char ret_commit[NAMES_COMMIT_SIZE])
{
    for (;;) {
        uint64_t seen = store_answers(fs->store);
        int error = store_ref(fs->store, repo, ref, true, ret_commit);
        if (error != -EINPROGRESS)
            return error;
        wait_for_answer(fs, seen);
    }
}

static int wait_snapshot(struct fs *fs, const struct repo *repo, const char *commit, struct snapshot **ret_snapshot)
{
    for (;;) {
        uint64_t seen = store_answers(fs->store);
        int error = store_resolve(fs->store, repo, commit, ret_snapshot);
        if (error != -EINPROGRESS)
            return error;
        wait_for_answer(fs, seen);
    }
}

// --- the folder

// The ordinal of a path in a snapshot. 0, -ENOENT, -ENOTDIR if it is a file, -errno.
static int find_dir(struct fs *fs, struct snapshot *snapshot, const char *path, uint32_t *ret_ordinal)
{
    struct entry entry;
    int error = store_lookup_path(fs->store, snapshot, path, &entry);
    if (error < 0)
        return error;
    if (entry.kind != ENTRY_DIR)
        return -ENOTDIR;
    *ret_ordinal = entry.ordinal;
    return 0;
}

// Whether files that are not here can be had at all: gated repos let everybody see the list of their files.
static int check_access(struct fs *fs, struct snapshot *snapshot, char ret_text[512])
{
    struct entry *entries = malloc(BATCH * sizeof *entries);
    int count = entries && store_is_online(fs->store) ? BATCH : 0;
    uint32_t after = 0;
    int error = 0;
    bool found = false;
    while (count == BATCH && !found) {
        count = store_files(fs->store, snapshot, after, entries, BATCH);
        for (int i = 0; i < count && !found; i++) {
            found = entries[i].kind == ENTRY_FILE && !store_file_whole(fs->store, snapshot, &entries[i]);
            if (found)
                error = store_probe(fs->store, snapshot, entries[i].ordinal, ret_text);
            after = entries[i].ordinal;
        }
    }
    free(entries);
    // What cannot be reached now may be reached later, when it is read.
    return error == -EACCES || error == -ENOENT ? error : 0;
}

static const char *problem(const struct fs *fs, int error)
{
    switch (error) {
    case -ENOENT:
        return store_is_online(fs->store)
                   ? "no such repo or revision"
                   : "not in the cache, and offline: mount it without --offline and HF_HUB_OFFLINE";
    case -EACCES:
        return "the Hub refuses it: a token that may read it goes into HF_TOKEN";
    case -ENETUNREACH:
        return store_is_online(fs->store)
                   ? "not in the cache, and the Hub cannot be reached"
                   : "not in the cache, and offline: mount it without --offline and HF_HUB_OFFLINE";
    default:
        return strerror(-error);
    }
}

// Says why it cannot be mounted: what the Hub said, if it did.
static void say(struct fs *fs, const struct uri *uri, int error, const char *text)
{
    char told[512];
    store_hub_error(fs->store, &uri->repo, told);
    if (!*text && *told)
        text = told;
    if (*text)
        log_error("not mounted: %s", text);
    else
        log_error("not mounted: %s%s%s: %s", uri->repo.id, *uri->revision ? "@" : "", uri->revision,
                  problem(fs, error));
}

int root_open(struct fs *fs)
{
    const struct uri *uri = fs->options->uri;
    const char *revision = *uri->revision ? uri->revision : "main";
    struct root *root = calloc(1, sizeof *root);
    if (!root)
        return -ENOMEM;
    pthread_mutex_init(&root->lock, NULL);
    fs->root = root;
    root->repo = uri->repo;
    snprintf(root->path, sizeof root->path, "%s", uri->path);
    struct snapshot *snapshot = NULL;
    char text[512] = "";
    int error = 0;
    if (names_commit_ok(revision))
        memcpy(root->commit, revision, sizeof root->commit);
    else
        error = wait_ref(fs, &root->repo, revision, root->commit);
    if (error == 0)
        error = wait_snapshot(fs, &root->repo, root->commit, &snapshot);
    if (error == 0 && !names_commit_ok(revision))
        store_led_to(snapshot, revision);
    if (error == 0) {
        error = find_dir(fs, snapshot, root->path, &root->ordinal);
        if (error == -ENOENT || error == -ENOTDIR)
            snprintf(text, sizeof text, "%.100s@%.100s: %.200s: %s", root->repo.id, revision, root->path,
                     error == -ENOENT ? "no such folder there" : "is a file: name the folder that it is in");
    }
    if (error == 0)
        error = check_access(fs, snapshot, text);
    if (error == 0 && !(root->view = inodes_view(fs->inodes, "", snapshot)))
        error = -ENOMEM;
    if (error < 0)
        say(fs, uri, error, text);
    return error;
}

void root_free(struct root *root)
{
    if (!root)
        return;
    pthread_mutex_destroy(&root->lock);
    free(root);
}

const struct repo *root_repo(const struct root *root)
{
    return &root->repo;
}

const char *root_commit(const struct root *root)
{
    return root->commit;
}

fuse_ino_t root_node(struct fs *fs, fuse_ino_t ino)
{
    struct root *root = fs->root;
    if (ino != FUSE_ROOT_ID || !root)
        return ino;
    UTIL_LOCKED(&root->lock);
    struct snapshot *snapshot = root->view->snapshot;
    if (snapshot_is_void(fs->store, snapshot)) {
        struct view *view = NULL;
        uint32_t ordinal;
        if (store_resolve(fs->store, &root->repo, root->commit, &snapshot) == 0 &&
            find_dir(fs, snapshot, root->path, &ordinal) == 0)
            view = inodes_view(fs->inodes, "", snapshot);
        if (!view)
            return 0;
        root->view = view;
        root->ordinal = ordinal;
    }
    return inode_dir(root->view->number, root->ordinal);
}
