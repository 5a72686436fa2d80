// SPDX-License-Identifier: Apache-2.0
#include "fs/xattr.h"

#include "cache/scan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char LIST[] = "user.modelmount.repo\0user.modelmount.commit\0user.modelmount.etag\0user.modelmount.state";
#define PREFIX "user.modelmount."

// Answers as getxattr(2) and listxattr(2) have it: the length for a size of 0, ERANGE if it does not fit.
static void reply_value(fuse_req_t req, const char *value, size_t len, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(req, len);
    else if (size < len)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, len);
}

static int value_of(struct fs *fs, struct snapshot *snapshot, uint32_t ordinal, const char *name, char ret[512])
{
    const struct repo *repo = snapshot_repo(snapshot);
    struct entry entry;
    int error = store_entry(fs->store, snapshot, ordinal, &entry);
    if (error < 0)
        return error;
    if (strcmp(name, "repo") == 0)
        snprintf(ret, 512, "%s/%s", names_type_plural(repo->type), repo->id);
    else if (strcmp(name, "commit") == 0)
        snprintf(ret, 512, "%s", snapshot_commit(snapshot));
    else if (strcmp(name, "etag") == 0 && !scan_is_identity(entry.etag))
        snprintf(ret, 512, "%s", entry.etag);
    else if (strcmp(name, "state") == 0)
        snprintf(ret, 512, "%s",
                 store_file_whole(fs->store, snapshot, &entry) ? "whole"
                 : store_file_present(fs->store, &entry) > 0   ? "partial"
                                                               : "absent");
    else
        return -ENODATA;
    return 0;
}

void xattr_get(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fs *fs = fs_of(req);
    char value[512];
    int error = -ENODATA;
    if (inode_is_file(ino) && strncmp(name, PREFIX, strlen(PREFIX)) == 0) {
        struct snapshot *snapshot = store_snapshot(fs->store, inode_owner(ino));
        error = snapshot ? value_of(fs, snapshot, inode_ordinal(ino), name + strlen(PREFIX), value) : -ESTALE;
    }
    if (error < 0)
        fuse_reply_err(req, -error);
    else
        reply_value(req, value, strlen(value), size);
}

void xattr_list(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    reply_value(req, LIST, inode_is_file(ino) ? sizeof LIST : 0, size);
}
