# SPDX-License-Identifier: Apache-2.0
"""From mount to unmount: live at once, gone without a trace, and after a crash as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.handmade import COMMIT, simple_cache
from tests.support.mounts import MODELMOUNT, Mount, alive, mounted, run, wait_for_end, wait_until

FILES = {"config.json": b"{}", "dir/weights.bin": b"w" * 500_000}


@pytest.fixture
def cache(fresh_cache) -> Path:
    simple_cache(fresh_cache, FILES)
    return fresh_cache


def test_it_is_live_when_the_command_returns(mount, cache, tmp_path):
    """A script uses it on the next line; the daemon holds none of the script's descriptors."""
    (tmp_path / "mnt").mkdir()
    script = f"{MODELMOUNT} {cache} {tmp_path}/mnt && cat {tmp_path}/mnt/models/org/name/main/config.json"
    try:
        # With pipes for all three: if the daemon kept one, this would wait for its end.
        done = subprocess.run(["sh", "-c", script], env=mount.environment(), capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0, "{}", "")
    finally:
        pid = json.loads(run("status", "--json", tmp_path / "mnt", env=mount.environment()).stdout)["pid"]
        run("unmount", tmp_path / "mnt", env=mount.environment(), check=True)
    assert not alive(pid)


def test_in_the_background(mount, cache):
    at = mount(cache, background=True)
    assert alive(at.pid) and os.readlink(f"/proc/{at.pid}/cwd") == "/"
    assert os.getsid(at.pid) == at.pid
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{at.pid}/fd/{fd}") == "/dev/null"
    at.unmount()
    assert not alive(at.pid)


# A /dev of its own, in which the log's socket is the test's.
WITH_LOG = """
mknod "$TMP/dev/null" c 1 3 && mknod "$TMP/dev/fuse" c 10 229 && mount --bind "$TMP/dev" /dev || exit 77
"$MM" $VERBOSE "$CACHE" "$MNT" && ! cat "$MNT/models/org/name/main/gone.bin" && "$MM" unmount "$MNT"
"""


@pytest.mark.parametrize("verbose", ["", "-v"])
def test_in_the_background_it_logs_to_syslog(mount, cache, tmp_path, need_root, verbose):
    for name in ("mnt", "dev"):
        (tmp_path / name).mkdir()
    os.symlink("../../blobs/nowhere", cache / f"models--org--name/snapshots/{COMMIT}/gone.bin")
    env = mount.environment(
        MM=str(MODELMOUNT.resolve()), CACHE=str(cache), TMP=str(tmp_path), MNT=str(tmp_path / "mnt"), VERBOSE=verbose
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "dev/log"))
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", WITH_LOG]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        if done.returncode == 77:
            pytest.skip(f"no private /dev here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        log.setblocking(False)
        lines = []
        while True:
            try:
                lines.append(log.recv(4096).decode())
            except BlockingIOError:
                break
    assert all(" modelmount[" in line for line in lines)
    assert any(f"org/name@{COMMIT}: gone.bin: " in line for line in lines)
    assert any("unmounted" in line for line in lines) == bool(verbose)


def test_without_the_word_mount(mount, cache, tmp_path):
    (tmp_path / "mnt").mkdir()
    run(cache, tmp_path / "mnt", env=mount.environment(), check=True)
    assert mounted(tmp_path / "mnt") == "fuse.modelmount"
    run("unmount", tmp_path / "mnt", env=mount.environment(), check=True)
    assert mounted(tmp_path / "mnt") is None


@pytest.mark.parametrize("number,background", [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, False)])
def test_signals_unmount_cleanly(mount, cache, number, background):
    at = mount(cache, background=background)
    (at.repo("org/name") / "config.json").read_bytes()
    assert at.signal(number) in (0, None)
    assert not at.live() and os.listdir(at.path) == []


def test_a_signal_while_a_file_is_open(mount, cache):
    """The mount goes at once; who had a file open gets an error, and hangs not."""
    at = mount(cache)
    with open(at.repo("org/name") / "dir/weights.bin", "rb") as file:
        file.read(10)
        assert at.signal(signal.SIGTERM) == 0
        assert not at.live()


def test_kill_and_mount_again(mount, cache):
    """After a crash the place shows an error; a new mount there just works, without unmounting first."""
    first = mount(cache)
    (first.repo("org/name") / "config.json").read_bytes()
    first.kill()
    with pytest.raises(OSError):
        os.listdir(first.path)
    second = mount(cache)
    assert "unmounted it" in second.log()
    assert (second.repo("org/name") / "dir/weights.bin").read_bytes() == FILES["dir/weights.bin"]
    second.unmount()
    assert mounted(second.path) is None and os.listdir(second.path) == []


def test_a_mount_answers_only_by_its_own_daemon(mount, cache, tmp_path, monkeypatch):
    """These tests' own idea of live: neither a dead mount, nor the place where one just was, nor another's."""
    other = mount(cache)
    waiting = Mount(cache, other.path, [], mount.environment())
    waiting.pid = os.getpid()
    assert other.answers() and not waiting.answers()
    other.kill()
    assert not waiting.answers()
    run("unmount", other.path, env=other.env, check=True)
    # What was seen in the table is old by the time the place is asked.
    monkeypatch.setattr("tests.support.mounts.mounted", lambda path: "fuse.modelmount")
    assert os.listdir(other.path) == [] and not waiting.answers()


def test_a_dead_mount_can_be_unmounted(mount, cache):
    at = mount(cache)
    at.kill()
    run("unmount", at.path, env=at.env, check=True)
    assert mounted(at.path) is None and os.listdir(at.path) == []


def test_a_dead_mount_says_that_it_is_one(mount, cache):
    at = mount(cache)
    at.kill()
    done = run("status", at.path, env=at.env)
    assert done.returncode == 1 and "dead" in done.stderr and "unmount" in done.stderr


def test_a_stopped_daemon_does_not_hang_the_status(mount, cache):
    at = mount(cache)
    os.kill(at.pid, signal.SIGSTOP)
    try:
        done = run("status", at.path, env=at.env)
        assert done.returncode == 1 and "does not answer" in done.stderr
    finally:
        os.kill(at.pid, signal.SIGCONT)
    assert at.status()["pid"] == at.pid


def test_a_busy_mount_is_not_unmounted_and_names_who_uses_it(mount, cache):
    at = mount(cache)
    with subprocess.Popen(["sleep", "60"], cwd=at.repo("org/name")) as holder:
        try:
            wait_until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n", what="the holder")
            done = run("unmount", at.path, env=at.env)
            assert done.returncode == 1
            assert "sleep" in done.stderr and str(holder.pid) in done.stderr and "--lazy" in done.stderr
            assert at.live()
        finally:
            holder.kill()
    at.unmount()


def test_a_mount_that_another_namespace_still_has(mount, cache, tmp_path, need_root):
    """As a container has that was started meanwhile: it is gone here, and the daemon lives until it ends there."""
    at = mount(cache)
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as container:
        assert container.stdout and container.stdout.readline() == b"\n"
        done = run("unmount", at.path, env=at.env)
        assert done.returncode == 1 and not at.live() and alive(at.pid)
        assert "container" in done.stderr and str(at.pid) in done.stderr
        container.kill()
    wait_for_end(at.pid)


@pytest.mark.parametrize("options", [[], ["nopassthrough"]], ids=["default", "nopassthrough"])
def test_lazily_with_an_open_file(mount, cache, options):
    """It disappears at once; the file is read to its end, and only then the daemon goes."""
    at = mount(cache, *options)
    with open(at.repo("org/name") / "dir/weights.bin", "rb") as file:
        assert file.read(1000) == FILES["dir/weights.bin"][:1000]
        run("unmount", "--lazy", at.path, env=at.env, check=True)
        assert mounted(at.path) is None and alive(at.pid)
        assert file.read() == FILES["dir/weights.bin"][1000:]
    wait_until(lambda: at._child.poll() is not None, what="the daemon's end")
    assert at._child.poll() == 0


def test_fifty_times_in_a_row(mount, cache, tmp_path):
    """No process, mount or file is left behind."""
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    env = mount.environment()
    pids = set()
    for index in range(50):
        run("-o", f"state_dir={tmp_path}/state", cache, mnt, env=env, check=True)
        pids.add(json.loads((mnt / ".modelmount/status").read_text())["pid"])
        if index % 10 == 0:
            assert (mnt / "models/org/name/main/config.json").read_bytes() == b"{}"
        run("unmount", mnt, env=env, check=True)
        assert mounted(mnt) is None
    assert len(pids) == 50 and not [pid for pid in pids if alive(pid)]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(mnt) == []
    left = {path.name for path in (tmp_path / "state").rglob("*")}
    assert left <= {"index.db", "index.db-wal", "index.db-shm", "partial"}


def test_two_mounts_of_one_cache(mount, cache):
    """At the same time, with one index; one goes, the other stays."""
    one, two = mount(cache, name="one"), mount(cache, name="two")
    for at in (one, two):
        assert (at.repo("org/name") / "dir/weights.bin").read_bytes() == FILES["dir/weights.bin"]
    one.unmount()
    assert (two.repo("org/name") / "config.json").read_bytes() == b"{}"
    three = mount(cache, name="one")
    assert (three.repo("org/name") / "config.json").read_bytes() == b"{}"


def test_many_mounts_begun_at_once(mount, cache, tmp_path):
    """Eight start together with no index yet there."""
    env = mount.environment()
    places = [tmp_path / f"mnt{index}" for index in range(8)]
    starting = []
    for place in places:
        place.mkdir()
        command = [MODELMOUNT, "-o", f"state_dir={tmp_path}/state", cache, place]
        starting.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    try:
        for process in starting:
            error = process.communicate(timeout=60)[1]
            assert process.returncode == 0, error
        for place in places:
            assert (place / "models/org/name/main/config.json").read_bytes() == b"{}"
    finally:
        for place in places:
            if mounted(place):
                run("unmount", place, env=env, check=True)


def test_the_mount_is_read_only_and_named(mount, cache):
    at = mount(cache)
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {at.path} " in line)
    fields = line.split(" ")
    assert fields[2] == "fuse.modelmount"
    assert {"ro", "nosuid", "nodev"} <= set(fields[3].split(","))


def test_by_fstab(mount, cache, tmp_path, need_root):
    """`mount -t fuse.modelmount` finds the program and its options."""
    helper = Path("/sbin/mount.fuse3")
    if not helper.exists():
        pytest.skip("mount.fuse3 is not installed")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "bin").mkdir()
    os.symlink(MODELMOUNT.resolve(), tmp_path / "bin/modelmount")
    env = mount.environment(PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    command = [helper, cache, tmp_path / "mnt", "-t", "fuse.modelmount", "-o", "ro,allow_other,umask=027"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    try:
        status = (tmp_path / "mnt/models/org/name/main/config.json").stat()
        assert status.st_mode & 0o777 == 0o640
    finally:
        run("unmount", tmp_path / "mnt", env=env, check=True)


def test_a_user_mounts_and_unmounts(as_user, cache):
    """Through fusermount3; only this user looks in."""
    script = """
        "$MM" "$CACHE" "$MNT" && cat "$MNT/models/org/name/main/config.json" && stat -c ' %u' "$MNT/models" &&
        "$MM" status "$MNT" >/dev/null && "$MM" unmount "$MNT" && ! mountpoint -q "$MNT" && echo gone
    """
    done = as_user(script, cache=cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["{}", done.stdout.split()[1], "gone"]
    assert done.stdout.split()[1] != "0"


def test_a_users_allow_other_needs_fuse_conf(as_user, cache):
    if "user_allow_other" in [line.strip() for line in Path("/etc/fuse.conf").read_text().splitlines()]:
        pytest.skip("/etc/fuse.conf has it")
    done = as_user('"$MM" -o allow_other "$CACHE" "$MNT"; code=$?; mountpoint -q "$MNT" && echo mounted; exit $code', cache=cache)
    assert done.returncode == 1 and done.stdout == ""
    assert "user_allow_other" in done.stderr and "/etc/fuse.conf" in done.stderr


def test_no_descriptor_is_held_per_file(mount, fresh_cache):
    files = {f"f{index:04}": b"%d" % index for index in range(600)}
    simple_cache(fresh_cache, files)
    at = mount(fresh_cache)
    base = at.repo("org/name")
    for name, data in files.items():
        assert (base / name).read_bytes() == data
    at.wait_until_closed()
    assert len(os.listdir(f"/proc/{at.pid}/fd")) < 60


def test_a_daemon_with_few_descriptors_serves_many_files(mount, fresh_cache):
    """`ulimit -n 256`: opening a thousand files one after another is no matter."""
    import resource

    files = {f"f{index:04}": b"%d" % index for index in range(1000)}
    simple_cache(fresh_cache, files)
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))  # noqa: E731
    at = mount(fresh_cache, preexec_fn=limit)
    for name, data in files.items():
        assert (at.repo("org/name") / name).read_bytes() == data


def test_a_mountpoint_with_an_odd_name(mount, cache):
    at = mount(cache, name="with space, comma\\and\nnewline")
    assert (at.repo("org/name") / "config.json").read_bytes() == b"{}"
    assert at.status()["mountpoint"] == str(at.path)
    at.unmount()


def test_a_cache_with_an_odd_name(mount, tmp_path):
    cache = tmp_path / "with space, comma\\and ünï"
    simple_cache(cache, FILES)
    at = mount(cache)
    assert (at.repo("org/name") / "config.json").read_bytes() == b"{}"
    assert at.status()["cache"] == str(cache)


def test_relative_paths(mount, cache, tmp_path):
    """Both arguments, though the daemon works in `/`."""
    (tmp_path / "mnt").mkdir()
    env = mount.environment()
    run(os.path.relpath(cache, tmp_path), "mnt", env=env, check=True, cwd=tmp_path)
    try:
        assert os.listdir(tmp_path / "mnt/models") == ["org"]
        assert os.listdir(tmp_path / f"mnt/models/org/name/{COMMIT}") == ["config.json", "dir"]
    finally:
        run("unmount", "mnt", env=env, check=True, cwd=tmp_path)


def test_a_reader_that_is_killed_leaves_nothing_open(mount, cache):
    at = mount(cache)
    script = f"import time; f = open({str(at.repo('org/name') / 'dir/weights.bin')!r}, 'rb'); f.read(1); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE) as reader:
        assert reader.stdout and reader.stdout.readline() == b"1\n"
        assert at.status()["open_files"] == 1
        reader.kill()
    at.wait_until_closed()


def test_a_session_that_ends_takes_no_daemon_with_it(mount, cache, tmp_path):
    """The terminal that mounted is closed (SIGHUP to its group); the mount stays."""
    (tmp_path / "mnt").mkdir()
    env = mount.environment()
    shell = subprocess.Popen(
        ["sh", "-c", f"{MODELMOUNT} {cache} {tmp_path}/mnt; kill -HUP 0"], env=env, start_new_session=True
    )
    shell.wait(30)
    try:
        time.sleep(0.2)
        assert os.listdir(tmp_path / "mnt/models") == ["org"]
    finally:
        pid = json.loads(run("status", "--json", tmp_path / "mnt", env=env).stdout)["pid"]
        run("unmount", tmp_path / "mnt", env=env, check=True)
        wait_for_end(pid)
