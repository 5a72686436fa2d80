# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Hub's faults share: how a read fails, and that afterwards all is well."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from tests.hub import HubFile, HubProcess, HubRepo, Pattern

from .mounts import Mount, wait_until
from .trees import assert_blobs_are_what_they_claim

NONSENSE = {errno.EIO, errno.EBADMSG, errno.EPROTO, errno.ELOOP, errno.E2BIG, errno.ERANGE}
"""What an answer that does not fit the question may end in."""
SOON_ENOUGH = 15.0
"""Seconds within which a read must fail, with a timeout of half a second; a sanitizer's build is slow."""


def attempt(path: Path) -> bytes | int:
    """All bytes of the file, or the errno that look-up, open or read ended with; in bounded time."""
    start = time.monotonic()
    try:
        result: bytes | int = path.read_bytes()
    except OSError as error:
        result = error.errno or 0
    assert time.monotonic() - start < SOON_ENOUGH, f"{path}: an answer after {time.monotonic() - start:.0f} s"
    return result


def look(path: Path) -> int:
    """The errno of a listing, 0 if it went well; in bounded time."""
    start = time.monotonic()
    try:
        os.listdir(path)
        result = 0
    except OSError as error:
        result = error.errno or 0
    assert time.monotonic() - start < SOON_ENOUGH
    return result


def named(numbers: int | set[int]) -> str:
    return ", ".join(errno.errorcode.get(n, str(n)) for n in (numbers if isinstance(numbers, set) else {numbers}))


def assert_fails(path: Path, expected: set[int]) -> None:
    """It fails with one of these; giving wrong bytes, or fewer, would be worse than any errno."""
    result = attempt(path)
    assert not isinstance(result, bytes), f"{path} was read: {len(result)} bytes"
    assert result in expected, f"{named(result)}, not one of {named(expected)}"


def content(file: HubFile) -> bytes:
    return file.content.read(0, file.size)


def assert_lives(at: Mount, hub: HubProcess, cache: Path) -> None:
    """The Hub is well again: another repo is there at once, and what was published is what it claims to be."""
    hub.reset()
    assert attempt(at.repo("org/tiny") / "odd.bin") == Pattern("odd", 4097).read(0, 4097)
    assert_blobs_are_what_they_claim(cache)
    assert at.live()


def assert_goes_on(at: Mount, hub: HubProcess, repo: HubRepo, cache: Path) -> None:
    """
    The Hub is well again: another repo is there at once, this one within a negative answer's life, every byte is
    right, and what was published is what it claims to be.
    """
    assert_lives(at, hub, cache)
    for name, file in repo.files().items():
        path = at.repo(repo.id) / name
        wait_until(lambda: attempt(path) == content(file), 20, f"a good read of {path}")
    blobs = {file.etag for file in repo.files().values()}
    there = cache / f"models--{repo.id.replace('/', '--')}" / "blobs"
    wait_until(lambda: {path.name for path in there.glob("*")} == blobs, 10, "publishing")
    assert_blobs_are_what_they_claim(cache)
    assert at.live()
