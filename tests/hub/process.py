# SPDX-License-Identifier: Apache-2.0
"""
The test Hub in a process of its own, driven from a test.

It has to be another process: a test that faults a page of a file which is being fetched holds Python's lock
while it waits, and a Hub that shares this lock could then never answer.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from .faults import Fault
from .log import Entry
from .repo import HubRepo
from .server import Hub

ROOT = Path(__file__).resolve().parents[2]


class HubProcess:
    """
    A running Hub. What is given to it is copied: after a further commit, `add` the repo again.

        with HubProcess() as hub:
            hub.add(repo)
            run(env={"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"})
            assert len(hub.log(host="cdn")) == 1
    """

    def __init__(self, *arguments: str):
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.hub", "--control-fd", str(theirs.fileno()), *arguments],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._pipe = Pipe(ours.detach())
        self._lock = threading.Lock()
        try:
            self.url, self.cdn_url = self._call("addresses")
        except EOFError as error:
            self._process.wait()
            raise RuntimeError(f"the test Hub did not start (exit code {self._process.returncode})") from error

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._pipe.send((name, args, kwargs))
            good, value = self._pipe.recv()
        if not good:
            raise value
        return value

    def add(self, *repos: HubRepo) -> None:
        self._call("add", *repos)

    def remove(self, repo_id: str, type: str = "model") -> None:
        self._call("remove", repo_id, type)

    def rename(self, old: str, new: str, type: str = "model") -> None:
        self._call("rename", old, new, type)

    def add_token(self, token: str, user: str) -> None:
        self._call("add_token", token, user)

    def log(self, **conditions: Any) -> list[Entry]:
        """The requests so far whose fields have these values; `path` may be a part of the path."""
        part = conditions.pop("path", "")
        entries: list[Entry] = self._call("get_log")
        return [
            entry
            for entry in entries
            if part in entry.path and all(getattr(entry, name) == value for name, value in conditions.items())
        ]

    def clear_log(self) -> None:
        self._call("clear_log")

    def fault(self, **what: Any) -> None:
        """Order a fault: the fields of `faults.Fault`."""
        self._call("fault", Fault(**what))

    def shape(self, host: str | None = None, *, latency: float = 0, rate: float | None = None) -> None:
        self._call("shape", host, latency, rate)

    def limit(self, window: str, quota: int, seconds: int) -> None:
        """Refuse with 429 what goes beyond the quota of the window `api` or `resolvers`."""
        self._call("limit", window, quota, seconds)

    def sign_for(self, seconds: float) -> None:
        """How long the addresses signed from now on are good."""
        self._call("sign_for", seconds)

    def compress(self, on: bool) -> None:
        """Whether small text files are sent compressed to those who accept it."""
        self._call("compress", on)

    def reset(self) -> None:
        """No faults, no slow line, no limits, an empty log; the repos stay."""
        self._call("reset")

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "HubProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Control:
    """The other end: carries out what HubProcess asks for, one call at a time, in the loop's thread."""

    def __init__(self, hub: Hub):
        self.hub = hub

    def addresses(self) -> tuple[str, str]:
        return self.hub.url, self.hub.cdn_url

    def add(self, *repos: HubRepo) -> None:
        self.hub.add(*repos)

    def remove(self, repo_id: str, type: str) -> None:
        self.hub.remove(repo_id, type)

    def rename(self, old: str, new: str, type: str) -> None:
        self.hub.rename(old, new, type)

    def add_token(self, token: str, user: str) -> None:
        self.hub.add_token(token, user)

    def get_log(self) -> list[Entry]:
        return self.hub.log.entries

    def clear_log(self) -> None:
        self.hub.log.clear()

    def fault(self, fault: Fault) -> None:
        self.hub.faults.add(fault)

    def shape(self, host: str | None, latency: float, rate: float | None) -> None:
        self.hub.faults.shape(host, latency, rate)

    def limit(self, window: str, quota: int, seconds: int) -> None:
        self.hub.limits.set(window, quota, seconds)

    def sign_for(self, seconds: float) -> None:
        self.hub.signer.lifetime = seconds

    def compress(self, on: bool) -> None:
        self.hub.compress = on

    def reset(self) -> None:
        self.hub.faults.clear()
        self.hub.log.clear()
        self.hub.limits.__init__()
        self.hub.signer.lifetime = 3600
        self.hub.compress = True


def obey(hub: Hub, fd: int, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
    """Serve a HubProcess at the other end of `fd`, in a thread of its own, until it goes away."""
    pipe, control = Pipe(fd), Control(hub)

    def call(name: str, args: tuple, kwargs: dict) -> tuple[bool, Any]:
        try:
            return True, getattr(control, name)(*args, **kwargs)
        except Exception as error:
            return False, error

    async def in_loop(request: tuple) -> tuple[bool, Any]:
        return call(*request)

    def work() -> None:
        try:
            while True:
                request = pipe.recv()
                pipe.send(asyncio.run_coroutine_threadsafe(in_loop(request), loop).result())
        except (EOFError, OSError):
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, daemon=True).start()
