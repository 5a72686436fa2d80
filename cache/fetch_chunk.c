// SPDX-License-Identifier: Apache-2.0
// Memory for what has come and is not on disk yet, or cannot be: so much, and no more.
#include "cache/fetch_blob.h"
#include "cache/util.h"

#include <string.h>

#define FREE_CHUNKS 32

struct chunk *chunk_get(struct fetch *fetch, bool urgent)
{
    struct chunk *chunk;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        chunk = fetch->free_chunks;
        if (chunk) {
            fetch->free_chunks = chunk->next;
            fetch->free_count--;
        } else if (fetch->chunk_count >= fetch->chunks_max + (urgent ? fetch->chunks_max / 4 : 0)) {
            fetch->starved = true;
            return NULL;
        } else {
            fetch->chunk_count++;
        }
    }
    if (!chunk)
        chunk = malloc(sizeof *chunk);
    if (!chunk) {
        UTIL_LOCKED(&fetch->chunk_lock);
        fetch->chunk_count--;
        fetch->starved = true;
        return NULL;
    }
    memset(chunk, 0, offsetof(struct chunk, data));
    chunk->references = 1;
    return chunk;
}

void chunk_put_back(struct fetch *fetch, struct chunk *chunk)
{
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        if (fetch->free_count < FREE_CHUNKS) {
            chunk->next = fetch->free_chunks;
            fetch->free_chunks = chunk;
            fetch->free_count++;
            chunk = NULL;
        } else {
            fetch->chunk_count--;
        }
    }
    free(chunk);
}

void chunk_unref(struct chunk *chunk)
{
    if (--chunk->references > 0)
        return;
    struct fetch *fetch = chunk->blob->fetch;
    chunk_put_back(fetch, chunk);
    bool starved;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        starved = fetch->starved;
        fetch->starved = false;
    }
    if (starved)
        flight_resume(fetch);
}

void chunks_trim(struct fetch *fetch)
{
    struct chunk *chunk;
    {
        UTIL_LOCKED(&fetch->chunk_lock);
        chunk = fetch->free_chunks;
        fetch->free_chunks = NULL;
        fetch->chunk_count -= fetch->free_count;
        fetch->free_count = 0;
    }
    while (chunk) {
        struct chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}
