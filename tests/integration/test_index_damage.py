# SPDX-License-Identifier: Apache-2.0
"""The index is a cache of what the disk says: lost, damaged, locked or foreign, it never keeps a mount from serving."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.support.handmade import COMMIT, simple_cache
from tests.support.mounts import SOON, Mount, Mounts, wait_until
from tests.support.trees import assert_same, expected_tree, tree

FILES = {f"dir{index % 3}/file{index}": b"%d" % index * 100 for index in range(60)}
FILES["config.json"] = b"{}"


@pytest.fixture
def cache(fresh_cache) -> Path:
    repo = simple_cache(fresh_cache, FILES)
    repo.tree(COMMIT, FILES)
    simple_cache(fresh_cache, FILES, folder="models--org--without-tree")
    return fresh_cache


@pytest.fixture
def index(mount: Mounts, cache: Path, tmp_path: Path) -> Path:
    """The index of a cache that was mounted and read once."""
    at = mount(cache)
    serves(at)
    path = Path(at.status()["index"]["path"])
    at.unmount()
    assert path == tmp_path / "state/index.db" and path.exists()
    return path


def serves(at: Mount) -> None:
    for repo in ("org/name", "org/without-tree"):
        assert_same(expected_tree(FILES), tree(at.repo(repo)))


def complaints(at: Mount) -> list[str]:
    return [line for line in at.log().splitlines() if line.startswith("modelmount: index ")]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def nonsense(path: Path) -> None:
    path.write_bytes(b"This is not a database. " * 1000)


def noise_in_the_middle(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(max(4096, path.stat().st_size - 8192)))


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
        database.execute("INSERT INTO bookmarks VALUES ('precious')")


def newer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1000}")


def tables_gone(path: Path) -> None:
    with sqlite3.connect(path) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if not name.startswith("sqlite_"):
                database.execute(f'DROP TABLE "{name}"')


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def only_the_log(path: Path) -> None:
    path.unlink()
    path.with_name("index.db-wal").write_bytes(b"w" * 5000)


DAMAGES = [cut, empty, nonsense, noise_in_the_middle, foreign, newer, tables_gone, a_directory, only_the_log]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index(mount, cache, index, damage):
    damage(index)
    at = mount(cache)
    serves(at)
    at.unmount()
    again = mount(cache)
    serves(again)
    assert len(complaints(at)) <= 2


def test_damage_is_said_once(mount, cache, index):
    nonsense(index)
    at = mount(cache)
    serves(at)
    assert len(complaints(at)) == 1 and str(index) in complaints(at)[0]


def test_a_lost_index_is_made_again(mount, cache, index):
    index.unlink()
    for name in ("index.db-wal", "index.db-shm"):
        index.with_name(name).unlink(missing_ok=True)
    at = mount(cache)
    serves(at)
    at.unmount()
    assert index.exists()


@pytest.mark.parametrize("damage", [nonsense, empty, noise_in_the_middle, tables_gone])
def test_damage_while_mounted(mount, cache, index, damage):
    """What is open goes on, and so does what is looked up afterwards."""
    at = mount(cache)
    with open(at.repo("org/name") / "config.json", "rb") as file:
        damage(index)
        assert file.read() == b"{}"
        # A repo that was not there when the index was read.
        simple_cache(cache, FILES, folder="models--org--later")
        wait_until(lambda: at.repo("org/later").exists(), SOON, "the new repo")
        assert_same(expected_tree(FILES), tree(at.repo("org/later")))
    serves(at)


def test_deleted_while_mounted(mount, cache, index):
    at = mount(cache)
    for path in index.parent.glob("index.db*"):
        path.unlink()
    serves(at)
    at.unmount()
    again = mount(cache)
    serves(again)


def test_locked_by_somebody(mount, cache, index):
    """Another program holds the database for itself: served from memory."""
    with sqlite3.connect(index, isolation_level=None) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        at = mount(cache)
        serves(at)
        holder.execute("ROLLBACK")
    holder.close()


def test_locked_while_mounted(mount, cache, index):
    at = mount(cache)
    serves(at)
    holder = sqlite3.connect(index, isolation_level=None, timeout=5)
    holder.execute("BEGIN IMMEDIATE")
    simple_cache(cache, FILES, folder="models--org--later")
    wait_until(lambda: at.repo("org/later").exists(), SOON, "the new repo")
    assert_same(expected_tree(FILES), tree(at.repo("org/later")))
    holder.execute("ROLLBACK")
    holder.close()
    serves(at)


def test_in_memory_on_request(mount, cache, tmp_path):
    """`noindex` writes nothing at all."""
    at = mount(cache, "noindex", state=None)
    serves(at)
    state = at.status()["index"]
    assert state["in_memory"] is True and state["path"] == ""
    at.unmount()
    assert sorted(os.listdir(cache.parent)) == ["hub"]
    assert not list((tmp_path / "home").rglob("index.db"))


def test_it_lies_beside_the_cache_by_default(mount, cache):
    at = mount(cache, state=None)
    serves(at)
    path = Path(at.status()["index"]["path"])
    assert path == cache.parent / "modelmount/index.db"
    assert (path.parent.stat().st_mode & 0o777) == 0o700
    at.unmount()


def test_the_hub_cache_itself_is_left_as_it_was(mount, cache):
    """Nothing is written, removed or touched in it."""

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in [cache, *cache.rglob("*")]}

    before = state()
    at = mount(cache, state=None)
    serves(at)
    tree(at / "hub")
    at.unmount()
    assert state() == before


def test_a_state_directory_that_cannot_be_written(as_user, cache):
    script = """
        mkdir "$TMP/state" && chmod 500 "$TMP/state" && "$MM" -o "state_dir=$TMP/state" "$CACHE" "$MNT" &&
        cat "$MNT/models/org/name/main/config.json" && "$MM" status --json "$MNT"
    """
    done = as_user(script, cache=cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{}") and '"in_memory":\ttrue' in done.stdout


def test_a_state_directory_that_is_missing_is_made(mount, cache, tmp_path):
    state = tmp_path / "made" / "for it"
    at = mount(cache, f"state_dir={state}", state=None)
    serves(at)
    assert at.status()["index"]["in_memory"] is False
    assert (state / "index.db").exists() and state.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_is_a_file(mount, cache, tmp_path):
    (tmp_path / "state").write_text("a file")
    at = mount(cache)
    serves(at)
    assert at.status()["index"]["in_memory"] is True and at.status()["index"]["reason"]
    assert (tmp_path / "state").read_text() == "a file"


def test_a_link_in_the_indexs_place_is_not_written_through(mount, cache, tmp_path):
    """Somebody who may write the state directory's parent plants a link: root must not write where it leads."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (cache.parent / "modelmount").mkdir()
    os.symlink(victim, cache.parent / "modelmount/index.db")
    at = mount(cache, state=None)
    serves(at)
    at.unmount()
    assert victim.read_bytes() == b"precious"


def test_a_state_directory_that_is_a_strangers_link(mount, cache, tmp_path, stranger):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", cache.parent / "modelmount")
    os.lchown(cache.parent / "modelmount", stranger, stranger)
    at = mount(cache, state=None)
    serves(at)
    at.unmount()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_full_disk_for_the_index(mount, cache, tmp_path, need_root):
    """64 KiB of room: the index cannot grow, the mount serves."""
    (tmp_path / "state").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path / "state"], check=True)
    try:
        at = mount(cache)
        serves(at)
        at.unmount()
    finally:
        subprocess.run(["umount", tmp_path / "state"], check=True)


def test_what_changed_between_two_mounts_is_seen(mount, cache, index):
    """New, changed and removed repos and files, behind the index's back."""
    simple_cache(cache, {"new.txt": b"new"}, folder="models--org--new")
    subprocess.run(["rm", "-r", cache / "models--org--without-tree"], check=True)
    added = cache / "models--org--name/snapshots" / COMMIT / "dir0/file0"
    assert added.exists()
    at = mount(cache)
    assert os.listdir(at / "models/org") == ["name", "new"]
    assert_same(expected_tree({"new.txt": b"new"}), tree(at.repo("org/new")))
    assert_same(expected_tree(FILES), tree(at.repo("org/name")))


def test_a_file_added_between_two_mounts_is_seen(mount, cache, index):
    from tests.support.handmade import Repo

    Repo(cache, "models--org--without-tree").file(COMMIT, "dir1/added.txt", b"added")
    at = mount(cache)
    files = FILES | {"dir1/added.txt": b"added"}
    assert_same(expected_tree(files), tree(at.repo("org/without-tree")))
