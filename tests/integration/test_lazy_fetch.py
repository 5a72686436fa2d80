# SPDX-License-Identifier: Apache-2.0
"""Fetching: what is asked for, how often, by how many at once; and who waits for whom."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hub import HubProcess, HubRepo, Pattern
from tests.support.faults import attempt, content
from tests.support.mounts import SOON, Mount, alive, wait_until
from tests.support.repos import MIB, serve
from tests.support.trees import assert_blobs_are_what_they_claim, assert_same, digest, repo_tree, shape, tree

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = itertools.count()
SLACK = 1 * MIB
SIZE = 24 * MIB + 4321


@pytest.fixture
def repo(hub) -> HubRepo:
    """A repo of one file, `model.bin`, that nobody has asked for."""
    return serve(hub, f"org/g-{next(NUMBERS)}", {"model.bin": Pattern("fetched", SIZE)})


def sent(hub: HubProcess, repo: HubRepo) -> int:
    """Bytes of the repo's large files that went out."""
    names = {file.content.sha256[:24] for file in repo.files().values() if file.lfs}
    return sum(entry.sent for entry in hub.log(host="cdn") if entry.path.split("/")[2] in names)


def blob_of(cache: Path, repo: HubRepo) -> Path:
    return cache / f"models--{repo.id.replace('/', '--')}" / "blobs" / repo.files()["model.bin"].etag


# Many at once.

FAULT = """
import mmap, random, sys, threading
sys.path.insert(0, {root!r})
from tests.hub.content import Pattern
content = Pattern("fetched", {size})
file = open(sys.argv[1], "rb")
area = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
wrong = []
def fault(seed):
    dice = random.Random(seed)
    for _ in range(60):
        page = dice.randrange({size} // 4096) * 4096
        if area[page : page + 64] != content.read(page, 64):
            wrong.append(page)
threads = [threading.Thread(target=fault, args=[seed]) for seed in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(bool(wrong))
"""


@pytest.mark.concurrency
@pytest.mark.parametrize("options", [[], ["nopassthrough"]], ids=["default", "nopassthrough"])
def test_sixty_four_threads_fault_one_cold_mapping(lazy, hub, fresh_cache, repo, options):
    """At random, from several processes; `ls`, and a read of another file, go on meanwhile. No byte comes twice."""
    at = lazy(fresh_cache, *options)
    path = at.repo(repo.id) / "model.bin"
    os.stat(path)
    hub.shape("cdn", latency=0.02)
    script = FAULT.format(root=os.fspath(ROOT), size=SIZE)
    readers = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(2)]
    slowest = 0.0
    while any(reader.poll() is None for reader in readers):
        start = time.monotonic()
        assert os.listdir(path.parent) == ["model.bin"]
        assert (at.repo("org/tiny") / "config.json").read_bytes()
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.02)
    assert [reader.returncode for reader in readers] == [0, 0]
    assert slowest < SOON, f"ls took {slowest:.1f} s"
    assert sent(hub, repo) <= SIZE + SLACK


@pytest.mark.concurrency
def test_many_readers_of_many_files(lazy, hub, fresh_cache):
    repo = serve(hub, f"org/g-{next(NUMBERS)}", {f"d{i % 5}/f{i}.bin": Pattern(f"many {i}", 20_000 + i) for i in range(200)})
    at = lazy(fresh_cache)
    files = list(repo.files().items()) * 2
    random.Random(1).shuffle(files)
    with ThreadPoolExecutor(32) as pool:
        good = pool.map(lambda item: attempt(at.repo(repo.id) / item[0]) == content(item[1]), files)
        assert all(good)
    assert sent(hub, repo) <= sum(file.size for file in repo.files().values()) + SLACK


@pytest.mark.concurrency
def test_thousands_of_reads_wait_at_once(lazy, hub, fresh_cache):
    """Nothing comes for two seconds: all wait, a look-up does not, and in the end each has its bytes."""
    size, count = 64 * MIB, 1500
    repo = serve(hub, f"org/g-{next(NUMBERS)}", {"model.bin": Pattern("waiting", size)})
    at = lazy(fresh_cache, "timeout=20")
    path = at.repo(repo.id) / "model.bin"
    os.stat(path)
    hub.fault(name="late", host="cdn", delay=2, times=None)
    fd = os.open(path, os.O_RDONLY)
    want = Pattern("waiting", size)

    def read(number: int) -> bool:
        offset = (number * 7919 % (size // 4096)) * 4096
        return os.pread(fd, 100, offset) == want.read(offset, 100)

    try:
        with ThreadPoolExecutor(256) as pool:
            waiting = [pool.submit(read, number) for number in range(count)]
            wait_until(lambda: at.status()["network"]["waiting_reads"] >= 100, 10, "the waiting")
            start = time.monotonic()
            assert os.listdir(path.parent) and time.monotonic() - start < 1
            hub.reset()
            assert all(future.result(60) for future in waiting)
    finally:
        os.close(fd)
    assert at.status()["network"]["waiting_reads"] == 0


# How much, and how often.


def test_read_from_start_to_end_every_byte_comes_once(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache)
    path = at.repo(repo.id) / "model.bin"
    assert digest(path) == repo.files()["model.bin"].content.sha256
    assert SIZE <= sent(hub, repo) <= SIZE + SLACK
    wait_until(blob_of(fresh_cache, repo).exists, 10, "publishing")
    assert digest(path) == digest(blob_of(fresh_cache, repo))
    assert sent(hub, repo) <= SIZE + SLACK
    network = at.status()["network"]
    assert network["errors"] == 0 and network["bytes"] >= SIZE


def test_the_first_megabyte_of_a_large_file(lazy, hub, fresh_cache):
    """Few requests one after another, and not much more than was read."""
    size = 256 * MIB
    repo = serve(hub, f"org/g-{next(NUMBERS)}", {"model.bin": Pattern("large", size)})
    at = lazy(fresh_cache)
    with open(at.repo(repo.id) / "model.bin", "rb") as file:
        assert file.read(MIB) == Pattern("large", size).read(0, MIB)
    time.sleep(1)  # what was begun ahead of the reader
    assert sent(hub, repo) <= 2 * MIB
    assert len([entry for entry in hub.log() if entry.status in (200, 206)]) <= 8
    assert not blob_of(fresh_cache, repo).exists()
    partial = at.status()["partial"]
    assert partial["files"] >= 1 and partial["present_bytes"] <= 2 * MIB


def test_the_end_of_a_large_file(lazy, hub, fresh_cache):
    """As a reader of a zip begins."""
    size = 128 * MIB
    repo = serve(hub, f"org/g-{next(NUMBERS)}", {"model.bin": Pattern("tail", size)})
    with open(lazy(fresh_cache).repo(repo.id) / "model.bin", "rb") as file:
        file.seek(-70_000, os.SEEK_END)
        assert file.read() == Pattern("tail", size).read(size - 70_000, 70_000)
    time.sleep(0.5)
    assert sent(hub, repo) <= 3 * MIB


def test_no_more_connections_than_are_allowed(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, "connections=3")
    hub.shape("cdn", rate=4 * MIB)
    assert digest(at.repo(repo.id) / "model.bin") == repo.files()["model.bin"].content.sha256
    ends = [(entry.started, 1) for entry in hub.log(host="cdn")] + [(entry.ended, -1) for entry in hub.log(host="cdn")]
    at_once = list(itertools.accumulate(change for _, change in sorted(ends)))
    assert 2 <= max(at_once) <= 3


def test_a_slow_line_is_used_in_parallel(lazy, hub, fresh_cache, repo):
    """24 MiB at 4 MiB/s per connection: six seconds with one."""
    at = lazy(fresh_cache)
    path = at.repo(repo.id) / "model.bin"
    os.stat(path)
    hub.shape("cdn", rate=4 * MIB)
    start = time.monotonic()
    assert digest(path) == repo.files()["model.bin"].content.sha256
    assert time.monotonic() - start < 4


# Kept.


def present(at: Mount) -> int:
    return at.status()["partial"]["present_bytes"]


def test_what_was_fetched_is_kept_across_a_restart(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache)
    hub.shape("cdn", rate=MIB)
    with open(at.repo(repo.id) / "model.bin", "rb") as file:
        assert file.read(4 * MIB) == Pattern("fetched", SIZE).read(0, 4 * MIB)
    wait_until(lambda: present(at) >= 2 * MIB, 10, "the record of what came")
    at.unmount()
    before = sent(hub, repo)
    assert not blob_of(fresh_cache, repo).exists(), "all of it came: this tests nothing"
    hub.reset()
    at = lazy(fresh_cache)
    assert digest(at.repo(repo.id) / "model.bin") == repo.files()["model.bin"].content.sha256
    assert sent(hub, repo) <= SIZE - before + 4 * MIB  # what was under way at the end is lost
    wait_until(blob_of(fresh_cache, repo).exists, 10, "publishing")
    assert_blobs_are_what_they_claim(fresh_cache)
    wait_until(lambda: at.status()["partial"]["files"] == 0, 10, "the partial file's end")


def test_it_is_kept_without_a_published_blob(lazy, hub, fresh_cache, hub_repos):
    """--no-publish: the cache stays as it was, and nothing is fetched twice all the same."""
    expected = repo_tree(hub_repos["org/tiny"])
    at = lazy(fresh_cache, "nopublish")
    assert_same(expected, tree(at.repo("org/tiny")))
    time.sleep(1)
    at.unmount()
    hub.clear_log()
    assert_same(expected, tree(lazy(fresh_cache, "nopublish").repo("org/tiny")))
    assert shape(fresh_cache) == {}
    assert sum(entry.sent for entry in hub.log(host="cdn")) == 0 and not hub.log(path="/resolve")


# Readers that go away.


@pytest.mark.parametrize("way", ["read", "map", "read and nopassthrough"])
def test_a_killed_reader_is_gone_at_once(lazy, hub, fresh_cache, repo, way):
    """The Hub is silent, the reader waits: it can be killed, and then the mount be taken away."""
    at = lazy(fresh_cache, "timeout=60", *(["nopassthrough"] if "no" in way else []))
    path = at.repo(repo.id) / "model.bin"
    os.stat(path)
    hub.fault(name="silent", host="cdn", stall_at=0, times=None)
    script = "import mmap, sys; f = open(sys.argv[1], 'rb'); "
    script += "mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[0]" if way == "map" else "f.read(100000)"
    reader = subprocess.Popen([sys.executable, "-c", script, path])
    wait_until(lambda: at.status()["network"]["waiting_reads"] >= 1, 10, "the waiting")
    start = time.monotonic()
    reader.kill()
    wait_until(lambda: not alive(reader.pid), SOON, "the reader's end")
    reader.wait(SOON)
    wait_until(lambda: at.status()["open_files"] == 0, 10, "the file's release")
    at.unmount()
    assert time.monotonic() - start < 12


def test_an_unmount_while_a_read_waits(lazy, hub, fresh_cache, repo):
    """Lazily: the mount is away at once, the reader gets an error or its bytes, and the daemon ends."""
    at = lazy(fresh_cache, "timeout=3")
    path = at.repo(repo.id) / "model.bin"
    os.stat(path)
    hub.fault(name="silent", host="cdn", stall_at=0, times=None)
    reader = subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: at.status()["network"]["waiting_reads"] >= 1, 10, "the waiting")
    subprocess.run(["umount", "-l", at.path], check=True)
    hub.reset()
    assert reader.wait(30) is not None
    wait_until(lambda: not alive(at.pid), 30, "the daemon's end")
