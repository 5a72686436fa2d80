# SPDX-License-Identifier: Apache-2.0
"""A daemon run by root serves what is the cache's, and nothing that somebody's link leads to."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.handmade import COMMIT, Repo, lfs_entry, simple_cache
from tests.support.trees import assert_same, expected_tree, tree

SECRET = b"nobody may see this"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_bytes(SECRET)
    return path


def refused(path: Path) -> int:
    """The error of stat and of open, which must be one and the same."""
    errors = set()
    for attempt in (path.stat, path.read_bytes):
        with pytest.raises(OSError) as caught:
            attempt()
        errors.add(caught.value.errno)
    assert len(errors) == 1
    return errors.pop()


def test_a_link_that_ends_elsewhere(handmade: Repo, mount, secret):
    """Absolute, relative, through `..`, to a directory, to itself: listed, and refused."""
    handmade.file(COMMIT, "good.txt", b"good")
    handmade.ref("main", COMMIT)
    up = os.path.relpath(secret, handmade.path / "snapshots" / COMMIT)
    links = {
        "absolute": str(secret),
        "passwd": "/etc/passwd",
        "relative": up,
        "through-blobs": f"../../blobs/../../{os.path.relpath(secret, handmade.cache)}",
        "refs": "../../refs/main",
        "directory": "/etc",
        "blobs-itself": "../../blobs",
        "dev": "/dev/zero",
        "proc": "/proc/self/environ",
        "odd": "../../blobs/.",
    }
    for name, target in links.items():
        handmade.link(COMMIT, name, target)
    base = mount(handmade.cache).repo("org/name")
    assert os.listdir(base) == sorted([*links, "good.txt"])
    for name in links:
        assert refused(base / name) == errno.EPERM, name
    assert (base / "good.txt").read_bytes() == b"good"


def test_a_link_to_itself(handmade: Repo, mount):
    handmade.ref("main", COMMIT)
    handmade.link(COMMIT, "loop", "loop")
    handmade.link(COMMIT, "one", "two")
    handmade.link(COMMIT, "two", "one")
    base = mount(handmade.cache).repo("org/name")
    for name in ("loop", "one", "two"):
        assert refused(base / name) in (errno.EPERM, errno.ELOOP)


def test_a_link_into_another_repos_blobs(fresh_cache, mount):
    other = simple_cache(fresh_cache, {"private.bin": SECRET}, folder="models--org--private")
    etag = other.blob(SECRET)
    repo = simple_cache(fresh_cache)
    repo.link(COMMIT, "stolen.bin", f"../../../models--org--private/blobs/{etag}")
    base = mount(fresh_cache).repo("org/name")
    assert refused(base / "stolen.bin") == errno.EPERM


def test_a_blob_that_is_a_link(handmade: Repo, mount, secret):
    """`blobs/<etag>` may be a link into the shared store, and to nowhere else."""
    etag = "a" * 64
    os.symlink(secret, handmade.path / "blobs" / etag)
    handmade.link(COMMIT, "model.bin", f"../../blobs/{etag}")
    handmade.ref("main", COMMIT)
    base = mount(handmade.cache).repo("org/name")
    assert refused(base / "model.bin") == errno.EPERM


def test_a_blob_that_is_a_link_though_a_tree_vouches_for_it(handmade: Repo, mount, secret):
    entry = lfs_entry(SECRET)
    os.symlink(secret, handmade.path / "blobs" / entry["lfs_sha256"])
    handmade.tree(COMMIT, {"model.bin": entry})
    handmade.ref("main", COMMIT)
    with pytest.raises(OSError):
        (mount(handmade.cache).repo("org/name") / "model.bin").read_bytes()


def test_a_link_into_an_unmarked_store(handmade: Repo, mount):
    """`<cache>/blobs` without the library's marker is a stranger's directory."""
    store = handmade.cache / "blobs" / "ab"
    store.mkdir(parents=True)
    (store / ("ab" * 32)).write_bytes(SECRET)
    os.symlink("../../blobs/ab/" + "ab" * 32, handmade.path / "blobs" / ("c" * 64))
    handmade.link(COMMIT, "model.bin", "../../blobs/" + "c" * 64)
    handmade.ref("main", COMMIT)
    with pytest.raises(OSError):
        (mount(handmade.cache).repo("org/name") / "model.bin").read_bytes()


def test_a_directory_link_in_a_snapshot(handmade: Repo, mount):
    handmade.file(COMMIT, "good.txt", b"good")
    handmade.link(COMMIT, "etc", "/etc")
    handmade.link(COMMIT, "up", "..")
    handmade.ref("main", COMMIT)
    base = mount(handmade.cache).repo("org/name")
    for name in ("etc/passwd", "up/main/good.txt", "up"):
        with pytest.raises(OSError):
            (base / name).stat()


def test_a_snapshot_that_is_a_link(handmade: Repo, mount, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret.txt").write_bytes(SECRET)
    os.symlink(tmp_path / "elsewhere", handmade.path / "snapshots" / COMMIT)
    handmade.ref("main", COMMIT)
    with pytest.raises(OSError):
        (mount(handmade.cache).repo("org/name") / "secret.txt").read_bytes()


def test_what_is_no_file(handmade: Repo, mount, need_root):
    """A FIFO, a socket and a device in place of blobs and files: never opened, so nothing hangs."""
    handmade.file(COMMIT, "good.txt", b"good")
    handmade.ref("main", COMMIT)
    place = handmade.path / "snapshots" / COMMIT
    os.mkfifo(place / "fifo")
    os.mkfifo(handmade.path / "blobs" / ("f" * 40))
    handmade.link(COMMIT, "fifo-blob", "../../blobs/" + "f" * 40)
    os.mknod(place / "zero", 0o20666, os.makedev(1, 5))
    here = os.getcwd()
    os.chdir(place)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
        os.chdir(here)
        base = mount(handmade.cache).repo("org/name")
        for name in ("fifo", "fifo-blob", "zero", "socket"):
            assert refused(base / name) == errno.EPERM, name
        assert (base / "good.txt").read_bytes() == b"good"


def test_links_of_the_layout_must_be_the_users_or_roots(fresh_cache, mount, tmp_path, stranger):
    """Somebody who may write into a shared cache makes a repo, or its `blobs`, of another directory."""
    hidden = simple_cache(tmp_path / "hidden", {"secret.txt": SECRET})
    os.symlink(hidden.path, fresh_cache / "models--evil--repo")
    os.lchown(fresh_cache / "models--evil--repo", stranger, stranger)
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    os.rename(repo.path / "blobs", tmp_path / "blobs-away")
    os.symlink(tmp_path / "blobs-away", repo.path / "blobs")
    os.lchown(repo.path / "blobs", stranger, stranger)
    at = mount(fresh_cache)
    with pytest.raises(OSError):
        (at.repo("evil/repo") / "secret.txt").read_bytes()
    with pytest.raises(OSError):
        (at.repo("org/name") / "config.json").read_bytes()


def test_links_of_ones_own_are_followed_for_the_user_too(fresh_cache, tmp_path, as_user):
    """Not root, own cache, own links, through fusermount3."""
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    os.rename(repo.path, tmp_path / "moved")
    os.symlink(tmp_path / "moved", repo.path)
    done = as_user('"$MM" "$CACHE" "$MNT" && cat "$MNT/models/org/name/main/config.json"', cache=fresh_cache)
    assert (done.returncode, done.stdout) == (0, "{}"), done.stderr


def test_no_secret_while_a_link_is_swapped(handmade: Repo, mount, secret):
    """The blob is exchanged for a link to the secret, back and forth, while it is read: never the secret's bytes."""
    good = b"g" * len(SECRET)
    blob = handmade.path / "blobs" / "blob1"
    handmade.file(COMMIT, "model.bin", good, etag="blob1")
    handmade.ref("main", COMMIT)
    path = mount(handmade.cache).repo("org/name") / "model.bin"
    stop = threading.Event()
    spare = handmade.path / "blobs" / "spare"

    def swap() -> None:
        while not stop.is_set():
            os.symlink(secret, spare)
            os.replace(spare, blob)
            spare.write_bytes(good)
            os.replace(spare, blob)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(1500):
            try:
                seen.add(path.read_bytes())
            except OSError:
                pass
    finally:
        stop.set()
        thread.join()
    assert seen <= {good}


def test_no_secret_while_a_directory_is_swapped(handmade: Repo, mount, tmp_path):
    """The same with a directory of the snapshot: `sub` is now a directory, now a link to another."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file.txt").write_bytes(SECRET)
    place = handmade.path / "snapshots" / COMMIT
    (place / "sub").mkdir(parents=True)
    (place / "sub/file.txt").write_bytes(b"good")
    handmade.ref("main", COMMIT)
    base = mount(handmade.cache).repo("org/name")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(place / "sub", place / "aside")
            os.symlink(outside, place / "sub")
            (place / "sub").unlink()
            os.rename(place / "aside", place / "sub")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(1500):
            try:
                seen.add((base / "sub/file.txt").read_bytes())
            except OSError:
                pass
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"good"}


@pytest.mark.parametrize("name", ["..", "../..", "a/../../b", ".", "a//b", "/etc/passwd"])
def test_paths_that_lead_out_in_a_tree(handmade: Repo, mount, name):
    """Such a list is not believed at all; what the snapshot shows counts."""
    handmade.file(COMMIT, "good.txt", b"good")
    handmade.ref("main", COMMIT)
    handmade.tree(COMMIT, {"good.txt": b"good", name: b"evil"})
    base = mount(handmade.cache).repo("org/name")
    assert_same(expected_tree({"good.txt": b"good"}), tree(base))


def test_a_link_into_the_mount_itself(handmade: Repo, mount):
    """Following it would ask the daemon that is just looking: it is refused, and the daemon lives and ends."""
    handmade.file(COMMIT, "good.txt", b"good")
    handmade.ref("main", COMMIT)
    at = mount(handmade.cache)
    for number in range(40):  # more than there are workers
        inside = at / f"models/org/name/{COMMIT}/sub/{number}"
        handmade.link(COMMIT, f"evil-{number}", str(inside))
    names = [f"evil-{number}" for number in range(40)]
    base = at.repo("org/name", COMMIT)

    def look(name: str) -> None:
        for _ in range(5):
            with pytest.raises(OSError):
                (base / name).stat()

    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a look-up hangs"
    assert (base / "good.txt").read_bytes() == b"good"
    at.unmount()
