// SPDX-License-Identifier: Apache-2.0
// What the subcommands say alike about their arguments.
#ifndef CLI_ARGUMENTS_H
#define CLI_ARGUMENTS_H

// Says which argument getopt_long() stumbled over when it returned `c`, ':' or '?'. Returns EXIT_USAGE.
int arguments_bad_option(int c, char **argv, const char *command);

// Reads options for the commands that have one flag and at most one path. *ret_flag becomes 1 when `flag` ("json")
// is given, *ret_path the path or NULL. 0; 1 when --help was given and `help` printed; EXIT_USAGE with the message
// written.
int arguments_parse(int argc, char **argv, const char *flag, const char *help, int *ret_flag, const char **ret_path);

#endif
