# SPDX-License-Identifier: Apache-2.0
"""Files that the Hub gives badly: a clear errno and a line in the log, nothing wrong served for good, kept or published."""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path

import pytest

from tests.hub import HubRepo, Pattern
from tests.support.faults import NONSENSE, assert_fails, assert_goes_on, attempt, content
from tests.support.mounts import wait_until
from tests.support.repos import MIB, serve

NUMBERS = itertools.count()
QUICK = "timeout=0.5"
SMALL, LARGE = "config.json", "model.bin"
FILES = {SMALL: '{"a": 1}', LARGE: Pattern("faulty", 3 * MIB + 17)}
EVER = {"times": None}


@pytest.fixture
def repo(hub) -> HubRepo:
    """A repo that no other test has touched; the same for each, so that the Hub hashes it once."""
    return serve(hub, f"org/f-{next(NUMBERS)}", FILES)


def log_has(at, repo: HubRepo, name: str) -> None:
    wait_until(lambda: at.log_names(repo.id, name), 3, f"a line of the log with {repo.id} and {name}")


# An answer that says no.

REFUSALS = [
    (401, "GatedRepo", "Access to model is restricted", {errno.EACCES}),
    (403, "GatedRepo", "you are not in the authorized list", {errno.EACCES}),
    (403, None, "Access to this resource is disabled.", {errno.EACCES}),
    (403, None, "Forbidden", {errno.EACCES}),
    (401, None, "Invalid credentials in Authorization header", {errno.EACCES}),
    (451, None, "Unavailable", {errno.EACCES}),
    (401, "RepoNotFound", "Invalid username or password.", {errno.ENOENT}),
    (404, "RepoNotFound", "Repository not found", {errno.ENOENT}),
    (404, "RevisionNotFound", "Invalid rev id", {errno.ENOENT}),
    (404, "EntryNotFound", "Entry not found", {errno.ENOENT, errno.EIO}),
    (404, None, "Not Found", {errno.ENOENT, errno.EIO}),
    (400, None, "Bad Request", NONSENSE),
    (416, None, "Range Not Satisfiable", NONSENSE),
]


@pytest.mark.parametrize("status,code,message,expected", REFUSALS)
def test_a_file_that_is_refused(lazy, hub, fresh_cache, repo, status, code, message, expected):
    at = lazy(fresh_cache, QUICK)
    base = at.repo(repo.id)
    assert os.listdir(base) == [SMALL, LARGE]
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    hub.fault(name="refused", host="hub", path="/resolve", status=status, headers=headers, **EVER)
    for name in (LARGE, SMALL):
        assert_fails(base / name, expected)
        log_has(at, repo, name)
        assert (base / name).stat().st_size == len(content(repo.files()[name]))  # it is still listed
    assert len(hub.log(path="/resolve")) < 20
    assert_goes_on(at, hub, repo, fresh_cache)


@pytest.mark.parametrize("status", [403, 404, 416])
def test_the_other_host_refuses(lazy, hub, fresh_cache, repo, status):
    """A signed address is asked for again, not for ever."""
    at = lazy(fresh_cache, QUICK)
    hub.fault(name="refused", host="cdn", status=status, **EVER)
    assert_fails(at.repo(repo.id) / LARGE, {errno.EACCES, errno.ENOENT} | NONSENSE)
    log_has(at, repo, LARGE)
    assert len(hub.log(host="cdn")) < 40
    assert_goes_on(at, hub, repo, fresh_cache)


# An answer that says: later.


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "2"}, {"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";"resolvers";q=1;w=1'}]
)
@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_a_rate_limit_is_waited_for(lazy, hub, fresh_cache, repo, name, headers):
    at = lazy(fresh_cache, "timeout=2")
    assert os.listdir(at.repo(repo.id))
    hub.fault(name="limit", host="hub", path="/resolve", status=429, headers=headers, times=1)
    assert attempt(at.repo(repo.id) / name) == content(repo.files()[name])
    log = hub.log(path="/resolve")
    struck = next(entry for entry in log if entry.fault == "limit")
    later = [entry.started - struck.started for entry in log if entry.started > struck.started + 0.2]
    assert later and min(later) >= 1, "it asked again too early"
    assert_goes_on(at, hub, repo, fresh_cache)


def test_a_rate_limit_without_end(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, QUICK)
    base = at.repo(repo.id)
    assert os.listdir(base)
    hub.fault(name="limit", path="/resolve", status=429, headers={"Retry-After": "3600"}, **EVER)
    assert_fails(base / LARGE, {errno.EIO, errno.EAGAIN})
    log_has(at, repo, LARGE)
    assert len(hub.log(path="/resolve")) < 8


@pytest.mark.parametrize("host,name", [("hub", SMALL), ("hub", LARGE), ("cdn", LARGE)])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_that_recovers(lazy, hub, fresh_cache, repo, host, name, status):
    at = lazy(fresh_cache, "timeout=2")
    assert os.listdir(at.repo(repo.id))
    hub.fault(name="failing", host=host, path="/resolve|/xet", status=status, times=2 if status == 503 else 1)
    assert attempt(at.repo(repo.id) / name) == content(repo.files()[name])
    assert at.status()["network"]["retries"] >= 1
    assert_goes_on(at, hub, repo, fresh_cache)


@pytest.mark.parametrize("host,what", [("hub", {"status": 503}), ("cdn", {"status": 500}), ("cdn", {"drop": True}),
                                       ("cdn", {"reset_at": 0}), ("cdn", {"truncate_at": 0}), ("cdn", {"stall_at": 0}),
                                       ("hub", {"delay": 30}), ("hub", {"drop": True})])
def test_a_server_that_keeps_failing(lazy, hub, fresh_cache, repo, host, what):
    at = lazy(fresh_cache, QUICK)
    base = at.repo(repo.id)
    assert os.listdir(base)
    hub.fault(name="failing", host=host, path="/resolve|/xet", **what, **EVER)
    assert_fails(base / LARGE, {errno.EIO})
    log_has(at, repo, LARGE)
    assert at.status()["network"]["errors"] >= 1
    assert os.listdir(base) == [SMALL, LARGE]
    assert_goes_on(at, hub, repo, fresh_cache)


# A body that ends too soon.


@pytest.mark.parametrize("what", [{"reset_at": 10_000}, {"truncate_at": 10_000}, {"stall_at": 10_000}, {"drop": True}])
@pytest.mark.parametrize("times", [1, 3])
def test_a_body_that_is_cut_goes_on_where_it_stopped(lazy, hub, fresh_cache, repo, what, times):
    at = lazy(fresh_cache, "timeout=1")
    assert os.listdir(at.repo(repo.id))
    hub.fault(name="cut", host="cdn", method="GET", times=times, **what)
    assert attempt(at.repo(repo.id) / LARGE) == content(repo.files()[LARGE])
    # What was sent may have been lost on the way, where the connection was reset: 10 KB each time.
    assert sum(entry.sent for entry in hub.log(host="cdn")) <= FILES[LARGE].size + times * 16_000
    assert_goes_on(at, hub, repo, fresh_cache)


@pytest.mark.parametrize("what", [{"reset_at": 3}, {"truncate_at": 3}, {"stall_at": 3}])
def test_a_small_body_that_is_cut(lazy, hub, fresh_cache, repo, what):
    at = lazy(fresh_cache, "timeout=1")
    hub.fault(name="cut", path="resolve-cache", method="GET", times=1, **what)
    assert attempt(at.repo(repo.id) / SMALL) == content(repo.files()[SMALL])
    assert_goes_on(at, hub, repo, fresh_cache)


# Bytes that are not the file's.


def test_wrong_bytes_of_a_small_file_are_never_served(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, QUICK)
    base = at.repo(repo.id)
    hub.fault(name="wrong", path="resolve-cache", flip_at=2, times=1, method="GET")
    assert attempt(base / SMALL) in (content(repo.files()[SMALL]), errno.EIO)
    assert_goes_on(at, hub, repo, fresh_cache)


def test_wrong_bytes_of_a_small_file_for_ever(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, QUICK)
    hub.fault(name="wrong", path="resolve-cache", flip_at=2, **EVER)
    for _ in range(3):
        assert_fails(at.repo(repo.id) / SMALL, {errno.EIO})
    log_has(at, repo, SMALL)
    assert not list(fresh_cache.glob("models--*/blobs/*"))
    assert len(hub.log(path="resolve-cache")) < 20
    assert_goes_on(at, hub, repo, fresh_cache)


def pread(fd: int, length: int, offset: int) -> bytes | int:
    try:
        return os.pread(fd, length, offset)
    except OSError as error:
        return error.errno or 0


@pytest.mark.parametrize("options", [[], ["nopassthrough"]], ids=["default", "nopassthrough"])
def test_wrong_bytes_of_a_large_file_once(lazy, hub, fresh_cache, repo, options):
    """It is found when the blob is whole: who has it open gets an error, or the right bytes; all others the right bytes."""
    at = lazy(fresh_cache, QUICK, *options)
    path, right = at.repo(repo.id) / LARGE, content(repo.files()[LARGE])
    hub.fault(name="wrong", host="cdn", flip_at=3000, times=1, method="GET")
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in range(0, len(right), 256 * 1024):
            pread(fd, 256 * 1024, offset)
        log_has(at, repo, LARGE)
        blob = fresh_cache / f"models--{repo.id.replace('/', '--')}" / "blobs" / repo.files()[LARGE].etag
        wait_until(lambda: pread(fd, len(right), 0) in (errno.EIO, right), 10, "an error, or the right bytes")
        wait_until(lambda: attempt(path) == right, 10, "the right bytes")
        wait_until(blob.exists, 10, "publishing")
        assert blob.read_bytes() == right
        assert pread(fd, len(right), 0) in (errno.EIO, right)
    finally:
        os.close(fd)
    assert_goes_on(at, hub, repo, fresh_cache)


def test_wrong_bytes_of_a_large_file_for_ever(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, QUICK)
    path = at.repo(repo.id) / LARGE
    hub.fault(name="wrong", host="cdn", flip_at=1000, **EVER)
    wait_until(lambda: attempt(path) == errno.EIO, 20, "the error")
    log_has(at, repo, LARGE)
    assert sum(entry.sent for entry in hub.log(host="cdn")) < 10 * FILES[LARGE].size
    assert not list(fresh_cache.glob("models--*/blobs/*"))
    assert_goes_on(at, hub, repo, fresh_cache)


@pytest.mark.parametrize(
    "what",
    [
        {"shift_range": 4096},
        {"headers": {"Content-Range": "bytes 0-99/100"}},
        {"headers": {"Content-Range": None}},
        {"status": 206, "body": b"x" * 100, "headers": {"Content-Range": "bytes 0-99/3145745"}},
        {"status": 200, "body": b"<html>Please log in</html>", "headers": {"Content-Type": "text/html"}},
        {"status": 204},
    ],
)
def test_a_range_that_was_not_asked_for(lazy, hub, fresh_cache, repo, what):
    """Once, it may be asked for again; for ever, it is an error. The wrong bytes are never served."""
    at = lazy(fresh_cache, QUICK)
    path, right = at.repo(repo.id) / LARGE, content(repo.files()[LARGE])
    assert os.listdir(path.parent)
    hub.fault(name="range", host="cdn", ranged=True, **what, **EVER)
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in (2 * MIB, 0):
            found = pread(fd, 5000, offset)
            assert found in NONSENSE or found == right[offset : offset + 5000]
    finally:
        os.close(fd)
    assert_goes_on(at, hub, repo, fresh_cache)


@pytest.mark.parametrize("host", ["cdn", "hub"])
def test_the_whole_file_for_a_range(lazy, hub, fresh_cache, repo, host):
    """A mirror that knows no ranges: everything can be read, in every order."""
    at = lazy(fresh_cache, "timeout=2")
    hub.fault(name="whole", host=host, path="/resolve|/xet", ignore_range=True, **EVER)
    base = at.repo(repo.id)
    right = content(repo.files()[LARGE])
    with open(base / LARGE, "rb") as file:
        for offset in (2 * MIB, MIB, 0):
            assert os.pread(file.fileno(), 5000, offset) == right[offset : offset + 5000]
    assert attempt(base / LARGE) == right and attempt(base / SMALL) == content(repo.files()[SMALL])
    assert_goes_on(at, hub, repo, fresh_cache)


# Addresses.


def test_signed_addresses_that_expire_while_they_are_used(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, "timeout=2")
    hub.sign_for(0.7)
    right = content(repo.files()[LARGE])
    with open(at.repo(repo.id) / LARGE, "rb") as file:
        assert os.pread(file.fileno(), 5000, 0) == right[:5000]
        time.sleep(1)
        assert os.pread(file.fileno(), 5000, len(right) - 5000) == right[-5000:]
    assert_goes_on(at, hub, repo, fresh_cache)


def test_signed_addresses_that_have_expired_always(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, QUICK)
    hub.sign_for(-10)
    assert_fails(at.repo(repo.id) / LARGE, {errno.EACCES} | NONSENSE)
    log_has(at, repo, LARGE)
    assert len(hub.log(path="/resolve")) < 20
    assert_goes_on(at, hub, repo, fresh_cache)


def test_a_redirect_loop(lazy, hub, fresh_cache, repo):
    at = lazy(fresh_cache, QUICK)
    commit = repo.head()
    where = f"/{repo.id}/resolve/{commit}/{LARGE}"
    hub.fault(name="loop", host="hub", path=f"/resolve/.*{LARGE}", status=302, headers={"Location": where}, **EVER)
    assert_fails(at.repo(repo.id) / LARGE, NONSENSE)
    log_has(at, repo, LARGE)
    assert len(hub.log(path=where)) < 60
    assert_goes_on(at, hub, repo, fresh_cache)


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:70/x", "//", "http://", None])
def test_a_redirect_to_what_is_not_http(lazy, hub, fresh_cache, repo, where):
    at = lazy(fresh_cache, QUICK)
    hub.fault(name="away", host="hub", path="/resolve", status=302, headers={"Location": where}, **EVER)
    for name in (LARGE, SMALL):
        assert_fails(at.repo(repo.id) / name, NONSENSE | {errno.ENETUNREACH})
        log_has(at, repo, name)
    assert_goes_on(at, hub, repo, fresh_cache)


def test_the_token_stays_with_the_hub(lazy, hub, fresh_cache):
    repo = serve(hub, f"org/f-{next(NUMBERS)}", FILES, private=True, readers=("reader",))
    at = lazy(fresh_cache, env={"HF_TOKEN": "hf_reader"})
    assert attempt(at.repo(repo.id) / LARGE) == content(repo.files()[LARGE])
    assert attempt(at.repo(repo.id) / SMALL) == content(repo.files()[SMALL])
    assert all(entry.authorization == "Bearer hf_reader" for entry in hub.log(host="hub"))
    elsewhere = hub.log(host="cdn")
    assert elsewhere and all(entry.authorization is None for entry in elsewhere)
    assert not [entry for entry in hub.log() if "hf_reader" in entry.query + entry.path]
    assert "hf_reader" not in at.log() and "hf_reader" not in (at / ".modelmount/status").read_text()
    assert "hf_reader" not in Path(f"/proc/{at.pid}/cmdline").read_text()
