# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand files in one directory, and paths as long as the kernel takes."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.hub.content import git_blob_sha1
from tests.support.handmade import COMMIT, OTHER, Repo
from tests.support.mounts import Mount, wait_until

COUNT = 100_000
PAGE = 4096


def name(index: int) -> str:
    return f"file-{index:06}.txt"


def data(index: int) -> bytes:
    return b"content %d\n" % (index % 10)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> Path:
    """COMMIT has them as links without a tree; OTHER as a tree, of which a tenth is not there."""
    cache = tmp_path_factory.mktemp("crowd") / "hub"
    repo = Repo(cache)
    etags = [repo.blob(data(index)) for index in range(10)]
    place = repo.path / "snapshots" / COMMIT / "all"
    place.mkdir(parents=True)
    fd = os.open(place, os.O_RDONLY)
    for index in range(COUNT):
        os.symlink(f"../../../blobs/{etags[index % 10]}", name(index), dir_fd=fd)
    os.close(fd)
    entries: dict[str, bytes | dict] = {f"all/{name(index)}": data(index) for index in range(COUNT)}
    for index in range(0, COUNT, 10):
        entries[f"all/{name(index)}"] = {"size": 5, "blob_id": git_blob_sha1(b"gone%d" % index)}
    repo.tree(OTHER, entries)
    repo.ref("main", COMMIT)
    return cache


@pytest.mark.parametrize("commit", [COMMIT, OTHER], ids=["links", "tree"])
def test_all_are_listed_and_found(mount, crowd, commit):
    at: Mount = mount(crowd)
    base = at.repo("org/name", commit) / "all"
    names = os.listdir(base)
    assert names == [name(index) for index in range(COUNT)]
    with os.scandir(base) as entries:
        assert all(entry.is_file(follow_symlinks=False) for entry in entries)
    done = subprocess.run(["find", base, "-type", "f", "-size", "-1000k"], capture_output=True)
    assert done.returncode == 0 and done.stdout.count(b"\n") == COUNT
    dice = random.Random(4)
    for index in dice.sample(range(COUNT), 500):
        path = base / name(index)
        if commit == OTHER and index % 10 == 0:
            assert path.stat().st_size == 5
            continue
        assert path.read_bytes() == data(index)
    assert not (base / name(COUNT)).exists()
    at.wait_until_closed()
    assert len(os.listdir(f"/proc/{at.pid}/fd")) < 60


def test_a_listing_goes_on_where_it_stopped(mount, crowd):
    """In pieces, from a descriptor that was moved, and by two readers at the same time."""
    base = mount(crowd).repo("org/name") / "all"
    with os.scandir(base) as one, os.scandir(base) as two:
        first = [next(one).name for _ in range(1000)]
        second = [entry.name for entry in two]
        first += [entry.name for entry in one]
    assert first == second == [name(index) for index in range(COUNT)]
    fd = os.open(base, os.O_RDONLY)
    try:
        for _ in range(2):
            assert len(os.listdir(fd)) == COUNT
    finally:
        os.close(fd)


def test_a_second_mount_has_them_at_once(mount, crowd):
    """From the index: no directory is read again."""
    first = mount(crowd)
    assert len(os.listdir(first.repo("org/name") / "all")) == COUNT
    first.unmount()
    second = mount(crowd)
    assert (second.repo("org/name") / "all" / name(77)).read_bytes() == data(77)
    assert len(os.listdir(second.repo("org/name") / "all")) == COUNT


def test_one_more_shows(mount, crowd):
    """In a directory that was listed: the new file is there within a second, and nothing else has changed."""
    at = mount(crowd)
    base = at.repo("org/name") / "all"
    assert len(os.listdir(base)) == COUNT
    repo = Repo(crowd)
    link = repo.path / "snapshots" / COMMIT / "all" / "one-more.txt"
    os.symlink(f"../../../blobs/{git_blob_sha1(data(3))}", link)
    try:
        wait_until(lambda: (base / "one-more.txt").exists(), what="the new file")
        assert (base / "one-more.txt").read_bytes() == data(3)
        wait_until(lambda: len(os.listdir(base)) == COUNT + 1, what="the new listing")
    finally:
        link.unlink()
    wait_until(lambda: len(os.listdir(base)) == COUNT, what="the old listing")


def deep_path(length: int) -> str:
    """A relative path of so many bytes, of components of 200."""
    folders = "/".join(["d" * 199] * (length // 200 - 1))
    return f"{folders}/{'e' * (length - len(folders) - 1)}"


def make_deep(repo: Repo, path: str, content: bytes) -> None:
    """Component by component: the whole path is longer than any system call takes."""
    etag = repo.blob(content)
    *folders, last = path.split("/")
    base = repo.path / "snapshots" / COMMIT
    base.mkdir(parents=True, exist_ok=True)
    fd = os.open(base, os.O_RDONLY)
    for folder in folders:
        try:
            os.mkdir(folder, dir_fd=fd)
        except FileExistsError:
            pass
        inner = os.open(folder, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.symlink("../" * (len(folders) + 2) + f"blobs/{etag}", last, dir_fd=fd)
    os.close(fd)


def open_deep(base: Path, path: str) -> int:
    *folders, last = path.split("/")
    fd = os.open(base, os.O_RDONLY)
    for folder in folders:
        inner = os.open(folder, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    found = os.open(last, os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    return found


@pytest.mark.parametrize("how", ["links", "tree"])
def test_paths_of_4000_bytes(mount, fresh_cache, how):
    repo = Repo(fresh_cache)
    path = deep_path(4000)
    assert len(path) == 4000
    if how == "links":
        make_deep(repo, path, b"deep")
    else:
        repo.blob(b"deep")
        repo.tree(COMMIT, {path: b"deep"})
    repo.ref("main", COMMIT)
    base = mount(fresh_cache).repo("org/name")
    fd = open_deep(base, path)
    assert os.read(fd, 100) == b"deep"
    os.close(fd)
    # In one piece too, from within: 4,000 bytes are below PATH_MAX.
    script = f"import os; os.chdir({str(base)!r}); print(open({path!r}).read())"
    done = subprocess.run(["python3", "-c", script], capture_output=True, text=True)
    assert done.stdout == "deep\n", done.stderr
    done = subprocess.run(["tar", "-C", base, "-cf", "-", "."], capture_output=True)
    assert done.returncode == 0 and done.stderr == b"" and len(done.stdout) > PAGE
