# SPDX-License-Identifier: Apache-2.0
"""
The cases about fetching: a file that is nowhere on this machine, read through a mount, against what others take to get
the same bytes from the same server in the same run. Every run begins with an empty cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

from hubcache import MIB
from mount import Mount, detach
from network import NAME, REPO, ROOT, Network, tool
from report import Row, Target

from tests.hub.content import Pattern
from tests.hub.process import HubProcess
from tests.hub.repo import HubFile, HubRepo

MB = 1e6
TIMEOUT = 300
RATE, DELAY_MS = 20_000_000, 25  # of the slow line: bytes a second of each connection, and one way of a round trip

FAST = Target("≥ 0.9 of it", lambda other, ours: ours >= 0.9 * other)


# --- the others


@dataclass(frozen=True)
class Peer:
    """Somebody else who gets the file. `seconds` is given the network and an empty directory."""

    name: str
    program: str
    verifies: bool
    often: bool  # else it is run once: it is not near the others, or not what we are measured by
    seconds: Callable[[Network, Path], float]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(*words: str | Path, **more: Any) -> None:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(words, check=True, timeout=TIMEOUT, **(quiet | more))


def read(path: Path) -> None:
    run("dd", f"if={path}", "of=/dev/null", "bs=1M")


OPENSSL = "openssl dgst -sha256 -r"


def curl_into(net: Network, directory: Path, digest: str) -> float:
    words = f"curl -sfL {net.hub_file} | tee {directory / NAME} | {digest} | grep -q {net.sha256}"
    return timed(lambda: run("sh", "-c", words))


def by_curl(net: Network, directory: Path) -> float:
    return curl_into(net, directory, "sha256sum")


def by_curl_openssl(net: Network, directory: Path) -> float:
    return curl_into(net, directory, OPENSSL)


def aria2(net: Network, directory: Path, *more: str) -> None:
    words = ["aria2c", "-x16", "-s16", "--file-allocation=none", "--quiet", *more]
    run(*words, "-d", directory, "-o", NAME, net.hub_file)


def by_aria2(net: Network, directory: Path) -> float:
    return timed(lambda: aria2(net, directory, f"--checksum=sha-256={net.sha256}"))


def by_aria2_openssl(net: Network, directory: Path) -> float:
    def work() -> None:
        aria2(net, directory)
        run("sh", "-c", f"{OPENSSL} {directory / NAME} | grep -q {net.sha256}")

    return timed(work)


def by_aria2_alone(net: Network, directory: Path) -> float:
    return timed(lambda: aria2(net, directory))


def by_library(net: Network, directory: Path) -> float:
    env = dict(os.environ, HF_ENDPOINT=net.url, HF_HUB_CACHE=os.fspath(directory), HF_HUB_OFFLINE="0")
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HOME": os.fspath(directory)}
    return timed(lambda: run(program("hf"), "download", REPO, NAME, env=env))


@contextmanager
def foreign_mount(directory: Path, *words: str | Path) -> Iterator[Path]:
    """A mount of another program, which is told where in its last word and runs in the foreground."""
    point = directory / "mount"
    point.mkdir()
    env = dict(os.environ, XDG_CACHE_HOME=os.fspath(directory / "cache"))
    with open(directory / "log", "wb") as log:
        daemon = subprocess.Popen([*words, point], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    try:
        deadline = time.monotonic() + 30
        while not os.path.ismount(point):
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise OSError((directory / "log").read_text(encoding="utf-8", errors="replace"))
            time.sleep(0.01)
        yield point
    finally:
        detach(point)
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def by_httpdirfs(net: Network, directory: Path) -> float:
    cache = directory / "kept"
    cache.mkdir()
    words = ["httpdirfs", "-f", "--cache", "--cache-location", cache, "--max-conns", "16"]
    words += ["--no-range-check", f"{net.files_url}/"]
    with foreign_mount(directory, *words) as at:
        return timed(lambda: read(at / NAME))


def by_rclone(net: Network, directory: Path) -> float:
    words = ["rclone", "mount", "--config", "/dev/null", "--vfs-cache-mode", "full", "--cache-dir", directory / "kept"]
    with foreign_mount(directory, *words, "--http-url", f"{net.files_url}/", ":http:") as at:
        return timed(lambda: read(at / NAME))


# Debian's sha256sum and aria2c do not use the processor's instructions for SHA-256, and take most of their time for it:
# who verifies as we do, by OpenSSL, is the one to be compared with.
PEERS = (
    Peer("curl, tee, openssl", "curl", True, True, by_curl_openssl),
    Peer("aria2c -x16, then openssl", "aria2c", True, True, by_aria2_openssl),
    Peer("aria2c -x16, not verified", "aria2c", False, True, by_aria2_alone),
    Peer("curl, tee, sha256sum", "curl", True, False, by_curl),
    Peer("aria2c -x16 --checksum", "aria2c", True, False, by_aria2),
    Peer("hf download, not verified", "hf", False, False, by_library),
    Peer("httpdirfs, not verified", "httpdirfs", False, False, by_httpdirfs),
    Peer("rclone mount, not verified", "rclone", False, False, by_rclone),
)


def program(name: str) -> str | None:
    own = ROOT / "build/venv/bin" / name
    return os.fspath(own) if own.exists() else tool(name)


# --- ours


@contextmanager
def fresh_mount(bench: Any, url: str) -> Iterator[Mount]:
    """A mount that has nothing, and a Hub at `url` behind it."""
    cache, state = bench.scratch / "net-cache/hub", bench.scratch / "net-cache/state"
    shutil.rmtree(cache.parent, ignore_errors=True)
    cache.mkdir(parents=True)
    env = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    with Mount(bench.program, cache, bench.scratch / "mount", state, [f"endpoint={url}"], env) as mount:
        yield mount


@dataclass
class Ours:
    read: float  # seconds until the last byte was read
    kept: float  # until it was verified and in the cache
    processor: float  # seconds of the daemon, until then


def by_mount(bench: Any, net: Network) -> Ours:
    with fresh_mount(bench, net.url) as mount:
        path = mount.path / "models" / REPO / "main" / NAME
        start, before = time.perf_counter(), mount.processor()
        read(path)
        seconds = time.perf_counter() - start
        blob = bench.scratch / "net-cache/hub" / f"models--{REPO.replace('/', '--')}/blobs/{net.sha256}"
        while not blob.exists() and time.perf_counter() - start < TIMEOUT:
            time.sleep(0.01)
        return Ours(seconds, time.perf_counter() - start, mount.processor() - before)


# --- measuring


def make_file(bench: Any, size: int) -> Path:
    """The directory of the file that is served: bytes that repeat nowhere at the same place of a page."""
    directory: Path = bench.scratch / f"served-{size}"
    if not directory.exists():
        directory.mkdir()
        Pattern(size, size).write_to(directory / NAME)
    return directory


def settle() -> None:
    """What the one before has written must not burden the next."""
    os.sync()


def against(bench: Any, net: Network, runs: int) -> tuple[list[Ours], dict[Peer, list[float]]]:
    """All take turns; those that are not often, once."""
    ours: list[Ours] = []
    others: dict[Peer, list[float]] = {}
    for peer in PEERS:
        if program(peer.program):
            others[peer] = []
        else:
            print(f"{peer.name}: {peer.program} is not installed: contrib/install-deps --bench", file=sys.stderr)
    directory = bench.scratch / "peer"
    for turn in range(runs):
        settle()
        ours.append(by_mount(bench, net))
        for peer, seconds in others.items():
            if turn > 0 and not peer.often:
                continue
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            settle()
            seconds.append(peer.seconds(net, directory))
    shutil.rmtree(directory, ignore_errors=True)
    return ours, others


def rows(name: str, size: int, ours: list[Ours], others: dict[Peer, list[float]]) -> Iterator[Row]:
    speeds = [size / our.read / MB for our in ours]
    for peer, seconds in others.items():
        theirs = [size / each / MB for each in seconds]
        yield Row(f"{name}: {peer.name}", "fetched", "MB/s", theirs, speeds, FAST if peer.verifies else None)
    yield Row(f"{name}: verified, in the cache", "fetched", "MB/s", [], [size / our.kept / MB for our in ours])


def case_loopback(bench: Any) -> Iterator[Row]:
    size = bench.sizes.large
    with Network(bench.scratch, make_file(bench, size)) as net:
        ours, others = against(bench, net, bench.sizes.few)
    yield from rows(f"{size // MIB} MiB from this machine", size, ours, others)
    target = Target("≤ 1.5 s", lambda _, mounted: mounted <= 1.5)
    yield Row("processor, for each GB", "fetched", "s", [], [our.processor / size * 1e9 for our in ours], target)


def case_line(bench: Any) -> Iterator[Row]:
    size = bench.sizes.large // 4
    with Network(bench.scratch, make_file(bench, size), RATE, DELAY_MS) as net:
        ours, others = against(bench, net, bench.sizes.few)
    yield from rows(f"{size // MIB} MiB, 50 ms, 20 MB/s a connection", size, ours, others)


def one_after_another(entries: list[Any]) -> int:
    """The longest chain of requests of which each began after the end of the one before."""
    longest = 0
    chains: list[tuple[float, int]] = []
    for entry in sorted(entries, key=lambda entry: entry.started):
        length = 1 + max((n for end, n in chains if end <= entry.started), default=0)
        chains.append((entry.ended or entry.started, length))
        longest = max(longest, length)
    return longest


def within_first(entry: Any) -> bool:
    """Whether it was for the first MiB, and not for what the kernel then reads ahead."""
    return not entry.range or int(entry.range.removeprefix("bytes=").partition("-")[0]) < MIB


def case_first(bench: Any) -> Iterator[Row]:
    """The first MiB of a file of which only that is wanted. What it holds, nobody looks at: no hash is made of 10 GB."""
    content = Pattern("first", 10_000_000_000)
    content.sha256 = "5" * 64
    repo = HubRepo(REPO)
    repo.commit({NAME: HubFile(content, lfs=True)})
    requests, chain, redirects, fetched, seconds = [], [], [], [], []
    with HubProcess() as hub:
        hub.add(repo)
        hub.shape(latency=2 * DELAY_MS / 1000)  # so that it shows who waits for whom
        for _ in range(bench.sizes.few):
            with fresh_mount(bench, hub.url) as mount:
                hub.clear_log()
                path = mount.path / "models" / REPO / "main" / NAME
                seconds.append(timed(lambda: run("dd", f"if={path}", "of=/dev/null", "bs=1M", "count=1")) * 1000)
                time.sleep(0.5)  # what comes later was fetched for nothing, too
                log = hub.log()
            answers = [entry for entry in log if entry.status < 300 or entry.status >= 400]
            requests.append(float(len(answers)))
            chain.append(float(one_after_another(list(filter(within_first, answers)))))
            redirects.append(float(len(log) - len(answers)))
            fetched.append(sum(entry.sent for entry in log if entry.host == "cdn") / MIB)
    few = Target("≤ 3", lambda _, mounted: mounted <= 3)
    little = Target("≤ 2 MiB", lambda _, mounted: mounted <= 2)
    yield Row("first MiB of 10 GB: requests one after another", "fetched", "", [], chain, few)
    yield Row("first MiB of 10 GB: requests in all", "fetched", "", [], requests)
    yield Row("first MiB of 10 GB: redirects", "fetched", "", [], redirects)
    yield Row("first MiB of 10 GB: fetched", "fetched", "MiB", [], fetched, little)
    yield Row("first MiB of 10 GB", "fetched", "ms", [], seconds)
