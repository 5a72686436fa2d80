# SPDX-License-Identifier: Apache-2.0
"""Results, and what they look like: lines for a terminal, Markdown, JSON."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Callable, Sequence

HEAD = ("case", "reads", "unit", "bare", "mounted", "ratio", "target", "")


@dataclass(frozen=True)
class Target:
    """What is to be reached: in words, and as a test of the medians (bare, mounted)."""

    words: str
    met: Callable[[float, float], bool]


@dataclass(frozen=True)
class Row:
    """One case in one way of reading ("" where that makes no difference)."""

    case: str
    reads: str
    unit: str
    bare: Sequence[float]  # empty: there is nothing to compare with
    mounted: Sequence[float]
    target: Target | None = None

    @property
    def medians(self) -> tuple[float, float]:
        return median(self.bare or [0.0]), median(self.mounted)

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        return "ok" if self.target.met(*self.medians) else "miss"

    def cells(self) -> tuple[str, ...]:
        bare, mounted = self.medians
        ratio = f"{mounted / bare:.2f}" if bare else ""
        target = self.target.words if self.target else ""
        return (
            self.case,
            self.reads,
            self.unit,
            _number(bare) if self.bare else "",
            _number(mounted),
            ratio,
            target,
            self.verdict,
        )

    def as_json(self) -> dict[str, Any]:
        bare, mounted = self.medians
        return {
            "case": self.case,
            "reads": self.reads,
            "unit": self.unit,
            "bare": bare if self.bare else None,
            "mounted": mounted,
            "bare_runs": list(self.bare),
            "mounted_runs": list(self.mounted),
            "target": self.target.words if self.target else None,
            "verdict": self.verdict or None,
        }


@dataclass
class Report:
    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    def text(self) -> str:
        table = [HEAD, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table)

    def markdown(self) -> str:
        lines = [f"## {self.machine['system']}, libfuse {self.machine['libfuse']}", ""]
        about = [f"{name} {value}" for name, value in self.machine.items() if name not in ("system", "libfuse")]
        lines.append(f"{', '.join(about)}.")
        lines += ["", _markdown_line(HEAD), _markdown_line(["---", "---", "---", *["---:"] * 3, "---", "---"])]
        return "\n".join([*lines, *(_markdown_line(row.cells()) for row in self.rows)])

    def as_json(self) -> dict[str, Any]:
        return {"machine": self.machine, "rows": [row.as_json() for row in self.rows]}


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine(program: Path, directory: Path) -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "kernel": platform.release(),
        "libfuse": _libfuse(program),
        "modelmount": subprocess.check_output([program, "--version"], text=True).split()[-1],
        "processors": f"{os.cpu_count()} × {_field('/proc/cpuinfo', 'model name')}",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / (1 << 20):.0f} GiB",
        "file system": _file_system(directory),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "?"


def _libfuse(program: Path) -> str:
    """The version of the library that the program is bound to."""
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    found = re.search(r"=> (\S*libfuse3\.so\S*)", libraries)
    if not found:
        return "?"
    version = ctypes.CDLL(found[1]).fuse_pkgversion
    version.restype = ctypes.c_char_p
    return str(version().decode())


def _file_system(directory: Path) -> str:
    words = ["stat", "-f", "-c", "%T", os.fspath(directory)]
    name = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return "ext4" if name == "ext2/ext3" else name  # all three have one number
