// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"

#include "cache/log.h"
#include "cli/commands.h"

#include <ctype.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

int arguments_bad_option(int c, char **argv, const char *command)
{
    const char *argument = argv[optind - 1];
    const char *problem = c == ':' ? "needs a value" : "no such option";
    // getopt leaves the letter of a short option, which may be one of several in an argument; of a long one its number,
    // and nothing if it has none.
    if (optopt > 0 && optopt <= UCHAR_MAX && isgraph(optopt) && argument[0] == '-' && argument[1] != '-') {
        log_error("-%c: %s: modelmount %s --help lists the options", optopt, problem, command);
        return EXIT_USAGE;
    }
    if (c == '?' && optopt != 0)
        problem = "takes no value";
    int len = (int) strcspn(argument, "="); // the value may be a secret
    log_error("%.*s: %s: modelmount %s --help lists the options", len, argument, problem, command);
    return EXIT_USAGE;
}

int arguments_parse(int argc, char **argv, const char *flag, const char *help, int *ret_flag, const char **ret_path)
{
    const struct option longs[] = {
        { "help", no_argument, NULL, 'h' },
        { flag, no_argument, ret_flag, 1 },
        { 0 },
    };
    opterr = 0;
    for (int c; (c = getopt_long(argc, argv, ":h", longs, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            return 1;
        }
        if (c != 0)
            return arguments_bad_option(c, argv, argv[0]);
    }
    if (argc - optind > 1) {
        log_error("%s: one argument too many: modelmount %s --help says how", argv[optind + 1], argv[0]);
        return EXIT_USAGE;
    }
    *ret_path = optind < argc ? argv[optind] : NULL;
    if (*ret_path && !**ret_path) {
        log_error("an empty argument where a directory is expected");
        return EXIT_USAGE;
    }
    return 0;
}
