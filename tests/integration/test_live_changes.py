# SPDX-License-Identifier: Apache-2.0
"""What others do to the cache shows in the mount within a second, and harms nobody who is reading."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.hub import HubRepo, Pattern
from tests.support.handmade import COMMIT, OTHER, Repo, simple_cache
from tests.support.mounts import SOON, Mount, wait_until
from tests.support.trees import assert_same, repo_tree, tree

HOLD = 30
"""Seconds for which a ref stays with the commit that is in use."""


def soon(condition, what: str):
    return wait_until(condition, SOON, what)


def add_repo(hub, repo_id: str, **files: bytes) -> HubRepo:
    repo = HubRepo(repo_id)
    repo.commit({name.replace("__", "/").replace("_", "."): data for name, data in files.items()})
    hub.add(repo)
    return repo


@pytest.fixture(params=["2.4.0", "1.17.0", "0.36.2"])
def version(request, library):
    return library(request.param)


def test_a_downloaded_repo_appears(version, hub, mount, fresh_cache):
    """In a new organisation, beside what is there, and in a listing that was made before."""
    at = mount(fresh_cache)
    assert os.listdir(at / "models") == []
    assert not at.repo("live/one").exists()
    repo = add_repo(hub, "live/one", config_json=b"{}", dir__model_bin=b"m" * 10_000)
    version.download("live/one", cache_dir=fresh_cache)
    soon(lambda: os.listdir(at / "models") == ["live"], "the organisation")
    soon(lambda: at.repo("live/one").exists(), "the repo")
    assert_same(repo_tree(repo), tree(at.repo("live/one")))
    add_repo(hub, "live/two", config_json=b"{}")
    version.download("live/two", cache_dir=fresh_cache)
    soon(lambda: os.listdir(at / "models/live") == ["one", "two"], "the second repo")


def test_a_cache_that_is_made_after_the_mount(current, hub, mount, tmp_path):
    cache = tmp_path / "later" / "hub"
    at = mount(cache)
    assert os.listdir(at / "models") == [] and at.status()["cache_exists"] is False
    repo = add_repo(hub, "live/first", config_json=b"{}")
    current.download("live/first", cache_dir=cache)
    soon(lambda: at.repo("live/first").exists(), "the repo")
    assert_same(repo_tree(repo), tree(at.repo("live/first")))
    assert at.status()["cache_exists"] is True


def test_further_files_of_a_snapshot_appear(library, mount, fresh_cache):
    """Without a tree, of a version that writes none: what is downloaded later comes to what is there."""
    old = library("1.17.0")
    old.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["config.json"])
    at = mount(fresh_cache)
    base = at.repo("org/tiny")
    assert os.listdir(base) == ["config.json"]
    assert not (base / "onnx/model.onnx").exists()
    old.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["config.json", "onnx/*", "odd.bin"])
    soon(lambda: (base / "onnx/model.onnx").exists(), "a file in a new folder")
    soon(lambda: os.listdir(base) == ["config.json", "odd.bin", "onnx"], "the listing")
    assert (base / "odd.bin").read_bytes() == Pattern("odd", 4097).read(0, 4097)


def test_a_tree_that_comes_later_is_taken(library, mount, fresh_cache, hub_repos):
    """The snapshot was begun by a version without trees; the current one then says what else there is."""
    library("0.36.2").download("org/tiny", cache_dir=fresh_cache, allow_patterns=["config.json"])
    at = mount(fresh_cache)
    assert os.listdir(at.repo("org/tiny")) == ["config.json"]
    library().download("org/tiny", cache_dir=fresh_cache, allow_patterns=["config.json"])
    everything = sorted({path.split("/")[0] for path in hub_repos["org/tiny"].files()})
    soon(lambda: os.listdir(at.repo("org/tiny")) == everything, "all names")


def test_an_absent_file_becomes_readable(current, mount, fresh_cache, hub_repos):
    current.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["config.json"])
    at = mount(fresh_cache)
    path = at.repo("org/tiny") / "odd.bin"
    assert path.stat().st_size == 4097
    with pytest.raises(OSError):
        path.read_bytes()
    current.download("org/tiny", cache_dir=fresh_cache)

    def readable() -> bool:
        try:
            return path.read_bytes() == Pattern("odd", 4097).read(0, 4097)
        except OSError:
            return False

    soon(readable, "the file's bytes")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.repo("org/tiny")))


def two_commits(cache: Path) -> Repo:
    repo = simple_cache(cache, {"config.json": b"old", "dir/data.bin": b"o" * 5000})
    repo.file(OTHER, "config.json", b"new")
    repo.file(OTHER, "dir/data.bin", b"n" * 7000)
    return repo


def replace_ref(repo: Repo, commit: str) -> None:
    repo.ref("main", commit)


def rewrite_ref(repo: Repo, commit: str) -> None:
    """As versions up to 1.17 do: the same file, emptied and written."""
    with open(repo.path / "refs/main", "w") as file:
        file.write(commit)


MOVES = pytest.mark.parametrize("move", [replace_ref, rewrite_ref])


@MOVES
def test_a_moved_ref_shows(mount, fresh_cache, move):
    repo = two_commits(fresh_cache)
    at = mount(fresh_cache)
    assert "main" in os.listdir(at / "models/org/name")
    move(repo, OTHER)
    time.sleep(0.1)
    soon(lambda: (at.repo("org/name") / "config.json").read_bytes() == b"new", "the new commit")
    assert (at.repo("org/name") / "dir/data.bin").read_bytes() == b"n" * 7000
    assert (at / "hub/models--org--name/refs/main").read_text() == OTHER


@MOVES
def test_a_ref_stays_while_its_commit_is_in_use(mount, fresh_cache, move):
    """
    Programs that walk the full path for every file must not end up with files of two commits; and once
    the old one was not used for half a minute, the new one is there.
    """
    repo = two_commits(fresh_cache)
    at = mount(fresh_cache)
    base = at.repo("org/name")
    assert (base / "config.json").read_bytes() == b"old"
    move(repo, OTHER)
    for _ in range(6):
        time.sleep(0.3)
        assert (base / "config.json").read_bytes() == b"old"
        assert (base / "dir/data.bin").read_bytes() == b"o" * 5000
        assert (at / "hub/models--org--name/refs/main").read_text() == COMMIT
    assert (at.repo("org/name", OTHER) / "config.json").read_bytes() == b"new"
    if move is replace_ref:
        time.sleep(HOLD + 0.5)
        soon(lambda: (base / "config.json").read_bytes() == b"new", "the new commit")


def test_who_is_in_the_old_directory_stays_there(mount, fresh_cache):
    """A working directory and an open directory keep the commit they were opened on."""
    repo = two_commits(fresh_cache)
    at = mount(fresh_cache)
    fd = os.open(at.repo("org/name"), os.O_RDONLY)
    try:
        repo.ref("main", OTHER)
        time.sleep(1.2)
        for _ in range(3):
            inner = os.open("dir/data.bin", os.O_RDONLY, dir_fd=fd)
            assert os.read(inner, 10_000) == b"o" * 5000
            os.close(inner)
            assert os.listdir(fd) == ["config.json", "dir"]
    finally:
        os.close(fd)


def many_files(cache: Path) -> Repo:
    repo = Repo(cache)
    for index in range(400):
        repo.file(COMMIT, f"d{index % 5}/f{index:03}", b"old %d " % index * 500)
        repo.file(OTHER, f"d{index % 5}/f{index:03}", b"new %d!" % index * 500)
    repo.ref("main", COMMIT)
    return repo


def test_a_running_tar_ends_with_the_commit_it_began_with(mount, fresh_cache, tmp_path):
    repo = many_files(fresh_cache)
    at = mount(fresh_cache)
    expected = tree(at.repo("org/name", COMMIT))
    with subprocess.Popen(
        ["tar", "-C", at.repo("org/name"), "-c", "."], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as packer:
        assert packer.stdout and packer.stderr
        data = packer.stdout.read(100_000)
        repo.ref("main", OTHER)
        time.sleep(1.5)
        data += packer.stdout.read()
        assert packer.stderr.read() == b""
    assert packer.returncode == 0
    (tmp_path / "a.tar").write_bytes(data)
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    assert_same(expected, tree(tmp_path / "out"))


def test_a_walk_by_full_paths_stays_with_its_commit(mount, fresh_cache):
    """As zip, tarfile and from_pretrained do it: every file by its whole path, the ref moving meanwhile."""
    repo = many_files(fresh_cache)
    at = mount(fresh_cache)
    base = at.repo("org/name")
    seen = set()
    for index in range(400):
        seen.add((base / f"d{index % 5}/f{index:03}").read_bytes()[:3])
        if index in (50, 150, 250):
            repo.ref("main", (OTHER, COMMIT, OTHER)[index // 100])
            time.sleep(0.6)
    assert seen == {b"old"}


@pytest.mark.parametrize("options", [[], ["nopassthrough"]], ids=["default", "nopassthrough"])
def test_an_open_file_is_read_to_its_end_after_its_blob_was_deleted(mount, current, hub, fresh_cache, options):
    size = 6_000_000
    add_repo(hub, "live/big", model_bin=Pattern("big", size).read(0, size))
    current.download("live/big", cache_dir=fresh_cache)
    at = mount(fresh_cache, *options)
    expected = hashlib.sha256(Pattern("big", size).read(0, size)).hexdigest()
    path = at.repo("live/big") / "model.bin"
    with open(path, "rb") as file, open(path, "rb") as mapped:
        digest = hashlib.sha256(file.read(1_000_000))
        with mmap.mmap(mapped.fileno(), 0, prot=mmap.PROT_READ) as area:
            done = current.hf("cache", "rm", "model/live/big", "--cache-dir", fresh_cache, "-y")
            assert done.returncode == 0, done.stderr
            soon(lambda: not path.exists(), "its removal")
            digest.update(file.read())
            assert digest.hexdigest() == expected
            assert hashlib.sha256(area).hexdigest() == expected


def test_cache_rm_shows(current, mount, own_cache):
    at = mount(own_cache)
    assert at.repo("org/pipeline").exists()
    os.listdir(at / "models/org")
    done = current.hf("cache", "rm", "model/org/pipeline", "--cache-dir", own_cache, "-y")
    assert done.returncode == 0, done.stderr
    soon(lambda: not (at / "models/org/pipeline").exists(), "its removal")
    soon(lambda: os.listdir(at / "models/org") == ["checkpoints", "strange", "tiny"], "the listing without it")
    assert not (at / "hub/models--org--pipeline").exists()


def test_cache_prune_shows(current, mount, own_cache, hub_repos):
    """The commit that no ref points at any more goes; the others stay whole."""
    refs = own_cache / "models--org--tiny" / "refs"
    for name in ("refs/pr/1", "v1.0", "feature/x"):
        (refs / name).unlink()
    at = mount(own_cache)
    old = hub_repos["org/tiny"].resolve("v1.0").sha
    assert old in os.listdir(at / "models/org/tiny")
    done = current.hf("cache", "prune", "--cache-dir", own_cache, "-y")
    assert done.returncode == 0, done.stderr
    soon(lambda: os.listdir(at / "models/org/tiny") == ["main"], "the listing without it")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.repo("org/tiny")))


def test_a_commit_that_is_removed_and_downloaded_again(current, mount, own_cache, hub_repos):
    at = mount(own_cache)
    expected = repo_tree(hub_repos["org/pipeline"])
    assert_same(expected, tree(at.repo("org/pipeline")))
    done = current.hf("cache", "rm", "model/org/pipeline", "--cache-dir", own_cache, "-y")
    assert done.returncode == 0, done.stderr
    soon(lambda: not (at / "models/org/pipeline").exists(), "its removal")
    script = "from huggingface_hub import snapshot_download\ndef main(**a):\n    return snapshot_download(**a)"
    current.run(script, env={}, repo_id="org/pipeline", cache_dir=str(own_cache))
    soon(lambda: at.repo("org/pipeline").exists(), "its return")
    assert_same(expected, tree(at.repo("org/pipeline")))


def test_a_file_without_symlinks_that_is_replaced(mount, fresh_cache):
    """In a cache without links a file can change in place; the new bytes show, not the old ones from memory."""
    base = fresh_cache / "models--org--name" / "snapshots" / COMMIT
    base.mkdir(parents=True)
    (base / "config.json").write_bytes(b"old" * 1000)
    at = mount(fresh_cache)
    path = at.repo("org/name", COMMIT) / "config.json"
    assert path.read_bytes() == b"old" * 1000
    (base / "new").write_bytes(b"newer" * 1000)
    os.replace(base / "new", base / "config.json")

    def shows() -> bool:
        try:
            return path.read_bytes() == b"newer" * 1000
        except OSError:
            return False

    soon(shows, "the new file")


def test_new_refs_appear_and_deleted_ones_go(mount, fresh_cache):
    repo = two_commits(fresh_cache)
    at: Mount = mount(fresh_cache)
    names = lambda: os.listdir(at / "models/org/name")  # noqa: E731
    assert names() == [OTHER, "main"]
    repo.ref("v2", OTHER)
    soon(lambda: names() == ["main", "v2"], "the tag")
    repo.ref("refs/pr/7", OTHER)
    soon(lambda: names() == ["main", "refs", "v2"], "the pull request")
    assert os.listdir(at / "models/org/name/refs/pr") == ["7"]
    (repo.path / "refs/v2").unlink()
    soon(lambda: names() == ["main", "refs"], "the listing without it")
    assert not (at / "models/org/name/v2").exists()


def test_a_repo_that_is_put_in_the_place_of_another(mount, fresh_cache):
    """The whole folder is swapped, as when somebody restores a backup."""
    simple_cache(fresh_cache, {"config.json": b"one", "only-one": b"1"})
    at = mount(fresh_cache)
    assert "main" in os.listdir(at / "models/org/name")
    other = simple_cache(fresh_cache.parent / "other", {"config.json": b"two", "only-two": b"2"})
    os.rename(fresh_cache / "models--org--name", fresh_cache.parent / "away")
    os.rename(other.path, fresh_cache / "models--org--name")
    soon(lambda: os.listdir(at.repo("org/name")) == ["config.json", "only-two"], "the new listing")
    soon(lambda: (at.repo("org/name") / "config.json").read_bytes() == b"two", "the new bytes")
