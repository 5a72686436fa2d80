// SPDX-License-Identifier: Apache-2.0
// Puts what a sequential reader will want next into the page cache (FUSE_NOTIFY_STORE), from threads of its own. For
// files in cached mode: it does what a larger readahead would, which needs root.
//
// A store waits for pages that are being read, so a pusher may wait for a FUSE worker; a worker never waits for a
// pusher. push_stop() must have returned before the session ends: a thread caught in a store when the last worker is
// gone could not be killed.
#ifndef FS_PUSH_H
#define FS_PUSH_H

#include <stdbool.h>
#include <stdint.h>

struct fuse_session;
struct push;

// 0, -ENOMEM, -EAGAIN (no threads).
int push_start(struct fuse_session *session, struct push **ret_push);
// Waits for what is under way and ends the threads; push_ahead() is then without effect. Call once, from any thread.
void push_stop(struct push *push);
void push_free(struct push *push);

// Bytes pushed so far.
int64_t push_bytes(struct push *push);

// Where one reader of a file is. All zero at the start. One lock of its owner's guards it.
struct push_reader {
    int64_t next;   // where a sequential reader would go on
    int64_t run;    // bytes read in sequence up to there
    int64_t pushed; // what lies before this was asked to be pushed
};

// Takes note of a request for `size` bytes at `offset`. True if the bytes from `*ret_from` to `*ret_to` are to be
// pushed now; whoever does so then sets `pushed`. They follow upon what was pushed before and end within the file.
bool push_next(struct push_reader *reader, int64_t file_size, int64_t offset, int64_t size, int64_t *ret_from,
               int64_t *ret_to);

// A reader has asked for `size` bytes at `offset` of the file `nodeid`, whose bytes are at `fd` (borrowed; duplicated
// when needed) and `file_size` in all. If it reads sequentially, what comes next is pushed. Never waits.
void push_ahead(struct push *push, struct push_reader *reader, uint64_t nodeid, int fd, int64_t file_size,
                int64_t offset, int64_t size);

#endif
