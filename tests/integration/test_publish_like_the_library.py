# SPDX-License-Identifier: Apache-2.0
"""What is published into a hub cache is what the library would have put there, and what it takes for its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.hub import HubRepo
from tests.support.library import Library
from tests.support.mounts import MODELMOUNT
from tests.support.trees import shape

PUBLISHER = MODELMOUNT.parent / "unit" / "test_publish"

LOOK = """
import os
from dataclasses import asdict
from huggingface_hub import scan_cache_dir, try_to_load_from_cache, snapshot_download
from huggingface_hub._tree_cache import read_tree_cache
def main(cache, folder, repo_id, commit, paths):
    info = scan_cache_dir(cache)
    repo = next(r for r in info.repos if r.repo_id == repo_id)
    tree = read_tree_cache(os.path.join(cache, folder), commit)
    return {
        "warnings": [str(w) for w in info.warnings],
        "refs": {ref: r.commit_hash for ref, r in repo.refs.items()},
        "files": sorted(os.path.relpath(f.file_path, r.snapshot_path) for r in repo.revisions for f in r.files),
        "found": [try_to_load_from_cache(repo_id, path, cache_dir=cache) for path in paths],
        "tree": {path: asdict(entry) for path, entry in (tree or {}).items()},
        "snapshot": snapshot_download(repo_id, cache_dir=cache, local_files_only=True),
    }
"""

WRITE_TREE = """
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache
def main(folder, commit, files):
    write_tree_cache(folder, commit, {path.encode("latin-1").decode("utf-8", "surrogateescape"): TreeCacheEntry(**entry)
                                      for path, entry in files.items()})
"""

HOLD = """
import sys
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(sys.argv[1]):
    print(flush=True)
    input()
"""


def entries(repo: HubRepo, commit: str) -> dict[str, dict]:
    """The tree's entries as the Hub gives them."""
    found = {}
    for path, file in repo.commits[commit].files.items():
        found[path] = {"size": file.content.size, "blob_id": file.oid}
        if file.lfs:
            found[path] |= {"lfs_sha256": file.content.sha256, "lfs_size": file.content.size}
            found[path] |= {"xet_hash": file.xet_hash}
    return found


def lines(files: dict[str, dict], encoding: str = "utf-8") -> bytes:
    out = b""
    for path, entry in files.items():
        fields = (
            entry["size"],
            entry.get("lfs_sha256") or entry["blob_id"],
            entry["blob_id"] if entry.get("lfs_sha256") else "-",
            entry.get("xet_hash") or "-",
        )
        out += " ".join(map(str, fields)).encode() + b" " + path.encode(encoding) + b"\0"
    return out


def publish(cache: Path, folder: str, commit: str, path: str, etag: str, source: Path, tree: bytes) -> None:
    command = [PUBLISHER, cache, folder, commit, path, etag, source, "main"]
    subprocess.run([os.fspath(part) for part in command], input=tree, check=True, timeout=60, umask=0o022)


def publish_all(cache: Path, folder: str, repo: HubRepo, commit: str, scratch: Path) -> None:
    files = entries(repo, commit)
    for number, (path, entry) in enumerate(files.items()):
        content = repo.commits[commit].files[path].content
        source = scratch / f"blob{number}"
        source.write_bytes(content.read(0, content.size))
        publish(cache, folder, commit, path, entry.get("lfs_sha256") or entry["blob_id"], source, lines(files))


@pytest.fixture
def caches(tmp_path: Path) -> tuple[Path, Path]:
    """Two empty caches: ours, and the library's."""
    for name in ("ours", "theirs", "scratch"):
        (tmp_path / name).mkdir()
    return tmp_path / "ours", tmp_path / "theirs"


def test_all_of_a_repo_is_as_the_library_makes_it(current: Library, hub_repos, caches, tmp_path: Path):
    ours, theirs = caches
    repo = hub_repos["org/tiny"]
    old = os.umask(0o022)
    try:
        with current.worker() as worker:  # a child takes over the umask
            script = "from huggingface_hub import snapshot_download as main"
            snapshot = worker.run(script, {"repo_id": "org/tiny", "cache_dir": os.fspath(theirs)})
    finally:
        os.umask(old)
    commit = Path(snapshot).name
    publish_all(ours, "models--org--tiny", repo, commit, tmp_path / "scratch")
    have, want = shape(ours), shape(theirs)
    assert sorted(have) == sorted(want)
    for path in want:
        assert have[path] == want[path], path


def test_the_library_takes_it_for_its_own(current: Library, hub_repos, caches, tmp_path: Path):
    ours, _ = caches
    repo = hub_repos["org/tiny"]
    commit = repo.refs["refs/heads/main"]
    publish_all(ours, "models--org--tiny", repo, commit, tmp_path / "scratch")
    files = entries(repo, commit)
    seen = current.run(
        LOOK,
        env={"HF_HUB_OFFLINE": "1"},
        cache=os.fspath(ours),
        folder="models--org--tiny",
        repo_id="org/tiny",
        commit=commit,
        paths=sorted(files),
    )
    snapshot = ours / "models--org--tiny" / "snapshots" / commit
    assert seen["warnings"] == []
    assert seen["refs"] == {"main": commit}
    assert seen["files"] == sorted(files)
    assert seen["found"] == [os.fspath(snapshot / path) for path in sorted(files)]
    assert seen["snapshot"] == os.fspath(snapshot)
    none = {"lfs_sha256": None, "lfs_size": None, "xet_hash": None}
    assert seen["tree"] == {path: none | entry for path, entry in files.items()}


def test_one_file_of_many_is_no_damage(current: Library, hub_repos, caches, tmp_path: Path):
    ours, _ = caches
    repo = hub_repos["org/tiny"]
    commit = repo.refs["refs/heads/main"]
    content = repo.commits[commit].files["config.json"]
    source = tmp_path / "scratch" / "blob"
    source.write_bytes(content.content.read(0, content.content.size))
    publish(ours, "models--org--tiny", commit, "config.json", content.oid, source, lines(entries(repo, commit)))
    result = current.hf("cache", "ls", "--cache-dir", ours)
    assert "org/tiny" in result.stdout and "orrupt" not in result.stdout + result.stderr


def test_the_list_of_files_is_the_librarys_to_the_byte(current: Library, caches, tmp_path: Path):
    ours, theirs = caches
    oid, sha = "ce013625030ba8dba906f756967f9e9ca394464a", "5" * 64
    # Bytes of names, written as Latin-1: order and escapes of all planes, of quotes and controls, and of what is no UTF-8.
    names = ["a/b", "a-b", "a b", "a", "Z", "z\xcc\x81", "z\xcc\x80", "z"]
    names += ['quo"te\\', "tab\there\x01\x7f\b\f\r"]
    names += ["\xe9", "\xff\xfe", "\xed\xa0\x80", "\xe2\x82"]
    names += [text.encode().decode("latin-1") for text in ("é", "日本", "😀.bin", "\uffff", "\ue000")]
    files = {
        name: {"size": size << 33, "blob_id": oid} | ({"lfs_sha256": sha, "lfs_size": size << 33} if size % 2 else {})
        for size, name in enumerate(names)
    }
    files["a"]["xet_hash"] = "6" * 64
    source = tmp_path / "scratch" / "blob"
    source.write_bytes(b"hello\n")
    publish(ours, "models--x", "0" * 40, "f", oid, source, lines(files, "latin-1"))
    (theirs / "models--x").mkdir()
    current.run(WRITE_TREE, folder=os.fspath(theirs / "models--x"), commit="0" * 40, files=files)
    name = f"models--x/trees/{'0' * 40}.json"
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert len(json.loads((ours / name).read_text())["files"]) == len(names)
    publish(ours, "models--y", "0" * 40, "f", oid, source, b"")
    empty = json.dumps({"format_version": 1, "files": {}}, indent=1)
    assert (ours / f"models--y/trees/{'0' * 40}.json").read_text() == empty


def test_a_download_of_the_library_at_the_same_time_is_waited_for(current: Library, caches, tmp_path: Path):
    ours, _ = caches
    etag = "ce013625030ba8dba906f756967f9e9ca394464a"
    source = tmp_path / "scratch" / "blob"
    source.write_bytes(b"hello\n")
    lock = ours / ".locks" / "models--x" / f"{etag}.lock"
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen(
        [current.bin / "python", "-c", HOLD, lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=current.environment(),
    )
    assert holder.stdin and holder.stdout
    holder.stdout.readline()
    with pytest.raises(subprocess.CalledProcessError):  # it gives up after a second
        publish(ours, "models--x", "0" * 40, "f", etag, source, b"")
    assert not (ours / "models--x").exists()
    holder.communicate(b"\n")
    publish(ours, "models--x", "0" * 40, "f", etag, source, b"")
    assert (ours / "models--x" / "blobs" / etag).read_bytes() == b"hello\n"
