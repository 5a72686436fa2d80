# SPDX-License-Identifier: Apache-2.0
"""The test Hub is a Hub as far as the real library, in four versions, can tell."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

from tests.hub import HubProcess, HubRepo, Pattern
from tests.support.library import CURRENT, VERSIONS, Library, LibraryError

ONE_FILE = """
from huggingface_hub import hf_hub_download
def main(**arguments):
    return hf_hub_download(**arguments)
"""

TREE = """
from huggingface_hub import HfApi
def main(**arguments):
    return [
        [e.path, getattr(e, "size", None), getattr(e, "blob_id", None), e.lfs.sha256 if getattr(e, "lfs", None) else None]
        for e in HfApi().list_repo_tree(**arguments)
    ]
"""

INFO = """
from huggingface_hub import HfApi
def main(**arguments):
    info = HfApi().repo_info(**arguments)
    return {"sha": info.sha, "date": info.last_modified.isoformat(), "files": [s.rfilename for s in info.siblings]}
"""


@pytest.fixture(params=VERSIONS)
def version(request, library) -> Library:
    return library(request.param)


def equal_trees(expected: Path, found: Path) -> None:
    """Both directories hold the same files with the same bytes; the library's own `.cache` is not looked at."""

    def names(base: Path) -> set[str]:
        out = set()
        for folder, folders, files in os.walk(base):
            folders[:] = [name for name in folders if name != ".cache"]
            out |= {os.path.relpath(os.path.join(folder, name), base) for name in files}
        return out

    assert names(found) == names(expected)
    for name in names(expected):
        assert filecmp.cmp(expected / name, found / name, shallow=False), name


def test_snapshot_download_gets_every_byte(version, hub_repos, tmp_path):
    repo = hub_repos["org/tiny"]
    repo.write_to(tmp_path / "expected")
    found = version.download("org/tiny", cache_dir=tmp_path / "cache")
    assert Path(found).name == repo.head()
    equal_trees(tmp_path / "expected", Path(found))
    ref = tmp_path / "cache" / "models--org--tiny" / "refs" / "main"
    assert ref.read_text() == repo.head()


def test_blobs_are_named_by_their_real_hashes(version, hub_repos, tmp_path):
    version.download("org/tiny", cache_dir=tmp_path)
    blobs = {path.name for path in (tmp_path / "models--org--tiny" / "blobs").iterdir()}
    assert blobs == {file.etag for file in hub_repos["org/tiny"].files().values()}


def test_strange_names_arrive(version, hub_repos, tmp_path):
    hub_repos["org/strange"].write_to(tmp_path / "expected")
    equal_trees(tmp_path / "expected", Path(version.download("org/strange", cache_dir=tmp_path / "cache")))


@pytest.mark.parametrize("repo_id,repo_type", [("org/data", "dataset"), ("org/app", "space"), ("gpt0", "model")])
def test_other_types_and_the_old_names(version, hub_repos, tmp_path, repo_id, repo_type):
    hub_repos[repo_id].write_to(tmp_path / "expected")
    found = version.download(repo_id, repo_type=repo_type, cache_dir=tmp_path / "cache")
    equal_trees(tmp_path / "expected", Path(found))


def test_a_kernel(current, hub_repos, tmp_path):
    hub_repos["org/kern"].write_to(tmp_path / "expected")
    equal_trees(tmp_path / "expected", Path(current.download("org/kern", repo_type="kernel", cache_dir=tmp_path / "c")))


@pytest.mark.parametrize("revision", ["v1.0", "feature/x", "refs/pr/1"])
def test_revisions_with_and_without_slashes(version, hub_repos, tmp_path, revision):
    commit = hub_repos["org/tiny"].resolve(revision)
    found = version.download("org/tiny", revision=revision, cache_dir=tmp_path, allow_patterns=["config.json"])
    assert Path(found).name == commit.sha
    assert (Path(found) / "config.json").read_bytes() == commit.files["config.json"].content.read(0, 1000)
    assert (tmp_path / "models--org--tiny" / "refs" / revision).read_text() == commit.sha


def test_one_file(version, hub_repos, tmp_path):
    path = version.run(ONE_FILE, repo_id="org/tiny", filename="onnx/model.onnx", cache_dir=str(tmp_path))
    assert Path(path).read_bytes() == hub_repos["org/tiny"].files()["onnx/model.onnx"].content.read(0, 1 << 30)


def test_the_tree_says_what_git_says(version, hub_repos):
    repo = hub_repos["org/tiny"]
    entries = {path: rest for path, *rest in version.run(TREE, repo_id="org/tiny", recursive=True)}
    for path, file in repo.files().items():
        assert entries[path] == [file.size, file.oid, file.content.sha256 if file.lfs else None]
    assert {"onnx", "onnx/deep", "onnx/deep/er"} == set(entries) - set(repo.files())


def test_a_tree_of_several_pages(version, hub, tmp_path):
    repo = HubRepo("org/pages")
    repo.commit({f"d{i % 7}/f{i:05}.txt": str(i) for i in range(2500)})
    hub.add(repo)
    found = version.run(TREE, repo_id="org/pages", recursive=True)
    assert len(found) == 2507 and len({path for path, *_ in found}) == 2507


def test_info_and_its_date(version, hub_repos):
    repo = hub_repos["org/tiny"]
    info = version.run(INFO, repo_id="org/tiny")
    assert info["sha"] == repo.head() and set(info["files"]) == set(repo.files())
    assert info["date"] == repo.commits[repo.head()].date.isoformat()


def test_refs_commits_and_paths(version, hub_repos):
    script = """
from huggingface_hub import HfApi
def main():
    api = HfApi()
    refs = api.list_repo_refs("org/tiny", include_pull_requests=True)
    return {
        "branches": {r.name: r.target_commit for r in refs.branches},
        "tags": [r.name for r in refs.tags],
        "prs": [r.ref for r in refs.pull_requests],
        "commits": [[c.commit_id, c.title, c.created_at.isoformat()] for c in api.list_repo_commits("org/tiny")],
        "paths": [p.path for p in api.get_paths_info("org/tiny", ["onnx", "config.json", "nope"], expand=True)],
        "exists": [api.file_exists("org/tiny", "config.json"), api.file_exists("org/tiny", "nope")],
        "whoami": api.whoami(token="hf_reader")["name"],
    }
"""
    repo = hub_repos["org/tiny"]
    found = version.run(script)
    assert found["branches"] == {"main": repo.head(), "feature/x": repo.head("feature/x")}
    assert found["tags"] == ["v1.0"] and found["prs"] == ["refs/pr/1"]
    expected = [[c.sha, c.title, c.date.isoformat()] for c in repo.history(repo.commits[repo.head()])]
    assert found["commits"] == expected
    assert found["paths"] == ["onnx", "config.json"] and found["exists"] == [True, False]
    assert found["whoami"] == "reader"


def test_what_is_missing_is_missing_in_the_right_way(version, tmp_path):
    def kind(**arguments) -> str:
        with pytest.raises(LibraryError) as caught:
            version.run(ONE_FILE, cache_dir=str(tmp_path), **arguments)
        return caught.value.kind

    assert kind(repo_id="org/none", filename="a") == "RepositoryNotFoundError"
    assert kind(repo_id="org/none", filename="a", token="hf_reader") == "RepositoryNotFoundError"
    assert kind(repo_id="org/tiny", filename="a", revision="none") == "RevisionNotFoundError"
    missing = kind(repo_id="org/tiny", filename="not/there.txt")
    assert missing in ("RemoteEntryNotFoundError", "EntryNotFoundError")
    commits = list((tmp_path / "models--org--tiny" / ".no_exist").iterdir())
    assert [path.name for path in (commits[0] / "not").iterdir()] == ["there.txt"]


def test_private_and_gated_repos(version, hub, tmp_path):
    private = HubRepo("org/private", private=True, readers=("reader",))
    gated = HubRepo("org/gated", gated=True, readers=("reader",))
    disabled = HubRepo("org/disabled", disabled=True)
    for repo in (private, gated, disabled):
        repo.commit({"config.json": "{}", "model.bin": Pattern(repo.id, 5000)})
    hub.add(private, gated, disabled)

    def kind(repo_id: str, token: str | bool) -> str:
        try:
            version.download(repo_id, token=token, cache_dir=tmp_path / str(token))
        except LibraryError as error:
            return error.kind
        return "done"

    tokens = ("hf_reader", "hf_stranger", False)
    assert [kind("org/private", t) for t in tokens] == ["done"] + ["RepositoryNotFoundError"] * 2
    assert [kind("org/gated", t) for t in tokens] == ["done"] + ["GatedRepoError"] * 2
    assert kind("org/disabled", False) in ("DisabledRepoError", "LocalEntryNotFoundError", "HfHubHTTPError")
    with pytest.raises(LibraryError, match="Invalid credentials"):
        version.run(INFO, repo_id="org/tiny", token="hf_wrong")


def test_the_token_stays_with_the_hub(version, hub, tmp_path):
    repo = HubRepo("org/secret-bytes", private=True, readers=("reader",))
    repo.commit({"config.json": "{}", "model.bin": Pattern("secret", 50_000)})
    hub.add(repo)
    hub.clear_log()
    version.download("org/secret-bytes", token="hf_reader", cache_dir=tmp_path)
    assert all(entry.authorization == "Bearer hf_reader" for entry in hub.log(host="hub"))
    elsewhere = hub.log(host="cdn")
    assert elsewhere and all(entry.authorization is None for entry in elsewhere)


def test_a_renamed_repo_is_found_by_both_names(version, hub, tmp_path):
    repo = HubRepo("old/name")
    repo.commit({"config.json": "{}", "model.bin": Pattern("renamed", 5000)})
    hub.add(repo)
    hub.rename("old/name", "new/name")
    for name in ("old/name", "new/name"):
        assert (Path(version.download(name, cache_dir=tmp_path)) / "model.bin").stat().st_size == 5000
    hub.remove("new/name")


def test_the_command_line(version, hub_repos, tmp_path):
    cache = {"HF_HUB_CACHE": str(tmp_path)}
    done = version.hf("download", "org/tiny", env=cache)
    assert done.returncode == 0, done.stderr
    assert hub_repos["org/tiny"].head() in done.stdout
    listing = version.hf(*(["cache", "scan"] if version.version == "0.36.2" else ["cache", "ls"]), env=cache)
    assert listing.returncode == 0 and "org/tiny" in listing.stdout, listing.stdout + listing.stderr


def test_the_current_command_line_verifies_what_it_downloaded(current: Library, tmp_path):
    cache = {"HF_HUB_CACHE": str(tmp_path)}
    assert current.hf("download", "org/tiny", env=cache).returncode == 0
    done = current.hf("cache", "verify", "org/tiny", env=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "models--org--tiny" / "trees").is_dir()


def test_the_library_survives_what_the_hub_does_to_it(current: Library, hub: HubProcess, tmp_path):
    """A body that ends too soon: the library asks again, and the bytes are right."""
    repo = HubRepo("org/bumpy")
    repo.commit({"model.bin": Pattern("bumpy", 3_000_000)})
    hub.add(repo)
    hub.clear_log()
    hub.fault(name="cut", host="cdn", method="GET", truncate_at=1_000_000)
    try:
        found = current.download("org/bumpy", cache_dir=tmp_path)
        assert (Path(found) / "model.bin").read_bytes() == Pattern("bumpy", 3_000_000).read(0, 3_000_000)
        assert [entry.fault for entry in hub.log(host="cdn")] == ["cut", None]
    finally:
        hub.reset()


def test_versions_are_what_they_claim(library):
    script = "import huggingface_hub\ndef main():\n    return huggingface_hub.__version__"
    assert CURRENT in VERSIONS
    for version in VERSIONS:
        assert library(version).run(script) == version
