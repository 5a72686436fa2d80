// SPDX-License-Identifier: Apache-2.0
// The maps that files of tensors begin with. A map is a hint of what to fetch together, no more: what a loader would
// refuse for other reasons may well have one here.
#include "cache/json_walk.h"
#include "cache/plan.h"
#include "cache/util.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

// What can be told by, and no file of tensors is shorter: a GGUF's head.
#define HEAD 24
// As much is fetched and parsed for a map. The safetensors crate takes headers up to 100 MB; real ones, of thousands of
// tensors, are below 1 MB, GGUFs with their vocabulary some 10 MB.
#define HEADER_MAX ((size_t) 16 * 1024 * 1024)
// The first guess at a GGUF's header: a file's first request brings as much anyway.
#define GGUF_GUESS ((size_t) 1024 * 1024)
// Parts shorter than this are joined with their neighbours: they would not be worth a request.
#define PART_MIN ((int64_t) 1024 * 1024)

struct part {
    int64_t from, to;
};

struct plan_map {
    size_t count, room;
    struct part *parts; // sorted, none empty, none overlaps
};

void plan_map_free(struct plan_map *map)
{
    if (map)
        free(map->parts);
    free(map);
}

static void map_free_p(struct plan_map **map)
{
    plan_map_free(*map);
}

static void walk_free_p(struct json_walk **walk)
{
    json_walk_free(*walk);
}

static void json_free_p(cJSON **json)
{
    cJSON_Delete(*json);
}

bool plan_map_part(const struct plan_map *map, int64_t offset, int64_t *ret_from, int64_t *ret_to)
{
    size_t low = 0, high = map->count; // the first part that ends behind `offset` is in between
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->parts[middle].to > offset)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == map->count || map->parts[low].from > offset)
        return false;
    *ret_from = map->parts[low].from;
    *ret_to = map->parts[low].to;
    return true;
}

// ---- making one ----

static int add_part(struct plan_map *map, int64_t from, int64_t to)
{
    if (map->count == map->room) {
        size_t room = map->room ? 2 * map->room : 256;
        struct part *parts = reallocarray(map->parts, room, sizeof *parts);
        if (!parts)
            return -ENOMEM;
        map->parts = parts;
        map->room = room;
    }
    map->parts[map->count++] = (struct part){ from, to };
    return 0;
}

static int compare_parts(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    return x->from != y->from ? (x->from > y->from) - (x->from < y->from) : (x->to > y->to) - (x->to < y->to);
}

static void sort_parts(struct plan_map *map)
{
    if (map->count)
        qsort(map->parts, map->count, sizeof *map->parts, compare_parts);
}

static bool is_short(const struct part *part)
{
    return part->to - part->from < PART_MIN;
}

// Joins the last of `n` parts with the one before it, if it is short and they touch. Returns how many there are now.
static size_t join_last(struct part *parts, size_t n)
{
    if (n < 2 || !is_short(&parts[n - 1]) || parts[n - 1].from != parts[n - 2].to)
        return n;
    parts[n - 2].to = parts[n - 1].to;
    return n - 1;
}

// Of sorted parts: joins a short one with what follows at once, and where nothing does, with what is before it.
// -EBADMSG if two overlap, or none is left.
static int join_parts(struct plan_map *map)
{
    struct part *parts = map->parts;
    size_t n = 0; // done so far; the last of them may still grow
    for (size_t i = 0; i < map->count; i++) {
        if (parts[i].from == parts[i].to)
            continue;
        if (n > 0 && parts[i].from < parts[n - 1].to)
            return -EBADMSG;
        if (n > 0 && parts[i].from == parts[n - 1].to && is_short(&parts[n - 1])) {
            parts[n - 1].to = parts[i].to;
            continue;
        }
        n = join_last(parts, n);
        parts[n++] = parts[i];
    }
    n = join_last(parts, n);
    if (n == 0)
        return -EBADMSG;
    map->count = n;
    parts = reallocarray(parts, n, sizeof *parts);
    if (parts) {
        map->parts = parts;
        map->room = n;
    }
    return 0;
}

// ---- safetensors: github.com/huggingface/safetensors, README "Format" and tensor.rs ----

struct tensors {
    struct plan_map *map;
    int64_t data, size; // where the header ends and the file does
};

static int on_tensor(void *userdata, const char *key, const char *value, size_t len)
{
    const struct tensors *t = userdata;
    if (strcmp(key, "__metadata__") == 0)
        return 0;
    __attribute__((cleanup(json_free_p))) cJSON *tensor = json_parse(value, len);
    const cJSON *offsets = json_member(tensor, "data_offsets");
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
        return -EBADMSG;
    int64_t from = json_size(offsets->child), to = json_size(offsets->child->next);
    if (from < 0 || to < from || to > t->size - t->data)
        return -EBADMSG;
    return add_part(t->map, t->data + from, t->data + to);
}

static int read_safetensors(struct plan_map *map, const char *bytes, size_t len, int64_t size, size_t *ret_need)
{
    uint64_t header;
    memcpy(&header, bytes, sizeof header);
    header = le64toh(header);
    if (header > HEADER_MAX || header > (uint64_t) size - sizeof header || bytes[sizeof header] != '{')
        return -EBADMSG;
    *ret_need = sizeof header + header;
    if (*ret_need > len)
        return -EAGAIN;

    struct tensors tensors = { .map = map, .data = (int64_t) *ret_need, .size = size };
    __attribute__((cleanup(walk_free_p))) struct json_walk *walk = json_walk_new('{', header, on_tensor, &tensors);
    if (!walk)
        return -ENOMEM;
    int r = json_walk_feed(walk, bytes + sizeof header, header);
    if (r == 0)
        r = json_walk_end(walk);
    if (r < 0)
        return r;
    sort_parts(map);
    return 0;
}

// ---- GGUF: github.com/ggml-org/ggml, docs/gguf.md and src/gguf.cpp ----

enum gguf_type { GGUF_UINT32 = 4, GGUF_STRING = 8, GGUF_ARRAY = 9, GGUF_TYPES = 13 };

#define GGUF_DEPTH 2 // of arrays in arrays; ggml has none at all
#define GGUF_DIMS 4
#define GGUF_ALIGNMENT 32
#define GGUF_KEY_VALUE_MIN (8 + 4 + 1) // bytes of the shortest
#define GGUF_TENSOR_MIN (8 + 4 + 4 + 8)

struct cursor {
    const char *bytes;
    size_t pos, len;
    size_t limit;  // a header that would be longer is none
    size_t wanted; // by the read that came upon the end
};

// -EAGAIN: `len` ends before; -EBADMSG: so does the file, or what may be read of it.
static int take(struct cursor *c, uint64_t n, const char **ret_bytes)
{
    if (n > c->limit - c->pos)
        return -EBADMSG;
    if (n > c->len - c->pos) {
        c->wanted = c->pos + n;
        return -EAGAIN;
    }
    *ret_bytes = c->bytes + c->pos;
    c->pos += n;
    return 0;
}

static int skip(struct cursor *c, uint64_t n)
{
    const char *bytes;
    return take(c, n, &bytes);
}

static int take_u32(struct cursor *c, uint32_t *ret)
{
    const char *bytes;
    int r = take(c, sizeof *ret, &bytes);
    if (r == 0) {
        memcpy(ret, bytes, sizeof *ret);
        *ret = le32toh(*ret);
    }
    return r;
}

static int take_u64(struct cursor *c, uint64_t *ret)
{
    const char *bytes;
    int r = take(c, sizeof *ret, &bytes);
    if (r == 0) {
        memcpy(ret, bytes, sizeof *ret);
        *ret = le64toh(*ret);
    }
    return r;
}

static int take_string(struct cursor *c, const char **ret_bytes, uint64_t *ret_len)
{
    int r = take_u64(c, ret_len);
    return r < 0 ? r : take(c, *ret_len, ret_bytes);
}

// `depth`: how many arrays the value may still be in. Nothing is longer than what it was read from, so that no count
// can make this take long.
static int skip_value(struct cursor *c, uint32_t type, int depth)
{
    static const uint8_t sizes[GGUF_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    const char *bytes;
    uint64_t count;
    uint32_t inner;
    if (type >= GGUF_TYPES)
        return -EBADMSG;
    if (sizes[type] > 0)
        return skip(c, sizes[type]);
    if (type == GGUF_STRING)
        return take_string(c, &bytes, &count);
    if (depth == 0)
        return -EBADMSG;
    int r = take_u32(c, &inner);
    if (r == 0)
        r = take_u64(c, &count);
    if (r < 0)
        return r;
    if (inner >= GGUF_TYPES || count > c->limit)
        return -EBADMSG;
    if (sizes[inner] > 0)
        return skip(c, count * sizes[inner]);
    for (uint64_t i = 0; i < count && r == 0; i++)
        r = skip_value(c, inner, depth - 1);
    return r;
}

// Sets *alignment if that is what it says.
static int skip_key_value(struct cursor *c, uint32_t *alignment)
{
    static const char name[] = "general.alignment";
    const char *key;
    uint64_t len;
    uint32_t type;
    int r = take_string(c, &key, &len);
    if (r == 0)
        r = take_u32(c, &type);
    if (r < 0)
        return r;
    if (len != sizeof name - 1 || memcmp(key, name, len) != 0)
        return skip_value(c, type, GGUF_DEPTH);
    if (type != GGUF_UINT32 || *alignment != 0)
        return -EBADMSG;
    r = take_u32(c, alignment);
    return r < 0 ? r : __builtin_popcount(*alignment) == 1 ? 0 : -EBADMSG;
}

static int take_tensor(struct cursor *c, uint64_t *ret_offset)
{
    const char *name;
    uint64_t len;
    uint32_t dims, type;
    int r = take_string(c, &name, &len);
    if (r == 0)
        r = take_u32(c, &dims);
    if (r < 0)
        return r;
    if (dims > GGUF_DIMS)
        return -EBADMSG;
    r = skip(c, dims * sizeof(uint64_t));
    if (r == 0)
        r = take_u32(c, &type);
    return r < 0 ? r : take_u64(c, ret_offset);
}

static int take_tensors(struct cursor *c, struct plan_map *map, int64_t size)
{
    uint64_t tensors = 0, key_values = 0;
    uint32_t alignment = 0;
    int r = take_u64(c, &tensors);
    if (r == 0)
        r = take_u64(c, &key_values);
    if (r == 0 && (tensors > c->limit / GGUF_TENSOR_MIN || key_values > c->limit / GGUF_KEY_VALUE_MIN))
        r = -EBADMSG;
    for (uint64_t i = 0; r == 0 && i < key_values; i++)
        r = skip_key_value(c, &alignment);
    if (alignment == 0)
        alignment = GGUF_ALIGNMENT;
    for (uint64_t i = 0; r == 0 && i < tensors; i++) {
        uint64_t offset;
        r = take_tensor(c, &offset);
        if (r == 0 && (offset > (uint64_t) size || offset % alignment != 0))
            r = -EBADMSG;
        if (r == 0)
            r = add_part(map, (int64_t) offset, (int64_t) offset);
    }
    if (r < 0)
        return r;

    int64_t data = ((int64_t) c->pos + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < map->count; i++) {
        if (map->parts[i].from > size - data)
            return -EBADMSG;
        map->parts[i].from += data;
    }
    return 0;
}

// A tensor reaches to the next one: the sizes of the quantised types, of which there are more each year, are not
// needed.
static int read_gguf(struct plan_map *map, const char *bytes, size_t len, int64_t size, size_t *ret_need)
{
    struct cursor c = { .bytes = bytes, .limit = size < (int64_t) HEADER_MAX ? (size_t) size : HEADER_MAX };
    c.len = len < c.limit ? len : c.limit;
    uint32_t version = 0;
    int r = skip(&c, 4);
    if (r == 0)
        r = take_u32(&c, &version);
    if (r == 0 && version != 2 && version != 3) // 1 had other counts; one of big-endian numbers looks like 3 << 24
        r = -EBADMSG;
    if (r == 0)
        r = take_tensors(&c, map, size);
    if (r == -EAGAIN) {
        size_t guess = 2 * c.len > GGUF_GUESS ? 2 * c.len : GGUF_GUESS;
        if (guess < c.wanted)
            guess = c.wanted;
        *ret_need = guess < c.limit ? guess : c.limit;
    }
    if (r < 0)
        return r;
    *ret_need = c.pos;
    sort_parts(map);
    for (size_t i = 0; i < map->count; i++)
        map->parts[i].to = i + 1 < map->count ? map->parts[i + 1].from : size;
    return 0;
}

struct plan_map *plan_map_read(const void *bytes, size_t len, int64_t size, int64_t *ret_need)
{
    *ret_need = 0;
    if (size < HEAD)
        return NULL;
    if (len < HEAD) {
        *ret_need = HEAD;
        return NULL;
    }
    __attribute__((cleanup(map_free_p))) struct plan_map *map = calloc(1, sizeof *map);
    if (!map)
        return NULL;
    size_t need = 0;
    int r = memcmp(bytes, "GGUF", 4) == 0 ? read_gguf(map, bytes, len, size, &need)
                                          : read_safetensors(map, bytes, len, size, &need);
    if (r == 0)
        r = join_parts(map);
    if (r == 0 || r == -EAGAIN)
        *ret_need = (int64_t) need;
    return r == 0 ? util_take_ptr(map) : NULL;
}
