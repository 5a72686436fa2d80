# SPDX-License-Identifier: Apache-2.0
# fish completion for modelmount(1)

set -l commands mount unmount status ls

complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a mount -d 'Mount a cache or a repo'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a unmount -d 'Unmount and wait for the process to end'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a status -d 'What a mount shows, fetches and how it is read'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -a ls -d 'The repos of a mount or of a cache'
complete -c modelmount -n "not __fish_seen_subcommand_from $commands" -l version -d 'Print the version'
complete -c modelmount -s h -l help -d 'Print a short help'
complete -c modelmount -n '__fish_seen_subcommand_from unmount' -l lazy -d 'Detach it even when it is in use'
complete -c modelmount -n '__fish_seen_subcommand_from status ls' -l json -d 'Print JSON'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -s f -l foreground -d 'Stay in the foreground'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -s v -l verbose -d 'Log more'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -s o -l options -x -d 'Mount options' \
    -a 'allow_other cache_dir= connections= endpoint= gid= mtime= noindex nonempty nopassthrough nopublish offline ref_ttl= state_dir= timeout= uid= umask= xattr default_permissions nodev noexec nosuid'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l cache-dir -x -a '(__fish_complete_directories)' -d 'The hub cache'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l connections -x -d 'To the Hub at once, 1 to 64'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l endpoint -x -d 'The Hub\'s address'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l no-publish -d 'Do not add whole files to the cache'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l offline -d 'Never ask the Hub'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l ref-ttl -x -d 'Ask for a branch again after so many seconds'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l state-dir -x -a '(__fish_complete_directories)' -d 'Where index and partial files are'
complete -c modelmount -n 'not __fish_seen_subcommand_from unmount status ls' -l timeout -x -d 'End a request after so many seconds without a byte'
