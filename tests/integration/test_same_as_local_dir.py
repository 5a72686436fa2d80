# SPDX-License-Identifier: Apache-2.0
"""Use 1: the mount's directory is what `snapshot_download(local_dir=…)` would have copied, without the copy."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from tests.support.repos import TINY_REVISIONS
from tests.support.trees import assert_same, repo_tree, tree


def test_every_repo_of_every_version(any_cache, mount, hub_repos, local_dirs):
    at = mount(any_cache)
    for repo in hub_repos.values():
        if not (any_cache / f"{repo.type}s--{repo.id.replace('/', '--')}").exists():
            assert repo.type == "kernel"
            continue
        found = tree(at.repo(repo.id, type=repo.type))
        assert_same(repo_tree(repo), found)
        found.pop(b"x" * 255, None)
        assert_same(local_dirs(repo.id), found)


@pytest.mark.parametrize("revision", TINY_REVISIONS)
def test_every_kind_of_revision(tiny, hub_repos, local_dirs, revision):
    """As one path component, with the slash written %2F, and by the commit's hash."""
    commit = hub_repos["org/tiny"].resolve(revision).sha
    for name in (revision, commit):
        assert_same(local_dirs("org/tiny", revision), tree(tiny.repo("org/tiny", name)))


def test_refs_with_slashes_are_real_paths_too(tiny, local_dirs):
    found = tiny / "models/org/tiny/refs/pr/1"
    assert_same(local_dirs("org/tiny", "refs/pr/1"), tree(found))


def test_there_are_no_links(tiny):
    found = subprocess.run(["find", tiny.path, "-type", "l"], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_what_is_listed(tiny, hub_repos):
    assert os.listdir(tiny.path) == ["datasets", "kernels", "models", "spaces"]
    assert os.listdir(tiny / "models") == ["gpt0", "org"]
    assert os.listdir(tiny / "models/org") == ["checkpoints", "pipeline", "strange", "tiny"]
    assert os.listdir(tiny / "models/org/tiny") == ["feature%2Fx", "main", "refs", "v1.0"]
    assert os.listdir(tiny / "models/org/tiny/refs") == ["pr"]
    assert os.listdir(tiny / "models/org/tiny/refs/pr") == ["1"]
    assert os.listdir(tiny / "models/gpt0") == ["main"]
    assert os.listdir(tiny / "datasets/org/data") == ["main"]
    assert os.listdir(tiny / "spaces/org") == ["app"] and os.listdir(tiny / "kernels/org") == ["kern"]


def test_a_commit_without_a_ref_is_listed(own_cache, mount, hub_repos):
    """A commit that no listed ref points at can be found by listing; the others are not there twice."""
    for ref in ("refs/pr/1", "v1.0", "feature/x"):
        (own_cache / "models--org--tiny" / "refs" / ref).unlink()
    old = hub_repos["org/tiny"].resolve("v1.0").sha
    assert os.listdir(mount(own_cache) / "models/org/tiny") == sorted([old, "main"])


def test_listings_are_in_byte_order(tiny, hub_repos):
    for repo_id in ("org/tiny", "org/strange"):
        for folder, folders, files in os.walk(os.fsencode(tiny.repo(repo_id))):
            names = os.listdir(folder)
            assert names == sorted(names)


def test_modes_owners_and_links(tiny):
    for folder, folders, files in os.walk(tiny.path):
        for name in folders:
            status = os.lstat(os.path.join(folder, name))
            assert stat.S_IMODE(status.st_mode) == 0o755 and stat.S_ISDIR(status.st_mode)
        for name in files:
            status = os.lstat(os.path.join(folder, name))
            assert stat.S_IMODE(status.st_mode) == 0o644 and status.st_nlink == 1
            assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
            assert status.st_blocks * 512 >= status.st_size


def test_names_that_are_not_there(tiny):
    for name in (
        "nothing",
        "models/nobody",
        "models/org/none",
        "models/org/tiny/none",
        "models/org/tiny/" + "0" * 40,
        "models/org/tiny/main/none",
        "models/org/tiny/main/onnx/none",
        "models/.git",
        "models/-bad-",
        "models/org/tiny/ma%in",
        "models/org/tiny/" + "x" * 255,
        "hub/none",
        ".modelmount/none",
    ):
        with pytest.raises(FileNotFoundError):
            os.stat(tiny / name)
    with pytest.raises(NotADirectoryError):
        os.stat(tiny / "models/org/tiny/main/config.json/x")
    with pytest.raises(OSError, match="too long"):
        os.stat(tiny / ("models/org/tiny/main/" + "x" * 256))
