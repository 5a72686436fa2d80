# SPDX-License-Identifier: Apache-2.0
"""Fetching through crashes, full disks, a Hub that goes away, and others at work in the same cache."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.hub import HubProcess, HubRepo, Pattern
from tests.support.faults import attempt
from tests.support.mounts import Mount, online, wait_until
from tests.support.nginx import free_ports
from tests.support.repos import MIB, serve
from tests.support.trees import assert_blobs_are_what_they_claim, assert_same, digest, repo_tree, shape, tree

NUMBERS = itertools.count()
SIZE = 16 * MIB + 99
ROUNDS = int(os.environ.get("MODELMOUNT_TEST_KILLS", "10"))


@pytest.fixture
def repo(hub) -> HubRepo:
    return serve(hub, f"org/d-{next(NUMBERS)}", {"config.json": "{}", "model.bin": Pattern("durable", SIZE)})


def sha256(repo: HubRepo) -> str:
    return repo.files()["model.bin"].content.sha256


def sent(hub: HubProcess) -> int:
    return sum(entry.sent for entry in hub.log(host="cdn"))


def blob_of(cache: Path, repo: HubRepo) -> Path:
    return cache / f"models--{repo.id.replace('/', '--')}" / "blobs" / sha256(repo)


# Crashes.


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_at_a_random_moment(lazy, hub, fresh_cache, repo, number):
    """`kill -9` in the midst of it; then every byte is right, and none comes twice in the second life."""
    dice = random.Random(os.environ.get("MODELMOUNT_TEST_SEED", "seed") + str(number))
    at = lazy(fresh_cache)
    path = at.repo(repo.id) / "model.bin"
    os.stat(path)
    hub.shape("cdn", rate=MIB)  # of each connection: one to three seconds in all
    readers = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    if number % 2:
        script = "dd if=$0 bs=64k skip=200 count=20 of=/dev/null"
        readers.append(subprocess.Popen(["sh", "-c", script, path], stderr=subprocess.DEVNULL))
    time.sleep(dice.uniform(0.05, 1.5))
    at.kill()
    for reader in readers:
        reader.wait(30)
    wait_until(lambda: all(entry.ended for entry in hub.log()), 10, "the end of the requests of its first life")
    hub.reset()
    assert_blobs_are_what_they_claim(fresh_cache)
    at = lazy(fresh_cache)
    assert digest(at.repo(repo.id) / "model.bin") == sha256(repo)
    assert sent(hub) <= SIZE + MIB
    wait_until(blob_of(fresh_cache, repo).exists, 10, "publishing")
    assert_blobs_are_what_they_claim(fresh_cache)


def test_killed_again_and_again_it_gets_to_the_end(lazy, hub, fresh_cache, repo):
    """Each life brings it some way further: what was recorded is not lost."""
    lives = 0
    hub.shape("cdn", rate=2 * MIB)
    while not blob_of(fresh_cache, repo).exists() and lives < 8:
        at = lazy(fresh_cache)
        with subprocess.Popen(
            ["cat", at.repo(repo.id) / "model.bin"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as reader:
            deadline = time.monotonic() + 1
            while reader.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            at.kill()
        lives += 1
    assert blob_of(fresh_cache, repo).exists(), f"not whole after {lives} lives, {sent(hub)} bytes"
    assert digest(lazy(fresh_cache).repo(repo.id) / "model.bin") == sha256(repo)


def test_the_index_is_lost(lazy, hub, fresh_cache, repo, tmp_path):
    """What it knew of a partial blob goes with it; no byte is wrong for that."""
    at = lazy(fresh_cache)
    with open(at.repo(repo.id) / "model.bin", "rb") as file:
        file.read(SIZE // 2)
    at.unmount()
    for path in list((tmp_path / "state").rglob("*.db*")) + list((tmp_path / "state").rglob("*.sqlite*")):
        path.unlink()
    at = lazy(fresh_cache)
    assert digest(at.repo(repo.id) / "model.bin") == sha256(repo)
    wait_until(blob_of(fresh_cache, repo).exists, 10, "publishing")
    assert_blobs_are_what_they_claim(fresh_cache)


# A Hub that goes away.


def test_a_hub_that_goes_away_in_the_midst_of_an_archive(mount, fresh_cache, tmp_path):
    """`tar` fails and says which file; when the Hub is back it works without a remount."""
    ports = free_ports("127.0.0.1", "127.0.0.2")
    arguments = ["--port", str(ports[0]), "--cdn-port", str(ports[1])]
    repo = HubRepo("org/d-away")
    repo.commit({f"part-{index}.bin": Pattern(f"away {index}", 6 * MIB) for index in range(4)})
    with HubProcess(*arguments) as first:
        first.add(repo)
        first.shape("cdn", rate=MIB // 2)
        at = mount(fresh_cache, "timeout=0.5", "ref_ttl=1", env=online(first))
        base = at.repo(repo.id)
        assert len(os.listdir(base)) == 4
        archive = subprocess.Popen(
            ["tar", "-C", base, "-cf", tmp_path / "a.tar", "."], stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: sent(first) > MIB, 10, "the beginning")
    _, message = archive.communicate(timeout=60)
    assert archive.returncode != 0 and ".bin" in message
    assert at.log_names("org/d-away", ".bin")
    with HubProcess(*arguments) as second:
        second.add(repo)
        done = subprocess.run(["tar", "-C", base, "-cf", tmp_path / "b.tar", "."], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert_same(repo_tree(repo), tree(base))
        assert sum(entry.sent for entry in second.log(host="cdn")) < 24 * MIB
        at.unmount()


# Others in the same cache.


@pytest.mark.concurrency
@pytest.mark.parametrize("state", ["state", "other"], ids=["one state directory", "two"])
def test_two_mounts_of_one_cache(lazy, hub, fresh_cache, repo, state):
    mounts = [lazy(fresh_cache, name="one"), lazy(fresh_cache, name="two", state=state)]
    hub.shape("cdn", rate=2 * MIB)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda at=at: found.append(digest(at.repo(repo.id) / "model.bin"))) for at in mounts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [sha256(repo)] * 2
    assert sent(hub) <= (1 if state == "state" else 2) * SIZE + 2 * MIB
    wait_until(blob_of(fresh_cache, repo).exists, 10, "publishing")
    assert_blobs_are_what_they_claim(fresh_cache)


def test_one_of_two_mounts_is_killed(lazy, hub, fresh_cache, repo):
    """The other takes over what the first was fetching."""
    first, second = lazy(fresh_cache, name="one"), lazy(fresh_cache, name="two")
    hub.shape("cdn", rate=MIB // 2)
    readers = [
        subprocess.Popen(["sha256sum", at.repo(repo.id) / "model.bin"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for at in (first, second)
    ]
    wait_until(lambda: sent(hub) > MIB, 10, "the beginning")
    first.kill()
    readers[0].wait(30)
    hub.shape("cdn")
    out, _ = readers[1].communicate(timeout=60)
    assert readers[1].returncode == 0 and out.decode().split()[0] == sha256(repo)
    wait_until(blob_of(fresh_cache, repo).exists, 10, "publishing")
    assert_blobs_are_what_they_claim(fresh_cache)


@pytest.mark.concurrency
def test_a_mount_and_a_download_and_a_removal(lazy, hub, current, fresh_cache, repo):
    """All on the same blobs at the same time, three times over: the reader never sees a wrong byte."""
    at = lazy(fresh_cache)
    cache = {"HF_HUB_CACHE": os.fspath(fresh_cache)}
    stop = threading.Event()
    results: list[bytes | int] = []

    def read() -> None:
        while not stop.is_set():
            results.append(attempt(at.repo(repo.id) / "model.bin"))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            download = current.hf("download", repo.id, env=cache)
            assert download.returncode == 0, download.stderr
            assert_blobs_are_what_they_claim(fresh_cache)
            # It gives up when something new comes into what it is removing, as the reader's mount does.
            for _ in range(5):
                removal = current.hf("cache", "rm", f"model/{repo.id}", "--yes", env=cache)
                if removal.returncode == 0 or "not empty" not in removal.stdout + removal.stderr:
                    break
            assert removal.returncode == 0, removal.stdout + removal.stderr
    finally:
        stop.set()
        reader.join(60)
    right = Pattern("durable", SIZE).read(0, SIZE)
    assert results and all(result == right for result in results if isinstance(result, bytes))
    assert any(isinstance(result, bytes) for result in results)
    wait_until(lambda: attempt(at.repo(repo.id) / "model.bin") == right, 20, "a good read")
    current.download(repo.id, cache_dir=fresh_cache)
    assert_blobs_are_what_they_claim(fresh_cache)


def test_what_was_removed_is_fetched_again(lazy, hub, current, fresh_cache, hub_repos):
    at = lazy(fresh_cache)
    expected = repo_tree(hub_repos["org/tiny"])
    assert_same(expected, tree(at.repo("org/tiny")))
    files = hub_repos["org/tiny"].files()
    there = fresh_cache / "models--org--tiny/blobs"
    wait_until(lambda: len(list(there.glob("*"))) == len(files), 10, "publishing")
    env = {"HF_HUB_CACHE": os.fspath(fresh_cache)}
    assert current.hf("cache", "rm", "model/org/tiny", "--yes", env=env).returncode == 0
    assert not there.exists()

    def whole() -> bool:
        try:
            return tree(at.repo("org/tiny")) == expected
        except OSError:
            return False

    wait_until(whole, 10, "the repo's files")


# Disks.


def test_a_disk_that_fills_up(small_disk, lazy, hub, current):
    """20 MiB of disk, 40 MiB of file: it is read to its end, and the status says why nothing is kept."""
    size = 40 * MIB
    content = Pattern("full", size)
    repo = serve(hub, f"org/d-{next(NUMBERS)}", {"config.json": "{}", "model.bin": content})
    for name in ("hub", "state"):
        (small_disk / name).mkdir()
    at = lazy(small_disk / "hub", f"state_dir={small_disk}/state", state=None)
    assert digest(at.repo(repo.id) / "model.bin") == content.sha256
    network = at.status()["network"]
    assert network["disk_full"] is True and network["unkept_bytes"] > 0
    assert digest(at.repo(repo.id) / "model.bin") == content.sha256
    assert attempt(at.repo(repo.id) / "config.json") == b"{}"
    assert not blob_of(small_disk / "hub", repo).exists()
    assert_blobs_are_what_they_claim(small_disk / "hub")
    assert at.log_names("disk") or at.log_names("space")


def test_a_disk_that_was_full_and_has_room_again(small_disk, lazy, hub, repo):
    for name in ("hub", "state"):
        (small_disk / name).mkdir()
    at = lazy(small_disk / "hub", f"state_dir={small_disk}/state", state=None)
    os.stat(at.repo(repo.id) / "model.bin")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert digest(at.repo(repo.id) / "model.bin") == sha256(repo)
    filler.unlink()

    def kept() -> bool:
        subprocess.run(["sh", "-c", "echo 1 > /proc/sys/vm/drop_caches"], stderr=subprocess.DEVNULL)
        assert digest(at.repo(repo.id) / "model.bin") == sha256(repo)
        return blob_of(small_disk / "hub", repo).exists()

    wait_until(kept, 20, "publishing")
    assert_blobs_are_what_they_claim(small_disk / "hub")


def test_a_cache_on_another_device_than_its_parent(small_disk, lazy, mount, hub, hub_repos, current):
    """The state directory cannot be its sibling: publishing copies, and leaves nothing half-done."""
    at = lazy(small_disk, state=None)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.repo("org/tiny")))
    files = hub_repos["org/tiny"].files()
    there = small_disk / "models--org--tiny/blobs"
    wait_until(lambda: {path.name for path in there.glob("*")} == {f.etag for f in files.values()}, 10, "publishing")
    assert_blobs_are_what_they_claim(small_disk)
    assert not [name for name in os.listdir(small_disk) if not name.startswith(("models--", ".locks", "CACHEDIR"))]
    assert not list(small_disk.rglob("*.incomplete"))
    current.download("org/tiny", cache_dir=small_disk, local_files_only=True)


@pytest.fixture
def read_only(small_disk: Path) -> Path:
    """A cache on a disk that is mounted read-only."""
    (small_disk / "hub").mkdir()
    if subprocess.run(["mount", "-o", "remount,ro", small_disk]).returncode != 0:
        pytest.skip("no read-only disk here")
    return small_disk / "hub"


def test_a_read_only_cache(read_only, lazy, hub, hub_repos):
    """All can be read, and is kept; nothing is published."""
    at: Mount = lazy(read_only)
    expected = repo_tree(hub_repos["org/tiny"])
    assert_same(expected, tree(at.repo("org/tiny")))
    at.unmount()
    hub.clear_log()
    assert_same(expected, tree(lazy(read_only).repo("org/tiny")))
    assert sent(hub) == 0 and shape(read_only) == {}
