# SPDX-License-Identifier: Apache-2.0
# bash completion for modelmount(1)

_modelmount_mounts()
{
    local point
    while read -r _ _ _ _ point _; do
        printf '%b\n' "${point//\\/\\0}"
    done < <(grep -F ' - fuse.modelmount ' /proc/self/mountinfo)
}

_modelmount()
{
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local mount_words='allow_other cache_dir= connections= endpoint= gid= mtime= noindex nonempty nopassthrough nopublish
        offline ref_ttl= state_dir= timeout= uid= umask= xattr default_permissions nodev noexec nosuid'
    local mount_options='-f --foreground -o --options -v --verbose --help --cache-dir --connections --endpoint
        --no-publish --offline --ref-ttl --state-dir --timeout'
    COMPREPLY=()

    if [[ $before == -o || $before == --options ]]; then
        local done_words=
        [[ $word == *,* ]] && done_words=${word%,*},
        mapfile -t COMPREPLY < <(compgen -P "$done_words" -W "$mount_words" -- "${word##*,}")
        compopt -o nospace
        return
    fi
    case $before in
        --cache-dir | --state-dir)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
            ;;
        --connections | --endpoint | --ref-ttl | --timeout) return ;;
    esac
    case $command in
        unmount) mapfile -t COMPREPLY < <(compgen -W '--lazy --help' -- "$word") ;;
        status | ls) mapfile -t COMPREPLY < <(compgen -W '--json --help' -- "$word") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$mount_options" -- "$word") ;;
    esac
    if [[ $word == -* ]]; then
        return
    fi
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W 'mount unmount status ls --help --version' -- "$word")
    fi
    compopt -o filenames
    local found
    if [[ $command == unmount || $command == status ]]; then
        mapfile -t found < <(_modelmount_mounts | grep -F -- "$word")
    else
        mapfile -t found < <(compgen -d -- "$word")
    fi
    COMPREPLY+=("${found[@]}")
}

complete -F _modelmount modelmount
