// SPDX-License-Identifier: Apache-2.0
#include "cache/verify.h"

#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#define STEP (1 << 20)
#define AHEAD (4 << 20)

struct verify {
    EVP_MD_CTX *digest;
    int64_t left; // bytes to come
    unsigned char want[EVP_MAX_MD_SIZE];
    unsigned want_len;
};

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The digest an etag names, or 0.
static unsigned parse(const char *etag, unsigned char ret_digest[EVP_MAX_MD_SIZE])
{
    size_t len = strlen(etag);
    if (len != 40 && len != 64)
        return 0;
    for (size_t i = 0; i < len / 2; i++) {
        int high = hex_digit(etag[2 * i]), low = hex_digit(etag[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        ret_digest[i] = (unsigned char) (high * 16 + low);
    }
    return (unsigned) len / 2;
}

bool verify_possible(const char *etag)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    return parse(etag, digest) > 0;
}

int verify_new(const char *etag, int64_t size, struct verify **ret_verify)
{
    struct verify *v = calloc(1, sizeof *v);
    if (!v)
        return -ENOMEM;
    v->left = size;
    v->want_len = parse(etag, v->want);
    if (v->want_len == 0) {
        verify_free(v);
        return -EOPNOTSUPP;
    }
    v->digest = EVP_MD_CTX_new();
    bool git = v->want_len == 20;
    if (!v->digest || EVP_DigestInit_ex(v->digest, git ? EVP_sha1() : EVP_sha256(), NULL) != 1) {
        verify_free(v);
        return -ENOMEM;
    }
    char header[32];
    int len = snprintf(header, sizeof header, "blob %lld", (long long) size) + 1; // with the NUL
    if (git && EVP_DigestUpdate(v->digest, header, (size_t) len) != 1) {
        verify_free(v);
        return -EIO;
    }
    *ret_verify = v;
    return 0;
}

void verify_free(struct verify *v)
{
    if (!v)
        return;
    EVP_MD_CTX_free(v->digest);
    free(v);
}

int verify_update(struct verify *v, const void *buf, size_t len)
{
    if (v->left < 0 || len > (uint64_t) v->left) {
        v->left = -1;
        return -EBADMSG;
    }
    v->left -= (int64_t) len;
    return EVP_DigestUpdate(v->digest, buf, len) == 1 ? 0 : -EIO;
}

int verify_final(struct verify *v)
{
    unsigned char have[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (v->left != 0)
        return -EBADMSG;
    if (EVP_DigestFinal_ex(v->digest, have, &len) != 1)
        return -EIO;
    return len == v->want_len && memcmp(have, v->want, len) == 0 ? 0 : -EBADMSG;
}

int verify_bytes(const char *etag, const void *buf, size_t len)
{
    struct verify *v;
    int error = verify_new(etag, (int64_t) len, &v);
    if (error < 0)
        return error;
    error = verify_update(v, buf, len);
    if (error == 0)
        error = verify_final(v);
    verify_free(v);
    return error;
}

static int read_all(struct verify *v, int fd, const atomic_bool *stop)
{
    _cleanup_free_ char *buf = malloc(STEP);
    if (!buf)
        return -ENOMEM;
    for (off_t at = 0;;) {
        if (stop && *stop)
            return -ECANCELED;
        // For these pages, not SEQUENTIAL for the descriptor, which others read at random.
        posix_fadvise(fd, at + STEP, AHEAD, POSIX_FADV_WILLNEED);
        ssize_t n = pread(fd, buf, STEP, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : verify_final(v);
        int error = verify_update(v, buf, (size_t) n);
        if (error < 0)
            return error;
        at += n;
    }
}

int verify_fd(const char *etag, int64_t size, int fd, const atomic_bool *stop)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    struct verify *v;
    int error = verify_new(etag, size, &v);
    if (error < 0)
        return error;
    error = st.st_size == size ? read_all(v, fd, stop) : -EBADMSG;
    verify_free(v);
    return error;
}
