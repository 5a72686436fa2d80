# SPDX-License-Identifier: Apache-2.0
"""Mounts that end with the block they are used in, whatever happens there."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Mapping, Sequence

DEADLINE = 30.0


class MountError(Exception):
    """The mount did not come up; the message is what the daemon said."""


class Mount:
    """
    A mount of `hub` at `mountpoint` by a daemon in the foreground, our child; `env`: variables to change for it. Use with
    `with`.
    """

    def __init__(
        self,
        program: Path,
        hub: Path,
        mountpoint: Path,
        state: Path,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ):
        self.path = mountpoint
        self._env = {**os.environ, **(env or {})}
        self._command = command(program, hub, mountpoint, state, options, foreground=True)
        self._log = mountpoint.with_suffix(".log")
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Mount:
        self.path.mkdir(exist_ok=True)
        before = os.stat(self.path).st_dev
        with open(self._log, "wb") as log:
            self._daemon = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )
        try:
            self._wait_until_live(before)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    @property
    def pid(self) -> int:
        assert self._daemon
        return self._daemon.pid

    def resident(self) -> float:
        """MiB of the daemon in memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise MountError("the daemon is gone")

    def processor(self) -> float:
        """Seconds of processor time that the daemon has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """How many descriptors the daemon holds."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _wait_until_live(self, before: int) -> None:
        assert self._daemon
        deadline = time.monotonic() + DEADLINE
        while os.stat(self.path).st_dev == before:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise MountError(self._log.read_text(encoding="utf-8", errors="replace").strip() or "no mount")
            time.sleep(0.001)

    def _end(self) -> None:
        assert self._daemon
        self._daemon.terminate()
        try:
            self._daemon.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            detach(self.path)
            self._daemon.kill()
            self._daemon.wait()


def command(
    program: Path, hub: Path, mountpoint: Path, state: Path, options: Sequence[str] = (), foreground: bool = False
) -> list[str]:
    """The command line of a mount whose index is in `state`."""
    state.mkdir(parents=True, exist_ok=True)
    words = [os.fspath(program), "mount", "-o", ",".join([f"state_dir={state}", *options])]
    return [*words, *(["-f"] if foreground else []), os.fspath(hub), os.fspath(mountpoint)]


def detach(mountpoint: Path) -> None:
    """Takes a mount away even if it is in use, and waits for the end of the daemon, unless that is our child."""
    words = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*words, os.fspath(mountpoint)], check=False, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + DEADLINE
    while _has_daemon(mountpoint) and time.monotonic() < deadline:
        time.sleep(0.01)


def _has_daemon(mountpoint: Path) -> bool:
    """Whether a process in the background was started for that mountpoint."""
    word = os.fsencode(mountpoint)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if word in (process / "cmdline").read_bytes().split(b"\0") and os.getsid(int(process.name)) != os.getsid(0):
                return True
        except OSError:
            continue
    return False


def detach_below(directory: Path) -> None:
    """Takes away every mount in `directory`."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        points = [line.split()[4] for line in lines]
    for point in points:
        if Path(point).is_relative_to(directory):
            detach(Path(point))
