# SPDX-License-Identifier: Apache-2.0
"""The three uses on repos that were never downloaded, and the hub cache they leave: the library's own, to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub import HubRepo
from tests.support.library import Library
from tests.support.mounts import wait_until
from tests.support.repos import TINY_REVISIONS, serve, weights
from tests.support.trees import (
    assert_blobs_are_what_they_claim,
    assert_same,
    assert_same_shape,
    digest,
    repo_tree,
    shape,
    snapshot_tree,
    tree,
)

NEUTRAL = ["--owner=0", "--group=0", "--numeric-owner"]
PUBLISHED = ["org/tiny", "org/pipeline", "org/strange", "org/data", "org/app"]

DOWNLOAD = "from huggingface_hub import snapshot_download as main"


def download_as_us(current: Library, cache: Path, **popen) -> None:
    """Every repo of PUBLISHED into a cache, by a child with the umask that the mount's daemon has."""
    types = {"org/data": "dataset", "org/app": "space"}
    with current.worker(**popen) as worker:
        for repo_id in PUBLISHED:
            where = {"repo_id": repo_id, "repo_type": types.get(repo_id, "model"), "cache_dir": os.fspath(cache)}
            worker.run(DOWNLOAD, where)


def read_published(at, hub_repos) -> None:
    for repo_id in PUBLISHED:
        assert_same(repo_tree(hub_repos[repo_id]), tree(at.repo(repo_id, type=hub_repos[repo_id].type)))


def assert_becomes(expected: dict[str, tuple], cache: Path) -> None:
    """The cache gets this shape: publishing goes on behind the last read."""
    deadline = time.monotonic() + 10
    while not expected.keys() <= shape(cache).keys() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert_same_shape(expected, shape(cache))


# Use 1: plain files.


def test_every_repo_is_what_a_download_would_be(lazy, fresh_cache, hub_repos, local_dirs):
    at = lazy(fresh_cache)
    for repo in hub_repos.values():
        if "/" not in repo.id:  # an organisation as far as models/ knows, until it is cached
            continue
        found = tree(at.repo(repo.id, type=repo.type))
        assert_same(repo_tree(repo), found)
        found.pop(b"x" * 255, None)
        assert_same(local_dirs(repo.id), found)


@pytest.mark.parametrize("revision", TINY_REVISIONS)
def test_every_kind_of_revision(lazy, fresh_cache, hub_repos, local_dirs, revision):
    at = lazy(fresh_cache)
    commit = hub_repos["org/tiny"].resolve(revision).sha
    for name in (revision, commit):
        assert_same(local_dirs("org/tiny", revision), tree(at.repo("org/tiny", name)))


def test_sizes_are_there_before_any_byte_is(lazy, hub, fresh_cache, hub_repos):
    base = lazy(fresh_cache).repo("org/pipeline")
    for path, file in hub_repos["org/pipeline"].files().items():
        assert os.stat(base / path).st_size == file.size
    assert not hub.log(host="cdn") and not hub.log(path="/resolve")
    assert shape(fresh_cache) == {}


def test_half_a_download_is_completed(lazy, current, hub, fresh_cache, hub_repos):
    """What the library has already is not fetched again; the rest is, and then it is all there for the library."""
    current.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["*.safetensors", "*.md"])
    hub.clear_log()
    at = lazy(fresh_cache)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.repo("org/tiny")))
    asked = [entry.path for entry in hub.log(path="/resolve")]
    assert not [path for path in asked if path.endswith((".safetensors", ".md"))]
    files = hub_repos["org/tiny"].files()
    wait_until(lambda: len(list(fresh_cache.glob("models--org--tiny/blobs/*"))) == len(files), 10, "publishing")
    found = current.download("org/tiny", cache_dir=fresh_cache, local_files_only=True)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree_of_links(found))


def tree_of_links(base: str):
    """A snapshot as a tree: its links followed."""
    path = Path(base)
    return snapshot_tree(path.parents[2], path.parents[1].name, path.name)


# Use 2: archives.


def make_tar(source: Path, target: Path) -> str:
    done = subprocess.run(["tar", *NEUTRAL, "-C", source, "-cf", target, "."], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return digest(target)


def test_archives_are_the_same_twice_everywhere_and_from_a_full_cache(lazy, current_cache, tmp_path):
    """Two machines that never saw the repos, each asked twice, and one that downloaded them."""
    places = []
    for name, cache in (("one", tmp_path / "c1"), ("two", tmp_path / "c2"), ("full", current_cache)):
        cache.mkdir(exist_ok=True)
        places.append(lazy(cache, name=name, state=f"state-{name}"))
    for repo_id in ("org/tiny", "org/pipeline", "org/strange"):
        made = {make_tar(at.repo(repo_id), tmp_path / "a.tar") for at in (*places, places[0])}
        assert len(made) == 1, repo_id


def test_an_archive_is_the_same_after_a_restart(lazy, fresh_cache, tmp_path):
    at = lazy(fresh_cache)
    first = make_tar(at.repo("org/tiny"), tmp_path / "a.tar")
    at.unmount()
    assert make_tar(lazy(fresh_cache).repo("org/tiny"), tmp_path / "b.tar") == first


# Use 3: loading.


# In a child: a failed read under a mapping is a SIGBUS.

LOAD_SAFETENSORS = """
import sys
import numpy
from safetensors import safe_open
from safetensors.numpy import load, load_file
def same(expected, found):
    assert expected.keys() == found.keys()
    assert all(numpy.array_equal(value, found[name]) for name, value in expected.items())
base, plain = sys.argv[1:]
expected = load(open(plain + "/one.safetensors", "rb").read())
with safe_open(base + "/one.safetensors", framework="numpy") as file:
    order = [7, 2, 11, 0, 5, 9, 1, 3, 10, 4, 8, 6]
    same(expected, {f"layer.{index}.weight": file.get_tensor(f"layer.{index}.weight") for index in order})
same(load(open(plain + "/two.safetensors", "rb").read()), load_file(base + "/two.safetensors"))
"""

LOAD_GGUF = """
import sys
import numpy
from gguf import GGUFReader
base, plain = sys.argv[1:]
found, expected = (GGUFReader(name + "/tiny.gguf") for name in (base, plain))
assert [tensor.name for tensor in found.tensors] == [tensor.name for tensor in expected.tensors]
for ours, theirs in reversed(list(zip(found.tensors, expected.tensors))):
    assert numpy.array_equal(ours.data, theirs.data), ours.name
"""


def load(script: str, repo: HubRepo, base: Path, plain: Path) -> None:
    """Run the script with the repo as it is in the mount, and as plain files."""
    repo.write_to(plain)
    done = subprocess.run([sys.executable, "-c", script, base, plain], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr or f"exit code {done.returncode}"


def test_safetensors_by_mmap_and_out_of_order(lazy, hub, fresh_cache, tmp_path):
    pytest.importorskip("safetensors.numpy")
    files = {f"{name}.safetensors": weights(f"lazy {name}", 12) for name in ("one", "two")}
    repo = serve(hub, "org/lazy-weights", files)
    load(LOAD_SAFETENSORS, repo, lazy(fresh_cache).repo(repo.id), tmp_path / "plain")


def test_gguf(lazy, hub, fresh_cache, tmp_path):
    numpy = pytest.importorskip("numpy")
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "made.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for index in range(8):
        writer.add_tensor(f"blk.{index}.weight", numpy.arange(65536 * (index + 1), dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    repo = serve(hub, "org/lazy-gguf", {"tiny.gguf": path.read_bytes()})
    load(LOAD_GGUF, repo, lazy(fresh_cache).repo(repo.id), tmp_path / "plain")


# The hub cache afterwards.


def test_the_cache_is_what_the_library_makes(lazy, current, hub_repos, fresh_cache, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    old = os.umask(0o022)
    try:
        download_as_us(current, theirs)
        at = lazy(fresh_cache)
        read_published(at, hub_repos)
    finally:
        os.umask(old)
    assert_becomes(shape(theirs), fresh_cache)
    assert_blobs_are_what_they_claim(fresh_cache)


@pytest.mark.parametrize("revision", TINY_REVISIONS)
def test_the_cache_of_a_revision_is_what_the_library_makes(lazy, current, fresh_cache, tmp_path, revision):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with current.worker() as worker:
        worker.run(DOWNLOAD, {"repo_id": "org/tiny", "revision": revision, "cache_dir": os.fspath(theirs)})
    tree(lazy(fresh_cache).repo("org/tiny", revision))
    assert_becomes(shape(theirs), fresh_cache)


def test_the_library_takes_it_for_its_own(lazy, current, hub, hub_repos, fresh_cache):
    read_published(lazy(fresh_cache), hub_repos)
    blobs = {file.etag for file in hub_repos["org/tiny"].files().values()}
    folder = fresh_cache / "models--org--tiny"
    wait_until(lambda: {path.name for path in folder.glob("blobs/*")} == blobs, 10, "publishing")
    found = current.run(
        DOWNLOAD, env={"HF_HUB_OFFLINE": "1"}, repo_id="org/tiny", cache_dir=os.fspath(fresh_cache), local_files_only=True
    )
    assert found == os.fspath(folder / "snapshots" / hub_repos["org/tiny"].head())
    cache = {"HF_HUB_CACHE": os.fspath(fresh_cache)}
    listing = current.hf("cache", "ls", env=cache)
    assert listing.returncode == 0 and "orrupt" not in listing.stdout + listing.stderr
    for repo_id in PUBLISHED:
        assert repo_id in listing.stdout
    hub.clear_log()
    for arguments in (["org/tiny"], ["org/data", "--repo-type", "dataset"]):
        done = current.hf("cache", "verify", *arguments, env=cache)
        assert done.returncode == 0, done.stdout + done.stderr
    current.download("org/tiny", cache_dir=fresh_cache)
    assert not hub.log(path="/resolve"), "the library fetched what was there"


def test_one_file_of_a_repo_is_no_damage(lazy, current, fresh_cache, hub_repos):
    at = lazy(fresh_cache)
    (at.repo("org/tiny") / "onnx/model.onnx").read_bytes()
    oid = hub_repos["org/tiny"].files()["onnx/model.onnx"].etag
    wait_until(lambda: (fresh_cache / "models--org--tiny/blobs" / oid).exists(), 10, "publishing")
    listing = current.hf("cache", "ls", env={"HF_HUB_CACHE": os.fspath(fresh_cache)})
    assert "org/tiny" in listing.stdout and "orrupt" not in listing.stdout + listing.stderr
    found = current.download("org/tiny", cache_dir=fresh_cache)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree_of_links(found))


def test_looking_and_listing_leaves_the_cache_alone(lazy, fresh_cache):
    """`trees/` or `refs/` without a snapshot would make the library drop the repo as corrupted."""
    at = lazy(fresh_cache)
    subprocess.run(["ls", "-lR", at.repo("org/tiny"), at.repo("org/data", type="dataset")], check=True, capture_output=True)
    assert (at / "hub/models--org--tiny/refs/main").read_text()
    assert shape(fresh_cache) == {}


def test_what_root_fetches_belongs_to_the_caches_owner(lazy, current, hub_repos, fresh_cache, stranger, open_way):
    """Owner, group and mode of the cache's directory: the owner's own download must go on working in it."""
    os.chown(fresh_cache, stranger, stranger)
    os.chown(fresh_cache.parent, stranger, stranger)
    fresh_cache.chmod(0o750)
    at = lazy(fresh_cache)
    base = at.repo("org/tiny")
    names = ("config.json", "model-00001-of-00002.safetensors")
    for name in names:
        (base / name).read_bytes()
    blobs = {hub_repos["org/tiny"].files()[name].etag for name in names}  # others may have come ahead of the reader
    there = fresh_cache / "models--org--tiny/blobs"
    wait_until(lambda: blobs <= {path.name for path in there.glob("*")}, 10, "publishing")
    for path, (mode, uid, gid, _) in shape(fresh_cache).items():
        assert (uid, gid) == (stranger, stranger), path
        # The library gives its lock files one mode whatever the cache's is, and so must they have it here.
        wanted = "-rw-rw-r--" if path.endswith(".lock") else None
        assert mode == wanted or mode[0] == "l" or mode[7:9] == "--", f"{path}: {mode}"
    owner = {"user": stranger, "group": stranger, "extra_groups": []}
    try:
        subprocess.run([current.bin / "python", "-c", ""], check=True, capture_output=True, **owner)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("the owner cannot reach the library's environment")
    home = {"HOME": os.fspath(fresh_cache.parent)}
    with current.worker(home, **owner) as worker:
        found = worker.run(DOWNLOAD, {"repo_id": "org/tiny", "cache_dir": os.fspath(fresh_cache)})
    assert_same(repo_tree(hub_repos["org/tiny"]), tree_of_links(found))
