# SPDX-License-Identifier: Apache-2.0
"""Use 2: archives of the mount hold plain files, and the same bytes whenever and wherever they are made."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.trees import assert_same, digest, repo_tree, tree

NEUTRAL = ["--owner=0", "--group=0", "--numeric-owner"]


def make_tar(source: Path, target: Path, *options: str) -> Path:
    done = subprocess.run(["tar", *options, "-C", source, "-cf", target, "."], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return target


def test_an_archive_extracts_to_the_same(any_cache, mount, hub_repos, tmp_path):
    at = mount(any_cache)
    for repo_id in ("org/tiny", "org/pipeline", "org/strange"):
        archive = make_tar(at.repo(repo_id), tmp_path / "a.tar")
        target = tmp_path / "out" / repo_id
        target.mkdir(parents=True)
        subprocess.run(["tar", "-C", target, "-xf", archive], check=True)
        assert_same(repo_tree(hub_repos[repo_id]), tree(target))


def test_the_archive_that_sagemaker_wants(tiny, hub_repos, tmp_path):
    """`tar -czf model.tar.gz .` has files and directories and nothing else."""
    archive = make_tar(tiny.repo("org/tiny"), tmp_path / "model.tar.gz", "-z")
    with tarfile.open(archive) as read:
        members = read.getmembers()
        assert all(member.isreg() or member.isdir() for member in members)
        data = read.extractfile("./config.json").read()
    assert data == hub_repos["org/tiny"].files()["config.json"].content.read(0, 1000)
    assert len([member for member in members if member.isreg()]) == len(hub_repos["org/tiny"].files())


def test_twice_gives_the_same_bytes(mount, current_cache, tmp_path):
    """Also after a remount, and after the index was lost."""
    made = []
    for index, state in enumerate(("state", "state", "another")):
        at = mount(current_cache, state=state)
        made.append(digest(make_tar(at.repo("org/tiny"), tmp_path / f"{index}.tar")))
        made.append(digest(make_tar(at.repo("org/tiny"), tmp_path / f"{index}b.tar")))
        at.unmount()
    assert len(set(made)) == 1


def test_two_caches_of_two_versions_give_the_same_bytes(mount, made_cache, tmp_path):
    """On another path, downloaded by another version, shown as another owner's."""
    made = set()
    for index, version in enumerate(("0.36.2", "1.22.0", "2.4.0")):
        at = mount(made_cache(version), f"uid={1000 + index}", name=f"mnt-{version}", state=f"state-{version}")
        made.add(digest(make_tar(at.repo("org/pipeline"), tmp_path / f"{version}.tar", *NEUTRAL)))
    assert len(made) == 1


def test_tar_into_tar(tiny, hub_repos, tmp_path):
    packer = subprocess.Popen(["tar", "-C", tiny.repo("org/tiny"), "-c", "."], stdout=subprocess.PIPE)
    unpacker = subprocess.run(["tar", "-C", tmp_path, "--one-top-level=out", "-x"], stdin=packer.stdout)
    assert packer.wait() == 0 and unpacker.returncode == 0
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(tmp_path / "out"))


def test_a_sparse_archive_loses_nothing(tiny, hub_repos, tmp_path):
    archive = make_tar(tiny.repo("org/tiny"), tmp_path / "sparse.tar", "-S")
    target = tmp_path / "out"
    target.mkdir()
    subprocess.run(["tar", "-C", target, "-xf", archive], check=True)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(target))


def test_python_tarfile_by_full_paths(tiny, hub_repos):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(tiny.repo("org/tiny"), arcname=".")
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        for path, file in hub_repos["org/tiny"].files().items():
            assert archive.extractfile(f"./{path}").read() == file.content.read(0, file.size)


def test_zip(tiny, hub_repos, tmp_path):
    done = subprocess.run(["zip", "-q", "-r", tmp_path / "a.zip", "."], cwd=tiny.repo("org/tiny"), capture_output=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        names = {name for name in archive.namelist() if not name.endswith("/")}
        assert names == set(hub_repos["org/tiny"].files())
        for path, file in hub_repos["org/tiny"].files().items():
            assert archive.read(path) == file.content.read(0, file.size)


@pytest.mark.parametrize("whole", [False, True])
def test_an_archive_of_everything_holds_nothing_twice(tiny, hub_repos, tmp_path, whole):
    """`hub/` and `.modelmount` are there by name only: a tar of the mount, or of one repo, does not meet them."""
    source = tiny.path if whole else tiny / "models/gpt0"
    archive = make_tar(source, tmp_path / "all.tar")
    with tarfile.open(archive) as read:
        names = read.getnames()
    assert not [name for name in names if name.split("/")[1:2] in (["hub"], [".modelmount"])]
    assert len(names) == len(set(names))


def test_incremental_archives_see_that_nothing_changed(tiny, tmp_path):
    snapshot = tmp_path / "level"
    first = make_tar(tiny.repo("org/tiny"), tmp_path / "0.tar", f"--listed-incremental={snapshot}")
    second = make_tar(tiny.repo("org/tiny"), tmp_path / "1.tar", f"--listed-incremental={snapshot}")
    with tarfile.open(first) as read:
        assert [member for member in read if member.isreg()]
    with tarfile.open(second) as read:
        assert not [member.name for member in read if member.isreg()]
    assert os.path.getsize(second) < os.path.getsize(first)
