# SPDX-License-Identifier: Apache-2.0
"""The real huggingface_hub in several versions, each in a virtual environment of its own, run as a child."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

ROOT = Path(__file__).resolve().parents[2]
CURRENT = "2.4.0"
VERSIONS = ("0.36.2", "1.17.0", "1.22.0", CURRENT)

# For each line of JSON: what the script's `main(**arguments)` returned, or the name of what it raised.
RUNNER = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    request = json.loads(line)
    scope = {"__name__": "script"}
    try:
        exec(request["script"], scope)
        value = {"value": scope["main"](**request["arguments"])}
    except Exception as error:
        value = {"error": type(error).__name__, "message": str(error)}
    answers.write(json.dumps(value) + chr(10))
    answers.flush()
"""

DOWNLOAD = """
from huggingface_hub import snapshot_download
def main(**arguments):
    return snapshot_download(**arguments)
"""


class LibraryError(Exception):
    """The library raised `kind`."""

    def __init__(self, kind: str, message: str):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


def clean_environment(home: str | os.PathLike) -> dict[str, str]:
    """An environment in which nothing of the machine's own user shows: no token, no cache, no proxy."""
    sanitizers = ("ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")
    keep = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", *sanitizers)
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env |= {"HOME": os.fspath(home), "NO_PROXY": "*", "no_proxy": "*"}
    return env


class Worker:
    """A Python of one version that has the library loaded, and runs one script after another."""

    def __init__(self, python: Path, env: Mapping[str, str], **popen: Any):
        self._process = subprocess.Popen(
            [python, "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
            **popen,
        )

    def run(self, script: str, arguments: Mapping[str, Any]) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"script": script, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the child died: exit code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise LibraryError(answer["error"], answer["message"])
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Library:
    """
    One version. `home` is where it may write what belongs to a user.

    Scripts run in one child that lives as long as this object: starting the library takes a second. Those that
    need an environment of their own get a child of their own, as the library reads its settings when loaded.
    """

    version: str
    home: Path
    env: dict[str, str] = field(default_factory=dict)
    _worker: Worker | None = None

    @property
    def bin(self) -> Path:
        return ROOT / "build" / ("venv" if self.version == CURRENT else f"venv-{self.version}") / "bin"

    @property
    def installed(self) -> bool:
        return (self.bin / "python").exists()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return (
            clean_environment(self.home)
            | {
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            }
            | self.env
            | dict(extra or {})
        )

    def run(self, script: str, *, env: Mapping[str, str] | None = None, **arguments: Any) -> Any:
        """Call `main(**arguments)` of the script; what it returns, or LibraryError with what it raised."""
        if env is not None:
            with self.worker(env) as worker:
                return worker.run(script, arguments)
        if self._worker is None:
            self._worker = self.worker()
        return self._worker.run(script, arguments)

    def worker(self, env: Mapping[str, str] | None = None, **popen: Any) -> Worker:
        """A child of its own; `popen` may name a user to run it as."""
        return Worker(self.bin / "python", self.environment(env), **popen)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def download(self, repo_id: str, *, env: Mapping[str, str] | None = None, **arguments: Any) -> str:
        """`snapshot_download`: the directory it put the files in."""
        arguments = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in arguments.items()}
        return self.run(DOWNLOAD, env=env, repo_id=repo_id, **arguments)

    def hf(self, *arguments: str | os.PathLike, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
        """The `hf` command of this version."""
        command = [self.bin / "python", self.bin / "hf", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(env), timeout=300)
