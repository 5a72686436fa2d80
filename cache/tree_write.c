// SPDX-License-Identifier: Apache-2.0
#include "cache/tree_write.h"

#include "cache/util.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

struct file {
    size_t text; // in the list's text: path, etag, blob_id and xet_hash, each with its NUL
    int64_t size;
};

struct tree_list {
    struct file *files;
    size_t count, room;
    char *text;
    size_t text_len, text_room;
};

struct tree_list *tree_list_new(void)
{
    return calloc(1, sizeof(struct tree_list));
}

void tree_list_free(struct tree_list *l)
{
    if (!l)
        return;
    free(l->files);
    free(l->text);
    free(l);
}

static int text_add(struct tree_list *l, const char *s)
{
    size_t len = strlen(s) + 1;
    if (l->text_room - l->text_len < len) {
        size_t room = l->text_room * 2 + len + 4096;
        char *text = realloc(l->text, room);
        if (!text)
            return -ENOMEM;
        l->text = text;
        l->text_room = room;
    }
    memcpy(l->text + l->text_len, s, len);
    l->text_len += len;
    return 0;
}

int tree_list_add(struct tree_list *l, const char *path, int64_t size, const char *etag, const char *blob_id,
                  const char *xet_hash)
{
    bool lfs = strlen(etag) == 64;
    if (lfs ? !blob_id || !*blob_id : strlen(etag) != 40)
        return -ENODATA;
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        struct file *files = reallocarray(l->files, room, sizeof *files);
        if (!files)
            return -ENOMEM;
        l->files = files;
        l->room = room;
    }
    struct file file = { .text = l->text_len, .size = size };
    if (text_add(l, path) < 0 || text_add(l, etag) < 0 || text_add(l, blob_id ? blob_id : "") < 0 ||
        text_add(l, xet_hash ? xet_hash : "") < 0) {
        l->text_len = file.text;
        return -ENOMEM;
    }
    l->files[l->count++] = file;
    return 0;
}

// The code point at *s, which is moved behind it. A byte that is not UTF-8 is U+DC00 and the byte (PEP 383).
static unsigned next_code_point(const char **at)
{
    const unsigned char *s = (const unsigned char *) *at;
    unsigned c = s[0];
    unsigned len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    unsigned value = len > 1 ? c & (0x7f >> len) : c;
    for (unsigned i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            len = 0;
            break;
        }
        value = value << 6 | (s[i] & 0x3f);
    }
    static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (len == 0 || value < least[len] || value > 0x10ffff || value >> 11 == 0xd800 >> 11) {
        *at += 1;
        return 0xdc00 + c;
    }
    *at += len;
    return value;
}

static int compare(const void *a, const void *b, void *text)
{
    const char *x = (const char *) text + ((const struct file *) a)->text;
    const char *y = (const char *) text + ((const struct file *) b)->text;
    while (*x && *x == *y && (unsigned char) *x < 0x80) {
        x++;
        y++;
    }
    while (*x && *y) {
        unsigned c = next_code_point(&x), d = next_code_point(&y);
        if (c != d)
            return c < d ? -1 : 1;
    }
    return (*x != '\0') - (*y != '\0');
}

// As json.dumps() with ensure_ascii.
static void write_string(FILE *out, const char *s)
{
    putc('"', out);
    while (*s) {
        unsigned c = next_code_point(&s);
        static const char plain[] = "\b\f\n\r\t\"\\", escapes[] = "bfnrt\"\\";
        const char *escape = c < 0x80 ? strchr(plain, (int) c) : NULL;
        if (escape)
            fprintf(out, "\\%c", escapes[escape - plain]);
        else if (c >= 0x20 && c < 0x7f)
            putc((int) c, out);
        else if (c < 0x10000)
            fprintf(out, "\\u%04x", c);
        else
            fprintf(out, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
    }
    putc('"', out);
}

static void write_file(FILE *out, const char *text, int64_t size)
{
    const char *path = text, *etag = path + strlen(path) + 1, *blob_id = etag + strlen(etag) + 1;
    const char *xet_hash = blob_id + strlen(blob_id) + 1;
    bool lfs = strlen(etag) == 64;
    fputs("\n  ", out);
    write_string(out, path);
    fprintf(out, ": {\n   \"size\": %lld,\n   \"blob_id\": \"%s\"", (long long) size, lfs ? blob_id : etag);
    if (lfs)
        fprintf(out, ",\n   \"lfs_sha256\": \"%s\",\n   \"lfs_size\": %lld", etag, (long long) size);
    if (*xet_hash)
        fprintf(out, ",\n   \"xet_hash\": \"%s\"", xet_hash);
    fputs("\n  }", out);
}

int tree_list_write(struct tree_list *l, FILE *out)
{
    if (l->count > 0)
        qsort_r(l->files, l->count, sizeof *l->files, compare, l->text);
    fputs("{\n \"format_version\": 1,\n \"files\": {", out);
    for (size_t i = 0; i < l->count; i++) {
        if (i > 0)
            putc(',', out);
        write_file(out, l->text + l->files[i].text, l->files[i].size);
    }
    fputs(l->count > 0 ? "\n }\n}" : "}\n}", out);
    return fflush(out) == 0 && !ferror(out) ? 0 : errno ? -errno : -EIO;
}
