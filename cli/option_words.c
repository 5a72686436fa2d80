// SPDX-License-Identifier: Apache-2.0
#include "cli/option_words.h"

#include "cache/log.h"
#include "cache/util.h"
#include "cli/address.h"
#include "cli/commands.h"
#include "cli/option_values.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

enum word_kind {
    WORD_ON,     // sets the bool at `offset` in session_options
    WORD_OFF,    // clears it
    WORD_VALUE,  // "word=value", for `set`
    WORD_KERNEL, // handed on
    WORD_IGNORED // means nothing for a mount that is read-only, or is for mount(8) and systemd
};

#define ON(member) WORD_ON, offsetof(struct session_options, member), NULL, NULL
#define OFF(member) WORD_OFF, offsetof(struct session_options, member), NULL, NULL

static const struct word {
    const char *name;
    enum word_kind kind;
    size_t offset;
    bool (*set)(struct options *options, const char *value); // false: `value` is wrong
    const char *wanted;                                      // what a right one is
} words[] = {
    { "allow_other", ON(allow_other) },
    { "cache_dir", WORD_VALUE, 0, option_set_cache_dir, "a directory" },
    { "connections", WORD_VALUE, 0, option_set_connections, "a number from 1 to 64" },
    { "endpoint", WORD_VALUE, 0, option_set_endpoint, ADDRESS_ENDPOINT_WANTED },
    { "gid", WORD_VALUE, 0, option_set_gid, "a group's name or number" },
    { "mtime", WORD_VALUE, 0, option_set_mtime, "seconds since the epoch" },
    { "noindex", ON(index_in_memory) },
    { "nonempty", ON(nonempty) },
    { "nopassthrough", OFF(passthrough) },
    { "nopublish", OFF(publish) },
    { "offline", ON(offline) },
    { "ref_ttl", WORD_VALUE, 0, option_set_ref_ttl, "a number of seconds from 0 to 1000000" },
    { "state_dir", WORD_VALUE, 0, option_set_state_dir, "a directory" },
    { "timeout", WORD_VALUE, 0, option_set_timeout, "a number of seconds from 0.1 to 3600" },
    { "uid", WORD_VALUE, 0, option_set_uid, "a user's name or number" },
    { "umask", WORD_VALUE, 0, option_set_umask, "an octal number up to 777" },
    { "xattr", ON(xattr) },

    { "default_permissions", .kind = WORD_KERNEL },
    { "dev", .kind = WORD_KERNEL },
    { "exec", .kind = WORD_KERNEL },
    { "nodev", .kind = WORD_KERNEL },
    { "noexec", .kind = WORD_KERNEL },
    { "nosuid", .kind = WORD_KERNEL },
    { "suid", .kind = WORD_KERNEL },

    { "_netdev", .kind = WORD_IGNORED },
    { "async", .kind = WORD_IGNORED },
    { "atime", .kind = WORD_IGNORED },
    { "auto", .kind = WORD_IGNORED },
    { "comment", .kind = WORD_IGNORED },
    { "defaults", .kind = WORD_IGNORED },
    { "diratime", .kind = WORD_IGNORED },
    { "group", .kind = WORD_IGNORED },
    { "lazytime", .kind = WORD_IGNORED },
    { "noatime", .kind = WORD_IGNORED },
    { "noauto", .kind = WORD_IGNORED },
    { "nodiratime", .kind = WORD_IGNORED },
    { "nofail", .kind = WORD_IGNORED },
    { "nogroup", .kind = WORD_IGNORED },
    { "noowner", .kind = WORD_IGNORED },
    { "norelatime", .kind = WORD_IGNORED },
    { "nouser", .kind = WORD_IGNORED },
    { "nousers", .kind = WORD_IGNORED },
    { "owner", .kind = WORD_IGNORED },
    { "relatime", .kind = WORD_IGNORED },
    { "ro", .kind = WORD_IGNORED },
    { "rw", .kind = WORD_IGNORED },
    { "strictatime", .kind = WORD_IGNORED },
    { "sync", .kind = WORD_IGNORED },
    { "user", .kind = WORD_IGNORED },
    { "users", .kind = WORD_IGNORED },
};

#define NAME_MAX_LEN 31 // of a name that is compared with those above

// How many letters must be added, dropped or changed to make one of the other (Levenshtein).
static size_t distance(const char *a, const char *b)
{
    size_t row[NAME_MAX_LEN + 1];
    size_t len = strlen(b);
    for (size_t j = 0; j <= len; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= len; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[len];
}

// The known name that was probably meant, NULL if none is near.
static const char *nearest(const char *name)
{
    size_t len = strlen(name);
    if (len > NAME_MAX_LEN)
        return NULL;
    const char *best = NULL;
    size_t best_distance = len / 2 < 3 ? 3 : len / 2;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t d = distance(name, words[i].name);
        if (d < best_distance) {
            best_distance = d;
            best = words[i].name;
        }
    }
    return best;
}

static int unknown_word(const char *name)
{
    const char *near = nearest(name);
    if (near)
        log_error("-o %s: no such option: did you mean %s?", name, near);
    else
        log_error("-o %s: no such option: modelmount mount --help lists them", name);
    return EXIT_USAGE;
}

static int add_kernel_option(struct options *options, const char *name)
{
    const char *before = options->kernel_options;
    char *joined;
    if (asprintf(&joined, "%s%s%s", before ? before : "", before ? "," : "", name) < 0) {
        log_error("-o %s: %s", name, strerror(ENOMEM));
        return EXIT_USAGE;
    }
    free(options->kernel_options);
    options->kernel_options = joined;
    options->session.kernel_options = joined;
    return 0;
}

static const struct word *find_word(const char *name)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i].name, name) == 0)
            return &words[i];
    return NULL;
}

static void set_flag(struct options *options, const struct word *word)
{
    *(bool *) (void *) ((char *) &options->session + word->offset) = word->kind == WORD_ON;
}

// One word of -o, cut at its '=' (`value` NULL if there is none).
static int apply_word(struct options *options, const char *name, const char *value)
{
    if (strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0)
        return 0;
    if (strcmp(name, "token") == 0)
        return option_words_refuse_token("-o token");
    const struct word *word = find_word(name);
    if (!word)
        return unknown_word(name);
    if (word->kind == WORD_IGNORED)
        return 0;
    if (word->kind == WORD_VALUE) {
        if (value && word->set(options, value))
            return 0;
        log_error("-o %s=%s: not %s", name, value ? value : "", word->wanted);
        return EXIT_USAGE;
    }
    if (value) {
        log_error("-o %s=%s: this option takes no value", name, value);
        return EXIT_USAGE;
    }
    if (word->kind == WORD_KERNEL)
        return add_kernel_option(options, name);
    set_flag(options, word);
    return 0;
}

int option_words_apply(struct options *options, const char *list)
{
    _cleanup_free_ char *word = malloc(strlen(list) + 1);
    if (!word) {
        log_error("-o %s: %s", list, strerror(ENOMEM));
        return EXIT_USAGE;
    }
    while (*list) {
        size_t len = 0;
        for (; *list && *list != ','; list++) {
            if (*list == '\\' && list[1])
                list++;
            word[len++] = *list;
        }
        word[len] = '\0';
        list += *list == ',';
        char *value = word;
        const char *name = strsep(&value, "=");
        int r = *name ? apply_word(options, name, value) : 0;
        if (r != 0)
            return r;
    }
    return 0;
}

int option_words_apply_long(struct options *options, const char *name, const char *word_name, const char *value)
{
    const struct word *word = find_word(word_name);
    if (!value) {
        set_flag(options, word);
        return 0;
    }
    if (word->set(options, value))
        return 0;
    log_error("--%s %s: not %s", name, value, word->wanted);
    return EXIT_USAGE;
}

int option_words_refuse_token(const char *name)
{
    log_error("%s: a token is never an argument, where others can read it: set HF_TOKEN, or log in with: hf auth login",
              name);
    return EXIT_USAGE;
}
