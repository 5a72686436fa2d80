// SPDX-License-Identifier: Apache-2.0
#include "cache/json_walk.h"

#include "cache/util.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define EXACT_MAX 9007199254740992.0 // 2^53: whole numbers up to here are exact in a double
#define KEY_MAX 255

enum state { START, FIRST, KEY, COLON, BEFORE_VALUE, VALUE, AFTER_VALUE, NEXT, END };

struct json_walk {
    char kind;
    json_walk_fn *fn;
    void *userdata;
    size_t left; // bytes that may still come
    enum state state;
    bool in_string, escaped; // in KEY and VALUE
    int depth;               // of brackets in VALUE
    bool too_long;           // this value is only passed over
    char key[KEY_MAX + 1];
    size_t key_len;
    char *value;
    size_t len, size;
};

struct json_walk *json_walk_new(char kind, size_t max, json_walk_fn *fn, void *userdata)
{
    struct json_walk *w = calloc(1, sizeof *w);
    if (w) {
        w->kind = kind;
        w->left = max;
        w->fn = fn;
        w->userdata = userdata;
    }
    return w;
}

void json_walk_free(struct json_walk *w)
{
    if (w)
        free(w->value);
    free(w);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static int put_byte(struct json_walk *w, char c)
{
    if (w->too_long)
        return 0;
    if (w->len == JSON_VALUE_MAX) {
        w->too_long = true;
        return w->kind == '[' ? -E2BIG : 0;
    }
    if (w->len == w->size) {
        size_t size = w->size ? 2 * w->size : 1024;
        char *value = realloc(w->value, size);
        if (!value)
            return -ENOMEM;
        w->value = value;
        w->size = size;
    }
    w->value[w->len++] = c;
    return 0;
}

static int start_value(struct json_walk *w)
{
    w->state = VALUE;
    w->len = 0;
    w->depth = 0;
    w->too_long = w->in_string = w->escaped = false;
    return 0;
}

static int end_value(struct json_walk *w)
{
    w->state = AFTER_VALUE;
    return w->fn(w->userdata, w->kind == '{' ? w->key : NULL, w->too_long ? NULL : w->value, w->too_long ? 0 : w->len);
}

// Follows a string from its opening quote on. True when `c` is the closing one.
static bool string_ends(struct json_walk *w, char c)
{
    if (w->escaped)
        w->escaped = false;
    else if (c == '\\')
        w->escaped = true;
    else if (c == '"')
        return true;
    return false;
}

// Sets *ret_again if the byte belongs to what comes after the value.
static int step_value(struct json_walk *w, char c, bool *ret_again)
{
    if (!w->in_string && w->depth == 0 && w->len > 0 && (is_space(c) || c == ',' || c == ']' || c == '}')) {
        *ret_again = true; // the end of a number, true, false or null
        return end_value(w);
    }
    int r = put_byte(w, c);
    if (r < 0)
        return r;
    if (w->in_string) {
        w->in_string = !string_ends(w, c);
        return w->in_string || w->depth > 0 ? 0 : end_value(w);
    }
    if (c == '"') {
        w->in_string = true;
    } else if (c == '{' || c == '[') {
        w->depth++;
    } else if (c == '}' || c == ']') {
        w->depth--;
        return w->depth > 0 ? 0 : w->depth == 0 ? end_value(w) : -EBADMSG;
    }
    return 0;
}

static int step_key(struct json_walk *w, char c)
{
    if (string_ends(w, c)) {
        w->key[w->key_len] = '\0';
        w->state = COLON;
    } else if (w->key_len < KEY_MAX) {
        w->key[w->key_len++] = c;
    }
    return (unsigned char) c < 0x20 ? -EBADMSG : 0;
}

static int step_between(struct json_walk *w, char c, bool *ret_again)
{
    char closing = w->kind == '[' ? ']' : '}';
    if (is_space(c))
        return 0;
    if (w->state == START && c == w->kind) {
        w->state = FIRST;
    } else if ((w->state == FIRST || w->state == AFTER_VALUE) && c == closing) {
        w->state = END;
    } else if (w->state == AFTER_VALUE && c == ',') {
        w->state = NEXT;
    } else if (w->state == COLON && c == ':') {
        w->state = BEFORE_VALUE;
    } else if ((w->state == FIRST || w->state == NEXT) && w->kind == '{' && c == '"') {
        w->state = KEY;
        w->key_len = 0;
        w->escaped = false;
    } else if (w->state == BEFORE_VALUE || ((w->state == FIRST || w->state == NEXT) && w->kind == '[')) {
        if (!strchr("{[\"-0123456789tfn", c) || !c)
            return -EBADMSG;
        *ret_again = true;
        return start_value(w);
    } else {
        return -EBADMSG;
    }
    return 0;
}

int json_walk_feed(struct json_walk *w, const char *bytes, size_t len)
{
    if (len > w->left)
        return -E2BIG;
    w->left -= len;
    for (size_t i = 0; i < len;) {
        bool again = false;
        int r = w->state == VALUE ? step_value(w, bytes[i], &again)
                : w->state == KEY ? step_key(w, bytes[i])
                                  : step_between(w, bytes[i], &again);
        if (r != 0)
            return r;
        if (!again)
            i++;
    }
    return 0;
}

int json_walk_end(const struct json_walk *w)
{
    return w->state == END ? 0 : -EBADMSG;
}

// ---- values ----

// Bytes of the UTF-8 character at `s` (RFC 3629), 0 if it is none.
static size_t utf8_length(const unsigned char *s, size_t left)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xed && s[1] > 0x9f) ||
               (s[0] == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : len;
}

static bool text_ok(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = utf8_length((const unsigned char *) text + i, len - i);
        if (n == 0 || text[i] == '\0')
            return false;
        if (text[i] == '\\') { // outside of strings it is an error anyway
            if (len - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                return false;
            n = 2; // a "\\" may be followed by a 'u'
        }
        i += n;
    }
    return true;
}

cJSON *json_parse(const char *text, size_t len)
{
    if (!text || !text_ok(text, len))
        return NULL;
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(text, len, &end, false);
    if (json && end != text + len) {
        cJSON_Delete(json);
        json = NULL;
    }
    return json;
}

const cJSON *json_member(const cJSON *object, const char *name)
{
    const cJSON *found = NULL;
    const cJSON *member;
    if (!cJSON_IsObject(object))
        return NULL;
    cJSON_ArrayForEach (member, object) {
        if (strcmp(member->string, name) != 0)
            continue;
        if (found)
            return NULL;
        found = member;
    }
    return cJSON_IsNull(found) ? NULL : found;
}

const char *json_string(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(json_member(object, name));
}

int64_t json_size(const cJSON *number)
{
    if (!cJSON_IsNumber(number))
        return -1;
    double value = number->valuedouble;
    if (!(value >= 0 && value <= EXACT_MAX) || value != (double) (int64_t) value)
        return -1;
    return (int64_t) value;
}
