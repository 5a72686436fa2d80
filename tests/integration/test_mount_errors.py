# SPDX-License-Identifier: Apache-2.0
"""What bad input gets: an exit code, a message that names the thing and what to do, and nothing left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.handmade import simple_cache
from tests.support.mounts import MODELMOUNT, Mounts, mounted, run


def processes_naming(text: str) -> list[str]:
    """Command lines of processes other than this one and its ancestors in which the text occurs."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = (entry / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text in line and name.startswith("modelmount"):
            found.append(line)
    return found


@pytest.fixture
def refuse(mount: Mounts, tmp_path: Path):
    """`refuse(1, "words", "mount", …)`: the program ends with 1 and says the words, on one line; nothing is left."""

    def check(code: int, *arguments, says: tuple[str, ...] = (), env=None) -> str:
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        done = run(*arguments, env=mount.environment(**(env or {})))
        assert done.returncode == code, f"exit code {done.returncode}: {done.stderr}"
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if not line.startswith("modelmount: note:")]
        assert lines and lines[0].startswith("modelmount: "), done.stderr
        for word in says:
            assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"
        assert sorted(str(path) for path in tmp_path.rglob("*") if path.name != "home") == [
            name for name in before if not name.endswith("/home")
        ]
        assert not processes_naming(str(tmp_path))
        return done.stderr

    return check


# The mountpoint.


def test_a_mountpoint_that_is_missing(refuse, cache, tmp_path):
    refuse(1, "mount", cache, tmp_path / "none", says=(str(tmp_path / "none"), "mkdir"))


def test_a_mountpoint_that_is_a_file(refuse, cache, tmp_path):
    (tmp_path / "file").write_text("x")
    refuse(1, "mount", cache, tmp_path / "file", says=(str(tmp_path / "file"), "not a directory"))


def test_a_mountpoint_that_is_not_empty(refuse, cache, spot, mount):
    (spot / "something").write_text("x")
    refuse(1, "mount", cache, spot, says=(str(spot), "something", "nonempty"))
    at = mount(cache, "nonempty", name="spot")
    assert os.listdir(at / "models") == ["org"]
    at.unmount()
    assert os.listdir(spot) == ["something"]


def test_a_mountpoint_that_is_taken(refuse, cache, mount):
    at = mount(cache)
    error = run("mount", cache, at.path, env=mount.environment())
    assert error.returncode == 1 and str(at.path) in error.stderr and "unmount" in error.stderr
    assert at.live() and os.listdir(at / "models") == ["org"]


def test_a_mountpoint_within_the_cache_and_the_reverse(refuse, cache, spot):
    inside = cache / "models--org--name" / "mnt"
    inside.mkdir()
    refuse(1, "mount", cache, inside, says=(str(inside),))
    refuse(1, "mount", cache, cache, says=(str(cache),))
    refuse(1, "mount", cache, cache.parent, says=(str(cache.parent),))


def test_a_mountpoint_that_may_not_be_written(as_user, cache):
    done = as_user('chmod 500 "$MNT"; "$MM" "$CACHE" "$MNT"', cache=cache)
    assert done.returncode == 1 and "may not" in done.stderr
    done = as_user('"$MM" "$CACHE" /etc', cache=cache)
    assert done.returncode == 1 and "/etc" in done.stderr


# The cache.


def test_a_cache_that_is_missing_or_empty_is_none(mount, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        at = mount(tmp_path / name, name=f"mnt-{name}", state=f"state-{name}")
        assert os.listdir(at / "models") == []
        assert "note:" in at.log() and str(tmp_path / name) in at.log()
        at.unmount()
    assert not (tmp_path / "missing").exists()


def test_a_cache_that_is_a_file(refuse, spot, tmp_path):
    (tmp_path / "file").write_text("x")
    refuse(1, "mount", tmp_path / "file", spot, says=(str(tmp_path / "file"), "not a directory"))


def test_the_home_of_the_cache_is_pointed_at_the_cache(mount, cache):
    """Who names $HF_HOME in place of $HF_HOME/hub is told so."""
    at = mount(cache.parent)
    assert f"did you mean {cache}" in at.log()


def test_a_cache_that_the_user_may_not_read(as_user, cache, tmp_path):
    done = as_user('chmod 000 "$CACHE"; "$MM" "$CACHE" "$MNT"; code=$?; chmod 700 "$CACHE"; exit $code', cache=cache)
    assert done.returncode == 1 and str(cache) in done.stderr


def test_a_cache_owned_by_somebody_else_is_mounted_if_it_can_be_read(as_user, cache, tmp_path):
    """Owned by root, readable to all: the user mounts it; the index goes to their own state directory."""
    script = """
        "$MM" "$CACHE" "$MNT" && cat "$MNT/models/org/name/main/config.json" && "$MM" unmount "$MNT" &&
        find "$HOME/.local/state/modelmount" -name index.db
    """
    wrapped = f'setpriv --reuid=0 true 2>/dev/null; {script}'
    subprocess.run(["chmod", "-R", "a+rX", cache.parent], check=True)
    # as_user gives everything to the user; the cache is put where it stays root's.
    elsewhere = Path(str(tmp_path) + "-roots")
    subprocess.run(["cp", "-a", cache.parent, elsewhere], check=True)
    elsewhere.chmod(0o755)
    try:
        done = as_user(wrapped, cache=elsewhere / "hub")
    finally:
        subprocess.run(["rm", "-r", elsewhere], check=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{}") and done.stdout.strip().endswith("index.db")


# Arguments.


def test_wrong_arguments(refuse, cache, spot):
    refuse(2, "mount", says=("mountpoint",))
    refuse(2, "mount", cache, spot, "third", says=("third",))
    refuse(2, "mount", "--no-such", cache, spot, says=("--no-such", "--help"))
    refuse(2, "mount", "-x", cache, spot, says=("-x", "--help"))
    refuse(2, "mount", "", spot)
    refuse(2, "mount", cache, "")
    refuse(2, "mount", "s3://bucket/name", spot, says=("s3://bucket/name", "hf://org/name"))
    refuse(2, "unmount", says=("mountpoint",))
    refuse(2, "unmount", spot, spot)
    refuse(2, "status", "--jsn", says=("--jsn",))
    refuse(2, "ls", spot, spot)


@pytest.mark.parametrize(
    "option,says",
    [
        ("alow_other", "allow_other"),
        ("nopasthrough", "nopassthrough"),
        ("whatever_it_is", "--help"),
        ("uid=no-such-user", "uid=no-such-user"),
        ("uid=-1", "uid=-1"),
        ("gid=", "gid="),
        ("umask=8", "umask=8"),
        ("umask=1777", "umask=1777"),
        ("mtime=yesterday", "mtime=yesterday"),
        ("mtime=-5", "mtime=-5"),
        ("allow_other=1", "allow_other=1"),
        ("mtime", "mtime"),
    ],
)
def test_options_misspelt(refuse, cache, spot, option, says):
    refuse(2, "mount", "-o", option, cache, spot, says=(says,))


def test_source_date_epoch_that_is_no_time(refuse, cache, spot):
    refuse(2, "mount", cache, spot, env={"SOURCE_DATE_EPOCH": "soon"}, says=("SOURCE_DATE_EPOCH=soon",))


def test_options_of_fstab_are_taken(mount, cache):
    at = mount(cache, "rw,noatime,_netdev,nofail,x-systemd.automount,user,auto,nosuid,nodev,noexec")
    assert os.listdir(at / "models") == ["org"]


def test_help_and_version(mount):
    env = mount.environment()
    for arguments in (["--help"], ["mount", "--help"], ["unmount", "-h"], ["status", "--help"], ["ls", "-h"]):
        done = run(*arguments, env=env)
        assert done.returncode == 0 and "Usage: modelmount" in done.stdout and done.stderr == ""
    done = run("--version", env=env)
    assert done.returncode == 0 and done.stdout.startswith("modelmount ")
    assert run(env=env).returncode == 2


# Other mounts.


def test_unmounting_what_is_not_mounted(refuse, spot, tmp_path):
    refuse(1, "unmount", spot, says=(str(spot),))
    refuse(1, "unmount", tmp_path / "none", says=(str(tmp_path / "none"),))
    refuse(1, "status", spot, says=(str(spot),))


def test_what_is_mounted_by_others_is_left_alone(mount, spot, need_root):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", spot], check=True)
    try:
        for command in ("unmount", "status"):
            done = run(command, spot, env=mount.environment())
            assert done.returncode == 1 and "tmpfs" in done.stderr and str(spot) in done.stderr
        assert mounted(spot) == "tmpfs"
    finally:
        subprocess.run(["umount", spot], check=True)


def test_mounting_over_another_empty_mount_works(mount, cache, spot, need_root):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", spot], check=True)
    try:
        at = mount(cache, name="spot")
        assert os.listdir(at / "models") == ["org"]
        run("unmount", spot, env=mount.environment(), check=True)
        assert mounted(spot) == "tmpfs"
        at._reap()
    finally:
        subprocess.run(["umount", spot], check=True)


def test_somebody_elses_mount_cannot_be_unmounted(mount, cache, stranger, open_way, tmp_path):
    at = mount(cache, "allow_other")
    program = shutil.copy(MODELMOUNT, tmp_path / "modelmount")  # where the stranger can reach it
    done = subprocess.run(
        [program, "unmount", at.path],
        env=mount.environment(),
        capture_output=True,
        text=True,
        user=stranger,
        group=stranger,
        extra_groups=[],
    )
    assert done.returncode == 1 and "uid 0" in done.stderr
    assert at.live()


# The machine.


def in_private(script: str, mount: Mounts, **env: str) -> subprocess.CompletedProcess[str]:
    """A shell script as root in a mount namespace of its own."""
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
        env=mount.environment(MM=str(MODELMOUNT.resolve()), **env),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("no mount namespaces here")
    return done


def test_no_dev_fuse(mount, cache, spot, need_root):
    script = f'mount -t tmpfs tmpfs /dev && "$MM" {cache} {spot}'
    done = in_private(script, mount)
    assert done.returncode == 1 and "/dev/fuse" in done.stderr and "modprobe fuse" in done.stderr
    assert mounted(spot) is None


def test_no_fusermount3(mount, cache, spot, stranger, open_way, tmp_path):
    """/usr/bin without it, seen by a user who is not root."""
    subprocess.run(["chown", "-R", f"{stranger}:{stranger}", spot, cache.parent], check=True)
    program = shutil.copy(MODELMOUNT, tmp_path / "modelmount")
    (tmp_path / "no-program").write_text("")
    (tmp_path / "dev").mkdir()
    script = f"""
        test -e /usr/bin/fusermount3 && mount --bind {tmp_path}/no-program /usr/bin/fusermount3
        mount -t tmpfs -o dev,mode=755 tmpfs {tmp_path}/dev && mknod -m 666 {tmp_path}/dev/fuse c 10 229 &&
        mount --bind {tmp_path}/dev/fuse /dev/fuse || exit 77
        PATH=/usr/bin exec setpriv --reuid={stranger} --regid={stranger} --clear-groups {program} {cache} {spot}
    """
    done = in_private(script, mount)
    if done.returncode == 77:
        pytest.skip("no private /dev/fuse here")
    assert done.returncode == 1 and "fusermount3" in done.stderr and "fuse3" in done.stderr


# Whose cache it is.


def test_root_by_itself_takes_its_own_cache(mount, tmp_path):
    simple_cache(tmp_path / "home/.cache/huggingface/hub")
    at = mount(None, state=None)
    assert at.status()["cache"] == str(tmp_path / "home/.cache/huggingface/hub")
    assert os.listdir(at / "models") == ["org"]


def test_root_by_sudo_takes_the_users_cache(mount, tmp_path, spot, stranger, need_root):
    """The cache of SUDO_USER, shown as that user's, whose home is told by the password file."""
    simple_cache(tmp_path / "theirs/.cache/huggingface/hub")
    subprocess.run(["chown", "-R", f"{stranger}:{stranger}", tmp_path / "theirs"], check=True)
    entry = pwd.getpwuid(stranger)
    lines = [
        line if not line.startswith(f"{entry.pw_name}:") else f"{entry.pw_name}:x:{stranger}:{stranger}::{tmp_path}/theirs:/bin/sh"
        for line in Path("/etc/passwd").read_text().splitlines()
    ]
    (tmp_path / "passwd").write_text("\n".join(lines) + "\n")
    script = f"""
        mount --bind {tmp_path}/passwd /etc/passwd && "$MM" {spot} &&
        ls {spot}/models && stat -c %u {spot}/models && "$MM" unmount {spot} &&
        stat -c %u {tmp_path}/theirs/.cache/huggingface/modelmount/index.db
    """
    done = in_private(script, mount, SUDO_USER=entry.pw_name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["org", str(stranger), str(stranger)]
    assert "allow_other" in done.stderr


def test_a_sudo_user_that_does_not_exist_is_passed_over(mount, tmp_path):
    simple_cache(tmp_path / "home/.cache/huggingface/hub")
    at = mount(None, state=None, env={"SUDO_USER": "no-such-user"})
    assert at.status()["cache"] == str(tmp_path / "home/.cache/huggingface/hub")


@pytest.mark.parametrize(
    "variables,where",
    [
        ({"HF_HUB_CACHE": "{t}/a"}, "a"),
        ({"HUGGINGFACE_HUB_CACHE": "{t}/b"}, "b"),
        ({"HF_HUB_CACHE": "{t}/a", "HUGGINGFACE_HUB_CACHE": "{t}/b", "HF_HOME": "{t}/c"}, "a"),
        ({"HF_HOME": "{t}/c"}, "c/hub"),
        ({"HF_HOME": "~/c"}, "home/c/hub"),
        ({"HF_HOME": "$HOME/c"}, "home/c/hub"),
        ({"XDG_CACHE_HOME": "{t}/d"}, "d/huggingface/hub"),
        ({}, "home/.cache/huggingface/hub"),
    ],
)
def test_the_default_cache_is_the_librarys(mount, current, tmp_path, variables, where):
    """By the library's own rules, and the library agrees."""
    env = {name: value.replace("{t}", str(tmp_path)) for name, value in variables.items()}
    simple_cache(tmp_path / where)
    at = mount(None, state=None, env=env)
    assert at.status()["cache"] == str(tmp_path / where)
    code = "from huggingface_hub import constants\ndef main():\n    return constants.HF_HUB_CACHE"
    assert current.run(code, env=env | {"HOME": str(tmp_path / "home")}) == str(tmp_path / where)
