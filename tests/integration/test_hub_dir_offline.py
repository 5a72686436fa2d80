# SPDX-License-Identifier: Apache-2.0
"""`HF_HUB_CACHE=<mount>/hub` with the network off: the real library finds what is there, and says so of what is not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.library import VERSIONS, Library
from tests.support.mounts import Mount
from tests.support.repos import TINY_REVISIONS
from tests.support.trees import assert_same, repo_tree, tree

FIND = """
import hashlib
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache, _CACHED_NO_EXIST

def digest(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()

def attempt(call, **arguments):
    try:
        return call(**arguments)
    except Exception as error:
        return type(error).__name__

def main(repo_id, repo_type, revision, files, missing):
    where = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision}
    def cached(name):
        found = try_to_load_from_cache(filename=name, **where)
        return "no_exist" if found is _CACHED_NO_EXIST else found
    return {
        "files": {name: digest(hf_hub_download(filename=name, **where)) for name in files},
        "cached": {name: digest(cached(name)) for name in files},
        "snapshot": snapshot_download(**where),
        "known_missing": {name: cached(name) for name in missing},
        "missing": {name: attempt(hf_hub_download, filename=name, **where) for name in missing},
    }
"""


def offline(at: Mount) -> dict[str, str]:
    return {"HF_HUB_CACHE": str(at / "hub"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(params=VERSIONS)
def version(request, library) -> Library:
    return library(request.param)


def test_every_file_of_every_repo_is_found(version, tiny, hub_repos):
    with version.worker(offline(tiny)) as worker:
        for repo in hub_repos.values():
            if repo.type == "kernel" and version.version in ("0.36.2", "1.17.0"):
                continue
            files = {path: file.content.sha256 for path, file in repo.files().items()}
            arguments = {"repo_id": repo.id, "repo_type": repo.type, "revision": None, "files": list(files)}
            found = worker.run(FIND, arguments | {"missing": ["none.json", "sub/none.txt"]})
            assert found["files"] == found["cached"] == files
            assert found["snapshot"].endswith(f"/snapshots/{repo.head()}")
            assert found["known_missing"] == {"none.json": "no_exist", "sub/none.txt": "no_exist"}
            assert set(found["missing"].values()) <= {"LocalEntryNotFoundError", "EntryNotFoundError"}


def test_every_revision_is_found(version, tiny, hub_repos):
    repo = hub_repos["org/tiny"]
    with version.worker(offline(tiny)) as worker:
        for revision in (*TINY_REVISIONS, repo.resolve("v1.0").sha):
            files = {"config.json": repo.files(revision)["config.json"].content.sha256}
            arguments = {"repo_id": "org/tiny", "repo_type": "model", "revision": revision, "files": list(files)}
            assert worker.run(FIND, arguments | {"missing": []})["files"] == files


def test_a_cache_without_trees_too(mount, library, made_cache, hub_repos):
    """Of a version that writes no `trees/`: what is there is found; what is not is not known to be missing."""
    at = mount(made_cache("0.36.2"))
    repo = hub_repos["org/tiny"]
    files = {path: file.content.sha256 for path, file in repo.files().items()}
    with library("0.36.2").worker(offline(at)) as worker:
        arguments = {"repo_id": "org/tiny", "repo_type": "model", "revision": None, "files": list(files)}
        found = worker.run(FIND, arguments | {"missing": ["none.json"]})
    assert found["files"] == files
    assert found["known_missing"] == {"none.json": None}
    assert found["missing"] == {"none.json": "LocalEntryNotFoundError"}


def test_nothing_is_complained_about(version, tiny):
    """No error and no warning on stderr, above all not of a file that could not be written."""
    code = (
        "from huggingface_hub import snapshot_download, hf_hub_download\n"
        "snapshot_download('org/tiny'); hf_hub_download('org/pipeline', 'model_index.json')\n"
    )
    done = subprocess.run(
        [version.bin / "python", "-c", code],
        env=version.environment(offline(tiny)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_repo_that_is_not_there(version, tiny):
    script = """
from huggingface_hub import hf_hub_download
def main():
    try:
        hf_hub_download("org/none", "config.json")
    except Exception as error:
        return type(error).__name__
"""
    assert version.run(script, env=offline(tiny)) == "LocalEntryNotFoundError"


def test_the_command_line_lists_it(current, tiny, hub_repos):
    done = current.hf("cache", "ls", env=offline(tiny))
    assert done.returncode == 0, done.stderr
    for repo in hub_repos.values():
        assert repo.id in done.stdout


def test_an_incomplete_snapshot_is_said_to_be_one(current, mount, fresh_cache):
    """The library's own check of completeness works through the mount, by the tree that is there."""
    current.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["*.json"])
    at = mount(fresh_cache)
    script = """
from huggingface_hub import snapshot_download, hf_hub_download
def main():
    path = hf_hub_download("org/tiny", "config.json")
    snapshot_download("org/tiny", allow_patterns=["*.json"])
    return open(path).read()
"""
    assert '"tiny"' in current.run(script, env=offline(at))


def test_the_shape_of_the_directory(tiny, hub_repos, current_cache):
    repo = hub_repos["org/tiny"]
    base = tiny / "hub/models--org--tiny"
    assert (base / "refs/main").read_text() == repo.head()
    assert (base / "refs/refs/pr/1").read_text() == repo.resolve("refs/pr/1").sha
    assert (base / "refs/feature/x").read_text() == repo.head("feature/x")
    assert sorted(os.listdir(base / "snapshots")) == sorted(repo.commits)
    for commit in repo.commits:
        assert_same(repo_tree(repo, commit), tree(base / "snapshots" / commit))
        name = f"trees/{commit}.json"
        assert (base / name).read_bytes() == (current_cache / "models--org--tiny" / name).read_bytes()
    assert not [path for path in tree(tiny / "hub") if b"blobs" in path]


def test_misses_are_answered_by_what_the_tree_lacks(tiny, hub_repos):
    base: Path = tiny / f"hub/models--org--tiny/.no_exist/{hub_repos['org/tiny'].head()}"
    for name in ("none.json", "onnx/none.onnx", "a/b/c/none.txt"):
        assert (base / name).read_bytes() == b""
    for name in ("config.json", "onnx/model.onnx"):
        assert not (base / name).exists()


def test_recorded_misses_of_a_cache_without_trees(mount, library, hub, fresh_cache, hub_repos):
    old = library("1.17.0")
    old.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["config.json"])
    script = """
from huggingface_hub import hf_hub_download
def main(cache_dir):
    try:
        hf_hub_download("org/tiny", "added_tokens.json", cache_dir=cache_dir)
    except Exception as error:
        return type(error).__name__
"""
    assert "EntryNotFoundError" in old.run(script, cache_dir=str(fresh_cache))
    at = mount(fresh_cache)
    base = at / f"hub/models--org--tiny/.no_exist/{hub_repos['org/tiny'].head()}"
    assert (base / "added_tokens.json").read_bytes() == b""
    assert not (base / "never_asked.json").exists()
