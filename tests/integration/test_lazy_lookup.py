# SPDX-License-Identifier: Apache-2.0
"""Looking up what is not cached: what it costs, what it finds, and what it never asks."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hub import Entry, HubProcess, HubRepo
from tests.support.mounts import SOON, wait_until
from tests.support.repos import serve
from tests.support.trees import assert_same, repo_tree, tree

NO_REPOS = (".git", ".Trash-0", ".hidden", ".DS_Store", "-x", "a--b", "x.git", "what?", "core.py")


def asked(hub: HubProcess, repo_id: str, verb: str = "", type: str = "model") -> list[Entry]:
    """The API's requests about a repo: `verb` is revision, tree, refs or commits."""
    start = f"/api/{type}s/{repo_id}/{verb}"
    return [entry for entry in hub.log(host="hub") if entry.path.startswith(start)]


def fails(path: Path) -> type[OSError]:
    """The error that a look at the path gives."""
    with pytest.raises(OSError) as caught:
        os.stat(path)
    return type(caught.value)


# What costs nothing.


def test_names_that_cannot_be_repos_cost_no_request(lazy, hub, fresh_cache):
    """At every level. A look below a name that may be an organisation is answered without asking, too."""
    at = lazy(fresh_cache)
    for level in ("", "models", "datasets", "hub"):
        for name in NO_REPOS:
            try:
                os.stat(at / level / name)
            except FileNotFoundError:
                pass
    for name in NO_REPOS[:-1]:
        assert fails(at / "models/org" / name) is FileNotFoundError
        assert fails(at / "models" / name / "x" / "main") is FileNotFoundError
    os.path.exists(at / "models/org/core.py")
    assert hub.log() == []


def test_names_within_a_known_commit_cost_no_request(lazy, hub, fresh_cache):
    repo = serve(hub, "org/l-within")
    base = lazy(fresh_cache).repo("org/l-within")
    os.stat(base / "config.json")
    hub.clear_log()
    for name in (*NO_REPOS, "config.yaml", "model.safetensors", "onnx/model.onnx"):
        assert fails(base / name) is FileNotFoundError
    hidden = base.parent.parent.parent.parent / f"hub/models--org--l-within/.no_exist/{repo.head()}/core.py"
    assert hidden.read_bytes() == b""
    assert hub.log() == []


def test_repeated_misses_cost_one_request(lazy, hub, fresh_cache):
    at = lazy(fresh_cache)
    for _ in range(30):
        assert fails(at / "models/org/l-none/main") is FileNotFoundError
        assert fails(at / "models/org/l-none/main/config.json") is FileNotFoundError
    assert len(asked(hub, "org/l-none")) == 1


def test_another_revision_of_a_missing_repo_costs_nothing(lazy, hub, fresh_cache):
    at = lazy(fresh_cache)
    for revision in ("main", "v1", "v2", "0" * 40):
        assert fails(at / "models/org/l-none-at-all" / revision) is FileNotFoundError
    assert len(asked(hub, "org/l-none-at-all")) == 1


def test_repeated_misses_of_a_revision_cost_one_request(lazy, hub, fresh_cache):
    serve(hub, "org/l-rev")
    at = lazy(fresh_cache)
    for name, most in (("none", 1), ("0" * 40, 2)):  # of a commit the tree and the date are asked for
        hub.clear_log()
        for _ in range(20):
            assert fails(at.repo("org/l-rev", name)) is FileNotFoundError
        assert len(hub.log()) <= most
    assert os.listdir(at.repo("org/l-rev"))


@pytest.mark.concurrency
def test_a_thousand_look_ups_in_one_repo_cost_one(lazy, hub, fresh_cache):
    serve(hub, "org/l-many", {f"f{index}": b"x" for index in range(1000)})
    base = lazy(fresh_cache).repo("org/l-many")
    hub.shape("hub", latency=0.1)
    with ThreadPoolExecutor(64) as pool:
        sizes = list(pool.map(lambda index: os.stat(base / f"f{index}").st_size, range(1000)))
    assert sizes == [1] * 1000
    assert len(asked(hub, "org/l-many", "revision")) == 1
    assert len(asked(hub, "org/l-many", "tree")) == 1
    assert len(asked(hub, "org/l-many")) <= 4  # the commit's date, and the refs, at most


def test_no_traffic_when_nobody_looks(lazy, hub, fresh_cache):
    at = lazy(fresh_cache, "ref_ttl=1")
    (at.repo("org/tiny") / "config.json").read_bytes()
    time.sleep(1)  # what was begun by the read
    hub.clear_log()
    time.sleep(3)
    assert hub.log() == []


def test_a_commit_is_never_asked_for_twice(lazy, hub, fresh_cache, hub_repos):
    commit = hub_repos["org/tiny"].head()
    at = lazy(fresh_cache, "ref_ttl=1")
    expected = repo_tree(hub_repos["org/tiny"])
    assert_same(expected, tree(at.repo("org/tiny", commit)))
    at.unmount()
    time.sleep(1.1)
    hub.clear_log()
    at = lazy(fresh_cache, "ref_ttl=1")
    assert_same(expected, tree(at.repo("org/tiny", commit)))
    assert hub.log() == []


# What is found, and by which names.


def test_listing_shows_what_is_cached_only(lazy, current, hub, fresh_cache):
    serve(hub, "org/l-cached", {"config.json": "{}"})
    current.download("org/l-cached", cache_dir=fresh_cache)
    hub.clear_log()
    at = lazy(fresh_cache)
    assert os.listdir(at.path) == ["datasets", "kernels", "models", "spaces"]
    assert os.listdir(at / "models") == ["org"] and os.listdir(at / "datasets") == []
    assert os.listdir(at / "models/org") == ["l-cached"]
    assert hub.log() == []
    (at.repo("org/tiny") / "config.json").read_bytes()
    wait_until(lambda: os.listdir(at / "models/org") == ["l-cached", "tiny"], SOON, "the listing of what came")


def test_refs_with_slashes_and_commits(lazy, hub, fresh_cache, hub_repos):
    at = lazy(fresh_cache)
    repo = hub_repos["org/tiny"]
    for name, revision in (
        ("refs/pr/1", "refs/pr/1"),
        ("refs%2Fpr%2F1", "refs/pr/1"),
        ("feature%2Fx", "feature/x"),
        ("v1.0", "v1.0"),
        (repo.head(), "main"),
        (repo.resolve("v1.0").sha, "v1.0"),
    ):
        assert_same(repo_tree(repo, revision), tree(at / "models/org/tiny" / name))
    data = at / "datasets/org/data/refs/convert/parquet"
    assert_same(repo_tree(hub_repos["org/data"]), tree(data))


def test_a_repo_without_organisation_and_every_type(lazy, fresh_cache, hub_repos):
    at = lazy(fresh_cache)
    for repo_id in ("org/data", "org/app", "org/kern"):
        repo = hub_repos[repo_id]
        assert_same(repo_tree(repo), tree(at.repo(repo_id, type=repo.type)))
    # In models/ a single name is an organisation until a repo of that name is cached.
    canonical = hub_repos["gpt0"]
    assert_same(repo_tree(canonical), tree(at / f"hub/models--gpt0/snapshots/{canonical.head()}"))
    there = at.repo("gpt0", canonical.head())
    wait_until(lambda: os.path.exists(there / "config.json"), 5, "the repo in models/")
    assert_same(repo_tree(canonical), tree(there))


def test_a_renamed_repo_is_found_by_both_names(lazy, hub, fresh_cache):
    repo = serve(hub, "old-org/l-renamed")
    expected = repo_tree(repo)
    hub.rename("old-org/l-renamed", "new-org/l-renamed")
    at = lazy(fresh_cache)
    for name in ("old-org/l-renamed", "new-org/l-renamed"):
        assert_same(expected, tree(at.repo(name)))


@pytest.mark.parametrize("count", [int(os.environ.get("MODELMOUNT_TEST_FILES", "20000"))])
def test_a_tree_of_many_pages(lazy, hub, fresh_cache, count):
    """MODELMOUNT_TEST_FILES=100000 for more."""
    serve(hub, "org/l-pages", {f"d{i % 100:02}/f{i:06}": b"%d" % i for i in range(count)})
    base = lazy(fresh_cache, "timeout=30").repo("org/l-pages")
    assert len(os.listdir(base)) == 100
    assert sum(len(os.listdir(base / name)) for name in os.listdir(base)) == count
    last = count - 1
    assert (base / f"d{last % 100:02}/f{last:06}").read_bytes() == b"%d" % last
    pages = asked(hub, "org/l-pages", "tree")
    assert count // 1000 <= len(pages) <= count // 1000 + 2


# Refs that move.


def moved(repo: HubRepo, hub: HubProcess) -> str:
    commit = repo.commit({"config.json": '{"a": 2}'})
    hub.add(repo)
    return commit


def test_a_moved_ref_shows(lazy, hub, fresh_cache):
    repo = serve(hub, "org/l-moved", {"config.json": '{"a": 1}', "same.txt": "same"})
    first = repo.head()
    at = lazy(fresh_cache, "ref_ttl=1")
    ref = at / "hub/models--org--l-moved/refs/main"
    assert ref.read_text() == first
    second = moved(repo, hub)
    wait_until(lambda: ref.read_text() == second, 5, "the new commit")
    assert (at.repo("org/l-moved") / "config.json").read_text() == '{"a": 2}'
    assert (at.repo("org/l-moved", first) / "config.json").read_text() == '{"a": 1}'


def test_who_is_inside_stays_in_the_commit(lazy, hub, fresh_cache):
    repo = serve(hub, "org/l-inside", {"config.json": '{"a": 1}', "other.json": '{"b": 1}'})
    base = lazy(fresh_cache, "ref_ttl=1").repo("org/l-inside")
    assert (base / "config.json").read_text() == '{"a": 1}'
    repo.commit({"other.json": '{"b": 2}'})
    moved(repo, hub)
    for _ in range(4):
        time.sleep(0.5)
        assert (base / "other.json").read_text() == '{"b": 1}'


def test_an_old_answer_is_given_at_once_while_the_hub_is_slow(lazy, hub, fresh_cache):
    serve(hub, "org/l-slow")
    at = lazy(fresh_cache, "ref_ttl=1")
    assert (at.repo("org/l-slow") / "config.json").read_bytes()
    time.sleep(1.5)
    hub.clear_log()
    hub.fault(name="slow", host="hub", path="/api/", delay=8, times=None)
    start = time.monotonic()
    assert os.listdir(at.repo("org/l-slow")) == ["config.json", "model.bin"]
    assert (at / "hub/models--org--l-slow/refs/main").read_text()
    assert time.monotonic() - start < 2
    wait_until(lambda: asked(hub, "org/l-slow", "revision"), SOON, "the question behind it")


def test_a_slow_repo_holds_up_no_other(lazy, hub, fresh_cache):
    serve(hub, "org/l-stuck")
    serve(hub, "org/l-quick")
    at = lazy(fresh_cache, "timeout=20")
    hub.fault(name="stuck", host="hub", path="l-stuck", delay=6, times=None)
    with subprocess.Popen(["ls", at.repo("org/l-stuck")], stdout=subprocess.PIPE) as waiting:
        try:
            wait_until(lambda: asked(hub, "org/l-stuck"), SOON, "the look-up")
            start = time.monotonic()
            assert os.listdir(at.repo("org/l-quick")) == ["config.json", "model.bin"]
            assert os.path.isdir(at / "models/org/l-stuck") and os.listdir(at / "models/org") is not None
            assert time.monotonic() - start < 2 and waiting.poll() is None
        finally:
            waiting.kill()


# Who may.


def test_a_private_repo_needs_its_token(lazy, hub, fresh_cache, tmp_path):
    repo = serve(hub, "org/l-private", private=True, readers=("reader",))
    for number, (token, good) in enumerate(((None, False), ("hf_stranger", False), ("hf_reader", True))):
        env = {"HF_TOKEN": token} if token else {}
        (tmp_path / f"c{number}").mkdir()
        at = lazy(tmp_path / f"c{number}", env=env, name=f"m{number}", state=f"s{number}")
        if good:
            assert_same(repo_tree(repo), tree(at.repo("org/l-private")))
        else:
            assert fails(at.repo("org/l-private")) is FileNotFoundError
            assert at.log_names("org/l-private", "private")
        assert token is None or token not in at.log() + str(at.status())


def test_a_token_that_comes_later_is_taken(lazy, hub, fresh_cache, tmp_path):
    """The file of the token is read again when it changes."""
    serve(hub, "org/l-later", private=True, readers=("reader",))
    file = tmp_path / "token"
    at = lazy(fresh_cache, "ref_ttl=1", env={"HF_TOKEN_PATH": os.fspath(file)})
    assert fails(at.repo("org/l-later")) is FileNotFoundError
    file.write_text("hf_reader\n")
    wait_until(lambda: os.path.exists(at.repo("org/l-later") / "config.json"), 10, "the repo")


def test_a_gated_repo_is_refused_and_says_what_to_do(lazy, hub, fresh_cache, tmp_path):
    repo = serve(hub, "org/l-gated", gated=True, readers=("reader",))
    at = lazy(fresh_cache)
    for name in ("config.json", "model.bin"):
        with pytest.raises(PermissionError):
            (at.repo("org/l-gated") / name).read_bytes()
    assert at.log_names("org/l-gated", "gated", "HF_TOKEN")
    assert not list(fresh_cache.glob("models--org--l-gated/blobs/*"))
    (tmp_path / "c").mkdir()
    other = lazy(tmp_path / "c", env={"HF_TOKEN": "hf_reader"}, name="mnt2", state="state2")
    assert_same(repo_tree(repo), tree(other.repo("org/l-gated")))


# Without the network, and without the Hub.


def test_offline_what_is_absent_is_unreachable(mount, hub, current, fresh_cache):
    serve(hub, "org/l-part")
    current.download("org/l-part", cache_dir=fresh_cache, allow_patterns=["config.json"])
    hub.clear_log()
    for number, (env, options) in enumerate((({}, ()), ({"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": ""}, ()),
                                             ({"HF_HUB_OFFLINE": ""}, ("offline",)))):
        at = mount(fresh_cache, *options, env={"HF_ENDPOINT": hub.url} | env, name=f"m{number}", state=f"s{number}")
        assert (at.repo("org/l-part") / "config.json").read_bytes() == b'{"a": 1}'
        with pytest.raises(OSError, match="unreachable"):
            (at.repo("org/l-part") / "model.bin").read_bytes()
        with pytest.raises(OSError):
            os.listdir(at.repo("org/l-part-none"))
        assert hub.log(path="l-part") == []


FIND = """
from huggingface_hub import hf_hub_download, snapshot_download
def main(repo_id, name):
    path = hf_hub_download(repo_id, name)
    try:
        hf_hub_download(repo_id, "none.json")
    except Exception as error:
        kind = type(error).__name__
    return [open(path, "rb").read().hex(), kind, snapshot_download(repo_id)]
"""


def test_the_library_loads_through_the_mounts_hub_directory(lazy, library, fresh_cache, hub_repos):
    """`HF_HUB_CACHE=<mount>/hub`, the library itself offline: repos that nobody ever downloaded are simply there."""
    at = lazy(fresh_cache)
    env = {"HF_HUB_CACHE": os.fspath(at / "hub"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    for version in ("2.4.0", "0.36.2"):
        for repo_id, name in (("org/tiny", "onnx/model.onnx"), ("gpt0", "config.json")):
            repo = hub_repos[repo_id]
            content = repo.files()[name].content
            data, kind, snapshot = library(version).run(FIND, env=env, repo_id=repo_id, name=name)
            assert bytes.fromhex(data) == content.read(0, content.size)
            assert kind in ("LocalEntryNotFoundError", "EntryNotFoundError")
            assert_same(repo_tree(repo), tree(snapshot))
