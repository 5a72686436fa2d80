// SPDX-License-Identifier: Apache-2.0
#include "fs/inode.h"

#include "cache/util.h"

#include <errno.h>
#include <string.h>

#define BUCKETS 4096

struct inodes {
    pthread_mutex_t lock; // guards all of it; a leaf: nothing else is taken with it held
    struct place *by_id[BUCKETS];
    struct place *by_name[BUCKETS];
    struct view *views_by_name[BUCKETS];
    struct view **views; // number n at n - 1
    uint32_t view_count, view_room;
    uint64_t last_id;
};

bool place_is_dir(enum place_kind kind)
{
    return kind != PLACE_HUB_REF && kind != PLACE_HUB_TREE && kind != PLACE_HUB_MISS && kind != PLACE_PID &&
           kind != PLACE_STATUS;
}

static unsigned hash_text(unsigned hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char) *text) * 16777619u;
    return hash;
}

static unsigned place_bucket(enum place_kind kind, const struct repo *repo, const char *rest)
{
    unsigned hash = 2166136261u ^ (unsigned) kind << 8 ^ (unsigned) repo->type;
    return hash_text(hash_text(hash, repo->id), rest) % BUCKETS;
}

int inodes_new(struct inodes **ret_inodes)
{
    struct inodes *inodes = calloc(1, sizeof *inodes);
    if (!inodes)
        return -ENOMEM;
    pthread_mutex_init(&inodes->lock, NULL);
    if (!inodes_place(inodes, PLACE_ROOT, NULL, "")) { // the first number, as FUSE has it
        inodes_free(inodes);
        return -ENOMEM;
    }
    *ret_inodes = inodes;
    return 0;
}

void inodes_free(struct inodes *inodes)
{
    if (!inodes)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (inodes->by_id[i]) {
            struct place *p = inodes->by_id[i];
            inodes->by_id[i] = p->next_by_id;
            free(p);
        }
    }
    for (uint32_t i = 0; i < inodes->view_count; i++)
        free(inodes->views[i]);
    free(inodes->views);
    pthread_mutex_destroy(&inodes->lock);
    free(inodes);
}

struct place *inodes_place(struct inodes *inodes, enum place_kind kind, const struct repo *repo, const char *rest)
{
    static const struct repo none;
    if (!repo)
        repo = &none;
    unsigned bucket = place_bucket(kind, repo, rest);
    UTIL_LOCKED(&inodes->lock);
    for (struct place *p = inodes->by_name[bucket]; p; p = p->next_by_name) {
        if (p->kind == kind && strcmp(p->rest, rest) == 0 && names_repo_equal(&p->repo, repo)) {
            p->lookups++;
            return p;
        }
    }
    size_t size = strlen(rest) + 1;
    struct place *p = calloc(1, sizeof *p + size);
    if (!p)
        return NULL;
    p->nodeid = ++inodes->last_id;
    p->kind = kind;
    p->repo = *repo;
    p->lookups = 1;
    memcpy(p->rest, rest, size);
    p->next_by_name = inodes->by_name[bucket];
    inodes->by_name[bucket] = p;
    p->next_by_id = inodes->by_id[p->nodeid % BUCKETS];
    inodes->by_id[p->nodeid % BUCKETS] = p;
    return p;
}

struct place *inodes_find(struct inodes *inodes, uint64_t nodeid)
{
    UTIL_LOCKED(&inodes->lock);
    for (struct place *p = inodes->by_id[nodeid % BUCKETS]; p; p = p->next_by_id)
        if (p->nodeid == nodeid)
            return p;
    return NULL;
}

static void place_drop(struct inodes *inodes, struct place *place)
{
    struct place **p = &inodes->by_id[place->nodeid % BUCKETS];
    while (*p != place)
        p = &(*p)->next_by_id;
    *p = place->next_by_id;
    p = &inodes->by_name[place_bucket(place->kind, &place->repo, place->rest)];
    while (*p != place)
        p = &(*p)->next_by_name;
    *p = place->next_by_name;
    free(place);
}

void inodes_forget(struct inodes *inodes, uint64_t nodeid, uint64_t lookups)
{
    if (inode_is_dir(nodeid) || inode_is_file(nodeid))
        return;
    UTIL_LOCKED(&inodes->lock);
    for (struct place *p = inodes->by_id[nodeid % BUCKETS]; p; p = p->next_by_id) {
        if (p->nodeid != nodeid)
            continue;
        p->lookups = p->lookups > lookups ? p->lookups - lookups : 0;
        if (p->lookups == 0 && p->kind != PLACE_ROOT)
            place_drop(inodes, p);
        return;
    }
}

struct view *inodes_view(struct inodes *inodes, const char *name, struct snapshot *snapshot)
{
    unsigned bucket = hash_text(2166136261u, name) % BUCKETS;
    UTIL_LOCKED(&inodes->lock);
    for (struct view *v = inodes->views_by_name[bucket]; v; v = v->next)
        if (v->snapshot == snapshot && strcmp(v->name, name) == 0)
            return v;
    if (inodes->view_count == inodes->view_room) {
        uint32_t room = inodes->view_room ? inodes->view_room * 2 : 64;
        struct view **views = reallocarray(inodes->views, room, sizeof *views);
        if (!views)
            return NULL;
        inodes->views = views;
        inodes->view_room = room;
    }
    size_t size = strlen(name) + 1;
    struct view *v = calloc(1, sizeof *v + size);
    if (!v)
        return NULL;
    v->snapshot = snapshot;
    memcpy(v->name, name, size);
    v->next = inodes->views_by_name[bucket];
    inodes->views_by_name[bucket] = v;
    inodes->views[inodes->view_count++] = v;
    v->number = inodes->view_count;
    return v;
}

struct view *inodes_view_find(struct inodes *inodes, uint32_t number)
{
    UTIL_LOCKED(&inodes->lock);
    return number >= 1 && number <= inodes->view_count ? inodes->views[number - 1] : NULL;
}
