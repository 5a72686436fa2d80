// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include "cache/log.h"
#include "cache/util.h"
#include "cli/address.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/option_values.h"
#include "cli/option_words.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

// The words that stand in fstab's first column when there is nothing to say, since it cannot be empty.
static bool source_is_default(const char *source)
{
    return strcmp(source, "default") == 0 || strcmp(source, "none") == 0 || strcmp(source, "modelmount") == 0;
}

static const char *endpoint_of(const struct options *options)
{
    const char *variable = getenv("HF_ENDPOINT");
    return options->endpoint ? options->endpoint : variable && *variable ? variable : NULL;
}

// A source on the Hub.
static int take_address(struct options *options, const char *source)
{
    char error[URI_ERROR_SIZE];
    options->uri = malloc(sizeof *options->uri);
    if (!options->uri) {
        log_error("%s", strerror(ENOMEM));
        return EXIT_FAILURE;
    }
    if (uri_parse(source, endpoint_of(options), options->uri, error) < 0) {
        bool named = strncmp(error, source, strnlen(source, 100)) == 0; // uri_parse() has it only in some
        log_error("%s%s%s", named ? "" : source, named ? "" : ": ", error);
        return EXIT_USAGE;
    }
    options->fsname = address_text(options->uri);
    options->session.uri = options->uri;
    options->session.fsname = options->fsname;
    if (options->fsname)
        return 0;
    log_error("%s: %s", source, strerror(ENOMEM));
    return EXIT_FAILURE;
}

static int take_source(struct options *options, const char *source)
{
    if (source && address_is_hub(source, endpoint_of(options))) {
        int r = take_address(options, source);
        if (r != 0)
            return r;
        source = NULL;
    }
    if (source && strstr(source, "://")) {
        log_error("%s: neither a directory nor on the Hub: name a cache directory, or a repo as hf://org/name", source);
        return EXIT_USAGE;
    }
    if (source && options->cache_dir) {
        log_error("%s: a cache is named twice: leave out this directory or --cache-dir %s", source, options->cache_dir);
        return EXIT_USAGE;
    }
    options->source = source ? source : options->cache_dir;
    return 0;
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
    if (uri_is(options->session.mountpoint)) {
        log_error("%s: not a directory: the mountpoint comes last: modelmount [SOURCE] MOUNTPOINT",
                  options->session.mountpoint);
        return EXIT_USAGE;
    }
    return take_source(options, count == 2 && !source_is_default(places[0]) ? places[0] : NULL);
}

// https://reproducible-builds.org/specs/source-date-epoch/
static int take_source_date_epoch(struct options *options)
{
    const char *value = getenv("SOURCE_DATE_EPOCH");
    if (!value || !*value || options->session.mtime >= 0 || option_set_mtime(options, value))
        return 0;
    log_error("SOURCE_DATE_EPOCH=%s: not seconds since the epoch", value);
    return EXIT_USAGE;
}

// The library asks for HF_ENDPOINT too, so a wrong one is no wrong argument of this program.
static int check_endpoint(const struct options *options)
{
    const char *endpoint = endpoint_of(options);
    if (!endpoint || address_is_endpoint(endpoint))
        return 0;
    log_error("HF_ENDPOINT: not %s: correct or unset it", ADDRESS_ENDPOINT_WANTED);
    return EXIT_FAILURE;
}

enum {
    LONG_TOKEN = 256,
    LONG_WORDS // the first of long_words
};

// The word of -o that a long option stands for.
static const char *const long_words[] = {
    "cache_dir", "connections", "endpoint", "nopublish", "offline", "ref_ttl", "state_dir", "timeout",
};

static const struct option longs[] = {
    { "foreground", no_argument, NULL, 'f' },
    { "help", no_argument, NULL, 'h' },
    { "options", required_argument, NULL, 'o' },
    { "token", optional_argument, NULL, LONG_TOKEN },
    { "verbose", no_argument, NULL, 'v' },
    { "cache-dir", required_argument, NULL, LONG_WORDS },
    { "connections", required_argument, NULL, LONG_WORDS + 1 },
    { "endpoint", required_argument, NULL, LONG_WORDS + 2 },
    { "no-publish", no_argument, NULL, LONG_WORDS + 3 },
    { "offline", no_argument, NULL, LONG_WORDS + 4 },
    { "ref-ttl", required_argument, NULL, LONG_WORDS + 5 },
    { "state-dir", required_argument, NULL, LONG_WORDS + 6 },
    { "timeout", required_argument, NULL, LONG_WORDS + 7 },
    { 0 },
};

static int take_option(struct options *options, int c, const char *long_name, char **argv)
{
    switch (c) {
    case 'f':
        options->session.foreground = true;
        return 0;
    case 'h':
        options->help = true;
        return 0;
    case 'o':
        return option_words_apply(options, optarg);
    case 'v':
        options->verbosity++;
        return 0;
    case LONG_TOKEN:
        return option_words_refuse_token("--token");
    default:
        if (c >= LONG_WORDS)
            return option_words_apply_long(options, long_name, long_words[c - LONG_WORDS], optarg);
        return arguments_bad_option(c, argv, "mount");
    }
}

int options_parse(int argc, char **argv, struct options *options)
{
    *options = (struct options){
        .session = { .passthrough = true,
                     .uid = getuid(),
                     .gid = getgid(),
                     .umask = 022,
                     .mtime = -1,
                     .ref_ttl_ms = -1,
                     .publish = true },
    };
    opterr = 0;
    for (int c, at = 0; (c = getopt_long(argc, argv, ":fho:v", longs, &at)) != -1;) {
        int r = take_option(options, c, longs[at].name, argv);
        if (r != 0)
            return r;
    }
    if (options->help)
        return 0;
    int r = check_endpoint(options);
    if (r == 0)
        r = take_places(options, argc - optind, argv + optind);
    return r == 0 ? take_source_date_epoch(options) : r;
}

void options_free(struct options *options)
{
    free(options->cache_dir);
    free(options->endpoint);
    free(options->fsname);
    free(options->kernel_options);
    free(options->state_dir);
    free(options->uri);
}
