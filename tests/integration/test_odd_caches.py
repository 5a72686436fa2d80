# SPDX-License-Identifier: Apache-2.0
"""The hub cache as it is in the wild: shapes that people, old versions and other disks give it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.hub import HubRepo, Pattern
from tests.support.handmade import COMMIT, OTHER, Repo, lfs_entry, simple_cache
from tests.support.mounts import SOON, wait_until
from tests.support.repos import noise
from tests.support.trees import assert_same, expected_tree, repo_tree, tree

FILES = {"config.json": b"{}", "dir/weights.bin": b"w" * 5000}


@pytest.fixture(params=["1.17.0", "1.22.0", "2.4.0"])
def without_links(request, library, fresh_cache) -> Path:
    env = {"HF_HUB_DISABLE_SYMLINKS": "1"}
    for repo_id in ("org/tiny", "org/strange"):
        library(request.param).download(repo_id, cache_dir=fresh_cache, env=env)
    return fresh_cache


def test_symlinks_switched_off(without_links, mount, hub_repos):
    snapshot = next((without_links / "models--org--tiny/snapshots").iterdir())
    assert not (snapshot / "config.json").is_symlink()
    at = mount(without_links)
    for repo_id in ("org/tiny", "org/strange"):
        assert_same(repo_tree(hub_repos[repo_id]), tree(at.repo(repo_id)))


SHARE = """
import json, os
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store
def main(cache_dir, folder):
    trees = os.path.join(cache_dir, folder, "trees")
    shared = []
    for name in os.listdir(trees):
        for path, entry in json.load(open(os.path.join(trees, name)))["files"].items():
            if "xet_hash" not in entry:
                continue
            blob = os.path.join(cache_dir, folder, "blobs", entry["lfs_sha256"])
            if os.path.exists(blob) and not os.path.islink(blob):
                done = publish_blob_to_shared_store(
                    blob_path=blob, xet_hash=entry["xet_hash"], cache_dir=cache_dir, expected_size=entry["lfs_size"]
                )
                assert done, path
                shared.append(path)
    return shared
"""


def test_the_shared_store(current, own_cache, mount, hub_repos):
    """Filled by the library's own function; the repo's blobs are then links into it."""
    shared = current.run(SHARE, cache_dir=str(own_cache), folder="models--org--tiny")
    assert "onnx/model.onnx" in shared
    assert (own_cache / "blobs/.huggingface-shared-blobs").read_text() == "1\n"
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(mount(own_cache).repo("org/tiny")))


def test_a_file_that_only_the_store_has_is_whole(current, own_cache, hub, mount):
    """Another repo has the same Xet file, and never downloaded it."""
    current.run(SHARE, cache_dir=str(own_cache), folder="models--org--tiny")
    twin = HubRepo("org/twin")
    size = 3145745
    twin.commit({"config.json": "{}", "same.onnx": Pattern("onnx", size)})
    hub.add(twin)
    current.download("org/twin", cache_dir=own_cache, allow_patterns=["config.json"])
    at = mount(own_cache, "xattr")
    path = at.repo("org/twin") / "same.onnx"
    assert path.read_bytes() == noise("onnx", size)
    assert os.getxattr(path, "user.modelmount.state") == b"whole"


@pytest.mark.parametrize("spoil", ["no marker", "wrong marker", "wrong size", "a link"])
def test_a_store_that_is_not_one_is_not_used(current, own_cache, hub, mount, spoil, tmp_path):
    current.run(SHARE, cache_dir=str(own_cache), folder="models--org--tiny")
    entry = next(path for path in (own_cache / "blobs").rglob("*") if path.is_file() and path.stat().st_size == 3145745)
    twin = HubRepo("org/twin")
    twin.commit({"config.json": "{}", "same.onnx": Pattern("onnx", 3145745)})
    hub.add(twin)
    current.download("org/twin", cache_dir=own_cache, allow_patterns=["config.json"])
    if spoil == "no marker":
        (own_cache / "blobs/.huggingface-shared-blobs").unlink()
    elif spoil == "wrong marker":
        (own_cache / "blobs/.huggingface-shared-blobs").write_text("2\n")
    elif spoil == "wrong size":
        entry.chmod(0o600)
        with open(entry, "ab") as file:
            file.write(b"more")
    else:
        os.rename(entry, tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", entry)
    at = mount(own_cache)
    with pytest.raises(OSError):
        (at.repo("org/twin") / "same.onnx").read_bytes()
    assert (at.repo("org/twin") / "config.json").read_bytes() == b"{}"


def test_the_store_is_never_written(current, own_cache, mount):
    current.run(SHARE, cache_dir=str(own_cache), folder="models--org--tiny")
    before = {path: path.lstat().st_mtime_ns for path in (own_cache / "blobs").rglob("*")}
    at = mount(own_cache)
    tree(at.repo("org/tiny"))
    at.unmount()
    assert {path: path.lstat().st_mtime_ns for path in (own_cache / "blobs").rglob("*")} == before


def test_a_broken_link_is_listed_and_cannot_be_read(handmade, mount):
    """Without a tree its size is not known: it must be neither left out nor be an empty file."""
    for path, data in FILES.items():
        handmade.file(COMMIT, path, data)
    handmade.ref("main", COMMIT)
    handmade.link(COMMIT, "gone.bin", "../../blobs/" + "a" * 64)
    base = mount(handmade.cache).repo("org/name")
    assert os.listdir(base) == ["config.json", "dir", "gone.bin"]
    for attempt in (base.joinpath("gone.bin").stat, base.joinpath("gone.bin").read_bytes):
        with pytest.raises(OSError) as caught:
            attempt()
        assert "unreachable" in str(caught.value)
    assert (base / "dir/weights.bin").read_bytes() == FILES["dir/weights.bin"]
    assert subprocess.run(["tar", "-C", base, "-cf", "/dev/null", "."], stderr=subprocess.DEVNULL).returncode != 0


def test_blobs_moved_to_a_bigger_disk(fresh_cache, mount, tmp_path):
    repo = simple_cache(fresh_cache, FILES)
    os.rename(repo.path / "blobs", tmp_path / "bigger")
    os.symlink(tmp_path / "bigger", repo.path / "blobs")
    assert_same(expected_tree(FILES), tree(mount(fresh_cache).repo("org/name")))


def test_a_repo_behind_a_directory_link(fresh_cache, mount, tmp_path):
    repo = simple_cache(fresh_cache, FILES)
    os.rename(repo.path, tmp_path / "moved")
    os.symlink(tmp_path / "moved", repo.path)
    at = mount(fresh_cache)
    assert os.listdir(at / "models/org") == ["name"]
    assert_same(expected_tree(FILES), tree(at.repo("org/name")))


def test_the_cache_itself_behind_a_link(fresh_cache, mount, tmp_path):
    simple_cache(fresh_cache, FILES)
    os.symlink(fresh_cache, tmp_path / "link")
    assert_same(expected_tree(FILES), tree(mount(tmp_path / "link").repo("org/name")))


def test_absolute_links_into_the_repos_own_blobs(handmade, mount):
    etag = handmade.blob(b"absolute")
    handmade.link(COMMIT, "a.txt", str(handmade.path / "blobs" / etag))
    handmade.ref("main", COMMIT)
    assert (mount(handmade.cache).repo("org/name") / "a.txt").read_bytes() == b"absolute"


def test_a_copied_cache_whose_links_became_files(fresh_cache, mount, tmp_path):
    """As `cp -L` or a Windows share leaves it: files in the snapshot, and blobs that nobody links to."""
    simple_cache(fresh_cache, FILES)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-rL", fresh_cache, copy], check=True)
    assert_same(expected_tree(FILES), tree(mount(copy).repo("org/name")))


def test_strangers_files_are_not_shown(fresh_cache, mount):
    repo = simple_cache(fresh_cache, FILES)
    (fresh_cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    (fresh_cache / "version.txt").write_text("1")
    (fresh_cache / "version_diffusers_cache.txt").write_text("1")
    (fresh_cache / ".locks/models--org--name").mkdir(parents=True)
    for stranger in ("my stuff", "models--", "models--a--b--c--d", "buckets--a--b", "models--.git--x", "tmpabc", "models"):
        (fresh_cache / stranger).mkdir()
    (fresh_cache / "models--a--file").write_text("a file of that name")
    (repo.path / "blobs" / ("b" * 40 + ".incomplete")).write_bytes(b"part")
    (repo.path / "blobs" / ("b" * 40 + ".0123abcd.incomplete")).write_bytes(b"part")
    (repo.path / "blobs/tmp_1234").write_bytes(b"")
    (repo.path / "refs/main.0123abcd.tmp").write_text(OTHER)
    (repo.path / "refs/empty").write_text("")
    (repo.path / "refs/nonsense").write_text("not a commit")
    (repo.path / "snapshots/not-a-commit").mkdir()
    (repo.path / "trees").mkdir()
    (repo.path / "trees/tmpxyz.tmp").write_text("{")
    (repo.path / "stranger").mkdir()
    at = mount(fresh_cache)
    assert os.listdir(at / "models") == ["org"]
    assert os.listdir(at / "models/org") == ["name"]
    assert os.listdir(at / "models/org/name") == ["main"]
    assert_same(expected_tree(FILES), tree(at.repo("org/name")))


def test_a_read_only_cache(fresh_cache, mount, tmp_path, need_root):
    """On a disk mounted read-only nothing is written; the index goes elsewhere."""
    simple_cache(fresh_cache, FILES)
    view = tmp_path / "ro"
    view.mkdir()
    subprocess.run(["mount", "--bind", fresh_cache.parent, view], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        at = mount(view / "hub", state=None, env={"XDG_STATE_HOME": str(tmp_path / "xdg")})
        assert_same(expected_tree(FILES), tree(at.repo("org/name")))
        assert Path(at.status()["index"]["path"]).is_relative_to(tmp_path / "xdg/modelmount")
        at.unmount()
    finally:
        subprocess.run(["umount", view], check=True)
    assert sorted(os.listdir(fresh_cache.parent)) == ["hub"]


def test_names_that_are_no_text(handmade, mount):
    """Bytes that are not UTF-8, newlines, control characters: shown as they are."""
    files = {
        b"latin-\xe9\xff.txt": b"1",
        b"new\nline.txt": b"2",
        b"tab\tand\x01\x7f.txt": b"3",
        b"\xff\xfe/\x80.bin": b"4",
        b" ": b"5",
        b"'\"$(x)`;&|<>*?[]{}\\!~#": b"6",
        "e\u0301 and é".encode(): b"7",
        b"y" * 255: b"8",
        b"...": b"9",
        b"~": b"10",
    }
    for name, data in files.items():
        handmade.file(COMMIT, name, data)
    handmade.ref("main", COMMIT)
    base = mount(handmade.cache).repo("org/name")
    assert_same(expected_tree(files), tree(base))
    assert sorted(os.listdir(os.fsencode(base))) == os.listdir(os.fsencode(base))
    done = subprocess.run(["tar", "-C", base, "-cf", "/dev/null", "."], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_organisation_and_an_organisation_of_the_same_name(fresh_cache, mount):
    """`models/<x>` is both; the revisions of the repo without organisation win over a repo of that name."""
    simple_cache(fresh_cache, {"alone.txt": b"1"}, folder="models--x")
    simple_cache(fresh_cache, {"other.txt": b"2"}, folder="models--x--other")
    simple_cache(fresh_cache, {"hidden.txt": b"3"}, folder="models--x--main")
    at = mount(fresh_cache)
    assert os.listdir(at / "models/x") == ["main", "other"]
    assert os.listdir(at / "models/x/main") == ["alone.txt"]
    assert os.listdir(at / "models/x/other/main") == ["other.txt"]
    assert os.listdir(at / "hub/models--x--main/snapshots" / COMMIT) == ["hidden.txt"]


def test_a_repo_without_snapshots(fresh_cache, mount):
    repo = Repo(fresh_cache)
    at = mount(fresh_cache)
    assert os.listdir(at / "models/org/name") == []
    repo.ref("main", COMMIT)
    wait_until(lambda: os.listdir(at / "models/org/name") == ["main"], SOON, "the ref")
    with pytest.raises(OSError):
        os.listdir(at / "models/org/name/main")
    (repo.path / "snapshots" / COMMIT).mkdir()
    wait_until(lambda: (at / "models/org/name/main").is_dir(), SOON, "the empty snapshot")
    assert os.listdir(at / "models/org/name/main") == []


def test_an_empty_cache(fresh_cache, mount):
    at = mount(fresh_cache)
    assert os.listdir(at.path) == ["datasets", "kernels", "models", "spaces"]
    assert tree(at.path) == {name.encode(): None for name in os.listdir(at.path)}
    status = at.status()
    assert (status["repos"], status["files"], status["cache_exists"]) == (0, 0, True)


def test_a_ref_with_a_newline_at_its_end(fresh_cache, mount):
    repo = simple_cache(fresh_cache, FILES)
    (repo.path / "refs/main").write_text(f"{COMMIT}\n")
    assert_same(expected_tree(FILES), tree(mount(fresh_cache).repo("org/name")))


def test_refs_with_odd_names(fresh_cache, mount):
    repo = simple_cache(fresh_cache, FILES)
    for name in ("a/b/c", "per%cent", "sp ace", "ünï", "refs/convert/parquet"):
        repo.ref(name, COMMIT)
    at = mount(fresh_cache)
    assert os.listdir(at / "models/org/name") == sorted(
        ["a%2Fb%2Fc", "main", "per%25cent", "refs", "sp ace", "ünï"], key=os.fsencode
    )
    for name in ("a%2Fb%2Fc", "per%25cent", "sp ace", "ünï", "refs/convert/parquet"):
        assert_same(expected_tree(FILES), tree(at / "models/org/name" / name))


def test_two_snapshots_share_their_blobs(handmade, mount):
    handmade.file(COMMIT, "same", b"same")
    handmade.file(COMMIT, "other", b"one")
    etag = handmade.file(OTHER, "other", b"two")
    handmade.link(OTHER, "same", "../../blobs/" + os.path.basename(os.readlink(handmade.path / "snapshots" / COMMIT / "same")))
    handmade.ref("main", OTHER)
    at = mount(handmade.cache)
    assert etag and (at.repo("org/name") / "other").read_bytes() == b"two"
    assert (at.repo("org/name", COMMIT) / "other").read_bytes() == b"one"
    for commit in (COMMIT, OTHER):
        assert (at.repo("org/name", commit) / "same").read_bytes() == b"same"


def test_a_cache_on_tmpfs(mount, tmp_path, need_root):
    """Another device than its parent: the index cannot lie beside it."""
    (tmp_path / "c/hub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "c/hub"], check=True)
    try:
        simple_cache(tmp_path / "c/hub", FILES)
        at = mount(tmp_path / "c/hub", state=None)
        assert_same(expected_tree(FILES), tree(at.repo("org/name")))
        at.unmount()
        assert os.listdir(tmp_path / "c") == ["hub"]
    finally:
        subprocess.run(["umount", tmp_path / "c/hub"], check=True)


def test_a_cache_of_two_versions(library, fresh_cache, mount, hub_repos):
    """Begun by one, gone on with by another: the same blobs, and a tree that came later."""
    library("0.36.2").download("org/tiny", cache_dir=fresh_cache)
    library("2.4.0").download("org/tiny", cache_dir=fresh_cache, revision="v1.0")
    at = mount(fresh_cache)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.repo("org/tiny")))
    assert_same(repo_tree(hub_repos["org/tiny"], "v1.0"), tree(at.repo("org/tiny", "v1.0")))


def test_a_repo_copied_with_its_links_dereferenced_in_part(fresh_cache, mount):
    """A snapshot with links and regular files side by side."""
    repo = simple_cache(fresh_cache, FILES)
    link = repo.path / "snapshots" / COMMIT / "config.json"
    link.unlink()
    shutil.copyfile(repo.path / "refs/main", link)
    files = FILES | {"config.json": COMMIT.encode()}
    assert_same(expected_tree(files), tree(mount(fresh_cache).repo("org/name")))


def test_a_tree_and_regular_files(fresh_cache, mount):
    """Symlinks off, and the tree of a version that writes it: file and entry are matched by path."""
    repo = Repo(fresh_cache)
    data = b"d" * 3000
    place = repo.path / "snapshots" / COMMIT
    (place / "dir").mkdir(parents=True)
    (place / "dir/model.bin").write_bytes(data)
    repo.tree(COMMIT, {"dir/model.bin": lfs_entry(data)})
    repo.ref("main", COMMIT)
    assert_same(expected_tree({"dir/model.bin": data}), tree(mount(fresh_cache).repo("org/name")))


def test_a_blob_that_comes_after_the_first_look_is_there_after_a_remount(fresh_cache: Path, mount):
    """The directory with its link has not changed since it was read."""
    repo = simple_cache(fresh_cache, {"config.json": b"{}"})
    etag = "ab" * 20
    repo.link(COMMIT, "later.bin", f"../../blobs/{etag}")
    long_ago = 1_000_000_000
    at = mount(fresh_cache)
    with pytest.raises(OSError):
        (at.repo("org/name") / "later.bin").stat()
    at.unmount()
    directory = repo.path / "snapshots" / COMMIT
    os.utime(directory, (long_ago, long_ago))
    repo.blob(b"here", etag)
    again = mount(fresh_cache)
    wait_until(lambda: (again.repo("org/name") / "later.bin").exists(), what="the file")
    assert (again.repo("org/name") / "later.bin").read_bytes() == b"here"
