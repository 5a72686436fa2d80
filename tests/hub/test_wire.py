# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire, looked at without the library: redirects, ranges, headers, faults."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import time
from urllib.parse import quote, urlsplit

import pytest

from tests.hub import HubProcess, HubRepo, Pattern


class Client:
    """One connection to each host, kept alive."""

    def __init__(self) -> None:
        self.connections: dict[str, http.client.HTTPConnection] = {}

    def ask(self, url: str, method: str = "GET", body: bytes | None = None, **headers: str):
        parts = urlsplit(url)
        connection = self.connections.setdefault(parts.netloc, http.client.HTTPConnection(parts.netloc, timeout=10))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.data = response.read()
        return response

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


@pytest.fixture
def client():
    client = Client()
    yield client
    client.close()


@pytest.fixture(autouse=True)
def calm(hub: HubProcess):
    yield
    hub.reset()


def signed(client: Client, hub: HubProcess, path: str = "org/tiny/resolve/main/onnx/model.onnx") -> str:
    answer = client.ask(f"{hub.url}/{path}", "HEAD")
    assert answer.status == 302
    return answer.headers["Location"]


def test_a_small_file_is_a_relative_307_and_then_itself(client, hub, hub_repos):
    repo = hub_repos["org/tiny"]
    file = repo.files()["config.json"]
    answer = client.ask(f"{hub.url}/org/tiny/resolve/main/config.json", "HEAD")
    location = answer.headers["Location"]
    assert answer.status == 307
    assert location.startswith(f"/api/resolve-cache/models/org/tiny/{repo.head()}/config.json?")
    assert answer.headers["X-Repo-Commit"] == repo.head()
    answer = client.ask(hub.url + location)
    assert answer.status == 200 and answer.data == file.content.read(0, 1000)
    assert answer.headers["ETag"] == f'"{file.oid}"' and answer.headers["X-Repo-Commit"] == repo.head()
    assert client.ask(f"{hub.url}/api/resolve-cache/models/org/tiny/main/config.json").status == 400


def test_a_large_file_is_a_302_to_a_signed_address_elsewhere(client, hub, hub_repos):
    file = hub_repos["org/tiny"].files()["onnx/model.onnx"]
    answer = client.ask(f"{hub.url}/org/tiny/resolve/main/onnx/model.onnx", "HEAD")
    assert answer.status == 302 and answer.headers["Location"].startswith(hub.cdn_url)
    assert answer.headers["X-Linked-Size"] == str(file.size)
    assert answer.headers["X-Linked-ETag"] == f'"{file.content.sha256}"'
    assert answer.headers["X-Xet-Hash"] == file.xet_hash
    data = client.ask(answer.headers["Location"])
    assert hashlib.sha256(data.data).hexdigest() == file.content.sha256
    assert data.headers["ETag"].strip('"') != file.content.sha256


def test_signed_addresses_expire_and_cannot_be_changed(client, hub):
    good = signed(client, hub)
    assert client.ask(good, Range="bytes=0-9").status == 206
    assert client.ask(good.replace("Expires=1", "Expires=2")).status == 403
    hub.sign_for(2)
    short = signed(client, hub)
    assert client.ask(short, Range="bytes=0-9").status == 206
    time.sleep(2.1)
    assert client.ask(short, Range="bytes=0-9").status == 403


@pytest.mark.parametrize(
    "asked,start,stop",
    [("0-0", 0, 1), ("5-9", 5, 10), ("3000000-", 3_000_000, 3145745), ("-7", 3145738, 3145745), ("10-99999999", 10, 3145745)],
)
def test_ranges(client, hub, hub_repos, asked, start, stop):
    content = hub_repos["org/tiny"].files()["onnx/model.onnx"].content
    assert content.size == 3145745
    answer = client.ask(signed(client, hub), Range=f"bytes={asked}")
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{content.size}"
    assert answer.data == content.read(start, stop - start)


def test_a_range_beyond_the_end_is_416(client, hub):
    answer = client.ask(signed(client, hub), Range="bytes=3145745-")
    assert answer.status == 416 and answer.headers["Content-Range"] == "bytes */3145745"


def test_a_range_through_resolve_of_a_small_file(client, hub, hub_repos):
    location = client.ask(f"{hub.url}/org/tiny/resolve/main/README.md", "HEAD").headers["Location"]
    answer = client.ask(hub.url + location, Range="bytes=2-5")
    assert answer.status == 206 and answer.data == b"Tiny"


def test_text_is_compressed_for_those_who_take_it(client, hub, hub_repos):
    file = hub_repos["org/tiny"].files()["README.md"]
    location = client.ask(f"{hub.url}/org/tiny/resolve/main/README.md", "HEAD").headers["Location"]
    answer = client.ask(hub.url + location, Accept_Encoding="gzip, br", Range="bytes=0-3")
    assert answer.status == 200 and answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["ETag"] == f'W/"{file.oid}"' and "Content-Length" not in answer.headers
    assert gzip.decompress(answer.data) == file.content.read(0, file.size)
    assert client.ask(hub.url + location, Accept_Encoding="identity").headers["Content-Encoding"] is None


def test_an_etag_that_matches_is_304(client, hub, hub_repos):
    file = hub_repos["org/tiny"].files()["onnx/model.onnx"]
    url = f"{hub.url}/org/tiny/resolve/main/onnx/model.onnx"
    assert client.ask(url, If_None_Match=f'"{file.etag}"').status == 304


def test_a_huge_file_costs_no_memory_and_needs_a_range(client, hub):
    repo = HubRepo("org/huge")
    content = Pattern("huge", 60 * 1000**3)
    content.__dict__["sha256"] = "ab" * 32  # hashing 60 GB would take half a minute
    repo.commit({"model.safetensors": content})
    hub.add(repo)
    address = signed(client, hub, "org/huge/resolve/main/model.safetensors")
    assert client.ask(address, "HEAD").headers["Content-Length"] == str(content.size)
    assert client.ask(address).status == 403
    answer = client.ask(address, Range=f"bytes={content.size - 100}-")
    assert answer.status == 206 and answer.data == content.read(content.size - 100, 100)


def test_pages_are_linked_and_end(client, hub):
    url, seen = f"{hub.url}/api/models/org/tiny/tree/main?recursive=true&limit=4", []
    while url:
        answer = client.ask(url)
        page = json.loads(answer.data)
        assert len(page) <= 4
        seen += [entry["path"] for entry in page]
        link = answer.headers["Link"]
        url = link[1 : link.index(">")] if link else None
    assert len(seen) == len(set(seen)) == 13
    assert client.ask(f"{hub.url}/api/models/org/tiny/tree/main?cursor=nonsense").status == 400


def test_a_folder_of_the_tree(client, hub):
    answer = client.ask(f"{hub.url}/api/models/org/tiny/tree/main/{quote('onnx/deep', safe='')}")
    assert [(e["type"], e["path"]) for e in json.loads(answer.data)] == [("directory", "onnx/deep/er")]
    answer = client.ask(f"{hub.url}/api/models/org/tiny/tree/main/nope")
    assert answer.status == 404 and answer.headers["X-Error-Code"] == "EntryNotFound"


def test_rate_limits_are_told_and_enforced(client, hub):
    hub.limit("resolvers", 2, 60)
    url = f"{hub.url}/org/tiny/resolve/main/config.json"
    answers = [client.ask(url, "HEAD") for _ in range(3)]
    assert [answer.status for answer in answers] == [307, 307, 429]
    assert answers[0].headers["RateLimit"].startswith('"resolvers";r=1;t=')
    assert answers[2].headers["RateLimit"].startswith('"resolvers";r=0;t=')
    assert answers[0].headers["RateLimit-Policy"] == '"fixed window";"resolvers";q=2;w=60'


def test_connections_are_kept(client, hub):
    hub.clear_log()
    for _ in range(5):
        client.ask(f"{hub.url}/api/models/org/tiny")
    assert len({entry.connection for entry in hub.log()}) == 1 and len(hub.log()) == 5


def test_a_slow_line_is_slow(client, hub):
    address = signed(client, hub)
    hub.shape("cdn", latency=0.1, rate=2_000_000)
    begin = time.monotonic()
    client.ask(address, Range="bytes=0-499999")
    first = time.monotonic() - begin
    client.ask(address, Range="bytes=0-0")
    second = time.monotonic() - begin - first
    assert 0.4 < first and 0.09 < second < first


FAULTS = [
    (dict(status=503, headers={"Retry-After": "7"}), lambda r: (r.status, r.headers["Retry-After"]) == (503, "7")),
    (dict(ignore_range=True), lambda r: r.status == 200 and len(r.data) == 3145745),
    (dict(shift_range=5), lambda r: r.headers["Content-Range"] == "bytes 5-104/3145745"),
    (dict(body=b"<html>"), lambda r: r.data == b"<html>"),
    (dict(headers={"Content-Range": None}), lambda r: r.headers["Content-Range"] is None),
    (dict(flip_at=3), lambda r: sum(a != b for a, b in zip(r.data, Pattern("onnx", 100).read(0, 100))) == 1),
]


@pytest.mark.parametrize("fault,struck", FAULTS, ids=[next(iter(what)) for what, _ in FAULTS])
def test_faults_that_change_the_answer(client, hub, fault, struck):
    address = signed(client, hub)
    hub.fault(host="cdn", ranged=True, skip=1, **fault)
    good = [client.ask(address, Range="bytes=0-99")]
    assert struck(client.ask(address, Range="bytes=0-99"))
    good.append(client.ask(address, Range="bytes=0-99"))
    assert all(answer.data == Pattern("onnx", 100).read(0, 100) for answer in good)


@pytest.mark.parametrize(
    "fault,error",
    [
        (dict(drop=True), ConnectionError),
        (dict(reset_at=10), ConnectionError),
        (dict(truncate_at=10), http.client.IncompleteRead),
        (dict(stall_at=10), TimeoutError),
    ],
)
def test_faults_that_cut_the_answer(hub, client, fault, error):
    address = signed(client, hub)
    hub.fault(host="cdn", **fault)
    other = Client()
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=1)
    other.connections[urlsplit(address).netloc] = connection
    with pytest.raises(error):
        other.ask(address)
    other.close()


def test_thousands_of_requests_at_once(hub):
    """Five hundred connections, each with a slow answer, take as long as one."""
    import asyncio

    hub.shape("hub", latency=0.2)
    port = urlsplit(hub.url).port

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET /api/models/org/tiny/refs HTTP/1.1\r\nHost: hub\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
        writer.close()
        return head

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*[one() for _ in range(500)])

    heads = asyncio.run(all_of_them())
    assert all(head.startswith(b"HTTP/1.1 200") for head in heads)


def test_hashes_are_gits_own(tmp_path):
    """The commit, tree and blob names are those that git itself computes."""
    import shutil
    import subprocess

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    repo = HubRepo("org/git")
    repo.commit({"a.txt": "one\n", "dir/b.txt": "two\n", "dir.txt": "three\n", "dir/sub/c": "4"})
    commit = repo.commits[repo.head()]
    repo.write_to(tmp_path)

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    assert git("write-tree") == commit.root.oid
    when = f"{int(commit.date.timestamp())} +0000"
    who = ["-c", "user.name=hub", "-c", "user.email=hub@example.org"]
    env = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    made = subprocess.run(
        ["git", *who, "commit", "-q", "-m", commit.message, "--cleanup=verbatim"],
        cwd=tmp_path,
        env={**env, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert made.returncode == 0
    body = git("cat-file", "commit", "HEAD")
    assert body.split("\n")[0] == f"tree {commit.root.oid}"
