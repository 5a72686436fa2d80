# SPDX-License-Identifier: Apache-2.0
"""A Hub to fetch from: the test Hub, with nginx as its host of large files, on this machine or behind a slow line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.fspath(ROOT))

from tests.hub.content import OnDisk  # noqa: E402
from tests.hub.process import HubProcess  # noqa: E402
from tests.hub.repo import HubFile, HubRepo  # noqa: E402

NAME = "model.safetensors"
REPO = "bench/net"

NGINX = """
daemon off;
user {user};
worker_processes 1;
pid {base}/nginx.pid;
error_log {base}/nginx.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path {base}/nginx-body;
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/xet-bridge-us/ {{ rewrite ^ /{name} break; root {files}; }}
        location / {{ root {files}; autoindex on; }}
    }}
}}
"""


class Network:
    """
    Serves the one large file of `directory` as a repo, and as a plain file for those who know nothing of a Hub.

    With `rate` (bytes a second of each connection) and `delay` (milliseconds, half a round trip) both hosts are behind a
    line of that kind. Use with `with`.
    """

    def __init__(self, scratch: Path, directory: Path, rate: int | None = None, delay: float = 0):
        self.directory = directory
        self.scratch = scratch
        self.line = (rate, delay) if rate else None
        self.file = HubFile(OnDisk(directory / NAME), lfs=True)
        self.url = self.files_url = ""
        self._ended = ExitStack()

    @property
    def sha256(self) -> str:
        return self.file.content.sha256

    @property
    def hub_file(self) -> str:
        """The address of the file at the Hub."""
        return f"{self.url}/{REPO}/resolve/main/{NAME}"

    def __enter__(self) -> Network:
        try:
            self._start()
        except BaseException:
            self._ended.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.close()

    def _start(self) -> None:
        hub_port, nginx_port, hub_line, nginx_line = free_ports(4)
        self._spawn(*self._nginx(nginx_port))
        wait_for(nginx_port)
        seen_hub, seen_nginx = (hub_line, nginx_line) if self.line else (hub_port, nginx_port)
        self.url, self.files_url = (f"http://127.0.0.1:{port}" for port in (seen_hub, seen_nginx))
        words = ["--port", str(hub_port), "--public-url", self.url, "--public-cdn-url", self.files_url]
        hub = self._ended.enter_context(HubProcess(*words))
        repo = HubRepo(REPO)
        self.sha256  # once, here, and not in the Hub when somebody asks
        repo.commit({NAME: self.file})
        hub.add(repo)
        if self.line:
            rate, delay = self.line
            ends = [(hub_line, "127.0.0.1", hub_port), (nginx_line, "127.0.0.1", nginx_port)]
            self._spawn(self._link(), *map(str, (rate, delay, *sum(ends, ()))))
            wait_for(nginx_line)

    def _nginx(self, port: int) -> list[str]:
        user = "root" if os.geteuid() == 0 else "nobody"
        text = NGINX.format(base=self.scratch, files=self.directory, name=NAME, port=port, user=user)
        config = self.scratch / "nginx.conf"
        config.write_text(text, encoding="utf-8")
        return [tool("nginx") or "nginx", "-p", f"{self.scratch}/", "-e", f"{self.scratch}/nginx.log", "-c", f"{config}"]

    def _link(self) -> str:
        program = self.scratch / "link"
        if not program.exists():
            subprocess.run(["cc", "-O2", "-o", program, Path(__file__).with_name("link.c")], check=True)
        return os.fspath(program)

    def _spawn(self, *words: str) -> None:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def end() -> None:
            process.terminate()
            process.wait()

        self._ended.callback(end)


def tool(name: str) -> str | None:
    """Where a program is, those for root alone included."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
