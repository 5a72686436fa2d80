# SPDX-License-Identifier: Apache-2.0
"""
`python -m tests.hub.lines`: the test Hub for tests that are not written in Python.

A line `name {"argument": value}` on stdin calls that method of `process.Control` (`fault` takes the fields of
`faults.Fault`, `body` as text), or one of the class below; a line of JSON comes back. It ends with stdin.
The first line that comes out has the addresses of the Hub and of the host of large files.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from .content import Pattern
from .faults import Fault
from .process import Control
from .repo import HubRepo
from .server import Hub


class Lines(Control):
    def fault(self, **what: Any) -> None:
        if "body" in what:
            what["body"] = what["body"].encode()
        super().fault(Fault(**what))

    def repo(self, id: str, type: str = "model", files: dict[str, Any] | None = None, **how: Any) -> str:
        """Add a repo of one commit: text files, or Pattern(path, size) where a number is given. Its commit."""
        repo = HubRepo(id, type, **how)
        sha = repo.commit({k: Pattern(k, v) if isinstance(v, int) else v for k, v in (files or {}).items()})
        repo.ref("refs/pr/1", sha)
        repo.ref("refs/convert/parquet", sha)
        repo.tag("v1.0", sha)
        repo.branch("feature/x", sha)
        self.hub.add(repo)
        return sha

    def many(self, id: str, count: int) -> str:
        repo = HubRepo(id)
        sha = repo.commit({f"dir{i % 100:02}/file{i}": str(i) for i in range(count)})
        self.hub.add(repo)
        return sha

    def read(self, path: str, size: int, offset: int, length: int) -> str:
        """Bytes of Pattern(path, size), as hex."""
        return Pattern(path, size).read(offset, length).hex()

    def log(self) -> list[dict]:
        return [asdict(entry) for entry in self.hub.log.entries]


async def main() -> None:
    hub = Hub()
    await hub.start()
    lines = Lines(hub)
    print(json.dumps(lines.addresses()), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, _, arguments = line.strip().partition(" ")
        try:
            answer = getattr(lines, name)(**json.loads(arguments or "{}"))
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    await hub.stop()


if __name__ == "__main__":
    asyncio.run(main())
