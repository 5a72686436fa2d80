# SPDX-License-Identifier: Apache-2.0
"""What the program says of a mount and of a cache: status, ls, and the attributes of files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tests.support.mounts import run

FIELDS = {
    "version": str,
    "pid": int,
    "mountpoint": str,
    "cache": str,
    "cache_exists": bool,
    "index": dict,
    "repos": int,
    "snapshots": int,
    "files": int,
    "bytes": int,
    "whole": dict,
    "absent": dict,
    "read_path": dict,
    "open_files": int,
    "pushed_bytes": int,
}


@pytest.fixture
def partly(current, fresh_cache) -> Path:
    """org/tiny with its JSON files alone."""
    current.download("org/tiny", cache_dir=fresh_cache, allow_patterns=["*.json"])
    return fresh_cache


def test_status_has_every_field(tiny, current_cache):
    status = tiny.status()
    for name, kind in FIELDS.items():
        assert isinstance(status[name], kind), name
    assert status["pid"] == tiny.pid and status["mountpoint"] == str(tiny.path)
    assert status["cache"] == str(current_cache)


def test_status_counts_what_is_there(tiny, hub_repos):
    status = tiny.status()
    snapshots = [commit for repo in hub_repos.values() for commit in repo.commits.values()]
    files = [file for commit in snapshots for file in commit.files.values()]
    assert status["repos"] == len(hub_repos) and status["snapshots"] == len(snapshots)
    assert status["files"] == len(files) and status["bytes"] == sum(file.size for file in files)
    assert status["whole"] == {"files": status["files"], "bytes": status["bytes"]}
    assert status["absent"] == {"files": 0, "bytes": 0}


def test_status_counts_what_is_absent(mount, partly, hub_repos):
    files = hub_repos["org/tiny"].files()
    whole = {path: file.size for path, file in files.items() if path.endswith(".json")}
    absent = {path: file.size for path, file in files.items() if path not in whole}
    status = mount(partly).status()
    assert status["whole"] == {"files": len(whole), "bytes": sum(whole.values())}
    assert status["absent"] == {"files": len(absent), "bytes": sum(absent.values())}


def test_status_is_read_afresh_through_the_mount(tiny):
    path = tiny / ".modelmount/status"
    assert json.loads(path.read_text())["open_files"] == 0
    with open(tiny.repo("org/tiny") / "config.json", "rb"):
        assert json.loads(path.read_text())["open_files"] == 1
    assert os.listdir(tiny / ".modelmount") == ["pid", "status"]
    assert int((tiny / ".modelmount/pid").read_text()) == json.loads(path.read_text())["pid"]


def test_status_in_words(tiny, current_cache, hub_repos):
    text = run("status", tiny.path, env=tiny.env, check=True).stdout
    for word in (str(tiny.path), str(current_cache), f"{len(hub_repos)} repos", str(tiny.pid)):
        assert word in text
    if tiny.status()["read_path"]["mode"] == "splice":
        assert "because" in text and "faster" in text


def test_why_the_path_is_not_the_fast_one(mount, current_cache):
    path = mount(current_cache, "nopassthrough").status()["read_path"]
    assert path["mode"] == "splice" and "nopassthrough" in path["reason"]


def test_status_of_a_place_in_the_mount_and_of_all(tiny):
    assert run("status", tiny.repo("org/tiny"), env=tiny.env).returncode in (0, 1)
    # There may be other mounts on this machine, even dead ones, which make it fail.
    assert str(tiny.path) in run("status", env=tiny.env).stdout


def test_status_through_a_link(tiny, tmp_path):
    os.symlink(tiny.path, tmp_path / "link")
    text = run("status", "--json", tmp_path / "link", env=tiny.env, check=True).stdout
    assert json.loads(text)["pid"] == tiny.pid


@pytest.mark.parametrize("of", ["mount", "cache"])
def test_ls(tiny, current_cache, hub_repos, of):
    what = tiny.path if of == "mount" else current_cache
    text = run("ls", what, env=tiny.env, check=True).stdout
    for repo in hub_repos.values():
        assert any(repo.id in line and repo.type in line for line in text.splitlines())
    found = json.loads(run("ls", "--json", what, env=tiny.env, check=True).stdout)
    assert {(one["type"], one["id"]) for one in found} == {(repo.type, repo.id) for repo in hub_repos.values()}
    tiny_repo = next(one for one in found if one["id"] == "org/tiny")
    repo = hub_repos["org/tiny"]
    assert tiny_repo["refs"]["main"] == repo.head() and tiny_repo["refs"]["refs/pr/1"] == repo.head("feature/x")
    files = [file for commit in repo.commits.values() for file in commit.files.values()]
    assert tiny_repo["snapshots"] == 2 and tiny_repo["files"] == len(files)
    assert tiny_repo["bytes"] == sum(file.size for file in files)
    assert tiny_repo["commits"] == []


def test_ls_of_the_default_cache(mount, current_cache):
    env = mount.environment(HF_HUB_CACHE=str(current_cache))
    assert "org/tiny" in run("ls", env=env, check=True).stdout


def test_ls_of_nothing(mount, fresh_cache, tmp_path):
    assert json.loads(run("ls", "--json", fresh_cache, env=mount.environment(), check=True).stdout) == []
    assert run("ls", fresh_cache, env=mount.environment(), check=True).stdout == ""
    (tmp_path / "file").write_text("")
    done = run("ls", tmp_path / "file", env=mount.environment())
    assert done.returncode == 1 and "not a directory" in done.stderr


def test_ls_writes_nothing_terminals_obey(mount, fresh_cache):
    """A ref's name can hold anything but control characters; those of the terminal are not sent to it."""
    from tests.support.handmade import simple_cache

    repo = simple_cache(fresh_cache)
    (repo.path / "refs/evil\x1b[2J").write_text("0" * 40)
    text = run("ls", fresh_cache, env=mount.environment(), check=True).stdout
    assert "\x1b" not in text


def test_attributes_of_files(mount, current_cache, hub_repos):
    at = mount(current_cache, "xattr")
    repo = hub_repos["org/tiny"]
    for path, file in repo.files().items():
        place = at.repo("org/tiny") / path
        assert sorted(os.listxattr(place)) == [f"user.modelmount.{n}" for n in ("commit", "etag", "repo", "state")]
        values = {name: os.getxattr(place, f"user.modelmount.{name}") for name in ("commit", "etag", "repo", "state")}
        assert values["commit"] == repo.head().encode() and values["etag"] == file.etag.encode()
        assert values["state"] == b"whole" and b"org/tiny" in values["repo"]


def test_attributes_of_what_is_absent(mount, partly):
    base = mount(partly, "xattr").repo("org/tiny")
    assert os.getxattr(base / "odd.bin", "user.modelmount.state") == b"absent"
    assert os.getxattr(base / "config.json", "user.modelmount.state") == b"whole"


def test_attributes_of_others(mount, current_cache):
    at = mount(current_cache, "xattr")
    for path in (at.path, at.repo("org/tiny"), at.repo("org/tiny") / "onnx"):
        assert os.listxattr(path) == []
    for name in ("user.other", "user.modelmount.none", "security.capability", "system.posix_acl_access"):
        with pytest.raises(OSError) as caught:
            os.getxattr(at.repo("org/tiny") / "config.json", name)
        assert caught.value.errno in (errno.ENODATA, errno.EOPNOTSUPP)


def test_no_attributes_unless_asked_for(tiny):
    path = tiny.repo("org/tiny") / "config.json"
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "user.modelmount.etag")
    assert caught.value.errno == errno.EOPNOTSUPP
