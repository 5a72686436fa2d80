# SPDX-License-Identifier: Apache-2.0
"""What was asked of the test Hub, in the order it came: tests count requests and bytes in here."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field


@dataclass
class Entry:
    """One request. `sent` counts body bytes; `status` is 0 where the connection was cut instead of an answer."""

    host: str  # "hub", or "cdn" for signed addresses
    method: str
    path: str  # as it came, not decoded
    query: str
    headers: dict[str, str]  # names in lower case
    connection: int  # the same number: the same connection
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    sent: int = 0
    ended: float | None = None
    aborted: bool = False  # the client went away before the end
    fault: str | None = None  # name of the fault that struck, if one did

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Log:
    """All requests since the start, or since the last `clear`."""

    def __init__(self, file=None):
        self.entries: list[Entry] = []
        self._file = file

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    def end(self, entry: Entry) -> None:
        entry.ended = time.monotonic()
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()

    def clear(self) -> None:
        """Forget all, also what is not answered yet: it is of before."""
        self.entries = []
