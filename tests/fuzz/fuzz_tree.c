// SPDX-License-Identifier: Apache-2.0
// tree_read() on any bytes: what it hands out is well formed, and the same bytes give the same answer twice.
#include "cache/tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
    size_t files;
    uint64_t hash;
};

static void add(struct sum *sum, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum->hash = (sum->hash ^ (unsigned char) bytes[i]) * UINT64_C(1099511628211);
}

static int on_file(void *userdata, const struct tree_file *file)
{
    struct sum *sum = userdata;
    size_t etag = strlen(file->etag);
    if (!names_path_ok(file->path, file->path_len) || strlen(file->path) != file->path_len || file->size < 0 ||
        file->size > INT64_C(1) << 53 || (etag != 40 && etag != 64) || !names_etag_ok(file->etag) ||
        (*file->xet_hash && !names_xet_ok(file->xet_hash)))
        abort();
    sum->files++;
    add(sum, file->path, file->path_len + 1);
    add(sum, file->etag, etag);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("tree", MFD_CLOEXEC);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t) size)
        abort();
    struct sum sums[2] = { 0 };
    int results[2];
    for (int i = 0; i < 2; i++) {
        char error[256];
        results[i] = tree_read(fd, on_file, &sums[i], error);
        if (!memchr(error, '\0', sizeof error) || (results[i] == 0) != (*error == '\0'))
            abort();
    }
    if (results[0] != results[1] || sums[0].hash != sums[1].hash || sums[0].files != sums[1].files)
        abort();
    return 0;
}
