// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include "cache/log.h"
#include "cache/util.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/source.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>

#define MTIME_MAX 253402300799 // the last second of the year 9999

static bool parse_number(const char *text, int base, int64_t max, int64_t *ret_number)
{
    if (!isdigit((unsigned char) *text))
        return false;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, base);
    if (errno != 0 || *end || number > max)
        return false;
    *ret_number = number;
    return true;
}

static bool set_uid(struct options *options, const char *value)
{
    int64_t number;
    const struct passwd *user = getpwnam(value);
    if (user)
        options->session.uid = user->pw_uid;
    else if (parse_number(value, 10, UINT32_MAX - 1, &number))
        options->session.uid = (uid_t) number;
    else
        return false;
    options->uid_given = true;
    return true;
}

static bool set_gid(struct options *options, const char *value)
{
    int64_t number;
    const struct group *group = getgrnam(value);
    if (group)
        options->session.gid = group->gr_gid;
    else if (parse_number(value, 10, UINT32_MAX - 1, &number))
        options->session.gid = (gid_t) number;
    else
        return false;
    options->gid_given = true;
    return true;
}

static bool set_umask(struct options *options, const char *value)
{
    int64_t number;
    if (!parse_number(value, 8, 0777, &number))
        return false;
    options->session.umask = (mode_t) number;
    return true;
}

static bool set_mtime(struct options *options, const char *value)
{
    return parse_number(value, 10, MTIME_MAX, &options->session.mtime);
}

static bool set_state_dir(struct options *options, const char *value)
{
    free(options->state_dir);
    options->state_dir = source_absolute(value);
    options->session.state_dir = options->state_dir;
    return *value && options->state_dir;
}

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
    { "gid", WORD_VALUE, 0, set_gid, "a group's name or number" },
    { "mtime", WORD_VALUE, 0, set_mtime, "seconds since the epoch" },
    { "noindex", ON(index_in_memory) },
    { "nonempty", ON(nonempty) },
    { "nopassthrough", OFF(passthrough) },
    { "state_dir", WORD_VALUE, 0, set_state_dir, "a directory" },
    { "uid", WORD_VALUE, 0, set_uid, "a user's name or number" },
    { "umask", WORD_VALUE, 0, set_umask, "an octal number up to 777" },
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

// One word of -o, cut at its '=' (`value` NULL if there is none).
static int apply_word(struct options *options, const char *name, const char *value)
{
    if (strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0)
        return 0;
    const struct word *word = NULL;
    for (size_t i = 0; i < sizeof words / sizeof *words && !word; i++)
        if (strcmp(words[i].name, name) == 0)
            word = &words[i];
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
    *(bool *) (void *) ((char *) &options->session + word->offset) = word->kind == WORD_ON;
    return 0;
}

// "a,b=c": as in libfuse, a backslash takes the next character as it is.
static int apply_words(struct options *options, const char *text)
{
    _cleanup_free_ char *word = malloc(strlen(text) + 1);
    if (!word) {
        log_error("-o %s: %s", text, strerror(ENOMEM));
        return EXIT_USAGE;
    }
    while (*text) {
        size_t len = 0;
        for (; *text && *text != ','; text++) {
            if (*text == '\\' && text[1])
                text++;
            word[len++] = *text;
        }
        word[len] = '\0';
        text += *text == ',';
        char *value = word;
        const char *name = strsep(&value, "=");
        int r = *name ? apply_word(options, name, value) : 0;
        if (r != 0)
            return r;
    }
    return 0;
}

// The words that stand in fstab's first column when there is nothing to say, since it cannot be empty.
static bool source_is_default(const char *source)
{
    return strcmp(source, "default") == 0 || strcmp(source, "none") == 0 || strcmp(source, "modelmount") == 0;
}

static int take_places(struct options *options, int count, char **places)
{
    if (count == 0) {
        log_error("no mountpoint given: modelmount mount --help says how");
        return EXIT_USAGE;
    }
    if (count > 2) {
        log_error("%s: one argument too many: modelmount [SOURCE] MOUNTPOINT", places[2]);
        return EXIT_USAGE;
    }
    for (int i = 0; i < count; i++)
        if (!*places[i]) {
            log_error("an empty argument where a directory is expected");
            return EXIT_USAGE;
        }
    options->session.mountpoint = places[count - 1];
    if (count == 2 && !source_is_default(places[0]))
        options->source = places[0];
    if (options->source && strstr(options->source, "://")) {
        log_error("%s: not a directory: only a cache directory can be mounted", options->source);
        return EXIT_USAGE;
    }
    return 0;
}

// https://reproducible-builds.org/specs/source-date-epoch/
static int take_source_date_epoch(struct options *options)
{
    const char *value = getenv("SOURCE_DATE_EPOCH");
    if (!value || !*value || options->session.mtime >= 0 || set_mtime(options, value))
        return 0;
    log_error("SOURCE_DATE_EPOCH=%s: not seconds since the epoch", value);
    return EXIT_USAGE;
}

int options_parse(int argc, char **argv, struct options *options)
{
    static const struct option longs[] = {
        { "foreground", no_argument, NULL, 'f' },
        { "help", no_argument, NULL, 'h' },
        { "options", required_argument, NULL, 'o' },
        { "verbose", no_argument, NULL, 'v' },
        { 0 },
    };
    *options = (struct options){
        .session = { .passthrough = true, .uid = getuid(), .gid = getgid(), .umask = 022, .mtime = -1 },
    };
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":fho:v", longs, NULL)) != -1;) {
        int r = 0;
        switch (c) {
        case 'f':
            options->session.foreground = true;
            break;
        case 'h':
            options->help = true;
            break;
        case 'o':
            r = apply_words(options, optarg);
            break;
        case 'v':
            options->verbosity++;
            break;
        default:
            r = arguments_bad_option(c, argv, "mount");
        }
        if (r != 0)
            return r;
    }
    if (!options->help) {
        int r = take_places(options, argc - optind, argv + optind);
        if (r == 0)
            r = take_source_date_epoch(options);
        if (r != 0)
            return r;
    }
    return 0;
}

void options_free(struct options *options)
{
    free(options->state_dir);
    free(options->kernel_options);
}
