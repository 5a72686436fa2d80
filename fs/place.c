// SPDX-License-Identifier: Apache-2.0
#include "fs/place.h"

#include "cache/util.h"
#include "fs/attr.h"
#include "fs/status.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define TREE_SUFFIX ".json"

// --- answers

static int answer_place(struct fs *fs, enum place_kind kind, const struct repo *repo, const char *rest,
                        struct fuse_entry_param *ret_entry)
{
    struct place *place = inodes_place(fs->inodes, kind, repo, rest);
    if (!place)
        return -ENOMEM;
    bool fixed = kind == PLACE_TYPE || kind == PLACE_HUB || kind == PLACE_CONTROL;
    *ret_entry = (struct fuse_entry_param){
        .ino = place->nodeid,
        .entry_timeout = fixed ? FS_TIMEOUT_ENDLESS : FS_TIMEOUT_SHORT,
        .attr_timeout = fixed ? FS_TIMEOUT_ENDLESS : FS_TIMEOUT_SHORT,
    };
    int error = place_attr(fs, place, &ret_entry->attr);
    if (error < 0)
        inodes_forget(fs->inodes, place->nodeid, 1);
    return error;
}

// The top of a snapshot, as entered by `dir`/`name`.
static int answer_view(struct fs *fs, const char *dir, const char *name, struct snapshot *snapshot,
                       struct fuse_entry_param *ret_entry)
{
    _cleanup_free_ char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return -ENOMEM;
    struct view *view = inodes_view(fs->inodes, path, snapshot);
    if (!view)
        return -ENOMEM;
    struct entry top = { .kind = ENTRY_DIR };
    *ret_entry = (struct fuse_entry_param){
        .ino = inode_dir(view->number, 0),
        .attr = attr_entry(fs, snapshot, view, &top, ""),
        .entry_timeout = FS_TIMEOUT_SHORT,
        .attr_timeout = FS_TIMEOUT_ENDLESS,
    };
    return 0;
}

// --- refs as directories

struct ref_prefix {
    const char *prefix;
    size_t len;
};

static int ref_has_prefix(void *userdata, const char *ref, const char *commit)
{
    (void) commit;
    const struct ref_prefix *p = userdata;
    return strncmp(ref, p->prefix, p->len) == 0 && ref[p->len] == '/';
}

// Whether the Hub has refs below `dir`, and none of that name, in every repo.
static bool is_hub_dir(const char *dir)
{
    return strcmp(dir, "refs") == 0 || strcmp(dir, "refs/pr") == 0 || strcmp(dir, "refs/convert") == 0;
}

// Whether any ref lies below `dir` ("refs/pr"). 0, -ENOENT, -EINPROGRESS.
static int refs_below(struct fs *fs, const struct repo *repo, const char *dir)
{
    struct ref_prefix prefix = { .prefix = dir, .len = strlen(dir) };
    if (layout_refs(store_layout(fs->store), repo, ref_has_prefix, &prefix) == 1)
        return 0;
    // What the Hub has besides branches and tags: there need not be a request to know that it may have these.
    if (store_is_online(fs->store) && is_hub_dir(dir))
        return 0;
    if (strncmp(dir, "refs/", 5) == 0)
        return -ENOENT;
    int r = store_refs(fs->store, repo, ref_has_prefix, &prefix);
    return r == 1 ? 0 : r == -EINPROGRESS ? r : -ENOENT;
}

// "a" and "b" to "a/b"; "" and "b" to "b".
static char *join(const char *a, const char *b)
{
    char *joined = NULL;
    return asprintf(&joined, "%s%s%s", a, *a ? "/" : "", b) < 0 ? NULL : joined;
}

// A name in a repo's own directory: a revision as one component, or the way to those below refs/.
static int lookup_revision(struct fs *fs, const struct repo *repo, const char *name, struct fuse_entry_param *ret_entry)
{
    if (strcmp(name, "refs") == 0 && refs_below(fs, repo, name) == 0)
        return answer_place(fs, PLACE_REFS, repo, name, ret_entry);
    char ref[NAMES_REF_SIZE];
    if (!names_revision_decode(name, ref))
        return -ENOENT;
    struct snapshot *snapshot;
    int error = store_resolve(fs->store, repo, ref, &snapshot);
    if (error < 0)
        return error;
    char dir[16 + NAMES_ID_SIZE];
    snprintf(dir, sizeof dir, "%s/%s", names_type_plural(repo->type), repo->id);
    return answer_view(fs, dir, name, snapshot, ret_entry);
}

// A name below refs/.
static int lookup_ref(struct fs *fs, const struct place *parent, const char *name, struct fuse_entry_param *ret_entry)
{
    _cleanup_free_ char *ref = join(parent->rest, name);
    if (!ref)
        return -ENOMEM;
    struct snapshot *snapshot;
    if (refs_below(fs, &parent->repo, ref) == 0)
        return answer_place(fs, PLACE_REFS, &parent->repo, ref, ret_entry);
    int error = store_resolve(fs->store, &parent->repo, ref, &snapshot);
    if (error < 0)
        return error;
    char dir[16 + NAMES_ID_SIZE + NAMES_REF_SIZE];
    snprintf(dir, sizeof dir, "%s/%s/%s", names_type_plural(parent->repo.type), parent->repo.id, parent->rest);
    return answer_view(fs, dir, name, snapshot, ret_entry);
}

// --- names in models/ and the like

static int lookup_in_type(struct fs *fs, enum repo_type type, const char *name, struct fuse_entry_param *ret_entry)
{
    struct repo repo; // the organisation, and the repo of that name alone
    if (!names_repo_make(type, NULL, name, &repo))
        return -ENOENT;
    // Users and organisations have no dots in their names, but what programs look for everywhere has.
    bool possible = store_is_online(fs->store) && !strchr(name, '.');
    if (!possible && !store_has_repo(fs->store, &repo) && !store_has_org(fs->store, type, name))
        return -ENOENT;
    return answer_place(fs, PLACE_ORG, &repo, "", ret_entry);
}

// A revision of a repo without an organisation, whose directory repos of that organisation share: the Hub is not asked
// for a name that may be one of these.
static int lookup_cached_revision(struct fs *fs, const struct repo *repo, const char *name,
                                  struct fuse_entry_param *ret_entry)
{
    const struct layout *layout = store_layout(fs->store);
    char ref[NAMES_REF_SIZE], commit[NAMES_COMMIT_SIZE];
    if (!names_revision_decode(name, ref))
        return -ENOENT;
    struct ref_prefix prefix = { .prefix = name, .len = strlen(name) };
    bool here = names_commit_ok(ref) ? layout_has_commit(layout, repo, ref)
                                     : layout_ref(layout, repo, ref, commit, NULL) == 0 ||
                                           layout_refs(layout, repo, ref_has_prefix, &prefix) == 1;
    return here ? lookup_revision(fs, repo, name, ret_entry) : -ENOENT;
}

static int lookup_in_org(struct fs *fs, const struct repo *org, const char *name, struct fuse_entry_param *ret_entry)
{
    if (store_has_repo(fs->store, org)) {
        int error = lookup_cached_revision(fs, org, name, ret_entry);
        if (error != -ENOENT)
            return error;
    }
    struct repo repo;
    if (!names_repo_make(org->type, org->id, name, &repo) || !store_may_have_repo(fs->store, &repo))
        return -ENOENT;
    return answer_place(fs, PLACE_REPO, &repo, "", ret_entry);
}

static int lookup_in_root(struct fs *fs, const char *name, struct fuse_entry_param *ret_entry)
{
    struct repo type = { 0 };
    if (names_type_from_plural(name, &type.type))
        return answer_place(fs, PLACE_TYPE, &type, "", ret_entry);
    if (strcmp(name, "hub") == 0)
        return answer_place(fs, PLACE_HUB, NULL, "", ret_entry);
    if (strcmp(name, PLACE_CONTROL_NAME) == 0)
        return answer_place(fs, PLACE_CONTROL, NULL, "", ret_entry);
    return -ENOENT;
}

// --- names in hub/

static int lookup_in_hub(struct fs *fs, const char *name, struct fuse_entry_param *ret_entry)
{
    struct repo repo;
    if (!names_repo_from_folder(name, &repo) || !store_may_have_repo(fs->store, &repo))
        return -ENOENT;
    return answer_place(fs, PLACE_HUB_REPO, &repo, "", ret_entry);
}

static int lookup_in_hub_repo(struct fs *fs, const struct repo *repo, const char *name,
                              struct fuse_entry_param *ret_entry)
{
    static const struct {
        const char *name;
        enum place_kind kind;
    } children[] = {
        { "refs", PLACE_HUB_REFS },
        { "snapshots", PLACE_HUB_SNAPSHOTS },
        { "trees", PLACE_HUB_TREES },
        { ".no_exist", PLACE_HUB_MISSES },
    };
    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        if (strcmp(name, children[i].name) == 0)
            return answer_place(fs, children[i].kind, repo, "", ret_entry);
    return -ENOENT;
}

static int lookup_in_hub_refs(struct fs *fs, const struct place *parent, const char *name,
                              struct fuse_entry_param *ret_entry)
{
    _cleanup_free_ char *ref = join(parent->rest, name);
    if (!ref)
        return -ENOMEM;
    char commit[NAMES_COMMIT_SIZE];
    int error = is_hub_dir(ref) ? -ENOENT : store_ref(fs->store, &parent->repo, ref, false, commit);
    if (error == 0)
        return answer_place(fs, PLACE_HUB_REF, &parent->repo, ref, ret_entry);
    if (error == -ENOENT)
        error = refs_below(fs, &parent->repo, ref);
    return error == 0 ? answer_place(fs, PLACE_HUB_REFS, &parent->repo, ref, ret_entry) : error;
}

static int lookup_in_hub_snapshots(struct fs *fs, const struct repo *repo, const char *name,
                                   struct fuse_entry_param *ret_entry)
{
    struct snapshot *snapshot;
    int error = names_commit_ok(name) ? store_resolve(fs->store, repo, name, &snapshot) : -ENOENT;
    if (error < 0)
        return error;
    char folder[NAMES_FOLDER_SIZE], dir[NAMES_FOLDER_SIZE + 16];
    names_repo_folder(repo, folder);
    snprintf(dir, sizeof dir, "hub/%s/snapshots", folder);
    return answer_view(fs, dir, name, snapshot, ret_entry);
}

static int lookup_in_hub_trees(struct fs *fs, const struct repo *repo, const char *name,
                               struct fuse_entry_param *ret_entry)
{
    char commit[NAMES_COMMIT_SIZE];
    snprintf(commit, sizeof commit, "%s", name);
    if (strlen(name) != sizeof commit - 1 + strlen(TREE_SUFFIX) || !names_commit_ok(commit) ||
        strcmp(name + sizeof commit - 1, TREE_SUFFIX) != 0)
        return -ENOENT;
    return answer_place(fs, PLACE_HUB_TREE, repo, commit, ret_entry);
}

// `.no_exist/<commit>/<path>`: a file for every path of which it is known that the Hub has none. A look-up comes one
// component at a time and does not say whether more follow, so what the tree lacks altogether is taken for a file if
// its name has a dot, and for a directory otherwise.
static int lookup_in_hub_misses(struct fs *fs, const struct place *parent, const char *name,
                                struct fuse_entry_param *ret_entry)
{
    const struct repo *repo = &parent->repo;
    if (!*parent->rest) {
        struct snapshot *any;
        int error = names_commit_ok(name) ? store_resolve(fs->store, repo, name, &any) : -ENOENT;
        if (error < 0)
            return error;
        return answer_place(fs, PLACE_HUB_MISSES, repo, name, ret_entry);
    }
    _cleanup_free_ char *rest = join(parent->rest, name);
    if (!rest)
        return -ENOMEM;
    const char *path = rest + NAMES_COMMIT_SIZE; // behind the commit and the slash
    if (!names_path_ok(path, strlen(path)))
        return -ENOENT;
    char commit[NAMES_COMMIT_SIZE];
    snprintf(commit, sizeof commit, "%s", rest);
    if (layout_no_exist(store_layout(fs->store), repo, commit, path))
        return answer_place(fs, PLACE_HUB_MISS, repo, rest, ret_entry);
    struct snapshot *snapshot;
    int error = store_resolve(fs->store, repo, commit, &snapshot);
    if (error < 0)
        return error;
    struct entry entry;
    error = store_lookup_path(fs->store, snapshot, path, &entry);
    if (error == 0 && entry.kind == ENTRY_DIR)
        return answer_place(fs, PLACE_HUB_MISSES, repo, rest, ret_entry);
    if (error != -ENOENT)
        return error < 0 ? error : -ENOENT;
    if (!strchr(name, '.'))
        return answer_place(fs, PLACE_HUB_MISSES, repo, rest, ret_entry);
    return snapshot_complete(snapshot) ? answer_place(fs, PLACE_HUB_MISS, repo, rest, ret_entry) : -ENOENT;
}

int place_lookup(struct fs *fs, const struct place *parent, const char *name, struct fuse_entry_param *ret_entry)
{
    switch (parent->kind) {
    case PLACE_ROOT:
        return lookup_in_root(fs, name, ret_entry);
    case PLACE_TYPE:
        return lookup_in_type(fs, parent->repo.type, name, ret_entry);
    case PLACE_ORG:
        return lookup_in_org(fs, &parent->repo, name, ret_entry);
    case PLACE_REPO:
        return lookup_revision(fs, &parent->repo, name, ret_entry);
    case PLACE_REFS:
        return lookup_ref(fs, parent, name, ret_entry);
    case PLACE_HUB:
        return lookup_in_hub(fs, name, ret_entry);
    case PLACE_HUB_REPO:
        return lookup_in_hub_repo(fs, &parent->repo, name, ret_entry);
    case PLACE_HUB_REFS:
        return lookup_in_hub_refs(fs, parent, name, ret_entry);
    case PLACE_HUB_SNAPSHOTS:
        return lookup_in_hub_snapshots(fs, &parent->repo, name, ret_entry);
    case PLACE_HUB_TREES:
        return lookup_in_hub_trees(fs, &parent->repo, name, ret_entry);
    case PLACE_HUB_MISSES:
        return lookup_in_hub_misses(fs, parent, name, ret_entry);
    case PLACE_CONTROL:
        if (strcmp(name, "pid") == 0)
            return answer_place(fs, PLACE_PID, NULL, "", ret_entry);
        return strcmp(name, "status") == 0 ? answer_place(fs, PLACE_STATUS, NULL, "", ret_entry) : -ENOENT;
    case PLACE_HUB_REF:
    case PLACE_HUB_TREE:
    case PLACE_HUB_MISS:
    case PLACE_PID:
    case PLACE_STATUS:
        break;
    }
    return -ENOTDIR;
}

// --- attributes and contents

int place_open(struct fs *fs, const struct place *place, int *ret_fd)
{
    struct stat st;
    return layout_tree_open(store_layout(fs->store), &place->repo, place->rest, ret_fd, &st);
}

int place_attr(struct fs *fs, const struct place *place, struct stat *ret_st)
{
    int64_t size = 0;
    if (place->kind == PLACE_HUB_TREE) {
        _cleanup_close_ int fd = -1;
        struct stat st;
        int error = layout_tree_open(store_layout(fs->store), &place->repo, place->rest, &fd, &st);
        if (error < 0)
            return error;
        size = st.st_size;
    } else if (place->kind == PLACE_HUB_REF) {
        size = NAMES_COMMIT_SIZE - 1;
    }
    *ret_st = attr_place(fs, place, size);
    return 0;
}

// What a ref means: the commit that its directory shows, which may be held back for those who are using it.
static int ref_text(struct fs *fs, const struct place *place, char **ret_text)
{
    struct snapshot *snapshot;
    char commit[NAMES_COMMIT_SIZE];
    int error = store_resolve(fs->store, &place->repo, place->rest, &snapshot);
    if (error == 0)
        *ret_text = strdup(snapshot_commit(snapshot));
    else if (error != -EINPROGRESS &&
             (error = layout_ref(store_layout(fs->store), &place->repo, place->rest, commit, NULL)) == 0)
        *ret_text = strdup(commit);
    else
        return error;
    return *ret_text ? 0 : -ENOMEM;
}

int place_text(struct fs *fs, const struct place *place, char **ret_text, size_t *ret_len)
{
    int error = 0;
    if (place->kind == PLACE_STATUS)
        error = status_text(fs, ret_text);
    else if (place->kind == PLACE_PID)
        error = asprintf(ret_text, "%d\n", (int) getpid()) < 0 ? -ENOMEM : 0;
    else if (place->kind == PLACE_HUB_REF)
        error = ref_text(fs, place, ret_text);
    else if (!(*ret_text = strdup("")))
        error = -ENOMEM;
    if (error == 0)
        *ret_len = strlen(*ret_text);
    return error;
}

// --- listing

static int names_add(struct place_names *names, const char *name, mode_t type)
{
    if (names->count == names->room) {
        size_t room = names->room ? names->room * 2 : 16;
        struct place_name *items = reallocarray(names->items, room, sizeof *items);
        if (!items)
            return -ENOMEM;
        names->items = items;
        names->room = room;
    }
    char *copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    names->items[names->count++] = (struct place_name){ .name = copy, .type = type };
    return 0;
}

static int name_compare(const void *a, const void *b)
{
    const struct place_name *x = a, *y = b;
    return strcmp(x->name, y->name);
}

// Sorts, and drops what is there twice.
static void names_settle(struct place_names *names)
{
    if (names->count == 0)
        return;
    qsort(names->items, names->count, sizeof *names->items, name_compare);
    size_t kept = 1;
    for (size_t i = 1; i < names->count; i++) {
        if (strcmp(names->items[i].name, names->items[kept - 1].name) == 0)
            free(names->items[i].name);
        else
            names->items[kept++] = names->items[i];
    }
    names->count = kept;
}

void place_names_free(struct place_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i].name);
    free(names->items);
    *names = (struct place_names){ 0 };
}

struct listing {
    struct fs *fs;
    const struct place *place;
    struct place_names *names;
    char (*pointed)[NAMES_COMMIT_SIZE]; // the commits that listed refs point at
    size_t pointed_count, pointed_room;
};

static int list_ref(void *userdata, const char *ref, const char *commit)
{
    struct listing *l = userdata;
    if (l->pointed_count == l->pointed_room) {
        size_t room = l->pointed_room ? l->pointed_room * 2 : 16;
        void *pointed = reallocarray(l->pointed, room, sizeof *l->pointed);
        if (!pointed)
            return -ENOMEM;
        l->pointed = pointed;
        l->pointed_room = room;
    }
    memcpy(l->pointed[l->pointed_count++], commit, NAMES_COMMIT_SIZE);
    if (strncmp(ref, "refs/", 5) == 0)
        return names_add(l->names, "refs", S_IFDIR);
    char component[NAMES_REVISION_SIZE];
    return names_revision_encode(ref, component) ? names_add(l->names, component, S_IFDIR) : 0;
}

static int list_commit(void *userdata, const char *commit)
{
    struct listing *l = userdata;
    for (size_t i = 0; i < l->pointed_count; i++)
        if (strcmp(l->pointed[i], commit) == 0)
            return 0;
    return names_add(l->names, commit, S_IFDIR);
}

// In hub/…/snapshots the library looks for the commit that a ref led it to.
static int list_known_commit(void *userdata, const char *commit)
{
    struct listing *l = userdata;
    return names_add(l->names, commit, S_IFDIR);
}

static int list_ref_commit(void *userdata, const char *ref, const char *commit)
{
    (void) ref;
    struct listing *l = userdata;
    if (!layout_has_commit(store_layout(l->fs->store), &l->place->repo, commit))
        return 0;
    return list_known_commit(l, commit);
}

static int list_hub_snapshots(struct listing *l)
{
    const struct layout *layout = store_layout(l->fs->store);
    const struct repo *repo = &l->place->repo;
    int error = layout_commits(layout, repo, list_known_commit, l);
    if (error == 0)
        error = layout_refs(layout, repo, list_ref_commit, l);
    return error == 0 ? store_commits(l->fs->store, repo, list_known_commit, l) : error;
}

static int list_revisions(struct listing *l, const struct repo *repo)
{
    const struct layout *layout = store_layout(l->fs->store);
    int error = layout_refs(layout, repo, list_ref, l);
    // Of a repo that is not in the cache, what the Hub has.
    if (error == 0 && !store_has_repo(l->fs->store, repo))
        error = store_refs(l->fs->store, repo, list_ref, l);
    if (error == 0)
        error = layout_commits(layout, repo, list_commit, l);
    free(l->pointed);
    l->pointed = NULL;
    return error;
}

// The part of a ref that follows the place's own path, up to the next slash.
static int list_ref_part(void *userdata, const char *ref, const char *commit)
{
    (void) commit;
    struct listing *l = userdata;
    size_t len = strlen(l->place->rest);
    if (len > 0) {
        if (strncmp(ref, l->place->rest, len) != 0 || ref[len] != '/')
            return 0;
        ref += len + 1;
    }
    char part[NAMES_REF_SIZE];
    const char *end = strchrnul(ref, '/');
    snprintf(part, sizeof part, "%.*s", (int) (end - ref), ref);
    bool file = l->place->kind == PLACE_HUB_REFS && !*end;
    return names_add(l->names, part, file ? S_IFREG : S_IFDIR);
}

static int list_tree(void *userdata, const char *commit)
{
    struct listing *l = userdata;
    _cleanup_close_ int fd = -1;
    struct stat st;
    char name[NAMES_COMMIT_SIZE + sizeof TREE_SUFFIX];
    snprintf(name, sizeof name, "%s" TREE_SUFFIX, commit);
    if (layout_tree_open(store_layout(l->fs->store), &l->place->repo, commit, &fd, &st) < 0)
        return 0;
    return names_add(l->names, name, S_IFREG);
}

// A repo's part in models/, in models/<org> or in hub/.
static int list_repo(struct listing *l, const struct repo *repo)
{
    const struct place *place = l->place;
    if (place->kind == PLACE_HUB) {
        char folder[NAMES_FOLDER_SIZE];
        names_repo_folder(repo, folder);
        return names_add(l->names, folder, S_IFDIR);
    }
    if (repo->type != place->repo.type)
        return 0;
    const char *slash = strchr(repo->id, '/');
    if (place->kind == PLACE_TYPE) {
        char org[NAMES_ID_SIZE];
        snprintf(org, sizeof org, "%.*s", slash ? (int) (slash - repo->id) : (int) strlen(repo->id), repo->id);
        return names_add(l->names, org, S_IFDIR);
    }
    size_t len = strlen(place->repo.id);
    bool inside = slash && (size_t) (slash - repo->id) == len && strncmp(repo->id, place->repo.id, len) == 0;
    return inside ? names_add(l->names, slash + 1, S_IFDIR) : 0;
}

static int list_repos(struct listing *l)
{
    _cleanup_free_ struct repo *repos = NULL;
    ssize_t count = store_repos(l->fs->store, &repos);
    int error = count < 0 ? (int) count : 0;
    for (ssize_t i = 0; i < count && error == 0; i++)
        error = list_repo(l, &repos[i]);
    return error;
}

static int list_org(struct listing *l)
{
    int error = 0;
    if (store_has_repo(l->fs->store, &l->place->repo))
        error = list_revisions(l, &l->place->repo);
    return error < 0 ? error : list_repos(l);
}

static int list_fixed(struct listing *l, const char *const *fixed, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && error == 0; i++)
        error = names_add(l->names, fixed[i], S_IFDIR);
    return error;
}

static int list_any(struct listing *l)
{
    static const char *const root[] = { "datasets", "kernels", "models", "spaces" };
    static const char *const hub_repo[] = { "refs", "snapshots", "trees" };
    const struct layout *layout = store_layout(l->fs->store);
    const struct repo *repo = &l->place->repo;
    int error;
    switch (l->place->kind) {
    case PLACE_ROOT:
        return list_fixed(l, root, 4);
    case PLACE_TYPE:
    case PLACE_HUB:
        return list_repos(l);
    case PLACE_ORG:
        return list_org(l);
    case PLACE_REPO:
        return list_revisions(l, repo);
    case PLACE_REFS:
    case PLACE_HUB_REFS:
        error = layout_refs(layout, repo, list_ref_part, l);
        if (error == 0 && !store_has_repo(l->fs->store, repo))
            error = store_refs(l->fs->store, repo, list_ref_part, l);
        return error;
    case PLACE_HUB_REPO:
        return list_fixed(l, hub_repo, 3);
    case PLACE_HUB_SNAPSHOTS:
        return list_hub_snapshots(l);
    case PLACE_HUB_TREES:
        return layout_commits(layout, repo, list_tree, l);
    case PLACE_CONTROL:
        error = names_add(l->names, "pid", S_IFREG);
        return error < 0 ? error : names_add(l->names, "status", S_IFREG);
    case PLACE_HUB_MISSES: // endlessly many: by name only
        return 0;
    case PLACE_HUB_REF:
    case PLACE_HUB_TREE:
    case PLACE_HUB_MISS:
    case PLACE_PID:
    case PLACE_STATUS:
        break;
    }
    return -ENOTDIR;
}

int place_list(struct fs *fs, const struct place *place, struct place_names *ret_names)
{
    *ret_names = (struct place_names){ 0 };
    struct listing l = { .fs = fs, .place = place, .names = ret_names };
    int error = list_any(&l);
    names_settle(ret_names);
    return error;
}
