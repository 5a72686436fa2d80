# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 as far as the test Hub needs it: a request's head, ranges, and an answer that can be spoilt."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

from .content import Bytes, Content

HEAD_LIMIT = 64 * 1024


class BadRequest(Exception):
    """What came is not HTTP."""


@dataclass
class Request:
    """One request. Header names are in lower case; `segments` are the path's, each decoded by itself."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes = b""
    user: str | None = None  # whose token came with it; set by the Hub

    @property
    def raw_path(self) -> str:
        return self.target.split("?", 1)[0]

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    @property
    def query_string(self) -> str:
        return self.target.split("?", 1)[1] if "?" in self.target else ""

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def segments(self) -> list[str]:
        return [unquote(part) for part in self.raw_path.strip("/").split("/")]

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")

    def accepts_gzip(self) -> bool:
        return re.search(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", self.headers.get("accept-encoding", "")) is not None


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None when the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise BadRequest("the connection ended within a request") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequest("request head too large") from error
    lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
        headers = {}
        for line in lines[1:]:
            if line:
                name, value = line.split(":", 1)
                headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
    except ValueError as error:
        raise BadRequest(f"not a request: {lines[0]!r}") from error
    body = await reader.readexactly(length) if length else b""
    return Request(method, target, version, headers, body)


class RangeNotSatisfiable(Exception):
    """The range lies outside the file: 416."""


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """
    Offset and length of a `Range: bytes=…`, or None when the whole file is to be sent: without the
    header, and, as object stores do, for several ranges or a header that is not understood.
    """
    if value is None:
        return None
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", value.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        length = min(int(last), size)
        if length == 0:
            raise RangeNotSatisfiable
        return size - length, length
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable
    return start, end - start + 1


@dataclass
class Response:
    """An answer. The body is `content` from `offset` on, `length` bytes."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Content = field(default_factory=lambda: Bytes(b""))
    offset: int = 0
    length: int | None = None
    chunked: bool = False

    def __post_init__(self) -> None:
        if self.length is None:
            self.length = self.content.size - self.offset

    def head(self, keep_alive: bool) -> bytes:
        phrase = HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Status"
        headers = {"Date": formatdate(usegmt=True), "Connection": "keep-alive" if keep_alive else "close"}
        headers.update(self.headers)
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif self.status != 304 and "Content-Length" not in headers:
            headers["Content-Length"] = str(self.length)
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def json_response(value: Any, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, Bytes(body))


def text_response(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, Bytes(text.encode()))


def redirect(status: int, location: str, headers: dict[str, str] | None = None) -> Response:
    phrase = HTTPStatus(status).phrase
    return text_response(status, f"{phrase}. Redirecting to {location}", {"Location": location, **(headers or {})})


def content_response(request: Request, content: Content, headers: dict[str, str]) -> Response:
    """A file, or the range of it that was asked for, or 416."""
    headers = {"Accept-Ranges": "bytes", **headers}
    try:
        span = parse_range(request.headers.get("range"), content.size)
    except RangeNotSatisfiable:
        body = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>InvalidRange</Code></Error>"
        keep = {"Content-Type": "application/xml", "Content-Range": f"bytes */{content.size}"}
        return Response(416, keep, Bytes(body))
    if span is None:
        return Response(200, headers, content)
    offset, length = span
    headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{content.size}"
    return Response(206, headers, content, offset, length)


def gzipped(response: Response) -> Response:
    """The same answer as a CDN compresses it while it sends: chunked, of unknown length, its ETag a weak one."""
    data = response.content.read(response.offset, response.length or 0)
    headers = {name: value for name, value in response.headers.items() if name not in ("Accept-Ranges", "Content-Length")}
    headers["Content-Encoding"] = "gzip"
    headers["Vary"] = "Accept-Encoding"
    if "ETag" in headers and not headers["ETag"].startswith("W/"):
        headers["ETag"] = "W/" + headers["ETag"]
    return Response(response.status, headers, Bytes(gzip.compress(data, 6, mtime=0)), chunked=True)
