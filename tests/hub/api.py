# SPDX-License-Identifier: Apache-2.0
"""The Hub's JSON: what a repo is, its tree page by page, its refs and its commits."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from .access import HubError, entry_not_found
from .http import Request, Response, json_response
from .repo import Folder, HubCommit, HubFile, HubRepo

TREE_PAGE = 1000
TREE_PAGE_EXPANDED = 50
COMMITS_PAGE = 50


def hub_date(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def repo_info(request: Request, repo: HubRepo, commit: HubCommit) -> Response:
    """`GET /api/<type>s/<id>[/revision/<rev>]`, with `blobs=true` also sizes and hashes."""
    info: dict[str, Any] = {
        "_id": commit.sha[:24],
        "id": repo.id,
        "author": repo.id.split("/")[0] if "/" in repo.id else None,
        "sha": commit.sha,
        "lastModified": hub_date(commit.date),
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": repo.disabled,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": hub_date(repo.history(commit)[-1].date),
        "usedStorage": sum(file.size for file in commit.files.values()),
    }
    if repo.type == "model":
        info["modelId"] = repo.id
    if repo.type != "kernel":
        blobs = request.flag("blobs")
        info["siblings"] = [sibling(path, file, blobs) for path, file in commit.files.items()]
    return json_response(info, {"X-Repo-Commit": commit.sha})


def sibling(path: str, file: HubFile, blobs: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"rfilename": path}
    if blobs:
        out["blobId"] = file.oid
        out["size"] = file.size
        if file.lfs:
            out["lfs"] = {"sha256": file.content.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return out


def tree_entry(path: str, entry: Folder | HubFile, commit: HubCommit, expand: bool) -> dict[str, Any]:
    if isinstance(entry, Folder):
        out: dict[str, Any] = {"type": "directory", "oid": entry.oid, "size": 0, "path": path}
    else:
        out = {"type": "file", "oid": entry.oid, "size": entry.size}
        if entry.lfs:
            out["lfs"] = {"oid": entry.content.sha256, "size": entry.size, "pointerSize": len(entry.pointer)}
        if entry.xet:
            out["xetHash"] = entry.xet_hash
        out["path"] = path
    if expand:
        out["lastCommit"] = {"id": commit.sha, "title": commit.title, "date": hub_date(commit.date)}
        if isinstance(entry, HubFile):
            out["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return out


def next_link(request: Request, base: str, **changed: str) -> dict[str, str]:
    """The `Link` header to the next page: absolute, with the same query but for what changed."""
    query = dict(parse_qsl(request.query_string, keep_blank_values=True))
    query.update(changed)
    return {"Link": f'<{base}{request.raw_path}?{urlencode(query)}>; rel="next"'}


def encode_cursor(index: int) -> str:
    return base64.b64encode(json.dumps({"index": index}).encode()).decode()


def decode_cursor(cursor: str) -> int:
    try:
        return int(json.loads(base64.b64decode(cursor, validate=True))["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(400, None, "Invalid cursor") from error


def repo_tree(request: Request, commit: HubCommit, revision: str, path: str, base: str) -> Response:
    """`GET …/tree/<rev>[/<path>]?recursive&expand&limit&cursor`: pages of 1,000, of 50 with `expand`."""
    expand = request.flag("expand")
    listing = commit.listing(path.strip("/"), request.flag("recursive"))
    if listing is None:
        raise entry_not_found(commit.sha, f'{path} does not exist on "{revision}"')
    most = TREE_PAGE_EXPANDED if expand else TREE_PAGE
    try:
        limit = max(1, min(most, int(request.query.get("limit", most))))
    except ValueError as error:
        raise HubError(400, None, "Invalid limit") from error
    start = decode_cursor(request.query["cursor"]) if request.query.get("cursor") else 0
    page = [tree_entry(name, entry, commit, expand) for name, entry in listing[start : start + limit]]
    headers = {"X-Repo-Commit": commit.sha}
    if start + limit < len(listing):
        headers |= next_link(request, base, limit=str(limit), cursor=encode_cursor(start + limit))
    return json_response(page, headers)


def paths_info(request: Request, commit: HubCommit) -> Response:
    """`POST …/paths-info/<rev>`: those of the paths that exist, as a form or as JSON."""
    if request.headers.get("content-type", "").startswith("application/json"):
        data = json.loads(request.body)
        paths, expand = data["paths"], bool(data.get("expand"))
        paths = [paths] if isinstance(paths, str) else paths
    else:
        pairs = parse_qsl(request.body.decode(), keep_blank_values=True)
        paths = [value for name, value in pairs if name == "paths"]
        expand = ("expand", "True") in pairs or ("expand", "true") in pairs
    found = []
    for path in paths:
        entry = commit.files.get(path) or (commit.folder(path) if path else None)
        if entry is not None:
            found.append(tree_entry(path, entry, commit, expand))
    return json_response(found, {"X-Repo-Commit": commit.sha})


def repo_refs(request: Request, repo: HubRepo) -> Response:
    """`GET …/refs`: branches, tags and conversions; with `include_prs=1` pull requests too."""

    def those(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref[len(prefix) :], "ref": ref, "targetCommit": sha}
            for ref, sha in repo.refs.items()
            if ref.startswith(prefix)
        ]

    out = {"tags": those("refs/tags/"), "branches": those("refs/heads/"), "converts": those("refs/convert/")}
    if request.flag("include_prs"):
        out["pullRequests"] = [{**pr, "name": pr["ref"]} for pr in those("refs/pr/")]
    return json_response(out)


def repo_commits(request: Request, repo: HubRepo, commit: HubCommit, base: str) -> Response:
    """`GET …/commits/<rev>`: newest first, 50 a page."""
    history = repo.history(commit)
    page = int(request.query.get("p", "0"))
    limit = int(request.query.get("limit", COMMITS_PAGE))
    entries = [
        {
            "id": one.sha,
            "title": one.title,
            "message": one.message.partition("\n")[2].strip(),
            "authors": [{"user": "hub", "avatar": "/avatars/hub.svg"}],
            "date": hub_date(one.date),
        }
        for one in history[page * limit : (page + 1) * limit]
    ]
    headers = {"X-Total-Count": str(len(history))}
    if (page + 1) * limit < len(history):
        headers |= next_link(request, base, p=str(page + 1))
    return json_response(entries, headers)


def whoami(request: Request) -> Response:
    if request.user is None:
        raise HubError(401, None, "Invalid username or password.")
    return json_response(
        {
            "type": "user",
            "id": request.user,
            "name": request.user,
            "fullname": request.user,
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "read"}},
        }
    )


def api_path(repo: HubRepo) -> str:
    return f"/api/{repo.type}s/{quote(repo.id)}"
