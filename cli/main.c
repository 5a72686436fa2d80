// SPDX-License-Identifier: Apache-2.0
// Finds the subcommand; what names none is `mount`, so that mount(8)'s helpers can call this program.
#include "cli/commands.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] = "Usage: modelmount [mount] [OPTIONS] [SOURCE] MOUNTPOINT\n"
                           "       modelmount unmount [--lazy] MOUNTPOINT\n"
                           "       modelmount status [--json] [MOUNTPOINT]\n"
                           "       modelmount ls [--json] [MOUNTPOINT|CACHE]\n"
                           "       modelmount --help | --version\n"
                           "\n"
                           "Shows the Hugging Face cache, and the Hub behind it, as a directory of plain files,\n"
                           "without a copy and without symlinks.\n"
                           "\n"
                           "  mount    mount SOURCE (default: the hub cache; a repo: hf://org/name) at MOUNTPOINT\n"
                           "  unmount  unmount MOUNTPOINT and wait for its process to end\n"
                           "  status   what a mount shows, fetches, and how its files are read\n"
                           "  ls       the repos of a mount or of a cache, and what is on disk of them\n"
                           "\n"
                           "`modelmount COMMAND --help` says more about each; modelmount(1) says all.\n";

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "mount", mount_main },
    { "unmount", unmount_main },
    { "status", status_main },
    { "ls", ls_main },
};

// A program started without stdin, stdout or stderr would open its files as these.
static void fill_standard_fds(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_fds();
    if (argc < 2) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(help, stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("modelmount " MODELMOUNT_VERSION);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    return mount_main(argc, argv);
}
