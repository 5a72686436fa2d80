// SPDX-License-Identifier: Apache-2.0
// JSON as it arrives: the outer array or object is walked byte by byte, each value in it is handed on by itself, so
// that a list of any length needs no more memory than its longest entry.
#ifndef CACHE_JSON_WALK_H
#define CACHE_JSON_WALK_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

struct json_walk;

#define JSON_VALUE_MAX ((size_t) 1024 * 1024)

// One value, as text: for json_parse(). `key`, between its quotes and not decoded, is NULL in an array. A member of an
// object that is longer than JSON_VALUE_MAX comes with `value` NULL. Returns 0 to go on; anything else ends the walk.
typedef int json_walk_fn(void *userdata, const char *key, const char *value, size_t len);

// Whether an array or an object is expected: '[' or '{'. `max`: bytes in all. NULL when out of memory.
struct json_walk *json_walk_new(char kind, size_t max, json_walk_fn *fn, void *userdata);
void json_walk_free(struct json_walk *walk);

// Takes the next bytes. 0; what `fn` returned; -EBADMSG for what is no JSON; -E2BIG for an entry of an array over
// JSON_VALUE_MAX or more than `max` in all; -ENOMEM. Nothing can be fed after an error.
int json_walk_feed(struct json_walk *walk, const char *bytes, size_t len);

// 0 if the outer value was whole, else -EBADMSG.
int json_walk_end(const struct json_walk *walk);

// Parses one value. NULL if it is not well formed, not UTF-8, or has a NUL in a string, where cJSON would cut it short.
cJSON *json_parse(const char *text, size_t len);

// The member `name` of an object, exactly so written and there once; NULL if there is none, or it is null.
const cJSON *json_member(const cJSON *object, const char *name);

// The same, if it is a string; or NULL.
const char *json_string(const cJSON *object, const char *name);

// A whole number from 0 to 2^53, or -1.
int64_t json_size(const cJSON *number);

#endif
