# SPDX-License-Identifier: Apache-2.0
"""What stat, statfs and writing say: the same everywhere and after every mount, and that nothing can be changed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.support.handmade import COMMIT, OTHER, simple_cache

EIGHTIES = 315532800  # 1980-01-01


def every_path(base: Path) -> list[Path]:
    return [base, *sorted(base.rglob("*"))]


def test_inode_numbers_are_the_same_after_a_remount_and_without_the_index(mount, current_cache):
    def numbers(**how) -> dict[str, int]:
        at = mount(current_cache, **how)
        found = {str(path.relative_to(at.path)): path.lstat().st_ino for path in every_path(at.path)}
        at.unmount()
        return found

    first = numbers()
    assert numbers() == first
    assert numbers(state="another") == first
    files = [number for path, number in first.items() if path.startswith("models/org/tiny/main/")]
    assert len(files) == len(set(files))


def test_a_file_has_one_inode_by_whatever_path(tiny, hub_repos):
    commit = hub_repos["org/tiny"].head()
    one = (tiny / "models/org/tiny/main/config.json").stat()
    other = (tiny / f"models/org/tiny/{commit}/config.json").stat()
    third = (tiny / f"hub/models--org--tiny/snapshots/{commit}/config.json").stat()
    assert one.st_ino == other.st_ino == third.st_ino and one.st_dev == other.st_dev
    old = (tiny / "models/org/tiny/v1.0/config.json").stat()
    assert old.st_ino != one.st_ino


def test_two_names_for_a_directory_do_not_confuse_getcwd(tiny, hub_repos):
    commit = hub_repos["org/tiny"].head()
    here = os.getcwd()
    try:
        for name in ("main", commit, "main"):
            path = tiny / f"models/org/tiny/{name}/onnx/deep"
            os.listdir(path)
            os.chdir(path)
            assert os.getcwd() == str(path)
    finally:
        os.chdir(here)


def test_times_are_the_commits(tiny, hub_repos):
    """One time for a commit, another for the other; a file's three times are equal."""
    times = {}
    for revision in ("main", "v1.0"):
        base = tiny.repo("org/tiny", revision)
        found = set()
        for path in every_path(base):
            status = path.stat()
            assert status.st_atime_ns == status.st_mtime_ns == status.st_ctime_ns
            found.add(status.st_mtime_ns)
        assert len(found) == 1
        times[revision] = found.pop()
    assert times["main"] != times["v1.0"]
    for when in times.values():
        assert EIGHTIES <= when / 1e9 < EIGHTIES + (1 << 27)


def test_times_are_the_same_in_another_cache(mount, made_cache):
    found = set()
    for version in ("0.36.2", "2.4.0"):
        at = mount(made_cache(version), name=f"mnt-{version}", state=f"state-{version}")
        found.add(at.repo("org/tiny").joinpath("config.json").stat().st_mtime_ns)
    assert len(found) == 1


@pytest.mark.parametrize("way", ["option", "environment"])
def test_one_time_for_all(mount, current_cache, way):
    options, env = (["mtime=1234567890"], {}) if way == "option" else ([], {"SOURCE_DATE_EPOCH": "1234567890"})
    at = mount(current_cache, *options, env=env)
    assert {path.stat().st_mtime for path in every_path(at.repo("org/tiny"))} == {1234567890}


def test_owner_and_permissions_as_asked(mount, current_cache):
    at = mount(current_cache, "uid=12345,gid=54321,umask=027")
    for path in (at.path, at.repo("org/tiny"), at.repo("org/tiny") / "config.json"):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (12345, 54321)
        assert stat.S_IMODE(status.st_mode) == (0o640 if path.is_file() else 0o750)


def test_nothing_can_be_changed(tiny):
    base = tiny.repo("org/tiny")
    file = base / "config.json"
    attempts = [
        lambda: open(file, "r+b"),
        lambda: open(base / "new", "wb"),
        lambda: file.unlink(),
        lambda: (base / "dir").mkdir(),
        lambda: os.rmdir(base / "onnx"),
        lambda: os.rename(file, base / "other"),
        lambda: os.link(file, base / "link"),
        lambda: os.symlink("x", base / "link"),
        lambda: os.chmod(file, 0o600),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        lambda: os.truncate(file, 0),
        lambda: os.setxattr(file, "user.x", b"y"),
        lambda: os.mkfifo(base / "fifo"),
        lambda: (tiny / "models/new").mkdir(),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS


def test_statfs_tells_of_the_caches_disk(tiny, current_cache):
    ours, disk = os.statvfs(tiny.path), os.statvfs(current_cache)
    assert ours.f_blocks * ours.f_frsize == disk.f_blocks * disk.f_frsize
    assert abs(ours.f_bavail * ours.f_frsize - disk.f_bavail * disk.f_frsize) < 1 << 30
    assert ours.f_namemax == 255
    assert ours.f_flag & os.ST_RDONLY


def test_there_are_no_holes(tiny):
    path = tiny.repo("org/tiny") / "onnx/model.onnx"
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == size
        assert os.lseek(file.fileno(), 5, os.SEEK_DATA) == 5


def test_the_blobs_own_times_do_not_show(mount, fresh_cache):
    repo = simple_cache(fresh_cache)
    at = mount(fresh_cache)
    path = at.repo("org/name") / "config.json"
    before = path.stat()
    for blob in (repo.path / "blobs").iterdir():
        os.utime(blob)
        os.link(blob, fresh_cache / f"extra-{blob.name}")
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_nlink) == (before.st_mtime_ns, before.st_ctime_ns, 1)


def test_a_time_belongs_to_a_commit_not_to_a_repo(mount, fresh_cache):
    for folder in ("models--a--b", "datasets--c--d"):
        simple_cache(fresh_cache, folder=folder)
    repo = simple_cache(fresh_cache, folder="models--e--f")
    repo.file(OTHER, "config.json", b"{}")
    at = mount(fresh_cache)
    one = (at / f"models/a/b/{COMMIT}/config.json").stat().st_mtime
    assert (at / f"datasets/c/d/{COMMIT}/config.json").stat().st_mtime == one
    assert (at / f"models/e/f/{OTHER}/config.json").stat().st_mtime != one
