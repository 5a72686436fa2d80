# SPDX-License-Identifier: Apache-2.0
"""Hub caches written by hand: what the library would not write today, or never."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from tests.hub.content import git_blob_sha1

COMMIT = hashlib.sha1(b"one commit").hexdigest()
OTHER = hashlib.sha1(b"another commit").hexdigest()


class Repo:
    """One repo's folder in a cache, laid out as huggingface_hub does."""

    def __init__(self, cache: Path, folder: str = "models--org--name"):
        self.cache = cache
        self.path = cache / folder
        for name in ("blobs", "refs", "snapshots"):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def ref(self, name: str, commit: str) -> Path:
        """Point a ref at a commit, atomically, as the current version does."""
        path = self.path / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.0123abcd.tmp")
        temporary.write_text(commit)
        os.replace(temporary, path)
        return path

    def blob(self, data: bytes, etag: str | None = None) -> str:
        """Keep the bytes as a blob; its etag."""
        etag = etag or git_blob_sha1(data)
        (self.path / "blobs" / etag).write_bytes(data)
        return etag

    def link(self, commit: str, path: str | bytes, target: str | bytes) -> bytes:
        """A link in a snapshot, to exactly this target; its place."""
        place = os.path.join(os.fsencode(self.path), b"snapshots", commit.encode(), os.fsencode(path))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(os.fsencode(target), place)
        return place

    def file(self, commit: str, path: str | bytes, data: bytes, etag: str | None = None) -> str:
        """A blob, and the relative link to it; the blob's etag."""
        etag = self.blob(data, etag)
        depth = os.fsencode(path).count(b"/") + 2
        self.link(commit, path, "../" * depth + f"blobs/{etag}")
        return etag

    def tree(self, commit: str, files: dict[str, bytes | dict]) -> Path:
        """`trees/<commit>.json`: the files by their bytes, or their entries as they are to stand there."""
        entries = {}
        for path, value in files.items():
            entries[path] = value if isinstance(value, dict) else {"size": len(value), "blob_id": git_blob_sha1(value)}
        target = self.path / "trees" / f"{commit}.json"
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_text(json.dumps({"format_version": 1, "files": entries}, indent=1))
        os.replace(temporary, target)
        return target


def lfs_entry(data: bytes, xet_hash: str | None = None) -> dict:
    """The entry of an LFS file in `trees/<commit>.json`."""
    sha256 = hashlib.sha256(data).hexdigest()
    entry = {"size": len(data), "blob_id": "0" * 40, "lfs_sha256": sha256, "lfs_size": len(data)}
    if xet_hash is not None:
        entry["xet_hash"] = xet_hash
    return entry


def simple_cache(cache: Path, files: dict[str, bytes] | None = None, folder: str = "models--org--name") -> Repo:
    """One repo with `main` and some files."""
    repo = Repo(cache, folder)
    for path, data in (files or {"config.json": b"{}", "dir/weights.bin": b"w" * 5000}).items():
        repo.file(COMMIT, path, data)
    repo.ref("main", COMMIT)
    return repo
