# SPDX-License-Identifier: Apache-2.0
"""`modelmount hf://…`: one repo at the root, pinned to its commit; what cannot be had fails the mount, not the first read."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.mounts import mounted, online, run, wait_until
from tests.support.repos import serve
from tests.support.trees import assert_same, repo_tree, shape, tree


@pytest.fixture
def refuse(mount, hub, fresh_cache, tmp_path):
    """`refuse("hf://org/none", "words", …)`: exit code 1, a message with the words, nothing mounted, nothing kept."""
    hub.reset()
    (tmp_path / "spot").mkdir()

    def check(
        source: str, *words: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None, code: int = 1
    ) -> str:
        start = time.monotonic()
        where = ("--cache-dir", fresh_cache, "--state-dir", tmp_path / "state")
        environment = mount.environment(**online(hub) | (env or {}))
        done = run("mount", *where, *options, source, tmp_path / "spot", env=environment)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("modelmount: "), done.stderr
        for word in words:
            assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"
        assert mounted(tmp_path / "spot") is None
        assert shape(fresh_cache) == {}
        assert time.monotonic() - start < 20
        return done.stderr

    yield check
    hub.reset()


# What is there.


def test_its_files_are_at_the_root(lazy, fresh_cache, hub_repos):
    at = lazy(fresh_cache, source="hf://org/tiny")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))
    assert at.status()["mountpoint"] == os.fspath(at.path)


@pytest.mark.parametrize(
    "source,repo_id,revision",
    [
        ("hf://models/org/tiny@v1.0", "org/tiny", "v1.0"),
        ("hf://org/tiny@refs/pr/1", "org/tiny", "refs/pr/1"),
        ("hf://org/tiny@feature%2Fx", "org/tiny", "feature/x"),
        ("hf://datasets/org/data", "org/data", "main"),
        ("hf://spaces/org/app", "org/app", "main"),
        ("hf://kernels/org/kern", "org/kern", "main"),
        ("hf://gpt0", "gpt0", "main"),
    ],
)
def test_every_kind_of_uri(lazy, fresh_cache, hub_repos, source, repo_id, revision):
    assert_same(repo_tree(hub_repos[repo_id], revision), tree(lazy(fresh_cache, source=source).path))


def test_a_commit_by_its_hash(lazy, fresh_cache, hub_repos):
    repo = hub_repos["org/tiny"]
    commit = repo.resolve("v1.0").sha
    assert_same(repo_tree(repo, commit), tree(lazy(fresh_cache, source=f"hf://org/tiny@{commit}").path))


def test_a_folder(lazy, fresh_cache, hub_repos):
    at = lazy(fresh_cache, source="hf://org/tiny@refs/pr/1/onnx/deep")
    content = hub_repos["org/tiny"].files("v1.0")["onnx/deep/er/vocab.txt"].content
    assert os.listdir(at.path) == ["er"]
    assert (at / "er/vocab.txt").read_bytes() == content.read(0, content.size)


def test_an_address_copied_from_a_browser(lazy, hub, fresh_cache, hub_repos):
    at = lazy(fresh_cache, source=f"{hub.url}/org/tiny/tree/main/onnx")
    assert os.listdir(at.path) == ["deep", "model.onnx"]


def test_the_long_options(mount, hub, hub_repos, fresh_cache, tmp_path):
    hub.reset()
    flags = ["--endpoint", hub.url, "--cache-dir", fresh_cache, "--state-dir", tmp_path / "state", "--connections", "3"]
    flags += ["--timeout", "5", "--ref-ttl", "10", "--no-publish"]
    at = mount("hf://org/tiny", env={"HF_HUB_OFFLINE": ""}, state=None, flags=flags)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))
    time.sleep(1)
    assert shape(fresh_cache) == {} and os.listdir(tmp_path / "state")


def test_without_its_options_it_uses_the_usual_cache(mount, hub, hub_repos, tmp_path):
    hub.reset()
    cache = tmp_path / "somewhere"
    cache.mkdir()
    at = mount("hf://org/tiny", env=online(hub, HF_HUB_CACHE=os.fspath(cache)))
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))
    blobs = {file.etag for file in hub_repos["org/tiny"].files().values()}
    there = cache / "models--org--tiny/blobs"
    wait_until(lambda: {path.name for path in there.glob("*")} == blobs, 10, "publishing")


def test_it_stays_at_its_commit_while_main_moves(lazy, hub, fresh_cache):
    repo = serve(hub, "org/o-pinned", {"config.json": '{"a": 1}', "other.json": "{}"})
    at = lazy(fresh_cache, "ref_ttl=1", source="hf://org/o-pinned")
    repo.commit({"config.json": '{"a": 2}', "other.json": None})
    hub.add(repo)
    for _ in range(4):
        time.sleep(0.6)
        assert os.listdir(at.path) == ["config.json", "other.json"]
        assert (at / "config.json").read_text() == '{"a": 1}'
    at.unmount()
    again = lazy(fresh_cache, "ref_ttl=1", source="hf://org/o-pinned")
    assert os.listdir(again.path) == ["config.json"] and (again / "config.json").read_text() == '{"a": 2}'


def test_offline_it_shows_what_the_cache_has(mount, hub, current, fresh_cache, hub_repos):
    current.download("org/tiny", cache_dir=fresh_cache)
    hub.clear_log()
    for number, (env, flags) in enumerate((({}, []), ({"HF_HUB_OFFLINE": ""}, ["--offline"]))):
        options = {"env": {"HF_ENDPOINT": hub.url} | env, "flags": ["--cache-dir", fresh_cache, *flags]}
        at = mount("hf://org/tiny", name=f"m{number}", state=f"s{number}", **options)
        assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))
    assert hub.log() == []


def test_what_was_fetched_before_mounts_while_the_hub_is_gone(lazy, mount, hub, fresh_cache, hub_repos):
    """Without any download: the index knows the ref and the tree, and the cache the blobs."""
    at = lazy(fresh_cache, source="hf://org/tiny")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))
    at.unmount()
    gone = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    at = mount("hf://org/tiny", env=gone, flags=["--cache-dir", fresh_cache])
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))


def test_in_the_background_as_a_user_starts_it(lazy, fresh_cache, hub_repos):
    at = lazy(fresh_cache, source="hf://org/tiny", background=True)
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(at.path))


# What is not.


def test_a_repo_that_is_missing_or_private(refuse, hub):
    serve(hub, "org/o-private", private=True, readers=("reader",))
    for repo_id in ("org/o-none", "org/o-private"):
        refuse(f"hf://{repo_id}", repo_id, "private", "HF_TOKEN")
    refuse("hf://org/o-private", "org/o-private", env={"HF_TOKEN": "hf_stranger"})


def test_a_revision_that_is_missing(refuse):
    refuse("hf://org/tiny@none", "org/tiny@none", "revision")
    refuse(f"hf://org/tiny@{'0' * 40}", "org/tiny", "revision")


def test_a_folder_that_is_missing_or_a_file(refuse):
    refuse("hf://org/tiny/none", "org/tiny", "none")
    refuse("hf://org/tiny/config.json", "config.json")


def test_a_gated_repo(refuse, hub):
    serve(hub, "org/o-gated", gated=True, readers=("reader",))
    refuse("hf://org/o-gated", "org/o-gated", "gated", "HF_TOKEN")
    refuse("hf://org/o-gated", "org/o-gated", "gated", env={"HF_TOKEN": "hf_stranger"})


def test_a_token_that_the_hub_does_not_know(refuse):
    message = refuse("hf://org/tiny", "token", env={"HF_TOKEN": "hf_secret_but_wrong"})
    assert "hf_secret_but_wrong" not in message


def test_offline_and_not_in_the_cache(refuse):
    refuse("hf://org/tiny", "org/tiny", "offline", env={"HF_HUB_OFFLINE": "1"})
    refuse("hf://org/tiny", "org/tiny", "offline", options=("--offline",))


def test_a_hub_that_is_not_there(refuse):
    refuse("hf://org/tiny", "127.0.0.1", "HF_ENDPOINT", options=("--timeout", "0.5", "--endpoint", "http://127.0.0.1:9"))


def test_a_hub_that_fails(refuse, hub):
    hub.fault(name="down", host="hub", status=503, times=None)
    refuse("hf://org/tiny", "org/tiny", "503", options=("--timeout", "0.5"))


@pytest.mark.parametrize("source", ["hf://buckets/org/name", "hf://", "hf://org/tiny@", "hf://org/na--me", "hf://org/..%2f"])
def test_what_is_no_uri(refuse, hub, source):
    """A mistake in the command's own words: exit code 2, and nobody is asked."""
    refuse(source, source, code=2)
    assert hub.log() == []


@pytest.mark.parametrize(
    "flags", [["--timeout", "0"], ["--timeout", "x"], ["--connections", "0"], ["--ref-ttl", "-1"], ["--endpoint", "ftp://x"]]
)
def test_options_that_make_no_sense(mount, hub, tmp_path, flags):
    """As other bad options: a message that names the option, nothing mounted."""
    (tmp_path / "spot").mkdir()
    done = run("mount", *flags, "hf://org/tiny", tmp_path / "spot", env=mount.environment(**online(hub)))
    assert done.returncode in (1, 2) and flags[0].strip("-") in done.stderr.replace("_", "-"), done.stderr
    assert mounted(Path(tmp_path / "spot")) is None
