# SPDX-License-Identifier: Apache-2.0
"""Directories compared file by file, byte by byte."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Iterable

from tests.hub.content import git_blob_sha1

Tree = dict[bytes, tuple[int, str] | None]


def digest(path: str | bytes | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree(base: str | os.PathLike, ignore: Iterable[str] = ()) -> Tree:
    """
    Every path below `base`: size and SHA-256 of files, None for directories.

    Names are bytes, as they need not be UTF-8. Anything but files and directories, a link above all, is an error.
    """
    root = os.fsencode(os.fspath(base))
    skipped = {os.fsencode(name) for name in ignore}
    found: Tree = {}
    for folder, folders, files in os.walk(root, onerror=raise_it):
        folders[:] = sorted(name for name in folders if name not in skipped)
        for name in folders:
            path = os.path.join(folder, name)
            assert stat.S_ISDIR(os.lstat(path).st_mode), f"{path!r} is no directory"
            found[os.path.relpath(path, root)] = None
        for name in sorted(files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            assert stat.S_ISREG(status.st_mode), f"{path!r} is no file"
            found[os.path.relpath(path, root)] = (status.st_size, digest(path))
    return found


def raise_it(error: OSError) -> None:
    raise error


def assert_same(expected: Tree, found: Tree) -> None:
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not extra, f"missing: {sorted(missing)[:5]}, too many: {sorted(extra)[:5]}"
    differing = [path for path in expected if expected[path] != found[path]]
    assert not differing, f"not the same: {sorted(differing)[:5]}"


def expected_tree(files: dict[str, bytes] | dict[bytes, bytes]) -> Tree:
    """The tree that these files make."""
    found: Tree = {}
    for path, data in files.items():
        raw = os.fsencode(path) if isinstance(path, str) else path
        found[raw] = (len(data), hashlib.sha256(data).hexdigest())
        while b"/" in raw:
            raw = raw.rpartition(b"/")[0]
            found[raw] = None
    return found


def repo_tree(repo, revision: str = "main") -> Tree:
    """The tree of a Hub's repo."""
    files = repo.files(revision)
    return expected_tree({path: file.content.read(0, file.size) for path, file in files.items()})


def snapshot_tree(cache: Path, folder: str, commit: str) -> Tree:
    """What a snapshot of a hub cache holds when its links are followed."""
    base = os.fsencode(cache / folder / "snapshots" / commit)
    found: Tree = {}
    for at, folders, files in os.walk(base, followlinks=False):
        for name in folders:
            found[os.path.relpath(os.path.join(at, name), base)] = None
        for name in files:
            path = os.path.join(at, name)
            found[os.path.relpath(path, base)] = (os.stat(path).st_size, digest(path))
    return found


def shape(cache: Path) -> dict[str, tuple]:
    """Everything in a hub cache: kind, mode, owner, group, and what is in it."""
    found = {}
    for path in sorted(cache.rglob("*")):
        status = path.lstat()
        what: object = None
        if path.is_symlink():
            what = os.readlink(path)
        elif path.is_file():
            what = path.read_bytes()
        found[os.fspath(path.relative_to(cache))] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, what)
    return found


def assert_same_shape(expected: dict[str, tuple], found: dict[str, tuple]) -> None:
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert not missing and not extra, f"missing: {sorted(missing)[:5]}, too many: {sorted(extra)[:5]}"
    for path in expected:
        assert found[path] == expected[path], path


def assert_blobs_are_what_they_claim(cache: Path) -> int:
    """Every blob in a hub cache has the hash that is its name, and every link leads to one; how many blobs there are."""
    count = 0
    for path in cache.glob("*--*/blobs/*"):
        if path.suffix == ".incomplete":  # of a download, or a publishing, that is under way
            continue
        data = path.read_bytes()
        name = hashlib.sha256(data).hexdigest() if len(path.name) == 64 else git_blob_sha1(data)
        assert path.name == name, f"{path} holds something else: {name}, {len(data)} bytes"
        count += 1
    for path in cache.glob("*--*/snapshots/**/*"):
        assert path.is_dir() or path.exists(), f"{path} leads nowhere"
    return count
