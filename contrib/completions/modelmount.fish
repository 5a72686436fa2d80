# SPDX-License-Identifier: Apache-2.0
# fish completion for modelmount(1)

set -l commands mount unmount status ls

complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a mount -d 'Mount a cache'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a unmount -d 'Unmount and wait for the process to end'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a status -d 'What a mount shows and how it is read'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a ls -d 'The repos of a mount or of a cache'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -l version -d 'Print the version'
complete -c modelmount -s h -l help -d 'Print a short help'
complete -c modelmount -n '__fish_seen_subcommand_from unmount' -l lazy -d 'Detach it even when it is in use'
complete -c modelmount -n '__fish_seen_subcommand_from status ls' -l json -d 'Print JSON'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -s f -l foreground -d 'Stay in the foreground'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -s v -l verbose -d 'Log more'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -s o -l options -x -d 'Mount options' \
    -a 'allow_other gid= mtime= noindex nonempty nopassthrough state_dir= uid= umask= xattr default_permissions nodev noexec nosuid'
