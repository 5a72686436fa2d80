// SPDX-License-Identifier: Apache-2.0
// One mount, from the mount(2) to the end of its process.
#ifndef FS_SESSION_H
#define FS_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct uri;

struct session_options {
    const char *cache_path; // the hub cache's directory; it need not exist
    const char *mountpoint;
    const char *fsname; // the source in /proc/mounts; NULL: the cache's path
    bool foreground;    // log to stderr, stay
    bool allow_other;   // users other than the one who mounted may look in
    bool xattr;         // files have user.modelmount.* attributes
    bool passthrough;   // true by default; false forces the splice path
    bool nonempty;
    bool index_in_memory;  // keep the index in memory, write nothing
    const char *state_dir; // NULL: places_state_dir()
    uid_t uid;             // owner shown for everything
    gid_t gid;
    mode_t umask;               // files are 0666 & ~umask, directories 0777 & ~umask
    int64_t mtime;              // -1: the commit's time; else seconds since the epoch, for all
    const char *kernel_options; // further comma-separated options for the kernel, or NULL

    bool offline;          // never ask the Hub
    const char *endpoint;  // the Hub's; NULL: HF_ENDPOINT, else https://huggingface.co
    int connections;       // to the Hub, at most; 0: the default
    int timeout_ms;        // no byte for so long ends a request; 0: the default
    int ref_ttl_ms;        // how long the Hub's answer on a ref is taken for its meaning; -1: the default
    bool publish;          // true by default; false: whole blobs stay in the state dir
    const struct uri *uri; // shows one repo, or a folder of it, at the root; NULL: the whole cache
};

// Mounts and serves until the mount is gone or SIGTERM or SIGINT comes. Calls `ready` exactly once: with error 0 when
// the mount is live, else with -errno, the message already written by log_error(). `ready` may point the log and stderr
// elsewhere and change the working directory, so threads start only after it. Returns the process's exit code.
int session_run(const struct session_options *options, void (*ready)(void *userdata, int error), void *userdata);

#endif
