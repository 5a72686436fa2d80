# SPDX-License-Identifier: Apache-2.0
"""Many at once: readers, listers, lookers-up, and those who change the cache meanwhile."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hub import Pattern
from tests.support.handmade import COMMIT, OTHER, Repo, simple_cache
from tests.support.mounts import Mount, wait_until
from tests.support.trees import assert_same, expected_tree, tree

pytestmark = pytest.mark.concurrency

THREADS = 16
MIB = 1 << 20
WAYS = [[], ["nopassthrough"]]


@pytest.fixture(params=WAYS, ids=["default", "nopassthrough"])
def options(request) -> list[str]:
    return request.param


def together(*tasks, times: int = 1) -> list:
    """Run the tasks in threads of their own, all at the same moment; what they returned."""
    barrier = threading.Barrier(len(tasks) * times)

    def begin(task, number: int):
        barrier.wait()
        return task(number)

    with ThreadPoolExecutor(len(tasks) * times) as pool:
        futures = [pool.submit(begin, task, number) for number in range(times) for task in tasks]
        return [future.result() for future in futures]


def test_many_readers_of_one_file(mount, fresh_cache, options):
    data = Pattern("one", 8 * MIB).read(0, 8 * MIB)
    simple_cache(fresh_cache, {"model.bin": data})
    path = mount(fresh_cache, *options).repo("org/name") / "model.bin"

    def read(number: int) -> str:
        dice = random.Random(number)
        with open(path, "rb") as file:
            for _ in range(50):
                offset = dice.randrange(len(data))
                assert os.pread(file.fileno(), 5000, offset) == data[offset : offset + 5000]
            return hashlib.file_digest(file, "sha256").hexdigest()

    assert set(together(read, times=THREADS)) == {hashlib.sha256(data).hexdigest()}


def test_sixty_four_threads_fault_one_mapping(mount, fresh_cache, options):
    """Pages of one file, in random order, from a mapping that all share; `ls` goes on meanwhile."""
    size = 32 * MIB
    repo = Repo(fresh_cache)
    Pattern("faults", size).write_to(repo.path / "blobs/blob1")
    repo.link(COMMIT, "model.bin", "../../blobs/blob1")
    repo.ref("main", COMMIT)
    at = mount(fresh_cache, *options)
    script = f"""
import mmap, random, sys, threading
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from tests.hub.content import Pattern
content = Pattern("faults", {size})
file = open({str(at.repo('org/name') / 'model.bin')!r}, "rb")
area = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
wrong = []
def fault(seed):
    dice = random.Random(seed)
    for _ in range(100):
        page = dice.randrange({size} // 4096) * 4096
        if area[page : page + 64] != content.read(page, 64):
            wrong.append(page)
threads = [threading.Thread(target=fault, args=[seed]) for seed in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(bool(wrong))
"""
    with subprocess.Popen(["python3", "-c", script]) as loader:
        while loader.poll() is None:
            assert os.listdir(at / "models/org") == ["name"]
            time.sleep(0.02)
    assert loader.returncode == 0


def test_everything_is_looked_up_at_once_by_everybody(mount, fresh_cache, options):
    """The first look at a repo, from many threads at the same moment."""
    files = {f"d{index % 7}/f{index}": b"%d" % index for index in range(200)}
    for repo in range(4):
        simple_cache(fresh_cache, files, folder=f"models--org--r{repo}").tree(COMMIT, files) if repo % 2 else None
        if repo % 2 == 0:
            simple_cache(fresh_cache, files, folder=f"models--org--r{repo}")
    at = mount(fresh_cache, *options)
    expected = expected_tree(files)

    def walk(number: int) -> None:
        assert_same(expected, tree(at.repo(f"org/r{number % 4}")))

    together(walk, times=THREADS)


def test_readers_while_refs_move_and_repos_come_and_go(mount, fresh_cache, options):
    """Nobody sees a mixture of two commits, a short file, or an error that is not "no such file"."""
    old = {f"f{index}": b"old %d " % index * 100 for index in range(40)}
    new = {f"f{index}": b"new %d!" % index * 100 for index in range(40)}
    repo = simple_cache(fresh_cache, old)
    for path, data in new.items():
        repo.file(OTHER, path, data)
    at: Mount = mount(fresh_cache, *options)
    stop = threading.Event()
    problems: list[str] = []

    def read(number: int) -> None:
        dice = random.Random(number)
        while not stop.is_set():
            commit, files = dice.choice(((COMMIT, old), (OTHER, new)))
            name = f"f{dice.randrange(40)}"
            if (at.repo("org/name", commit) / name).read_bytes() != files[name]:
                problems.append(f"{commit}/{name}")

    def read_main(number: int) -> None:
        while not stop.is_set():
            fd = os.open(at.repo("org/name"), os.O_RDONLY)
            try:
                kinds = set()
                for index in range(40):
                    inner = os.open(f"f{index}", os.O_RDONLY, dir_fd=fd)
                    kinds.add(os.read(inner, 3))
                    os.close(inner)
                if len(kinds) != 1:
                    problems.append(f"a mixture: {kinds}")
            finally:
                os.close(fd)

    def list_all(number: int) -> None:
        while not stop.is_set():
            os.listdir(at / "models/org")
            try:
                os.listdir(at / "models/org/guest/main")
            except OSError as error:
                # Gone, or its ref is there and its snapshot not yet, or no longer.
                assert error.errno in (errno.ENOENT, errno.ENETUNREACH)

    def disturb(number: int) -> None:
        try:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                repo.ref("main", OTHER)
                simple_cache(fresh_cache, {"guest": b"g"}, folder="models--org--guest")
                time.sleep(0.05)
                repo.ref("main", COMMIT)
                subprocess.run(["rm", "-rf", fresh_cache / "models--org--guest"], check=True)
                time.sleep(0.05)
        finally:
            stop.set()

    together(*[read] * 4, *[read_main] * 2, *[list_all] * 2, disturb)
    assert not problems
    assert at.live()


def test_status_and_attributes_while_reading(mount, fresh_cache, options):
    data = Pattern("busy", 4 * MIB).read(0, 4 * MIB)
    simple_cache(fresh_cache, {"model.bin": data, "config.json": b"{}"})
    at = mount(fresh_cache, "xattr", *options)
    path = at.repo("org/name") / "model.bin"

    def read(number: int) -> None:
        for _ in range(5):
            assert path.read_bytes() == data

    def ask(number: int) -> None:
        for _ in range(30):
            assert b'"pid"' in (at / ".modelmount/status").read_bytes()
            assert os.getxattr(path, "user.modelmount.state") == b"whole"
            os.statvfs(at.path)

    together(*[read] * 6, *[ask] * 4)
    at.wait_until_closed()


def test_opened_and_closed_by_many(mount, fresh_cache, options):
    """The last close of one and the first open of another at the same time: one mode, one descriptor, right bytes."""
    data = b"x" * 100_000
    simple_cache(fresh_cache, {"model.bin": data})
    at = mount(fresh_cache, *options)
    path = at.repo("org/name") / "model.bin"

    def work(number: int) -> None:
        for _ in range(60):
            with open(path, "rb") as file:
                if number % 3 == 0:
                    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as area:
                        assert area[number * 1000] == ord("x")
                else:
                    assert file.read(2000) == data[:2000]

    together(work, times=THREADS)
    at.wait_until_closed()


def test_unmounting_under_load(mount, fresh_cache, options):
    """Lazily, while eight threads read and list: it goes, and nobody hangs."""
    data = Pattern("load", 2 * MIB).read(0, 2 * MIB)
    simple_cache(fresh_cache, {f"model{index}.bin": data for index in range(4)})
    at = mount(fresh_cache, *options)
    base = at.repo("org/name")
    stop = threading.Event()
    rounds = [0] * 8

    def work(number: int) -> None:
        while not stop.is_set():
            try:
                found = (base / f"model{number % 4}.bin").read_bytes()
                os.listdir(base)
            except OSError:
                break
            assert found == data
            rounds[number] += 1

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(rounds) >= 16, what="the load")
    at.unmount("--lazy")
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
