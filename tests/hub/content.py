# SPDX-License-Identifier: Apache-2.0
"""What the repos of the test Hub hold: the bytes of a file, in memory, on disk or made on demand."""

from __future__ import annotations

import hashlib
import os
import struct
from functools import cached_property
from typing import Iterator, Union

CHUNK = 1 << 20
PAGE = 4096


def git_blob_sha1(data: bytes) -> str:
    """The name git gives to these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Content:
    """The bytes of one file, never changing: `size`, and any range of them."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, at most `length` of them; fewer only at the end."""
        raise NotImplementedError

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The range in pieces of at most 1 MiB, so that no large file is ever held in memory."""
        end = self.size if length is None else min(self.size, offset + length)
        while offset < end:
            piece = self.read(offset, min(CHUNK, end - offset))
            if not piece:
                raise EOFError(f"content ends at {offset}, not at {end}")
            yield piece
            offset += len(piece)

    def write_to(self, path: str | os.PathLike) -> None:
        with open(path, "wb") as out:
            for piece in self.chunks():
                out.write(piece)

    def _hash(self, digest) -> str:
        for piece in self.chunks():
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def sha256(self) -> str:
        return self._hash(hashlib.sha256())

    @cached_property
    def git_sha1(self) -> str:
        return self._hash(hashlib.sha1(b"blob %d\0" % self.size))


class Bytes(Content):
    """A file whose bytes are simply there."""

    def __init__(self, data: bytes):
        self.data = bytes(data)
        self.size = len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


class Pattern(Content):
    """
    A file of any size that costs no memory: the same bytes for the same seed, on every machine.

    A megabyte of noise, repeated, with each page's number written over the page's first bytes:
    so no two pages are equal, and a page that turns up in the wrong place is seen.
    """

    _STAMP = struct.Struct("<QQ")

    def __init__(self, seed: int | str, size: int):
        self.seed = str(seed)
        self.size = size

    @cached_property
    def _noise(self) -> bytes:
        return hashlib.shake_256(b"noise " + self.seed.encode()).digest(CHUNK)

    @cached_property
    def _mark(self) -> int:
        return struct.unpack("<Q", hashlib.sha256(b"mark " + self.seed.encode()).digest()[:8])[0]

    def _block(self, index: int) -> bytearray:
        block = bytearray(self._noise)
        first = index * (CHUNK // PAGE)
        stamp = self._STAMP.pack_into
        for page in range(CHUNK // PAGE):
            stamp(block, page * PAGE, self._mark, first + page)
        return block

    def read(self, offset: int, length: int) -> bytes:
        end = min(self.size, offset + length)
        if offset >= end:
            return b""
        parts = []
        for index in range(offset // CHUNK, (end - 1) // CHUNK + 1):
            base = index * CHUNK
            block = self._block(index)
            parts.append(block[max(0, offset - base) : min(CHUNK, end - base)])
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def __getstate__(self) -> dict:
        # The noise is made again where it is needed; a hash that is known travels along.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}


class OnDisk(Content):
    """A file that lies on the disk of the machine the Hub runs on."""

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self.size = os.stat(self.path).st_size

    def read(self, offset: int, length: int) -> bytes:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)


ContentLike = Union[Content, bytes, str]


def as_content(value: ContentLike) -> Content:
    """Bytes and text are taken as they are; anything else must be a Content already."""
    if isinstance(value, Content):
        return value
    if isinstance(value, str):
        return Bytes(value.encode())
    return Bytes(value)
