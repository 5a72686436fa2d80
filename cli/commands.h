// SPDX-License-Identifier: Apache-2.0
// The subcommands. Each gets argv from its own name on and returns the process's exit code.
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

// Exit codes: EXIT_SUCCESS, EXIT_FAILURE, and this one for a wrong argument.
#define EXIT_USAGE 2

int mount_main(int argc, char **argv);
int unmount_main(int argc, char **argv);
int status_main(int argc, char **argv);
int ls_main(int argc, char **argv);

#endif
