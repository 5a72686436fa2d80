# SPDX-License-Identifier: Apache-2.0
"""
The cases. Each measures the bare file system and the mount in turn, and gives rows of a report.

A mount is fresh for each run, so that nothing of the file is in the mount's own page cache; its index is there, unless
the case is about the index.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from hubcache import MIB, HubCache, small_files
from mount import Mount, command, detach
from net_cases import case_first, case_line, case_loopback
from report import Row, Target

GB = 1e9

LARGE, SMALL, MANY, REPOS = ALL = ("large", "small", "many", "repos")  # parts of the cache
PASSTHROUGH = "passthrough"
SPLICE = "splice"

Samples = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Sizes:
    runs: int  # of the cases about reading
    few: int  # of the others
    large: int  # bytes of the large file
    small: int  # files to tar
    many: int  # files in one repo
    repos: int  # repos of 100 files
    fio: int  # seconds


FULL = Sizes(runs=5, few=3, large=2048 * MIB, small=10_000, many=100_000, repos=1_000, fio=2)
QUICK = Sizes(runs=1, few=1, large=256 * MIB, small=1_000, many=10_000, repos=100, fio=1)


class Bench:
    """One cache with all that the cases need, and ways to mount it."""

    def __init__(self, program: Path, scratch: Path, sizes: Sizes):
        self.program = program
        self.scratch = scratch
        self.sizes = sizes
        self.cache = HubCache(scratch)
        self.modes = self._probe()
        self._indexed = False
        self.blob = Path()

    def make(self, parts: set[str]) -> None:
        """Writes those parts of the cache: a large file, small ones, many in one repo, many repos."""
        sizes = self.sizes
        if LARGE in parts:
            self.blob = self.cache.add_large("bench/large", "model.safetensors", sizes.large)
        if SMALL in parts:
            self.cache.add("bench/small", small_files(sizes.small, 1_000, 4096, sizes.small))
        if MANY in parts:
            self.cache.add("bench/many", small_files(sizes.many, 1_000, 64, sizes.many // 10))
        for number in range(sizes.repos if REPOS in parts else 0):
            self.cache.add(f"org{number // 100}/repo{number:04}", small_files(100, 20, 64, 10), plain=False)
        os.sync()

    def mount(self, mode: str = SPLICE) -> Mount:
        """A fresh mount with the index of all files there."""
        state = self.scratch / "state"
        if not self._indexed:
            with self._mount(state, mode) as first:
                walk(first.path)
            self._indexed = True
        return self._mount(state, mode)

    def mount_anew(self, mode: str = SPLICE) -> Mount:
        """A fresh mount that has to make its index."""
        state = self.scratch / "state-new"
        shutil.rmtree(state, ignore_errors=True)
        return self._mount(state, mode)

    def mount_seconds(self, anew: bool) -> float:
        """How long the command takes that mounts in the background."""
        if anew:
            shutil.rmtree(self.scratch / "state-new", ignore_errors=True)
        else:
            self.mount()
        state = self.scratch / ("state-new" if anew else "state")
        point = self.scratch / "mount"
        words = command(self.program, self.cache.hub, point, state)
        seconds = timed(lambda: run(*words))
        detach(point)
        return seconds

    def fresh(self, mode: str, measure: Callable[[Path], float]) -> float:
        """Measures in a fresh mount."""
        with self.mount(mode) as mount:
            return measure(mount.path)

    def large(self, mountpoint: Path) -> Path:
        return mountpoint / "models/bench/large/main/model.safetensors"

    @property
    def plain_large(self) -> Path:
        return self.cache.plain / "bench/large/model.safetensors"

    def _mount(self, state: Path, mode: str, hub: Path | None = None) -> Mount:
        options = [] if mode == PASSTHROUGH else ["nopassthrough"]
        return Mount(self.program, hub or self.cache.hub, self.scratch / "mount", state, options)

    def _probe(self) -> list[str]:
        """Which ways of reading there are here: whether passthrough works shows when a file is opened."""
        probe = HubCache(self.scratch / "probe")
        probe.add("bench/probe", [("file", b"x")])
        with self._mount(self.scratch / "state-probe", PASSTHROUGH, probe.hub) as mount:
            (mount.path / "models/bench/probe/main/file").read_bytes()
            status = subprocess.check_output([self.program, "status", "--json", mount.path])
        return [PASSTHROUGH, SPLICE] if json.loads(status)["read_path"]["mode"] == PASSTHROUGH else [SPLICE]


# --- measuring


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(runs: int, bare: Callable[[], float], mounted: Callable[[], float]) -> Samples:
    samples: Samples = ([], [])
    for _ in range(runs):
        samples[0].append(bare())
        samples[1].append(mounted())
    return samples


def run(*words: str | Path) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def warm(path: Path) -> None:
    """Puts a file into the page cache."""
    run("cat", path)


def drop_pages(path: Path) -> None:
    """Takes a file out of the page cache."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def drop_names() -> None:
    """Makes the kernel forget all names and inodes that are not in use. Only root can; else they stay, on the bare disk."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2\n", encoding="ascii")
    except PermissionError:
        pass


def walk(directory: Path) -> float:
    return timed(lambda: run("find", directory, "-type", "f", "-size", "+1048576k"))


def dd(path: Path) -> float:
    """GB/s."""
    return path.stat().st_size / timed(lambda: run("dd", f"if={path}", "of=/dev/null", "bs=1M")) / GB


def read_mapping(path: Path) -> float:
    """GB/s: maps the file and copies all of it, as a loader does."""
    part = memoryview(bytearray(MIB))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        size = len(pages)

        def loop() -> None:
            with memoryview(pages) as view:
                for at in range(0, size, MIB):
                    part[:] = view[at : at + MIB]

        return size / timed(loop) / GB


def fio(path: Path, engine: str, seconds: int) -> float:
    """Random reads of 4 KiB, one at a time: thousands a second."""
    words = ["fio", "--name=random", f"--filename={path}", "--readonly", "--rw=randread", "--bs=4k", "--iodepth=1"]
    words += [f"--ioengine={engine}", "--invalidate=0", "--time_based", f"--runtime={seconds}"]
    answer = subprocess.check_output([*words, "--output-format=json"], stderr=subprocess.DEVNULL)
    return float(json.loads(answer)["jobs"][0]["read"]["iops"]) / 1000


def tar(directory: Path) -> float:
    # Through a pipe: tar reads nothing when it writes to /dev/null itself.
    return timed(lambda: run("sh", "-c", 'tar -C "$0" -cf - . | cat >/dev/null', directory))


def open_and_close(directory: Path) -> float:
    """Microseconds a file, its name being known to the kernel."""
    paths = [os.path.join(at, name) for at, _, names in os.walk(directory) for name in names]
    for path in paths:
        os.stat(path)

    def loop() -> None:
        for path in paths:
            os.close(os.open(path, os.O_RDONLY))

    return timed(loop) / len(paths) * 1e6


# --- the cases


FAST = {
    PASSTHROUGH: Target("≥ 0.9 of bare", lambda bare, mounted: mounted >= 0.9 * bare),
    SPLICE: Target("≥ 2 GB/s or 0.2 of bare", lambda bare, mounted: mounted >= 2 or mounted >= 0.2 * bare),
}
FAST_RANDOM = {
    PASSTHROUGH: FAST[PASSTHROUGH],
    SPLICE: Target("≥ 0.2 of bare", lambda bare, mounted: mounted >= 0.2 * bare),
}
FIND = Target("≤ 2 × bare", lambda bare, mounted: mounted <= 2 * bare)


def case_sequential(bench: Bench) -> Iterator[Row]:
    warm(bench.blob)
    for mode in bench.modes:
        samples = alternate(
            bench.sizes.runs,
            lambda: dd(bench.plain_large),
            lambda: bench.fresh(mode, lambda at: dd(bench.large(at))),
        )
        yield Row("sequential read (dd)", mode, "GB/s", *samples, FAST[mode])


def case_mmap(bench: Bench) -> Iterator[Row]:
    warm(bench.blob)
    for mode in bench.modes:
        samples = alternate(
            bench.sizes.runs,
            lambda: read_mapping(bench.plain_large),
            lambda: bench.fresh(mode, lambda at: read_mapping(bench.large(at))),
        )
        yield Row("mmap fault-through", mode, "GB/s", *samples, FAST[mode])


def _random_cold(bench: Bench, mode: str, engine: str) -> Samples:
    def cold(path: Path) -> float:
        drop_pages(bench.blob)
        return fio(path, engine, bench.sizes.fio)

    return alternate(
        bench.sizes.few,
        lambda: cold(bench.plain_large),
        lambda: bench.fresh(mode, lambda at: cold(bench.large(at))),
    )


def _random_warm(bench: Bench, mode: str) -> Samples:
    return alternate(
        bench.sizes.few,
        lambda: fio(bench.plain_large, "psync", 1),
        lambda: bench.fresh(mode, lambda at: fio(bench.large(at), "psync", 1)),
    )


def case_random(bench: Bench) -> Iterator[Row]:
    for mode in bench.modes:
        for engine in ("psync", "mmap"):
            samples = _random_cold(bench, mode, engine)
            yield Row(f"random 4 KiB from disk, {engine}", mode, "k/s", *samples, FAST_RANDOM[mode])
    warm(bench.blob)
    for mode in bench.modes:
        yield Row("random 4 KiB from memory, psync", mode, "k/s", *_random_warm(bench, mode))


def case_tar(bench: Bench) -> Iterator[Row]:
    plain = bench.cache.plain / "bench/small"
    tar(plain)
    for mode in bench.modes:
        samples = alternate(
            bench.sizes.few,
            lambda: tar(plain),
            lambda: bench.fresh(mode, lambda at: tar(at / "models/bench/small/main")),
        )
        yield Row(f"tar of {bench.sizes.small:,} files of 4 KB", mode, "s", *samples)


def case_find(bench: Bench) -> Iterator[Row]:
    plain = bench.cache.plain / "bench/many"
    cold: Samples = ([], [])
    again: Samples = ([], [])
    for _ in range(bench.sizes.few):
        drop_names()
        cold[0].append(walk(plain))
        again[0].append(walk(plain))
        with bench.mount() as mount:
            drop_names()
            cold[1].append(walk(mount.path / "models/bench/many/main"))
            again[1].append(walk(mount.path / "models/bench/many/main"))
    yield Row(f"find -size, {bench.sizes.many:,} files, cold", "", "s", *cold, FIND)
    yield Row(f"find -size, {bench.sizes.many:,} files, warm", "", "s", *again, FIND)


def case_open(bench: Bench) -> Iterator[Row]:
    plain = bench.cache.plain / "bench/small"
    for mode in bench.modes:
        samples = alternate(
            bench.sizes.few,
            lambda: open_and_close(plain),
            lambda: bench.fresh(mode, lambda at: open_and_close(at / "models/bench/small/main")),
        )
        yield Row("open and close", mode, "µs", *samples)


def case_mount(bench: Bench) -> Iterator[Row]:
    sizes = bench.sizes
    target = Target("≤ 100 ms", lambda _, mounted: mounted <= 100)
    first = [bench.mount_seconds(anew=True) * 1000 for _ in range(sizes.runs)]
    yield Row(f"mount, {sizes.repos:,} repos, first time", "", "ms", [], first)
    later = [bench.mount_seconds(anew=False) * 1000 for _ in range(sizes.runs)]
    yield Row(f"mount, {sizes.repos:,} repos, with the index", "", "ms", [], later, target)


def case_walk(bench: Bench) -> Iterator[Row]:
    """Of all repos."""
    files = bench.sizes.repos * 100 + bench.sizes.many + bench.sizes.small + 1

    def first() -> float:
        with bench.mount_anew() as mount:
            return walk(mount.path)

    yield Row(f"walk of all {files:,} files, first time", "", "s", [], [first()])
    later = [bench.fresh(SPLICE, walk) for _ in range(bench.sizes.few)]
    yield Row(f"walk of all {files:,} files, with the index", "", "s", [], later)


def case_memory(bench: Bench) -> Iterator[Row]:
    """One mount does everything, from an empty index on."""
    resident = Target("≤ 30 MiB", lambda _, mounted: mounted <= 30)
    descriptors = Target("none per file: < 100", lambda _, mounted: mounted < 100)
    statuses = []
    for mode in bench.modes:
        with bench.mount_anew(mode) as mount:
            models = mount.path / "models"
            walk(mount.path)
            tar(models / "bench/small/main")
            read_mapping(bench.large(mount.path))
            fio(bench.large(mount.path), "psync", 1)
            open_and_close(models / "bench/small/main")
            statuses.append(timed(lambda: run(bench.program, "status", mount.path)))
            yield Row("memory of the daemon after all of it", mode, "MiB", [], [mount.resident()], resident)
            yield Row("descriptors it then holds", mode, "", [], [mount.descriptors()], descriptors)
    yield Row("status, counting all of it", "", "s", [], statuses)


@dataclass(frozen=True)
class Case:
    rows: Callable[[Bench], Iterator[Row]]
    parts: tuple[str, ...]  # of the cache, that it needs


CASES = {
    "sequential": Case(case_sequential, (LARGE,)),
    "mmap": Case(case_mmap, (LARGE,)),
    "random": Case(case_random, (LARGE,)),
    "tar": Case(case_tar, (SMALL,)),
    "find": Case(case_find, (MANY,)),
    "open": Case(case_open, (SMALL,)),
    "mount": Case(case_mount, ALL),
    "walk": Case(case_walk, ALL),
    "memory": Case(case_memory, ALL),
    "net-loopback": Case(case_loopback, ()),
    "net-line": Case(case_line, ()),
    "net-first": Case(case_first, ()),
}
