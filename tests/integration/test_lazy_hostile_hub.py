# SPDX-License-Identifier: Apache-2.0
"""A Hub that talks nonsense, or means harm: look-ups end with an errno and a line in the log, and the mount lives."""

from __future__ import annotations

import errno
import itertools
import json
import os

import pytest

from tests.hub import HubRepo
from tests.support.faults import NONSENSE, assert_goes_on, assert_lives, attempt, content, look, named
from tests.support.mounts import wait_until
from tests.support.repos import serve
from tests.support.trees import shape

NUMBERS = itertools.count()
OPTIONS = ("timeout=0.5", "ref_ttl=1")
EVER = {"times": None}
FILES = {"config.json": '{"a": 1}', "dir/model.bin": b"model " * 1000}


@pytest.fixture
def repo(hub) -> HubRepo:
    return serve(hub, f"org/h-{next(NUMBERS)}", FILES)


def assert_look_fails(at, repo: HubRepo, expected: set[int]) -> None:
    """The look-up fails as expected, more than once; nothing has come into the cache, and the log says it."""
    for _ in range(2):
        found = look(at.repo(repo.id))
        assert found in expected, f"{named(found)}, not one of {named(expected)}"
    wait_until(lambda: at.log_names(repo.id), 3, f"a line of the log with {repo.id}")


# Refused look-ups.


@pytest.mark.parametrize(
    "status,code,message,expected",
    [
        (401, "RepoNotFound", "Invalid username or password.", {errno.ENOENT}),
        (404, "RepoNotFound", "Repository not found", {errno.ENOENT}),
        (404, "RevisionNotFound", "Invalid rev id", {errno.ENOENT}),
        (404, "EntryNotFound", "Entry not found", {errno.ENOENT}),
        (404, None, "Not Found", {errno.ENOENT}),
        (401, "GatedRepo", "restricted", {errno.EACCES}),
        (403, "GatedRepo", "restricted", {errno.EACCES}),
        (403, None, "Access to this resource is disabled.", {errno.EACCES}),
        (401, None, "Invalid credentials in Authorization header", {errno.EACCES}),
        (403, None, "Forbidden", {errno.EACCES}),
        (400, None, "Bad Request", NONSENSE),
        (500, None, "Internal", {errno.EIO}),
        (503, None, "Busy", {errno.EIO}),
    ],
)
@pytest.mark.parametrize("verb", ["revision", "tree"])
def test_a_look_up_that_is_refused(lazy, hub, fresh_cache, repo, verb, status, code, message, expected):
    at = lazy(fresh_cache, *OPTIONS)
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    hub.fault(name="no", host="hub", path=f"/{verb}/", status=status, headers=headers, **EVER)
    assert_look_fails(at, repo, expected | ({errno.EIO} if verb == "tree" else set()))
    assert shape(fresh_cache) == {}
    assert_lives(at, hub, fresh_cache)


@pytest.mark.parametrize("what", [{"drop": True}, {"delay": 30}, {"reset_at": 5}, {"truncate_at": 5}, {"stall_at": 5}])
@pytest.mark.parametrize("times", [1, None])
def test_an_api_on_a_bad_line(lazy, hub, fresh_cache, repo, what, times):
    at = lazy(fresh_cache, "timeout=1", "ref_ttl=1")
    hub.fault(name="line", host="hub", path="/tree/|/revision/", times=times, **what)
    if times is None:
        assert look(at.repo(repo.id)) in {errno.EIO, errno.ENETUNREACH}
    else:
        assert look(at.repo(repo.id)) == 0
    assert_lives(at, hub, fresh_cache)


def test_after_a_refusal_it_is_asked_again(lazy, hub, fresh_cache):
    """A no is remembered for some seconds, whatever it was, and never until the next mount."""
    at = lazy(fresh_cache, *OPTIONS)
    repos = {status: serve(hub, f"org/h-{next(NUMBERS)}", FILES) for status in (403, 404, 503, 200)}
    for status, repo in repos.items():
        hub.fault(name="no", host="hub", path=f"{repo.id}/revision", status=status, body=b"no", **EVER)
        assert look(at.repo(repo.id)) != 0
    for repo in repos.values():
        assert_goes_on(at, hub, repo, fresh_cache)


# Answers that are no answers.

GOOD = '[{"type":"file","oid":"%s","size":8,"path":"config.json"}]' % ("a" * 40)
NO_JSON = {
    "HTML": b"<!doctype html><html><body>Please log in to the hotel's network</body></html>",
    "nothing": b"",
    "cut off": GOOD[: len(GOOD) // 2].encode(),
    "another type": b'"all is well"',
    "a number": b"17",
    "null": b"null",
    "deep": b"[" * 200_000,
    "binary": bytes(range(256)) * 20,
    "no UTF-8": b'[{"type":"file","oid":"' + b"a" * 40 + b'","size":8,"path":"\xff\xfe"}',
}


@pytest.mark.parametrize("verb", ["revision", "tree"])
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON.keys())
def test_no_json(lazy, hub, fresh_cache, repo, verb, body):
    at = lazy(fresh_cache, *OPTIONS)
    headers = {"Content-Type": "text/html", "X-Repo-Commit": None}
    hub.fault(name="nonsense", host="hub", path=f"/{verb}/", body=body, headers=headers, **EVER)
    assert_look_fails(at, repo, NONSENSE)
    assert shape(fresh_cache) == {}
    assert_lives(at, hub, fresh_cache)


def test_a_hundred_megabytes_of_json(lazy, hub, fresh_cache, repo):
    """One name of 100 MB: the daemon neither takes it in nor dies of it."""
    at = lazy(fresh_cache, "timeout=20", "ref_ttl=1")
    body = b'[{"type":"file","path":"' + b"x" * 100_000_000 + b'"}]'
    hub.fault(name="huge", host="hub", path="/tree/", body=body, **EVER)
    assert_look_fails(at, repo, NONSENSE)
    assert_lives(at, hub, fresh_cache)


@pytest.mark.parametrize(
    "sha", ["../../etc", "main", "0" * 39, "0" * 41, "G" * 40, "A" * 40, "", 17, None, ["0" * 40], "0" * 39 + "\n", "absent"]
)
def test_a_commit_that_is_no_commit(lazy, hub, fresh_cache, repo, sha):
    at = lazy(fresh_cache, *OPTIONS)
    info = {"id": repo.id, "sha": sha, "siblings": []}
    if sha == "absent":
        del info["sha"]
    headers = {"X-Repo-Commit": None}
    hub.fault(name="sha", host="hub", path="/revision/", body=json.dumps(info).encode(), headers=headers, **EVER)
    assert_look_fails(at, repo, NONSENSE)
    assert shape(fresh_cache) == {}
    assert_lives(at, hub, fresh_cache)


# Trees that would lead astray.


def entry(path: object, size: object = 8, **rest: object) -> dict:
    return {"type": "file", "oid": "a" * 40, "size": size, "path": path} | rest


def lfs(oid: object, size: object = 8) -> dict:
    return entry("model.bin", size, lfs={"oid": oid, "size": size, "pointerSize": 134})


HOSTILE = {
    "dot-dot": entry("../../../escape"),
    "dot-dot inside": entry("dir/../../escape"),
    "dot": entry("./config2.json"),
    "absolute": entry("/etc/passwd"),
    "a slash at the end": entry("dir/"),
    "two slashes": entry("dir//x"),
    "NUL": entry("nul\0byte"),
    "a long component": entry("x" * 256),
    "a long path": entry("x/" * 2048 + "x"),
    "no text": entry(17),
    "a negative size": entry("x", -1),
    "a size of text": entry("x", "8"),
    "a broken size": entry("x", 8.5),
    "a size above 2^53": entry("x", 2**53 + 2),
    "a size above 2^63": entry("x", 2**63),
    "a size above 2^64": entry("x", 1e30),
    "a hash of another length": entry("x", oid="abc"),
    "a hash that is a path": entry("x", oid="../../../../../../../../../../etc/passwd"),
    "no hash": entry("x", oid=None),
    "an LFS hash that is a path": lfs("../" * 20 + "etc"),
    "an LFS hash of another length": lfs("a" * 40),
    "an LFS size below zero": lfs("a" * 64, -5),
}


def with_good(repo: HubRepo, *more: dict) -> bytes:
    """The repo's real tree, and these entries."""
    real = [entry(path, file.size, oid=file.oid) for path, file in repo.files().items()]
    return json.dumps([*real, *more]).encode()


@pytest.mark.parametrize("bad", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_entry(lazy, hub, fresh_cache, repo, bad):
    """The whole tree is refused: half of one would be a wrong answer."""
    at = lazy(fresh_cache, *OPTIONS)
    hub.fault(name="hostile", host="hub", path="/tree/", body=with_good(repo, bad), **EVER)
    assert_look_fails(at, repo, NONSENSE)
    assert shape(fresh_cache) == {} and not (fresh_cache.parent / "escape").exists()
    assert_lives(at, hub, fresh_cache)


DOUBLE = {
    "twice the same": entry("new.txt"),
    "twice, with another size": entry("config.json", 99),
    "twice, with another hash": entry("config.json", oid="b" * 40),
    "a file where a directory is": entry("dir"),
    "a directory where a file is": entry("config.json/x"),
    "a directory's entry where a file is": {"type": "directory", "oid": "a" * 40, "size": 0, "path": "config.json"},
}


@pytest.mark.parametrize("bad", DOUBLE.values(), ids=DOUBLE.keys())
def test_a_name_that_is_there_twice(lazy, hub, fresh_cache, repo, bad):
    """Refused, or what can be served right is served: never another file's bytes, and no name twice in a listing."""
    at = lazy(fresh_cache, *OPTIONS)
    again = [bad] if bad["path"] == "new.txt" else []
    hub.fault(name="twice", host="hub", path="/tree/", body=with_good(repo, bad, *again), **EVER)
    found = look(at.repo(repo.id))
    assert found in NONSENSE | {0}
    if found == 0:
        names = os.listdir(at.repo(repo.id))
        assert len(names) == len(set(names))
        for path, file in repo.files().items():
            assert attempt(at.repo(repo.id) / path) in (content(file), *NONSENSE, errno.ENOENT, errno.ENOTDIR)
    for blob in fresh_cache.glob("*--*/blobs/*"):
        assert blob.name in {file.oid for file in repo.files().values()}
    assert at.live()


@pytest.mark.parametrize(
    "odd", [entry(""), {"type": "submodule", "oid": "a" * 40, "size": 0, "path": "sub"}, entry("x", type="symlink2"), {}]
)
def test_entries_that_are_no_files_are_passed_over(lazy, hub, fresh_cache, repo, odd):
    """Mirrors list a root with an empty path, and types that nobody has heard of."""
    at = lazy(fresh_cache, *OPTIONS)
    hub.fault(name="odd", host="hub", path="/tree/", body=with_good(repo, odd), **EVER)
    base = at.repo(repo.id)
    assert attempt(base / "config.json") == content(repo.files()["config.json"])
    assert os.listdir(base) == ["config.json", "dir"]
    assert_lives(at, hub, fresh_cache)


# Pages that lead elsewhere.


@pytest.mark.parametrize("where", ["cdn", "file", "itself", "broken"])
def test_the_next_page_is_somewhere_else(lazy, hub, fresh_cache, where):
    """A page on another host is not asked for with the token; a page that is its own next one ends, too."""
    repo = serve(hub, f"org/h-{next(NUMBERS)}", FILES, private=True, readers=("reader",))
    at = lazy(fresh_cache, *OPTIONS, env={"HF_TOKEN": "hf_reader"})
    tree = f"/api/models/{repo.id}/tree/{repo.head()}?recursive=true"
    links = {"cdn": f"{hub.cdn_url}/next", "file": "file:///etc/passwd", "itself": f"{hub.url}{tree}", "broken": "::"}
    hub.fault(name="next", host="hub", path="/tree/", headers={"Link": f'<{links[where]}>; rel="next"'}, **EVER)
    assert look(at.repo(repo.id)) in NONSENSE | {0, errno.EACCES, errno.ENOENT}
    assert all(request.authorization is None for request in hub.log(host="cdn"))
    assert len(hub.log(path="/tree/")) < 1200
    assert at.live()
    if where != "itself":
        assert_lives(at, hub, fresh_cache)


# Mirrors that lack what the Hub has.


def test_a_mirror_without_headers_refs_and_dates(lazy, hub, fresh_cache, repo):
    none = ("X-Repo-Commit", "X-Linked-Size", "X-Linked-ETag", "ETag", "Accept-Ranges", "RateLimit", "RateLimit-Policy")
    hub.fault(name="no refs", host="hub", path="/refs$|/commits/", status=404, **EVER)
    hub.fault(name="bare", headers={name: None for name in none}, **EVER)
    at = lazy(fresh_cache, *OPTIONS)
    for path, file in repo.files().items():
        assert attempt(at.repo(repo.id) / path) == content(file)
    assert_lives(at, hub, fresh_cache)
