# SPDX-License-Identifier: Apache-2.0
"""What a commit has and the cache lacks is listed and cannot be read: a copy fails, it is never short."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from tests.support.handmade import COMMIT, lfs_entry, simple_cache
from tests.support.trees import tree


def read_error(path) -> int:
    with pytest.raises(OSError) as caught:
        path.read_bytes()
    return caught.value.errno


@pytest.fixture(params=["1.22.0", "2.4.0"])
def partly(request, library, fresh_cache):
    """org/tiny with its JSON files alone, and the tree that both versions write."""
    library(request.param).download("org/tiny", cache_dir=fresh_cache, allow_patterns=["*.json"])
    return fresh_cache


def test_all_files_are_listed_with_their_sizes(mount, partly, hub_repos):
    base = mount(partly).repo("org/tiny")
    found = {}
    for folder, _, files in os.walk(base):
        for name in files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, base)] = os.stat(path).st_size
    assert found == {path: file.size for path, file in hub_repos["org/tiny"].files().items()}


def test_what_is_there_reads_and_the_rest_does_not(mount, partly, hub_repos):
    at = mount(partly)
    base = at.repo("org/tiny")
    for path, file in hub_repos["org/tiny"].files().items():
        if path.endswith(".json"):
            assert (base / path).read_bytes() == file.content.read(0, file.size)
        else:
            assert read_error(base / path) == errno.ENETUNREACH
    line = next(line for line in at.log().splitlines() if "onnx/model.onnx" in line)
    assert "org/tiny" in line


def test_tar_and_cp_fail(mount, partly, tmp_path):
    base = mount(partly).repo("org/tiny")
    done = subprocess.run(["tar", "-C", base, "-cf", tmp_path / "a.tar", "."], capture_output=True, text=True)
    assert done.returncode != 0 and "unreachable" in done.stderr
    done = subprocess.run(["cp", "-r", base, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode != 0 and "unreachable" in done.stderr
    done = subprocess.run(["rsync", "-a", f"{base}/", tmp_path / "rsync"], capture_output=True, text=True)
    assert done.returncode != 0


def test_one_file_by_hf_hub_download(mount, current, fresh_cache):
    """
    `hf_hub_download` alone writes no tree: only what was downloaded is known, and it is all that is shown.
    """
    script = """
from huggingface_hub import hf_hub_download
def main(cache_dir):
    return hf_hub_download("org/tiny", "config.json", cache_dir=cache_dir)
"""
    current.run(script, cache_dir=str(fresh_cache))
    assert sorted(tree(mount(fresh_cache).repo("org/tiny"))) == [b"config.json"]


def test_a_blob_of_another_size_is_not_served(mount, fresh_cache):
    """A blob that was cut short (a full disk, a killed copy) is not what the tree says it is."""
    data = b"d" * 50_000
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    entry = lfs_entry(data)
    repo.file(COMMIT, "model.bin", data[:-1], etag=entry["lfs_sha256"])
    repo.tree(COMMIT, {"config.json": b"{}", "model.bin": entry})
    base = mount(fresh_cache).repo("org/name")
    assert (base / "model.bin").stat().st_size == len(data)
    assert read_error(base / "model.bin") in (errno.ENETUNREACH, errno.EIO)
    assert (base / "config.json").read_bytes() == b"{}"


def test_a_blob_without_its_link_is_there(mount, fresh_cache):
    """The tree names the blob; whether a snapshot links to it does not matter."""
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    repo.blob(b"other")
    repo.tree(COMMIT, {"config.json": b"{}", "folder/other.txt": b"other"})
    assert (mount(fresh_cache).repo("org/name") / "folder/other.txt").read_bytes() == b"other"


def test_a_tree_alone_shows_the_commit(mount, fresh_cache):
    """No snapshot was begun, only the list is there: everything is listed, nothing can be read."""
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    other = "d" * 40
    repo.tree(other, {"a/b.txt": b"four"})
    base = mount(fresh_cache) / f"models/org/name/{other}"
    assert (base / "a/b.txt").stat().st_size == 4
    assert read_error(base / "a/b.txt") == errno.ENETUNREACH


def test_names_that_the_tree_lacks_are_not_shown(mount, fresh_cache):
    repo = simple_cache(fresh_cache, {"config.json": b"{}", "stray.txt": b"stray"})
    repo.tree(COMMIT, {"config.json": b"{}"})
    base = mount(fresh_cache).repo("org/name")
    assert os.listdir(base) == ["config.json"] and not (base / "stray.txt").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b'{"format_version": 2, "files": {}}',
        b'{"format_version": 1}',
        b'{"format_version": 1, "files": {"a": {"size": -1, "blob_id": "x"}}}',
        b'{"format_version": 1, "files": {"a": {"size": 1e300, "blob_id": "x"}}}',
        b'{"format_version": 1, "files": {"../a": {"size": 1, "blob_id": "x"}}}',
        b'{"format_version": 1, "files": {"/a": {"size": 1, "blob_id": "x"}}}',
        b'{"format_version": 1, "files": {"a\\u0000b": {"size": 1, "blob_id": "x"}}}',
        b'{"format_version": 1, "files": {"a": {"size": 1, "blob_id": "x"}, "a/b": {"size": 1, "blob_id": "x"}}}',
        b'{"format_version": 1, "files": {"a": {"size": 1, "blob_id": "../../../etc/passwd"}}}',
        b'{"format_version": 1, "files": ' + b"[" * 5000,
    ],
    ids=range(14),
)
def test_a_tree_that_is_not_one_is_passed_by(mount, fresh_cache, text):
    """What the snapshot shows counts then, the log says why, and the mount lives."""
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    path = repo.tree(COMMIT, {})
    path.write_bytes(text)
    at = mount(fresh_cache)
    assert os.listdir(at.repo("org/name")) == ["config.json"]
    assert (at.repo("org/name") / "config.json").read_bytes() == b"{}"
    assert f"trees/{COMMIT}.json" in at.log()


def test_names_that_differ_in_case_only(mount, fresh_cache):
    repo = simple_cache(fresh_cache, {"README.md": b"upper", "readme.md": b"lower"})
    repo.tree(COMMIT, {"README.md": b"upper", "readme.md": b"lower"})
    base = mount(fresh_cache).repo("org/name")
    assert (base / "README.md").read_bytes() == b"upper" and (base / "readme.md").read_bytes() == b"lower"


def test_a_huge_size_is_shown(mount, fresh_cache):
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    size = 5 * 1000**4
    repo.tree(COMMIT, {"big.bin": {"size": size, "blob_id": "a" * 40, "lfs_sha256": "b" * 64, "lfs_size": size}})
    status = (mount(fresh_cache).repo("org/name") / "big.bin").stat()
    assert status.st_size == size and status.st_blocks >= size // 512
