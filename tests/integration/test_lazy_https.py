# SPDX-License-Identifier: Apache-2.0
"""The Hub as it really is: behind TLS and HTTP/2. The real library and the mount both work through it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

from tests.hub import HubRepo, Pattern
from tests.support import nginx
from tests.support.library import VERSIONS, LibraryError
from tests.support.mounts import mounted, online, run
from tests.support.repos import MIB
from tests.support.trees import assert_same, assert_blobs_are_what_they_claim, repo_tree, snapshot_tree, tree


@pytest.fixture(scope="module")
def secure(tmp_path_factory, hub_repos) -> Iterator[nginx.SecureHub]:
    if name := nginx.missing():
        pytest.skip(f"{name} is not installed: contrib/install-deps --tests")
    made = nginx.SecureHub(tmp_path_factory.mktemp("nginx"))
    made.hub.add(*hub_repos.values())
    made.hub.add_token("hf_reader", "reader")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(secure) -> Iterator[None]:
    secure.forget()
    yield
    secure.forget()


def trusting(secure: nginx.SecureHub, variable: str = "SSL_CERT_FILE") -> dict[str, str]:
    return online(secure, **{variable: os.fspath(secure.ca)})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_real_library_downloads(secure, library, hub_repos, tmp_path, version):
    """Each version by the variable that its own HTTP client reads."""
    env = {"HF_ENDPOINT": secure.url}
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        env[variable] = os.fspath(secure.ca)
    for repo_id in ("org/tiny", "org/strange"):
        found = Path(library(version).download(repo_id, cache_dir=tmp_path / "hub", env=env))
        snapshot = snapshot_tree(tmp_path / "hub", found.parents[1].name, found.name)
        assert_same(repo_tree(hub_repos[repo_id]), snapshot)
    assert {host for host, _, _ in secure.seen()} == set(nginx.HOSTS)


def test_the_mount_reads_by_http_2(secure, mount, hub_repos, fresh_cache):
    at = mount(fresh_cache, env=trusting(secure))
    for repo_id in ("org/tiny", "org/strange", "org/data"):
        assert_same(repo_tree(hub_repos[repo_id]), tree(at.repo(repo_id, type=hub_repos[repo_id].type)))
    seen = secure.seen()
    assert {host for host, _, _ in seen} == set(nginx.HOSTS)
    assert {version for _, version, _ in seen} == {"2.0"}
    assert_blobs_are_what_they_claim(fresh_cache)
    at.unmount()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_other_names_of_the_authority(secure, mount, hub_repos, fresh_cache, variable):
    at = mount(fresh_cache, env=trusting(secure, variable))
    assert_same(repo_tree(hub_repos["org/pipeline"]), tree(at.repo("org/pipeline")))


def test_one_repo_by_its_uri(secure, mount, hub_repos, fresh_cache):
    at = mount("hf://org/tiny@v1.0", env=trusting(secure), flags=["--cache-dir", fresh_cache])
    assert_same(repo_tree(hub_repos["org/tiny"], "v1.0"), tree(at.path))


def test_large_files_in_parallel_over_few_connections(secure, mount, fresh_cache):
    """Ranges share connections; no byte comes twice, and nothing starves."""
    repo = HubRepo("org/s-large")
    size = 24 * MIB + 5
    repo.commit({f"model-{index}.bin": Pattern(f"secure {index}", size) for index in range(2)})
    secure.hub.add(repo)
    at = mount(fresh_cache, env=trusting(secure))
    assert_same(repo_tree(repo), tree(at.repo(repo.id)))
    log = secure.hub.log(host="cdn")
    assert sum(entry.sent for entry in log) <= 2 * size + 2 * MIB
    assert secure.seen() and {version for _, version, _ in secure.seen()} == {"2.0"}


def test_the_token_stays_with_the_hub(secure, mount, fresh_cache):
    repo = HubRepo("org/s-private", private=True, readers=("reader",))
    repo.commit({"config.json": "{}", "model.bin": Pattern("s-private", 100_000)})
    secure.hub.add(repo)
    at = mount(fresh_cache, env=trusting(secure) | {"HF_TOKEN": "hf_reader"})
    assert_same(repo_tree(repo), tree(at.repo(repo.id)))
    assert all(entry.authorization == "Bearer hf_reader" for entry in secure.hub.log(host="hub"))
    elsewhere = secure.hub.log(host="cdn")
    assert elsewhere and all(entry.authorization is None for entry in elsewhere)


def test_a_certificate_that_nobody_trusts(secure, mount, current, fresh_cache, tmp_path):
    """The library refuses it, and so does the mount: with words on certificates, at once."""
    with pytest.raises(LibraryError):
        current.download("org/tiny", cache_dir=tmp_path / "theirs", env={"HF_ENDPOINT": secure.url})
    (tmp_path / "spot").mkdir()
    arguments = ["--cache-dir", fresh_cache, "--state-dir", tmp_path / "s", "--timeout", "1", "hf://org/tiny", tmp_path / "spot"]
    done = run("mount", *arguments, env=mount.environment(**online(secure)))
    assert done.returncode == 1 and "certificate" in done.stderr.lower(), done.stderr
    assert mounted(tmp_path / "spot") is None
    at = mount(fresh_cache, "timeout=1", env=online(secure))
    with pytest.raises(OSError):
        os.listdir(at.repo("org/tiny"))
    assert secure.hub.log() == []


def test_a_connection_that_is_lost_in_the_midst(secure, mount, fresh_cache):
    """Behind a proxy a reset is an HTTP/2 stream's end; the rest comes all the same."""
    repo = HubRepo("org/s-cut")
    content = Pattern("s-cut", 5 * MIB)
    repo.commit({"model.bin": content})
    secure.hub.add(repo)
    secure.hub.fault(name="cut", host="cdn", method="GET", reset_at=10_000, times=2)
    at = mount(fresh_cache, "timeout=2", env=trusting(secure))
    assert_same(repo_tree(repo), tree(at.repo(repo.id)))
