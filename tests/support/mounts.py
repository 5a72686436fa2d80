# SPDX-License-Identifier: Apache-2.0
"""Mounts for tests: started, watched and taken away again, whatever happened in between."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Protocol, Sequence

from .library import ROOT, clean_environment

MODELMOUNT = Path(os.environ.get("MODELMOUNT", ROOT / "build" / "modelmount"))
PATIENCE = 30.0
"""Seconds after which something that should have happened never will; a sanitizer's build is slow."""
SOON = 3.0
"""What "within a second" is given."""
STEP = 0.1
"""What a single look counts at most: a look that takes longer tells of the machine, not of what it looks at."""


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE, what: str = "it") -> Any:
    """
    The condition's first true value; AssertionError when it has none in time.

    A machine that is so busy that we ourselves hardly run gets more time than `seconds`, up to PATIENCE.
    """
    began = time.monotonic()
    waited = 0.0
    while True:
        look = time.monotonic()
        value = condition()
        if value:
            return value
        assert waited < seconds and look - began < max(seconds, PATIENCE), f"{what} did not happen within {seconds} s"
        time.sleep(0.02)
        waited += min(time.monotonic() - look, STEP)


def mount_table() -> list[tuple[str, str]]:
    """What is mounted, in order: place and file system type."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        where = before.split(" ")[4]
        for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            where = where.replace(code, char)
        found.append((where, after.split(" ")[0]))
    return found


def mounted(path: str | os.PathLike) -> str | None:
    """The file system type of what is mounted at `path`, None if nothing is."""
    wanted = os.path.realpath(os.path.dirname(os.fspath(path))) + "/" + os.path.basename(os.fspath(path))
    return dict(mount_table()).get(wanted)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_for_end(pid: int, seconds: float = PATIENCE) -> None:
    wait_until(lambda: not alive(pid), seconds, f"the end of process {pid}")


def run(
    *arguments: str | os.PathLike,
    env: Mapping[str, str],
    check: bool = False,
    input: str | None = None,
    **popen: Any,
) -> subprocess.CompletedProcess[str]:
    """The program with these arguments, to its end."""
    done = subprocess.run(
        [MODELMOUNT, *arguments],
        env=dict(env),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=120,
        input=input,
        **popen,
    )
    if check:
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stderr}"
    return done


class Mount:
    """
    One mount and its daemon.

    The daemon stays in the foreground of a child by default, so that its log can be read and its pid is known;
    with `background=True` it is started as a user starts it, and its pid is what `status` says.
    """

    def __init__(
        self, source: Path | str | None, path: Path, options: Sequence[str], env: Mapping[str, str], **how: Any
    ):
        self.source = source
        self.path = path
        self.env = dict(env)
        self.log_path = path.parent / f"{path.name}.log"
        self.pid = 0
        self._child: subprocess.Popen | None = None
        self._background: bool = how.pop("background", False)
        flags = ["-v"] if self._background else ["-f", "-v"]
        for option in options:
            flags += ["-o", option]
        self._arguments = [*flags, *how.pop("flags", ()), *([source] if source else []), path]
        self._popen = how

    def start(self) -> "Mount":
        """Mount; returns when the mount is live."""
        if self._background:
            run("mount", *self._arguments, env=self.env, check=True, **self._popen)
            self.pid = self.status()["pid"]
            return self
        with open(self.log_path, "ab") as log:
            self._child = subprocess.Popen(
                [MODELMOUNT, "mount", *self._arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._popen,
            )
        self.pid = self._child.pid
        wait_until(lambda: self.answers() or self._child.poll() is not None, what="the mount")
        assert self._child.poll() is None, f"the daemon ended: {self._child.returncode}\n{self.log()}"
        return self

    def live(self) -> bool:
        return mounted(self.path) == "fuse.modelmount"

    def answers(self) -> bool:
        """
        Whether it is this daemon that answers at the mountpoint.

        Who only looks whether something is mounted there, and whether the place then answers, may see the dead
        mount of another daemon first and, when that was unmounted, the bare directory.
        """
        try:
            return int((self.path / ".modelmount/pid").read_text()) == self.pid
        except (OSError, ValueError):
            return False

    def log(self) -> str:
        """What the daemon wrote so far (in the foreground only)."""
        return self.log_path.read_text(errors="surrogateescape") if self.log_path.exists() else ""

    def log_names(self, *words: str) -> bool:
        """Whether one line of the log has all these words."""
        return any(all(word in line for word in words) for line in self.log().splitlines())

    def status(self) -> dict[str, Any]:
        return json.loads(run("status", "--json", self.path, env=self.env, check=True).stdout)

    def wait_until_closed(self) -> None:
        """Until no file is open any more: the kernel tells the daemon of a close after close(2) has returned."""
        wait_until(lambda: self.status()["open_files"] == 0, SOON, "the release of all files")

    def kill(self) -> None:
        """`kill -9`, as a crash would; the dead mount stays."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def signal(self, number: int) -> int | None:
        """Send a signal and wait for the end; the exit code where it is known."""
        os.kill(self.pid, number)
        return self._reap()

    def _reap(self) -> int | None:
        if self._child is not None:
            return self._child.wait(PATIENCE)
        wait_for_end(self.pid)
        return None

    def unmount(self, *flags: str) -> None:
        """As a user does it; afterwards mount and process are gone."""
        run("unmount", *flags, self.path, env=self.env, check=True)
        assert not self.live()
        code = self._reap()
        assert code in (0, None), f"exit code {code}\n{self.log()}"

    def clean_up(self) -> str | None:
        """Take away whatever is left; what was wrong, if something was."""
        problem = None
        if mounted(self.path) is not None:
            done = run("unmount", self.path, env=self.env)
            if done.returncode != 0:
                problem = f"unmount failed: {done.stderr}"
        if self.pid and alive(self.pid):
            try:
                wait_for_end(self.pid, 10)
            except AssertionError:
                problem = problem or f"the daemon {self.pid} did not end"
                os.kill(self.pid, signal.SIGKILL)
        if mounted(self.path) is not None:
            subprocess.run(["umount", "-l", self.path], capture_output=True)
        if self._child is not None and self._child.poll() is None:
            self._child.wait(PATIENCE)
        return problem and f"{problem}\n{self.log()}"

    # Ways into the tree.

    def repo(self, repo_id: str, revision: str = "main", type: str = "model") -> Path:
        return self.path / f"{type}s" / repo_id / revision.replace("%", "%25").replace("/", "%2F")

    def __truediv__(self, name: str) -> Path:
        return self.path / name


class HasUrl(Protocol):
    url: str


def online(hub: HasUrl, **extra: str) -> dict[str, str]:
    """An environment's part that lets a mount ask this Hub."""
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": ""} | extra


class Mounts:
    """Makes mounts below one directory, each with a state directory and a home of its own."""

    def __init__(self, base: Path):
        self.base = base
        self.all: list[Mount] = []

    def environment(self, **extra: str) -> dict[str, str]:
        """
        For runs of the program: a home of its own, and offline, so that no test asks the real Hub.

        A test that wants a Hub gives what `online` says.
        """
        home = self.base / "home"
        home.mkdir(exist_ok=True)
        return clean_environment(home) | {"HF_HUB_OFFLINE": "1"} | extra

    def __call__(
        self,
        source: Path | str | None,
        *options: str,
        name: str = "mnt",
        env: Mapping[str, str] | None = None,
        state: str | None = "state",
        **how: Any,
    ) -> Mount:
        """
        Mount a cache, or a repo of the Hub (`hf://…`), at `name`. The index lies in `state` below the test's
        directory, None: where it will. `flags` are further arguments, `options` those of `-o`.
        """
        path = self.base / name
        try:
            path.mkdir()
        except FileExistsError:
            pass  # perhaps a dead mount, of which nothing more can be asked
        if state is not None:
            if not os.path.lexists(self.base / state):
                (self.base / state).mkdir()
            options = (*options, f"state_dir={self.base / state}")
        made = Mount(source, path, options, self.environment(**dict(env or {})), **how)
        self.all.append(made)
        return made.start()

    def clean_up(self) -> None:
        problems = [problem for made in reversed(self.all) if (problem := made.clean_up())]
        problems += self._clean_up_others()
        assert not problems, "\n".join(problems)

    def _clean_up_others(self) -> list[str]:
        """Mounts that the test made by itself and, having failed, did not take away."""
        base = os.path.realpath(self.base) + "/"
        left = [where for where, kind in mount_table() if where.startswith(base) and kind == "fuse.modelmount"]
        for where in left:
            answer = run("status", "--json", where, env=self.environment())
            run("unmount", "--lazy", where, env=self.environment())
            pid = json.loads(answer.stdout)["pid"] if answer.returncode == 0 else 0
            if pid and alive(pid):
                os.kill(pid, signal.SIGKILL)
            if mounted(where) is not None:
                subprocess.run(["umount", "-l", where], capture_output=True)
        return [f"{where}: left mounted" for where in left]


def wait_readable(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])
