# SPDX-License-Identifier: Apache-2.0
"""Trouble on order: what the test Hub does wrong, to which requests, and how often; and how slow its line is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .log import Entry


@dataclass
class Fault:
    """
    Which requests it strikes, and what happens to them. An empty condition strikes everything.

    Of the effects, those that answer (`status`) win over those that change the answer. Offsets count the
    bytes of the body that was going to be sent.
    """

    name: str = "fault"
    # which requests
    host: str | None = None  # "hub" or "cdn"
    method: str | None = None
    path: str | None = None  # a regular expression, searched in the decoded path
    ranged: bool | None = None  # only with, or only without, a Range header
    skip: int = 0  # let so many pass first
    times: int | None = 1  # strike so often; None: for ever
    # what happens
    delay: float = 0  # seconds before the answer's first byte
    drop: bool = False  # close the connection without an answer
    status: int | None = None  # answer this instead
    headers: dict[str, str | None] = field(default_factory=dict)  # put over the answer's own; None takes one away
    body: bytes | None = None  # this body instead
    reset_at: int | None = None  # cut the connection (RST) after so many bytes of the body
    truncate_at: int | None = None  # end it there cleanly, though more was announced
    stall_at: int | None = None  # send no more after so many bytes, but stay connected
    flip_at: int | None = None  # turn over the bits of this byte
    ignore_range: bool = False  # 200 and the whole file
    shift_range: int = 0  # Content-Range and bytes of a place further on

    def matches(self, entry: Entry, path: str) -> bool:
        return (
            self.host in (None, entry.host)
            and self.method in (None, entry.method)
            and (self.path is None or re.search(self.path, path) is not None)
            and (self.ranged is None or self.ranged == (entry.range is not None))
        )


@dataclass
class Shape:
    """What the line is like: seconds before each answer, and bytes per second of each connection."""

    latency: float = 0
    rate: float | None = None


class Faults:
    """The faults in force, and the shape of the line to each host."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.shapes: dict[str, Shape] = {"hub": Shape(), "cdn": Shape()}

    def add(self, fault: Fault) -> None:
        self.active.append(fault)

    def clear(self) -> None:
        self.active.clear()
        self.shapes = {"hub": Shape(), "cdn": Shape()}

    def shape(self, host: str | None = None, latency: float = 0, rate: float | None = None) -> None:
        for name in self.shapes if host is None else (host,):
            self.shapes[name] = Shape(latency, rate)

    def strike(self, entry: Entry, path: str) -> Fault | None:
        """The first fault whose turn it is for this request; it counts as having struck."""
        for fault in self.active:
            if not fault.matches(entry, path):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times == 0:
                continue
            if fault.times is not None:
                fault.times -= 1
            entry.fault = fault.name
            return fault
        return None
