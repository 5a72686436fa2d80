// SPDX-License-Identifier: Apache-2.0
// What a reader of a file will want next: from how it reads, and from the file's own map of what is in it. No I/O, no
// lock: the caller has one.
#ifndef CACHE_PLAN_H
#define CACHE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Where the parts of a file begin (tensors of safetensors and GGUF): shared by all its readers, never changes. Short
// parts that lie side by side are one. A zip's directory is at its end, so there is no map of it.
struct plan_map;

// The bytes from the start of a file (`len` of them) that a map could be made of. *ret_need is how many bytes from the
// start it takes to know: a safetensors header ends there; of GGUF it is a guess, and with that many the next one may
// be larger. 0 if this is no file with a map at its start, or a header over 16 MiB. NULL when *ret_need is more than
// `len`, or there is no map, or it is not well formed, or memory is short. Everything in it is checked against `size`,
// the file's, in bytes.
struct plan_map *plan_map_read(const void *bytes, size_t len, int64_t size, int64_t *ret_need);
void plan_map_free(struct plan_map *map);

// The part that `offset` lies in: bytes from *ret_from up to *ret_to. False if in none.
bool plan_map_part(const struct plan_map *map, int64_t offset, int64_t *ret_from, int64_t *ret_to);

// One open file of a reader. All zero at the start.
struct plan_reader {
    int64_t next;  // where a sequential reader would go on
    int64_t run;   // bytes read in sequence up to there
    int64_t total; // bytes asked for in all, roughly
    int jumps;     // how often it did not go on where it was
};

// What is to be fetched: `need_*` the range around the read that is worth one request, `ahead_*` what will most likely
// be wanted after it, in that order. Empty: from == to. In bytes, within the file.
struct plan_want {
    int64_t need_from, need_to;
    int64_t ahead_from, ahead_to;
};

// A reader asks for `len` bytes at `offset` (within the file). `map` may be NULL.
struct plan_want plan_read(struct plan_reader *reader, const struct plan_map *map, int64_t size, int64_t offset,
                           int64_t len);

#endif
