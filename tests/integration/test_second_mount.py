# SPDX-License-Identifier: Apache-2.0
"""What the index saves: a second mount reads again only what has changed since the first."""

from __future__ import annotations

import ctypes
import os
import struct
import time
from pathlib import Path

import pytest

from tests.support.handmade import COMMIT, Repo, simple_cache
from tests.support.trees import assert_same, expected_tree, tree

FILES = {"config.json": b"{}", "dir/weights.bin": b"w" * 5000, "dir/deep/x": b"x"}
MORE = {"dir/more": b"more"}
TRUSTED = 2.1
"""Seconds after which the store trusts the times of what it read."""
IN_ACCESS = 1


class Reads:
    """Which directories are listed, and which files in them are read, from now on (inotify(7))."""

    def __init__(self, directories: list[Path]):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = self._libc.inotify_add_watch
        self._watched = {watch(self._fd, os.fsencode(path), IN_ACCESS): path for path in directories}
        assert self._fd >= 0 and -1 not in self._watched

    def so_far(self) -> set[Path]:
        found = set()
        try:
            while data := os.read(self._fd, 1 << 16):
                while data:
                    number, _, _, length = struct.unpack_from("iIII", data)
                    found.add(self._watched[number] / os.fsdecode(data[16 : 16 + length].rstrip(b"\0")))
                    data = data[16 + length :]
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        os.close(self._fd)


@pytest.mark.parametrize("listed", [True, False], ids=["with trees", "links alone"])
def test_a_second_mount_reads_only_what_changed(mount, fresh_cache, listed):
    repos = {name: simple_cache(fresh_cache, FILES, folder=f"models--org--{name}") for name in ("same", "grown")}
    if listed:
        for repo in repos.values():
            repo.tree(COMMIT, FILES)
    time.sleep(TRUSTED)
    places = [*fresh_cache.glob("*/trees"), *fresh_cache.glob(f"*/snapshots/{COMMIT}")]
    places += [path for path in fresh_cache.glob(f"*/snapshots/{COMMIT}/**/*") if path.is_dir()]
    reads = Reads(places)
    try:
        first = mount(fresh_cache)
        for name in repos:
            assert_same(expected_tree(FILES), tree(first.repo(f"org/{name}")))
        first.unmount()
        once = reads.so_far()

        grow(repos["grown"], listed)
        reads.so_far()
        second = mount(fresh_cache)
        assert_same(expected_tree(FILES), tree(second.repo("org/same")))
        assert_same(expected_tree(FILES | MORE), tree(second.repo("org/grown")))
        again = reads.so_far()
    finally:
        reads.close()
    assert {path.relative_to(fresh_cache).parts[0] for path in once} == {"models--org--same", "models--org--grown"}
    assert {path.relative_to(fresh_cache).parts[0] for path in again} == {"models--org--grown"}


def grow(repo: Repo, listed: bool) -> None:
    for path, data in MORE.items():
        repo.file(COMMIT, path, data)
    if listed:
        repo.tree(COMMIT, FILES | MORE)
