# SPDX-License-Identifier: Apache-2.0
"""How a file is had from the Hub: `resolve`, the second address of small files, and signed addresses on another host."""

from __future__ import annotations

import hashlib
import hmac
import time
from pathlib import PurePosixPath
from urllib.parse import quote, urlencode

from .access import HubError, entry_not_found
from .content import Bytes
from .http import Request, Response, content_response, gzipped, redirect
from .repo import HubCommit, HubFile, HubRepo

MAX_WITHOUT_RANGE = 50 * 1000**3
"""`MAX_HTTP_DOWNLOAD_SIZE` of the library's constants.py: above it, a GET must name a range."""

COMPRESSIBLE = {".json": "application/json", ".txt": "text/plain", ".md": "text/markdown", ".py": "text/x-python"}
COMPRESS_FROM, COMPRESS_UP_TO = 1000, 10_000_000


def disposition(path: str) -> str:
    name = PurePosixPath(path).name
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in name)
    return f"inline; filename*=UTF-8''{quote(name, safe='')}; filename=\"{plain}\";"


def media_type(path: str) -> str:
    return COMPRESSIBLE.get(PurePosixPath(path).suffix, "application/octet-stream")


def find(commit: HubCommit, path: str) -> HubFile:
    file = commit.files.get(path)
    if file is None:
        raise entry_not_found(commit.sha)
    return file


def resolve(request: Request, repo: HubRepo, commit: HubCommit, path: str, hub) -> Response:
    """`/<id>/resolve/<rev>/<path>`: never the file itself, always a way to it."""
    file = find(commit, path)
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match", "").removeprefix("W/").strip('"') == file.etag:
        return Response(304, headers | {"ETag": f'"{file.etag}"'})
    if not file.lfs:
        cached = f"/api/resolve-cache/{repo.type}s/{quote(repo.id)}/{commit.sha}/{quote(path)}"
        query = f"{quote(request.raw_path, safe='')}=&etag={quote(chr(34) + file.etag + chr(34), safe='')}"
        return redirect(307, f"{cached}?{query}", headers)
    headers["X-Linked-Size"] = str(file.size)
    headers["X-Linked-ETag"] = f'"{file.etag}"'
    if file.xet:
        token = f"{hub.url}/api/{repo.type}s/{quote(repo.id)}/xet-read-token/{commit.sha}"
        headers["X-Xet-Hash"] = file.xet_hash or ""
        headers["Link"] = f'<{token}>; rel="xet-auth", <{hub.cdn_url}/v1/reconstructions/{file.xet_hash}>; rel="xet-reconstruction-info"'
    return redirect(302, hub.signer.sign(hub.cdn_url, file, path), headers)


def resolve_cache(request: Request, commit: HubCommit, path: str, compress: bool) -> Response:
    """`/api/resolve-cache/<type>s/<id>/<commit>/<path>`: a small file, as a CDN in front of the Hub serves it."""
    file = find(commit, path)
    if file.lfs:
        raise entry_not_found(commit.sha)
    headers = {
        "Content-Type": media_type(path),
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{file.etag}"',
        "Content-Disposition": disposition(path),
        "Cache-Control": "public, max-age=604800",
    }
    if request.headers.get("if-none-match", "").removeprefix("W/").strip('"') == file.etag:
        return Response(304, headers)
    if compress and request.accepts_gzip() and PurePosixPath(path).suffix in COMPRESSIBLE:
        if COMPRESS_FROM <= file.size <= COMPRESS_UP_TO:
            # As CloudFront: what it compresses has no ranges, it sends all of it with 200.
            return gzipped(Response(200, headers, file.content))
    return content_response(request, file.content, headers)


def raw(commit: HubCommit, path: str) -> Response:
    """`/<id>/raw/<rev>/<path>`: what git holds, so the pointer of an LFS file."""
    file = find(commit, path)
    content = Bytes(file.pointer) if file.lfs else file.content
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Repo-Commit": commit.sha, "ETag": f'"{file.oid}"'}
    return Response(200, headers, content)


class Signer:
    """Makes and checks the addresses of large files. They are good for `lifetime` seconds, and for every range."""

    def __init__(self, lifetime: float = 3600):
        self.lifetime = lifetime
        self._key = b"the test hub's own key"
        self.files: dict[str, HubFile] = {}
        """What the other host can serve, by path."""

    def _mac(self, path: str, expires: str, rest: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}\n{rest}".encode(), hashlib.sha256).hexdigest()

    def sign(self, base: str, file: HubFile, path: str) -> str:
        name = f"/xet-bridge-us/{file.content.sha256[:24]}/{file.xet_hash or file.content.sha256}"
        self.files[name] = file
        expires = f"{time.time() + self.lifetime:.3f}"
        rest = disposition(path)
        query = {
            "response-content-disposition": rest,
            "Expires": expires,
            "Signature": self._mac(name, expires, rest),
            "Key-Pair-Id": "TESTHUB",
        }
        return f"{base}{name}?{urlencode(query)}"

    def serve(self, request: Request) -> Response:
        """What the other host answers: the file, or 403 where the signature is wrong or has expired."""
        query = request.query
        rest, expires = query.get("response-content-disposition", ""), query.get("Expires", "0")
        file = self.files.get(request.path)
        good = hmac.compare_digest(query.get("Signature", ""), self._mac(request.path, expires, rest))
        if not good or file is None:
            return denied("SignatureDoesNotMatch")
        if time.time() > float(expires):
            return denied("Request has expired")
        if request.method == "GET" and "range" not in request.headers and file.size > MAX_WITHOUT_RANGE:
            return denied("File is too large to be downloaded without a range")
        return content_response(
            request,
            file.content,
            {
                "Content-Type": "application/octet-stream",
                # An ETag of the store's own, which is neither the SHA-256 nor the Hub's.
                "ETag": f'"{file.xet_hash or hashlib.md5(file.etag.encode()).hexdigest()}"',
                "Content-Disposition": rest,
                "Cache-Control": "public, max-age=31536000",
            },
        )


def denied(message: str) -> Response:
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    return Response(403, {"Content-Type": "application/xml"}, Bytes(body.encode()))


__all__ = ["HubError", "Signer", "raw", "resolve", "resolve_cache"]
