# SPDX-License-Identifier: Apache-2.0
"""A repo of the test Hub: commits, refs and files, with the hashes that git and git-lfs would give them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import PurePosixPath
from typing import Iterator, Mapping

from .content import Bytes, Content, ContentLike, as_content, git_blob_sha1

REPO_TYPES = ("model", "dataset", "space", "kernel")

# What the Hub's own .gitattributes sends to LFS (and so to Xet), and from which size on it insists.
LFS_SUFFIXES = frozenset(
    ".7z .arrow .bin .bz2 .ckpt .ftz .gguf .gz .h5 .joblib .lfs .mlmodel .model .msgpack .npy .npz .onnx .ot "
    ".parquet .pb .pickle .pkl .pt .pth .rar .safetensors .tar .tflite .tgz .wasm .xz .zip .zst".split()
)
LFS_SIZE = 10 * 1000 * 1000

FIRST_DATE = datetime(2024, 3, 1, 12, 0, tzinfo=timezone.utc)


@dataclass
class HubFile:
    """One file of a commit: its content, and where the Hub would keep it."""

    content: Content
    lfs: bool = False
    xet: bool = False

    @property
    def size(self) -> int:
        return self.content.size

    @cached_property
    def pointer(self) -> bytes:
        """The text that git holds in place of an LFS file."""
        return (
            b"version https://git-lfs.github.com/spec/v1\n"
            b"oid sha256:%s\nsize %d\n" % (self.content.sha256.encode(), self.size)
        )

    @cached_property
    def oid(self) -> str:
        """The name of git's blob: of the file itself, or of its LFS pointer."""
        return git_blob_sha1(self.pointer) if self.lfs else self.content.git_sha1

    @property
    def etag(self) -> str:
        """The name under which the cache keeps it."""
        return self.content.sha256 if self.lfs else self.oid

    @cached_property
    def xet_hash(self) -> str | None:
        """A name of Xet's shape. It is not Xet's own hash: nothing here speaks Xet."""
        if not self.xet:
            return None
        return hashlib.blake2b(self.content.sha256.encode(), digest_size=32).hexdigest()


def hub_file(path: str, value: ContentLike | HubFile) -> HubFile:
    """A file as the Hub would take it at an upload: large and binary ones go to LFS, and from there to Xet."""
    if isinstance(value, HubFile):
        return value
    content = as_content(value)
    lfs = PurePosixPath(path).suffix in LFS_SUFFIXES or content.size >= LFS_SIZE
    return HubFile(content, lfs=lfs, xet=lfs)


@dataclass
class Folder:
    """A directory of a commit, as git's tree objects hold it."""

    files: dict[str, HubFile] = field(default_factory=dict)
    folders: dict[str, "Folder"] = field(default_factory=dict)

    @cached_property
    def oid(self) -> str:
        entries = [(name.encode(), b"100644", f.oid) for name, f in self.files.items()]
        entries += [(name.encode() + b"/", b"40000", d.oid) for name, d in self.folders.items()]
        body = b"".join(
            mode + b" " + name.rstrip(b"/") + b"\0" + bytes.fromhex(oid) for name, mode, oid in sorted(entries)
        )
        return hashlib.sha1(b"tree %d\0" % len(body) + body).hexdigest()

    def walk(self, prefix: str, recursive: bool) -> Iterator[tuple[str, "Folder | HubFile"]]:
        """In the Hub's order: folders before files, and with `recursive` each folder's content after it."""
        for name in sorted(self.folders):
            yield prefix + name, self.folders[name]
            if recursive:
                yield from self.folders[name].walk(f"{prefix}{name}/", True)
        for name in sorted(self.files):
            yield prefix + name, self.files[name]


@dataclass
class HubCommit:
    """One commit: what it says, when, and all files of its tree."""

    files: dict[str, HubFile]
    message: str
    date: datetime
    parent: str | None = None

    @cached_property
    def root(self) -> Folder:
        root = Folder()
        for path, file in self.files.items():
            *folders, name = path.split("/")
            at = root
            for folder in folders:
                at = at.folders.setdefault(folder, Folder())
            at.files[name] = file
        return root

    @cached_property
    def sha(self) -> str:
        when = f"hub <hub@example.org> {int(self.date.timestamp())} +0000"
        lines = [f"tree {self.root.oid}"]
        if self.parent:
            lines.append(f"parent {self.parent}")
        lines += [f"author {when}", f"committer {when}", "", self.message]
        body = "\n".join(lines).encode()
        return hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()

    @property
    def title(self) -> str:
        return self.message.split("\n", 1)[0]

    def folder(self, path: str) -> Folder | None:
        """The directory at `path` ('' is the root), or None."""
        at = self.root
        for name in [part for part in path.split("/") if part]:
            if name not in at.folders:
                return None
            at = at.folders[name]
        return at

    @cached_property
    def listings(self) -> dict[tuple[str, bool], list[tuple[str, Folder | HubFile]]]:
        """Listings asked for so far: a page of a tree of 100,000 files must not walk all of it."""
        return {}

    def listing(self, path: str, recursive: bool) -> list[tuple[str, Folder | HubFile]] | None:
        key = (path, recursive)
        if key not in self.listings:
            folder = self.folder(path)
            if folder is None:
                return None
            self.listings[key] = list(folder.walk(f"{path}/" if path else "", recursive))
        return self.listings[key]


class HubRepo:
    """
    A repo as a test writes it down.

        repo = HubRepo("org/name")
        first = repo.commit({"config.json": "{}", "model.safetensors": Pattern(1, 5 << 20)})
        repo.commit({"config.json": "{ }", "old.txt": None})      # the other files stay
        repo.tag("v1.0", first)
    """

    def __init__(
        self,
        repo_id: str,
        type: str = "model",
        *,
        private: bool = False,
        gated: bool = False,
        disabled: bool = False,
        readers: tuple[str, ...] = (),
    ):
        if type not in REPO_TYPES:
            raise ValueError(f"no such repo type: {type}")
        self.id = repo_id
        self.type = type
        self.private = private
        self.gated = gated
        self.disabled = disabled
        self.readers = set(readers)
        """Users who may read it where it is private or gated."""
        self.commits: dict[str, HubCommit] = {}
        self.refs: dict[str, str] = {}
        """Full name (`refs/heads/main`) → commit."""

    def commit(
        self,
        files: Mapping[str, ContentLike | HubFile | None],
        message: str = "Upload files",
        *,
        branch: str = "main",
        date: datetime | None = None,
    ) -> str:
        """Add a commit on a branch: the branch's files, these over them (None takes one away). Its hash."""
        ref = f"refs/heads/{branch}"
        parent = self.refs.get(ref)
        tree = dict(self.commits[parent].files) if parent else {}
        for path, value in files.items():
            if value is None:
                tree.pop(path)
            else:
                tree[path] = hub_file(path, value)
        date = date or FIRST_DATE + timedelta(hours=len(self.commits))
        commit = HubCommit(dict(sorted(tree.items())), message, date, parent)
        self.commits[commit.sha] = commit
        self.refs[ref] = commit.sha
        return commit.sha

    def branch(self, name: str, commit: str) -> None:
        self.refs[f"refs/heads/{name}"] = commit

    def tag(self, name: str, commit: str) -> None:
        self.refs[f"refs/tags/{name}"] = commit

    def ref(self, name: str, commit: str) -> None:
        """A ref by its full name, such as `refs/pr/1` or `refs/convert/parquet`."""
        self.refs[name] = commit

    def resolve(self, revision: str) -> HubCommit | None:
        """The commit that a branch, tag, full ref or commit hash (7 digits are enough) means."""
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        if len(revision) >= 7:
            found = [sha for sha in self.commits if sha.startswith(revision)]
            if len(found) == 1:
                return self.commits[found[0]]
        return None

    def history(self, commit: HubCommit) -> list[HubCommit]:
        """From this commit back to the first."""
        out = [commit]
        while out[-1].parent:
            out.append(self.commits[out[-1].parent])
        return out

    def files(self, revision: str = "main") -> dict[str, HubFile]:
        """The files of a revision, which must exist."""
        commit = self.resolve(revision)
        assert commit is not None, f"{self.id} has no revision {revision}"
        return commit.files

    def head(self, branch: str = "main") -> str:
        return self.refs[f"refs/heads/{branch}"]

    def write_to(self, directory: str | os.PathLike, revision: str = "main") -> None:
        """Write a revision's files out as plain files: what every copy of it is compared with."""
        for path, file in self.files(revision).items():
            target = os.path.join(os.fspath(directory), path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            file.content.write_to(target)


def directory_repo(repo_id: str, directory: str | os.PathLike, type: str = "model") -> HubRepo:
    """A repo of one commit with the files below a directory, which are read when they are asked for."""
    from .content import OnDisk

    repo = HubRepo(repo_id, type)
    base = os.fspath(directory)
    files = {}
    for folder, _, names in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                files[os.path.relpath(path, base)] = OnDisk(path)
    repo.commit(files or {"README.md": Bytes(b"")})
    return repo
