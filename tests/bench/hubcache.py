# SPDX-License-Identifier: Apache-2.0
"""
Hub caches made on disk, in the layout that huggingface_hub writes since 1.22, without downloading anything.

Beside it lies the same tree as plain files, hard links to the same blobs: the bare file system to compare with.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Iterable

MIB = 1 << 20


class HubCache:
    """A cache at `root`/hub and its plain trees at `root`/plain."""

    def __init__(self, root: Path):
        self.hub = root / "hub"
        self.plain = root / "plain"

    def add(self, repo_id: str, files: Iterable[tuple[str, bytes]], plain: bool = True) -> None:
        """Adds a model whose files are all small, and, if `plain`, its plain tree."""
        repo = _Repo(self, repo_id, plain)
        for name, content in files:
            repo.add_small(name, content)
        repo.finish()

    def add_large(self, repo_id: str, name: str, size: int) -> Path:
        """Adds a model of one large file of `size` bytes, a multiple of 1 MiB. Returns its blob."""
        repo = _Repo(self, repo_id, plain=True)
        blob = repo.add_large(name, size)
        repo.finish()
        return blob


class _Repo:
    def __init__(self, cache: HubCache, repo_id: str, plain: bool):
        self._dir = cache.hub / f"models--{repo_id.replace('/', '--')}"
        self._plain = cache.plain / repo_id if plain else None
        self._commit = hashlib.sha1(repo_id.encode()).hexdigest()
        self._snapshot = self._dir / "snapshots" / self._commit
        self._tree: dict[str, dict[str, int | str]] = {}
        self._folders: set[str] = set()
        self._links: dict[str, str] = {}  # by the text of a link: one that says so
        for part in ("blobs", "refs", "snapshots", "trees"):
            (self._dir / part).mkdir(parents=True)

    def add_small(self, name: str, content: bytes) -> None:
        etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = f"{self._dir}/blobs/{etag}"
        self._add_folder(name)
        self._tree[name] = {"size": len(content), "blob_id": etag}
        if self._link(name, etag):
            _write(blob, content)
            if self._plain:
                os.link(blob, self._plain / name)
        elif self._plain:
            _write(f"{self._plain}/{name}", content)

    def add_large(self, name: str, size: int) -> Path:
        # The digest is not that of the content, which nobody checks: only its form matters here.
        etag = hashlib.sha256(f"{self._commit}/{name}".encode()).hexdigest()
        blob = self._dir / "blobs" / etag
        pattern = os.urandom(16 * MIB)
        with open(blob, "xb") as file:
            for at in range(0, size, len(pattern)):
                file.write(pattern[: size - at])
        pointer = hashlib.sha1(etag.encode()).hexdigest()
        self._add_folder(name)
        self._tree[name] = {"size": size, "blob_id": pointer, "lfs_sha256": etag, "lfs_size": size}
        self._link(name, etag)
        assert self._plain
        os.link(blob, self._plain / name)
        return blob

    def finish(self) -> None:
        """Writes the list of the commit's files and the ref that points at it."""
        tree = {"format_version": 1, "files": {name: self._tree[name] for name in sorted(self._tree)}}
        (self._dir / "trees" / f"{self._commit}.json").write_text(json.dumps(tree, indent=1), encoding="utf-8")
        (self._dir / "refs" / "main").write_text(self._commit, encoding="ascii")

    def _add_folder(self, name: str) -> None:
        folder = os.path.dirname(name)
        if folder not in self._folders:
            for tree in (self._snapshot, self._plain):
                if tree:
                    os.makedirs(tree / folder, exist_ok=True)
            self._folders.add(folder)

    def _link(self, name: str, etag: str) -> bool:
        """Whether that is the first link that says so. Later ones are hard links to it: inodes are slow to make."""
        text = f"{'../' * (name.count('/') + 2)}blobs/{etag}"
        path = f"{self._snapshot}/{name}"
        same = self._links.setdefault(text, path)
        if same == path:
            os.symlink(text, path)
        else:
            os.link(same, path, follow_symlinks=False)
        return same == path


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, content)
    os.close(fd)


def small_files(count: int, per_folder: int, size: int, contents: int) -> Iterable[tuple[str, bytes]]:
    """`count` files of about `size` bytes, `per_folder` in each folder, of `contents` different contents."""
    filling = os.urandom(2 * size)
    for number in range(count):
        which = number % contents
        content = b"%06d" % which + filling[: size // 2 + which * 7919 % size]
        yield f"{number // per_folder:04}/{number:06}.json", content
