// SPDX-License-Identifier: Apache-2.0
// Where things are by default: the hub cache, by the rules of huggingface_hub, and our state dir.
#ifndef CACHE_PLACES_H
#define CACHE_PLACES_H

#include <stdbool.h>
#include <sys/types.h>

// The user's hub cache, absolute: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub,
// ~/.cache/huggingface/hub, in that order, a variable that is empty being none; "~" and "$VAR" in them are expanded as
// Python's expanduser and expandvars do (huggingface_hub's constants.py). As root with a valid SUDO_USER and none of
// these variables set, the home is that user's. The caller frees *ret_path. 0, -ENOENT when no home directory is known,
// -ENOMEM, -errno of getcwd.
int places_hub_cache(char **ret_path);

// The directory for the index and partial blobs of the hub cache at `cache_path`: "modelmount" beside the cache, if
// that can be made or written and lies on the cache's device; else $XDG_STATE_HOME/modelmount/<hash of the real path>
// (~/.local/state by default). It is created (0700, with the owner and group of the directory it lies in when run by
// root) and is a real directory that belongs to the caller, the cache's owner or root, never a link. A cache that does
// not exist yet counts as its nearest existing parent. The caller frees *ret_path. 0, or -errno when neither place can
// be had (the caller then works in memory).
int places_state_dir(const char *cache_path, char **ret_path);

// Whether SQLite's locks and shared memory can be trusted there: false on NFS, SMB, 9P, FUSE, Ceph, Lustre and the like
// (statfs f_type, linux/magic.h), and when it cannot be told.
bool places_is_local(const char *path);

#endif
