# SPDX-License-Identifier: Apache-2.0
"""The test Hub itself: which request goes where, and how its answer goes out over the line."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import socket
import struct
import uuid
from urllib.parse import quote

from . import api
from .access import Access, HubError, RateLimits, repo_not_found, revision_not_found
from .content import CHUNK, Bytes
from .faults import Fault, Faults, Shape
from .http import HEAD_LIMIT, BadRequest, Request, Response, read_request, redirect, text_response
from .log import Entry, Log
from .repo import HubCommit, HubRepo
from .resolve import Signer, raw, resolve, resolve_cache

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space", "kernels": "kernel"}
REPO_VERBS = {"revision", "tree", "refs", "commits", "paths-info", "xet-read-token"}
FILE_VERBS = {"resolve", "raw"}
SLOW_SLICE = 0.01  # a shaped connection sends what its rate gives for so many seconds, then waits


class Hub:
    """
    Two hosts: the Hub, and the one that serves large files by signed addresses.

    All state may be changed between requests, from the loop's thread: add repos, order faults, read the log.
    """

    def __init__(self, *, host: str = "127.0.0.1", cdn_host: str = "127.0.0.2", log_file=None):
        self.host, self.cdn_host = host, cdn_host
        self.url = self.cdn_url = ""
        self.repos: dict[tuple[str, str], HubRepo] = {}
        self.moved: dict[tuple[str, str], str] = {}
        self.access = Access()
        self.limits = RateLimits()
        self.signer = Signer()
        self.faults = Faults()
        self.log = Log(log_file)
        self.compress = True
        """Whether small text files are compressed for those who accept it."""
        self._connections = itertools.count(1)
        self._servers: list[asyncio.Server] = []

    # What tests do to it.

    def add(self, *repos: HubRepo) -> None:
        """Add repos, or put them in the place of those of the same name."""
        for repo in repos:
            self.repos[repo.type, repo.id] = repo

    def remove(self, repo_id: str, type: str = "model") -> None:
        del self.repos[type, repo_id]

    def rename(self, old: str, new: str, type: str = "model") -> None:
        """Give a repo another name; the old one redirects."""
        repo = self.repos.pop((type, old))
        repo.id = new
        self.repos[type, new] = repo
        self.moved[type, old] = new

    def add_token(self, token: str, user: str) -> None:
        self.access.tokens[token] = user

    async def start(self, port: int = 0, cdn_port: int = 0) -> None:
        """Listen; `url` and `cdn_url` say where."""
        for kind, host, wanted in (("hub", self.host, port), ("cdn", self.cdn_host, cdn_port)):

            async def serve(reader, writer, kind=kind):
                await Connection(self, kind, next(self._connections), reader, writer).run()

            server = await asyncio.start_server(serve, host, wanted, limit=HEAD_LIMIT, backlog=1024)
            self._servers.append(server)
            address = f"http://{host}:{server.sockets[0].getsockname()[1]}"
            if kind == "hub":
                self.url = address
            else:
                self.cdn_url = address

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    # How a request is answered.

    def answer(self, kind: str, request: Request) -> Response:
        if kind == "cdn":
            return self.signer.serve(request)
        common = {"X-Powered-By": "huggingface-moon", "X-Request-Id": f"Root=1-{uuid.uuid4()}"}
        try:
            request.user = self.access.identify(request)
            if request.user is None:
                common["X-HF-Warning"] = "unauthenticated; Requests without a token have lower rate limits."
            segments = request.segments
            window = "resolvers" if "resolve" in segments or "resolve-cache" in segments else "api"
            headers, error = self.limits.take(window)
            common |= headers
            if error is not None:
                raise error
            response = self._route(request, segments)
        except HubError as error:
            response = error.response()
        response.headers = common | response.headers
        return response

    def _route(self, request: Request, segments: list[str]) -> Response:
        if segments[0] != "api":
            return self._route_files(request, segments)
        if segments == ["api", "whoami-v2"]:
            return api.whoami(request)
        if len(segments) >= 6 and segments[1] == "resolve-cache" and segments[2] in TYPES:
            return self._route_cached(request, segments)
        if len(segments) >= 3 and segments[1] in TYPES:
            return self._route_api(request, segments)
        raise HubError(404, None, "Sorry, we can't find the page you are looking for.")

    def _find(self, request: Request, type: str, repo_id: str) -> HubRepo | Response:
        """The repo; or the way to its new name, in the same form as the old one was asked for."""
        repo = self.repos.get((type, repo_id))
        if repo is not None and self.access.may_know(request, repo):
            return repo
        new = self.moved.get((type, repo_id))
        if new is None:
            raise repo_not_found(request)
        return redirect(307, request.target.replace(quote(repo_id), quote(new), 1))

    def _commit(self, repo: HubRepo, revision: str) -> HubCommit:
        commit = repo.resolve(revision)
        if commit is None:
            raise revision_not_found(revision)
        return commit

    def _route_api(self, request: Request, segments: list[str]) -> Response:
        type, rest = TYPES[segments[1]], segments[2:]
        width = 1 if len(rest) == 1 or rest[1] in REPO_VERBS else 2
        found = self._find(request, type, "/".join(rest[:width]))
        if isinstance(found, Response):
            return found
        verb, args = (rest[width], rest[width + 1 :]) if len(rest) > width else ("revision", ["main"])
        if verb == "refs" and not args:
            return api.repo_refs(request, found)
        if verb not in REPO_VERBS or not args:
            raise HubError(404, None, "Sorry, we can't find the page you are looking for.")
        revision, args = split_revision(args)
        commit = self._commit(found, revision)
        if verb == "revision":
            return api.repo_info(request, found, commit)
        if verb == "tree":
            return api.repo_tree(request, commit, revision, "/".join(args), self.url)
        if verb == "commits":
            return api.repo_commits(request, found, commit, self.url)
        if verb == "paths-info" and request.method == "POST":
            return api.paths_info(request, commit)
        raise HubError(404, None, "There is no Xet service here: set HF_HUB_DISABLE_XET=1.")

    def _route_files(self, request: Request, segments: list[str]) -> Response:
        type = TYPES.get(segments[0])
        rest = segments[1:] if type else segments
        for width in (1, 2):
            if len(rest) > width + 2 and rest[width] in FILE_VERBS:
                break
        else:
            raise HubError(404, None, "Sorry, we can't find the page you are looking for.")
        found = self._find(request, type or "model", "/".join(rest[:width]))
        if isinstance(found, Response):
            return found
        revision, path = split_revision(rest[width + 1 :])
        commit = self._commit(found, revision)
        self.access.check_files(request, found)
        if rest[width] == "raw":
            return raw(commit, "/".join(path))
        return resolve(request, found, commit, "/".join(path), self)

    def _route_cached(self, request: Request, segments: list[str]) -> Response:
        type, rest = TYPES[segments[2]], segments[3:]
        for width in (1, 2):
            if len(rest) > width + 1 and len(rest[width]) == 40:
                break
        else:
            raise HubError(400, None, "Invalid commit")
        found = self._find(request, type, "/".join(rest[:width]))
        if isinstance(found, Response):
            return found
        self.access.check_files(request, found)
        commit = self._commit(found, rest[width])
        return resolve_cache(request, commit, "/".join(rest[width + 1 :]), self.compress)


def split_revision(parts: list[str]) -> tuple[str, list[str]]:
    """The revision, one segment (its slashes encoded) or a ref written out, and what comes after it."""
    if len(parts) >= 3 and parts[0] == "refs" and parts[1] in ("pr", "convert", "heads", "tags"):
        return "/".join(parts[:3]), parts[3:]
    return parts[0], parts[1:]


class Cut(Exception):
    """The connection was ended on purpose."""


class Connection:
    """One connection of a client: request after request, at the pace of the line's shape."""

    def __init__(self, hub: Hub, kind: str, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.hub, self.kind, self.number = hub, kind, number
        self.reader, self.writer = reader, writer
        self.first = True
        self._clock = 0.0  # when the line is free again

    async def run(self) -> None:
        try:
            while await self._one():
                pass
        except (ConnectionError, Cut, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            pass  # the client went, we cut it off, or the Hub ends
        except BadRequest as error:
            response = text_response(400, str(error))
            self.writer.write(response.head(False) + response.content.read(0, 1 << 16))
        finally:
            self.writer.close()

    async def _one(self) -> bool:
        """Answer the next request; False when there is no further one on this connection."""
        request = await read_request(self.reader)
        if request is None:
            return False
        entry = Entry(
            self.kind, request.method, request.raw_path, request.query_string, request.headers, self.number
        )
        log, faults = self.hub.log, self.hub.faults
        log.add(entry)
        shape = faults.shapes[self.kind]
        fault = faults.strike(entry, request.path) or Fault()
        try:
            # The first request has paid one round trip more, for the connection itself.
            wait = shape.latency * (2 if self.first else 1) + fault.delay
            self.first = False
            if wait:
                await asyncio.sleep(wait)
            if fault.drop:
                self._reset()
            if fault.ignore_range:
                request.headers = {k: v for k, v in request.headers.items() if k != "range"}
            response = spoil(self.hub.answer(self.kind, request), fault)
            entry.status = response.status
            keep = request.version == "HTTP/1.1" and request.headers.get("connection", "").lower() != "close"
            self.writer.write(response.head(keep))
            if request.method != "HEAD" and response.status != 304:
                await self._send(response, fault, shape, entry)
            await self.writer.drain()
            return keep
        except ConnectionError:
            entry.aborted = True
            raise
        finally:
            log.end(entry)

    async def _send(self, response: Response, fault: Fault, shape: Shape, entry: Entry) -> None:
        """The body, with whatever the fault does to it on the way."""
        ends = [at for at in (fault.reset_at, fault.truncate_at, fault.stall_at) if at is not None]
        length = min([response.length or 0, *ends])
        if shape.rate:
            self._small_buffers()
        piece = CHUNK if not shape.rate else max(1024, min(CHUNK, int(shape.rate * SLOW_SLICE)))
        done = 0
        while done < length:
            take = min(piece, length - done)
            data = response.content.read(response.offset + done, take)
            if fault.flip_at is not None and done <= fault.flip_at < done + take:
                spoilt = bytearray(data)
                spoilt[fault.flip_at - done] ^= 0xFF
                data = bytes(spoilt)
            await self._pace(shape, take)
            if response.chunked:
                data = b"%x\r\n%s\r\n" % (len(data), data)
            self.writer.write(data)
            await self.writer.drain()
            done += take
            entry.sent += take
        if fault.stall_at is not None and length < (response.length or 0):
            await self.reader.read(1)  # until the client has had enough
            raise Cut
        if fault.reset_at is not None and length < (response.length or 0):
            self._reset()
        if fault.truncate_at is not None and length < (response.length or 0):
            raise Cut
        if response.chunked:
            self.writer.write(b"0\r\n\r\n")

    async def _pace(self, shape: Shape, size: int) -> None:
        if not shape.rate:
            return
        now = asyncio.get_running_loop().time()
        self._clock = max(self._clock, now - SLOW_SLICE) + size / shape.rate
        if self._clock > now:
            await asyncio.sleep(self._clock - now)

    def _small_buffers(self) -> None:
        """Keep the kernel from taking in a megabyte at once, which would not look like a slow line."""
        self.writer.transport.set_write_buffer_limits(high=16 * 1024)
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)

    def _reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Cut


def spoil(response: Response, fault: Fault) -> Response:
    """The answer as the fault wants it, before any of it is sent."""
    if fault.status is not None or fault.body is not None:
        body = Bytes(fault.body or b"")
        headers = response.headers if fault.status is None else {}
        headers = {k: v for k, v in headers.items() if k not in ("Content-Length", "Content-Encoding")}
        response = Response(fault.status or response.status, headers, body)
    if fault.shift_range and response.status == 206:
        size = response.content.size
        length = min(response.length or 0, size - fault.shift_range)
        offset = min(response.offset + fault.shift_range, size - length)
        headers = response.headers | {"Content-Range": f"bytes {offset}-{offset + length - 1}/{size}"}
        response = dataclasses.replace(response, headers=headers, offset=offset, length=length)
    if fault.headers:
        names = {name.lower() for name in fault.headers}
        kept = {name: value for name, value in response.headers.items() if name.lower() not in names}
        kept |= {name: value for name, value in fault.headers.items() if value is not None}
        response.headers = kept
    return response
