# SPDX-License-Identifier: Apache-2.0
"""Every way to read a file gives every byte of it: by passthrough, and through the daemon."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.hub import Pattern
from tests.support.handmade import COMMIT, Repo
from tests.support.mounts import Mount, wait_until

MIB = 1 << 20
SIZES = (0, 1, 4095, 4096, 4097, 128 * 1024 + 1, 3 * MIB + 17, 24 * MIB + 5)
LARGE = SIZES[-1]


def name_of(size: int) -> str:
    return f"file-{size}.bin"


def content(size: int) -> Pattern:
    return Pattern(f"size {size}", size)


@pytest.fixture(scope="module")
def sizes_cache(tmp_path_factory) -> Path:
    """One repo with a file of each size."""
    cache = tmp_path_factory.mktemp("sizes") / "hub"
    repo = Repo(cache)
    for size in SIZES:
        repo.link(COMMIT, name_of(size), f"../../blobs/blob{size}")
        content(size).write_to(repo.path / "blobs" / f"blob{size}")
    repo.ref("main", COMMIT)
    return cache


@pytest.fixture(params=["default", "nopassthrough"])
def at(request, mount, sizes_cache) -> Mount:
    return mount(sizes_cache, *([] if request.param == "default" else [request.param]))


@pytest.fixture
def base(at: Mount) -> Path:
    return at.repo("org/name")


def test_the_path_is_the_one_asked_for(at, request):
    path = at.status()["read_path"]
    if "nopassthrough" in request.node.name:
        assert path["mode"] == "splice"
    assert path["mode"] in ("passthrough", "splice")
    assert (path["reason"] == "") == (path["mode"] == "passthrough")


@pytest.mark.parametrize("block", ["512", "4k", "128k", "1M", "7777"])
def test_dd(base, block):
    for size in SIZES:
        if size > 5 * MIB and block == "512":
            continue
        done = subprocess.run(["dd", f"if={base / name_of(size)}", f"bs={block}", "status=none"], stdout=subprocess.PIPE)
        assert done.returncode == 0
        assert hashlib.sha256(done.stdout).hexdigest() == content(size).sha256, size


def test_random_preads(base):
    """Of all lengths, across page and file ends, and beyond."""
    dice = random.Random(1)
    for size in SIZES:
        data = content(size)
        fd = os.open(base / name_of(size), os.O_RDONLY)
        try:
            for _ in range(150):
                offset = dice.randrange(size + 10_000)
                length = dice.choice((1, 100, 4096, 70_000, 300_000))
                assert os.pread(fd, length, offset) == data.read(offset, length)
        finally:
            os.close(fd)


def test_reading_backwards(base):
    data = content(LARGE)
    with open(base / name_of(LARGE), "rb") as file:
        for offset in range(LARGE - LARGE % MIB, -1, -MIB):
            file.seek(offset)
            assert file.read(MIB) == data.read(offset, MIB)


def test_mmap(base):
    for size in SIZES:
        if size == 0:
            continue
        with open(base / name_of(size), "rb") as file:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as area:
                assert hashlib.sha256(area).hexdigest() == content(size).sha256


def test_mmap_at_random(base):
    data, dice = content(LARGE), random.Random(2)
    with open(base / name_of(LARGE), "rb") as file:
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as area:
            area.madvise(mmap.MADV_RANDOM)
            for _ in range(300):
                offset = dice.randrange(LARGE - 5000)
                assert area[offset : offset + 5000] == data.read(offset, 5000)


def test_mmap_and_read_at_the_same_time(base):
    data = content(LARGE)
    path = base / name_of(LARGE)
    with open(path, "rb") as mapped, open(path, "rb") as read:
        with mmap.mmap(mapped.fileno(), 0, prot=mmap.PROT_READ) as area:
            for offset in range(0, LARGE, 997 * 1000):
                read.seek(offset)
                assert area[offset : offset + 1000] == read.read(1000) == data.read(offset, 1000)


def test_direct_io(base):
    """O_DIRECT, into an aligned buffer."""
    data = content(LARGE)
    fd = os.open(base / name_of(LARGE), os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, MIB) as buffer:
            offset = 0
            while offset < LARGE:
                got = os.preadv(fd, [buffer], offset)
                assert buffer[:got] == data.read(offset, got)
                assert got > 0
                offset += got
            assert offset == LARGE
    finally:
        os.close(fd)


def test_splice_to_a_pipe(base):
    fd = os.open(base / name_of(LARGE), os.O_RDONLY)
    out, into = os.pipe()
    digest = hashlib.sha256()

    def drain() -> None:
        while piece := os.read(out, MIB):
            digest.update(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        total = 0
        while moved := os.splice(fd, into, MIB):
            total += moved
    finally:
        os.close(into)
        thread.join()
        os.close(out)
        os.close(fd)
    assert total == LARGE and digest.hexdigest() == content(LARGE).sha256


def test_sendfile_to_a_socket(base):
    """As web servers do it."""
    ours, theirs = socket.socketpair()
    digest = hashlib.sha256()

    def drain() -> None:
        while piece := theirs.recv(MIB):
            digest.update(piece)

    thread = threading.Thread(target=drain)
    thread.start()
    with open(base / name_of(LARGE), "rb") as file:
        assert ours.sendfile(file) == LARGE
    ours.close()
    thread.join()
    theirs.close()
    assert digest.hexdigest() == content(LARGE).sha256


def test_sendfile_to_a_file(base, tmp_path):
    """As Python's shutil does it."""
    shutil.copyfile(base / name_of(LARGE), tmp_path / "copy")
    assert hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest() == content(LARGE).sha256


@pytest.mark.parametrize("advice", ["SEQUENTIAL", "RANDOM", "WILLNEED", "DONTNEED"])
def test_with_advice(base, advice):
    with open(base / name_of(LARGE), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, getattr(os, f"POSIX_FADV_{advice}"))
        assert hashlib.file_digest(file, "sha256").hexdigest() == content(LARGE).sha256


READ = """
import hashlib, mmap, sys
way, path = sys.argv[1:]
with open(path, "rb") as file:
    if way == "mmap":
        print(hashlib.sha256(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).hexdigest())
    else:
        digest = hashlib.sha256()
        while piece := file.read(100_000):
            digest.update(piece)
        print(digest.hexdigest())
"""


@pytest.mark.concurrency
def test_eight_processes(base):
    """Half of them by mmap, half by read, of one file at the same time."""
    path = base / name_of(LARGE)
    command = [sys.executable, "-c", READ]
    running = [
        subprocess.Popen([*command, ("mmap", "read")[index % 2], path], stdout=subprocess.PIPE, text=True)
        for index in range(8)
    ]
    answers = {process.communicate()[0].strip() for process in running}
    assert answers == {content(LARGE).sha256}


def test_many_opens_of_one_file(base):
    """Opened in between and closed in any order, each descriptor reads all of it."""
    size = SIZES[-2]
    data = content(size).read(0, size)
    files = [open(base / name_of(size), "rb") for _ in range(20)]
    for index in (7, 3, 19, 0):
        files[index].close()
    files += [open(base / name_of(size), "rb") for _ in range(4)]
    for file in files:
        if not file.closed:
            assert file.read() == data
            file.close()


def test_the_daemon_pushes_ahead_of_a_sequential_reader(mount, sizes_cache):
    at = mount(sizes_cache, "nopassthrough")
    assert at.status()["pushed_bytes"] == 0
    with open(at.repo("org/name") / name_of(LARGE), "rb") as file:
        for _ in range(16):
            file.read(128 << 10)
        wait_until(lambda: at.status()["pushed_bytes"] > MIB, what="a push of what this reader has not asked for")


def test_nothing_is_pushed_for_a_random_reader(mount, sizes_cache):
    at = mount(sizes_cache, "nopassthrough")
    dice = random.Random(3)
    fd = os.open(at.repo("org/name") / name_of(LARGE), os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for _ in range(50):
        os.pread(fd, 4096, dice.randrange(LARGE // 4096) * 4096)
    os.close(fd)
    assert at.status()["pushed_bytes"] < 8 * MIB


def test_a_blob_that_shrinks_under_a_reader_ends_in_an_error_not_in_zeros(mount, tmp_path):
    """Blobs never change; where one does all the same, nothing is made up."""
    repo = Repo(tmp_path / "shrink" / "hub")
    data = content(SIZES[-2]).read(0, SIZES[-2])
    repo.file(COMMIT, "model.bin", data, etag="blob1")
    repo.ref("main", COMMIT)
    path = mount(repo.cache, "nopassthrough").repo("org/name") / "model.bin"
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(4096) == data[:4096]
        os.truncate(repo.path / "blobs/blob1", 8192)
        try:
            file.seek(2 * MIB)
            found = file.read(4096)
        except OSError:
            found = b""
        assert found in (b"", data[2 * MIB : 2 * MIB + 4096])
