# SPDX-License-Identifier: Apache-2.0
"""What `make` promises beside the build: `make install` and `uninstall`, and what `make mount` says and does."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.handmade import simple_cache
from tests.support.library import ROOT
from tests.support.mounts import MODELMOUNT, mounted, run

PROGRAM = MODELMOUNT.absolute()


def make(*words: str) -> str:
    command = ["make", "-C", ROOT, f"BUILD={PROGRAM.parent}", *words]
    flags = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=flags).stdout


def files_below(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_help_names_every_target(mount):
    said = make("help")
    for target in ("mount", "unmount", "check", "bench", "format", "lint", "sanitize", "install", "uninstall", "clean"):
        assert f"  {target} " in said


def test_install_and_uninstall(mount, tmp_path):
    """Into DESTDIR and PREFIX and nowhere else; uninstall leaves no file."""
    # -o: the program stays as it is, with whatever flags it was built.
    where = (f"DESTDIR={tmp_path}", "PREFIX=/opt/mm", "-o", str(PROGRAM), "install")
    make(*where)
    there = files_below(tmp_path / "opt/mm")
    assert {"bin/modelmount", "share/man/man1/modelmount.1"} <= there
    assert there == {name.removeprefix("opt/mm/") for name in files_below(tmp_path)}
    done = subprocess.run([tmp_path / "opt/mm/bin/modelmount", "--version"], env=mount.environment(), capture_output=True)
    assert done.stdout.startswith(b"modelmount ")
    make(*where[:2], "uninstall")
    assert files_below(tmp_path) == set()


@pytest.fixture
def mount_own_cache(mount, tmp_path):
    """Runs what `make mount` runs after the build, for a user whose home is the test's; unmounts."""
    point = tmp_path / "place"

    def run_it() -> str:
        done = subprocess.run(
            [ROOT / "contrib/mount-own-cache", PROGRAM, point],
            env=mount.environment(HF_HUB_CACHE=str(tmp_path / "cache/hub")),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert mounted(point) == "fuse.modelmount"
        return done.stdout

    yield run_it
    if mounted(point):
        run("unmount", point, env=mount.environment(), check=True)


def test_make_mount_says_what_to_try_with_a_repo_that_is_there(mount_own_cache, fresh_cache, tmp_path):
    simple_cache(fresh_cache, {"config.json": b"{}"})
    said = mount_own_cache()
    tried = [line for line in said.splitlines() if line.startswith(("  ls ", "  tar "))]
    assert len(tried) == 2 and "models/org/name/main" in said
    for line in tried:
        subprocess.run(shlex.split(line), check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "model.tar.gz").stat().st_size > 0
    assert "already mounted" in mount_own_cache()


def test_make_mount_of_no_cache(mount_own_cache):
    """No error: it says so, and mounts."""
    said = mount_own_cache()
    assert "The cache is empty" in said and "hf download" in said
