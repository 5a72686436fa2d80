# SPDX-License-Identifier: Apache-2.0
"""
Measures a mount against the bare file system it shows, in the same run: medians of alternating runs, and their ratio.

Leaves nothing behind, whatever happens: neither mounts nor processes nor files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn, Sequence

from cases import CASES, FULL, QUICK, Bench
from mount import MountError, detach_below
from report import Report, machine

ROOT = Path(__file__).resolve().parents[2]
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOOLS = ("dd", "find", "fio", "tar")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, each case once")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be repeated")
    parser.add_argument("--dir", type=Path, default=ROOT / "build", help="where to make the cache: 3 GB (build)")
    parser.add_argument("--modelmount", type=Path, default=ROOT / "build/modelmount", help="the program (the build's)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results of every run there")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(f"bench: {text}")
    sys.exit(2)


def check(program: Path) -> None:
    if not program.exists():
        fail(f"{program}: not there: run make first")
    for tool in TOOLS:
        if not shutil.which(tool):
            fail(f"{tool}: not installed: contrib/install-deps --tests")


def measure(options: argparse.Namespace, program: Path, scratch: Path) -> Report:
    start = time.monotonic()
    report = Report(machine(program, scratch))
    bench = Bench(program, scratch, QUICK if options.quick else FULL)
    say("making the cache")
    cases = [CASES[name] for name in options.case or CASES]
    bench.make({part for case in cases for part in case.parts})
    for case in cases:
        for row in case.rows(bench):
            report.rows.append(row)
            say(f"{time.monotonic() - start:4.0f} s  {'  '.join(cell for cell in row.cells() if cell)}")
    return report


def clean(scratch: Path) -> None:
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    detach_below(scratch)
    subprocess.run(["rm", "-rf", "--one-file-system", scratch], check=False)


def interrupted(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    options = parse()
    program = options.modelmount.resolve()
    check(program)
    for number in ENDINGS:
        signal.signal(number, interrupted)
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is measured is the disk's side, but for what is fetched
    start = time.monotonic()
    options.dir.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench.", dir=options.dir.resolve()))
    try:
        report = measure(options, program, scratch)
    except MountError as error:
        fail(f"cannot mount: {error}")
    except KeyboardInterrupt:
        fail("interrupted")
    finally:
        clean(scratch)
    say(f"{time.monotonic() - start:.0f} s\n")
    print(report.markdown() if options.markdown else report.text())
    if options.json:
        options.json.write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
