// SPDX-License-Identifier: Apache-2.0
// The outer object and "files" are walked byte by byte here; each value in them is handed to cJSON on its own, so that
// a list of a million files needs no more memory than its longest entry. Nesting is only counted here, and cJSON gives
// up at CJSON_NESTING_LIMIT.
#include "cache/tree.h"

#include "cache/util.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#define BUFFER_FIRST ((size_t) 64 * 1024)
#define BUFFER_MAX ((size_t) 1024 * 1024) // so also the most that one key or value can be
#define PATH_SIZE (4095 + 4 + 1)          // of names_path_ok(), room to be one character too long, and the NUL
#define SIZE_MAX_EXACT 9007199254740992.0 // 2^53: whole numbers up to here are exact in a double
#define ERROR_SIZE 256

struct reader {
    int fd;
    off_t offset; // in the file, of the end of the buffer
    char *buffer;
    size_t size;   // of the buffer
    size_t filled; // bytes in it
    size_t at;     // the next byte to look at
    size_t mark;   // what is before this may be dropped
    char *error;
};

static __attribute__((format(printf, 2, 3))) int invalid(struct reader *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->error, ERROR_SIZE, format, args);
    va_end(args);
    return -EBADMSG;
}

static int not_json(struct reader *r, const char *wanted)
{
    return invalid(r, "not JSON: no %s at byte %lld", wanted, (long long) (r->offset - (off_t) (r->filled - r->at)));
}

// Makes room and reads on. 1, 0 at the end of the file, -errno.
static int fill(struct reader *r)
{
    if (r->mark > 0) {
        memmove(r->buffer, r->buffer + r->mark, r->filled - r->mark);
        r->filled -= r->mark;
        r->at -= r->mark;
        r->mark = 0;
    }
    if (r->filled == r->size) {
        if (r->size >= BUFFER_MAX)
            return -E2BIG;
        size_t size = r->size ? 2 * r->size : BUFFER_FIRST;
        char *buffer = realloc(r->buffer, size);
        if (!buffer)
            return -ENOMEM;
        r->buffer = buffer;
        r->size = size;
    }
    ssize_t n;
    do
        n = pread(r->fd, r->buffer + r->filled, r->size - r->filled, r->offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    r->offset += n;
    r->filled += (size_t) n;
    return n > 0;
}

// The next byte without taking it, AT_END at the end of the file, or -errno.
#define AT_END 256
static int peek(struct reader *r)
{
    if (r->at == r->filled) {
        int n = fill(r);
        if (n <= 0)
            return n < 0 ? n : AT_END;
    }
    return (unsigned char) r->buffer[r->at];
}

static bool is_one_of(int c, const char *set)
{
    return c > 0 && c != AT_END && strchr(set, c);
}

// Takes white space and gives the byte after it as peek() does. The mark follows.
static int skip_space(struct reader *r)
{
    for (;;) {
        r->mark = r->at;
        int c = peek(r);
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
            return c;
        r->at++;
    }
}

// Takes white space and the byte `wanted`, or says in the error that it is missing.
static int expect(struct reader *r, char wanted)
{
    int c = skip_space(r);
    if (c < 0)
        return c;
    if (c != wanted)
        return not_json(r, (const char[]){ '\'', wanted, '\'', '\0' });
    r->at++;
    return 0;
}

// Takes the four hex digits after a "\u". Their value, or an error.
static int take_hex(struct reader *r)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(r);
        if (c < 0)
            return c;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return not_json(r, "hex digit");
        value = value << 4 | digit;
        r->at++;
    }
    return value;
}

// Takes a string from its opening quote to its closing one. A NUL in it is an error: it would cut it short.
static int take_string(struct reader *r)
{
    r->at++;
    for (;;) {
        int c = peek(r);
        if (c < 0)
            return c;
        if (c < 0x20 || c == AT_END) // the former as json.load() has it
            return not_json(r, "'\"'");
        r->at++;
        if (c == '"')
            return 0;
        if (c != '\\')
            continue;
        c = peek(r);
        if (c < 0)
            return c;
        if (!is_one_of(c, "\"\\/bfnrtu"))
            return not_json(r, "escape");
        r->at++;
        if (c != 'u')
            continue;
        c = take_hex(r);
        if (c < 0)
            return c;
        if (c == 0)
            return invalid(r, "a string with a NUL in it");
    }
}

// Takes one value of any kind; the mark must be at its start. What is between brackets is not looked at but for
// strings: that is for cJSON.
static int take_value(struct reader *r)
{
    size_t depth = 0;
    do {
        int c = peek(r);
        if (c < 0)
            return c;
        if (c == AT_END || (depth == 0 && !is_one_of(c, "{[\"-0123456789tfn")))
            return not_json(r, "value");
        if (c == '"') {
            int error = take_string(r);
            if (error < 0)
                return error;
            continue;
        }
        r->at++;
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (depth == 0) {
            for (;;) {
                c = peek(r);
                if (c < 0)
                    return c;
                if (c == AT_END || is_one_of(c, " \n\t\r,}]"))
                    break;
                r->at++;
            }
        }
    } while (depth > 0);
    return 0;
}

static void delete_json(cJSON **json)
{
    cJSON_Delete(*json);
}
#define _cleanup_json_ __attribute__((cleanup(delete_json)))

// Takes and parses one value.
static int parse_value(struct reader *r, cJSON **ret_json)
{
    int c = skip_space(r);
    if (c < 0)
        return c;
    int error = take_value(r);
    if (error < 0)
        return error;
    const char *start = r->buffer + r->mark;
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(start, r->at - r->mark, &end, false);
    if (!json || end != r->buffer + r->at) {
        cJSON_Delete(json);
        return not_json(r, "well-formed value before this");
    }
    *ret_json = json;
    return 0;
}

// Writes a code point as UTF-8. Returns its length.
static size_t put_utf8(unsigned c, char *to)
{
    if (c < 0x80) {
        to[0] = (char) c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char) (0xc0 | c >> 6);
        to[1] = (char) (0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char) (0xe0 | c >> 12);
        to[1] = (char) (0x80 | (c >> 6 & 0x3f));
        to[2] = (char) (0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char) (0xf0 | c >> 18);
    to[1] = (char) (0x80 | (c >> 12 & 0x3f));
    to[2] = (char) (0x80 | (c >> 6 & 0x3f));
    to[3] = (char) (0x80 | (c & 0x3f));
    return 4;
}

// The value of four hex digits that take_string() has seen.
static unsigned hex4(const char *s)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++)
        value = value << 4 | (unsigned) (s[i] <= '9' ? s[i] - '0' : (s[i] | 0x20) - 'a' + 10);
    return value;
}

// Bytes of the well-formed UTF-8 character at `s` (RFC 3629), 0 if there is none before `end`.
static size_t utf8_length(const unsigned char *s, const unsigned char *end)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || (size_t) (end - s) < len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xed && s[1] > 0x9f) ||
               (s[0] == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : len;
}

// Decodes what stands between a string's quotes, which take_string() has seen, into the bytes of a file name: as
// Python's os.fsencode() does, a lone surrogate from U+DC80 to U+DCFF is the byte 0x80 to 0xFF. False if it is no such
// name or does not fit.
static bool decode_path(const char *s, size_t len, char ret_path[PATH_SIZE], size_t *ret_len)
{
    const char *end = s + len;
    size_t n = 0;
    while (s < end) {
        if (n + 4 >= PATH_SIZE)
            return false;
        if (*s != '\\') {
            size_t bytes = utf8_length((const unsigned char *) s, (const unsigned char *) end);
            if (bytes == 0)
                return false;
            memcpy(ret_path + n, s, bytes);
            n += bytes;
            s += bytes;
            continue;
        }
        if (s[1] != 'u') {
            static const char escapes[] = "\"\\/bfnrt";
            static const char meanings[] = "\"\\/\b\f\n\r\t";
            ret_path[n++] = meanings[strchr(escapes, s[1]) - escapes];
            s += 2;
            continue;
        }
        unsigned c = hex4(s + 2);
        s += 6;
        bool paired = end - s >= 6 && s[0] == '\\' && s[1] == 'u' && hex4(s + 2) >> 10 == 0xdc00 >> 10;
        if (c >> 10 == 0xd800 >> 10 && paired) {
            c = 0x10000 + ((c & 0x3ff) << 10 | (hex4(s + 2) & 0x3ff));
            s += 6;
        } else if (c >= 0xdc80 && c <= 0xdcff) {
            ret_path[n++] = (char) (c & 0xff);
            continue;
        } else if (c >> 11 == 0xd800 >> 11) {
            return false;
        }
        n += put_utf8(c, ret_path + n);
    }
    ret_path[n] = '\0';
    *ret_len = n;
    return names_path_ok(ret_path, n);
}

static bool is_lower_hex(const char *s, size_t len)
{
    return strlen(s) == len && strspn(s, "0123456789abcdef") == len;
}

static bool is_size(const cJSON *json, int64_t *ret_size)
{
    if (!cJSON_IsNumber(json))
        return false;
    double value = json->valuedouble;
    if (!(value >= 0 && value <= SIZE_MAX_EXACT) || value != (double) (int64_t) value)
        return false;
    *ret_size = (int64_t) value;
    return true;
}

enum member { SIZE, BLOB_ID, LFS_SHA256, LFS_SIZE, XET_HASH, MEMBERS };
static const char *const member_names[MEMBERS] = {
    [SIZE] = "size",         [BLOB_ID] = "blob_id",   [LFS_SHA256] = "lfs_sha256",
    [LFS_SIZE] = "lfs_size", [XET_HASH] = "xet_hash",
};

// Finds the members we know; one that is null counts as not given. False if one is there twice.
static bool find_members(const cJSON *json, const cJSON *ret_members[MEMBERS])
{
    bool seen[MEMBERS] = { false };
    const cJSON *member;
    cJSON_ArrayForEach (member, json) {
        for (int i = 0; i < MEMBERS; i++) {
            if (strcmp(member->string, member_names[i]) != 0)
                continue;
            if (seen[i])
                return false;
            seen[i] = true;
            ret_members[i] = cJSON_IsNull(member) ? NULL : member;
        }
    }
    return true;
}

// Fills in all but the path from an entry of "files". NULL, or what is wrong with it.
static const char *read_entry(const cJSON *json, struct tree_file *file)
{
    const cJSON *m[MEMBERS] = { NULL };
    if (!cJSON_IsObject(json) || !find_members(json, m))
        return "entry";
    int64_t lfs_size = -1;
    if (!is_size(m[SIZE], &file->size))
        return member_names[SIZE];
    if (m[LFS_SIZE] && !is_size(m[LFS_SIZE], &lfs_size))
        return member_names[LFS_SIZE];
    if (!cJSON_IsString(m[BLOB_ID]))
        return member_names[BLOB_ID];
    const char *etag = m[BLOB_ID]->valuestring;
    file->blob_id[0] = '\0';
    if (m[LFS_SHA256]) {
        if (!cJSON_IsString(m[LFS_SHA256]) || !is_lower_hex(m[LFS_SHA256]->valuestring, 64))
            return member_names[LFS_SHA256];
        if (is_lower_hex(etag, 40) || is_lower_hex(etag, 64))
            stpcpy(file->blob_id, etag);
        etag = m[LFS_SHA256]->valuestring;
        if (lfs_size >= 0)
            file->size = lfs_size;
    } else if (!is_lower_hex(etag, 40) && !is_lower_hex(etag, 64)) {
        return member_names[BLOB_ID];
    }
    stpcpy(file->etag, etag);
    file->xet_hash[0] = '\0';
    if (m[XET_HASH] && (!cJSON_IsString(m[XET_HASH]) || !names_xet_copy(m[XET_HASH]->valuestring, file->xet_hash)))
        return member_names[XET_HASH];
    return NULL;
}

// Takes the key of the next member and its colon: 1, 0 when the object has ended, or an error. `first`: no comma before
// it. *ret_key, of *ret_len bytes, is what stands between the quotes, good until the next call that takes something.
static int take_key(struct reader *r, bool first, const char **ret_key, size_t *ret_len)
{
    int c = skip_space(r);
    if (c < 0)
        return c;
    if (c == '}') {
        r->at++;
        return 0;
    }
    if (!first) {
        int error = expect(r, ',');
        if (error < 0)
            return error;
        c = skip_space(r);
        if (c < 0)
            return c;
    }
    if (c != '"')
        return not_json(r, "key");
    int error = take_string(r);
    if (error < 0)
        return error;
    *ret_key = r->buffer + r->mark + 1;
    *ret_len = r->at - r->mark - 2;
    return 1;
}

static int read_files(struct reader *r, tree_file_fn *fn, void *userdata)
{
    char path[PATH_SIZE];
    int error = expect(r, '{');
    if (error < 0)
        return error;
    for (bool first = true;; first = false) {
        const char *key = NULL;
        size_t len = 0;
        int got = take_key(r, first, &key, &len);
        if (got <= 0)
            return got;
        struct tree_file file = { .path = path };
        if (!decode_path(key, len, path, &file.path_len))
            return invalid(r, "not a path: \"%.*s\"", (int) (len < 100 ? len : 100), key);
        error = expect(r, ':');
        if (error < 0)
            return error;
        _cleanup_json_ cJSON *json = NULL;
        error = parse_value(r, &json);
        if (error < 0)
            return error;
        const char *wrong = read_entry(json, &file);
        if (wrong)
            return invalid(r, "%.100s: not a valid %s", path, wrong);
        error = fn(userdata, &file);
        if (error != 0)
            return error;
    }
}

static bool is_key(const char *key, size_t len, const char *name)
{
    return len == strlen(name) && memcmp(key, name, len) == 0;
}

static int read_version(struct reader *r)
{
    _cleanup_json_ cJSON *json = NULL;
    int error = parse_value(r, &json);
    if (error < 0)
        return error;
    if (!cJSON_IsNumber(json) || json->valuedouble != 1)
        return invalid(r, "not format_version 1");
    return 0;
}

static int read_tree(struct reader *r, tree_file_fn *fn, void *userdata)
{
    bool have_files = false;
    bool have_version = false;
    int error = expect(r, '{');
    if (error < 0)
        return error;
    for (bool first = true;; first = false) {
        const char *key = NULL;
        size_t len = 0;
        int got = take_key(r, first, &key, &len);
        if (got < 0)
            return got;
        if (got == 0)
            break;
        bool files = is_key(key, len, "files");
        bool version = is_key(key, len, "format_version");
        if ((files && have_files) || (version && have_version))
            return invalid(r, "\"%s\" is there twice", files ? "files" : "format_version");
        have_files |= files;
        have_version |= version;
        error = expect(r, ':');
        if (error < 0)
            return error;
        if (files) {
            error = read_files(r, fn, userdata);
        } else if (version) {
            error = read_version(r);
        } else {
            _cleanup_json_ cJSON *json = NULL;
            error = parse_value(r, &json);
        }
        if (error != 0)
            return error;
    }
    int c = skip_space(r);
    if (c != AT_END)
        return c < 0 ? c : not_json(r, "end");
    if (!have_files || !have_version)
        return invalid(r, "no %s", have_files ? "format_version" : "files");
    return 0;
}

int tree_read(int fd, tree_file_fn *fn, void *userdata, char ret_error[256])
{
    ret_error[0] = '\0';
    struct reader r = { .fd = fd, .error = ret_error };
    int error = read_tree(&r, fn, userdata);
    if (error == -E2BIG)
        snprintf(ret_error, ERROR_SIZE, "an entry of more than 1 MiB");
    free(r.buffer);
    return error;
}
