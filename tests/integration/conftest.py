# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests on real mounts, of caches that the real library made."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.hub import HubProcess, HubRepo
from tests.support.handmade import Repo, simple_cache
from tests.support.library import CURRENT, VERSIONS, Library
from tests.support.mounts import MODELMOUNT, Mount, Mounts, online
from tests.support.repos import TINY_REVISIONS
from tests.support.trees import Tree, tree

@pytest.fixture(scope="session", autouse=True)
def program() -> Path:
    """The program under test: $MODELMOUNT, else build/modelmount."""
    assert MODELMOUNT.exists(), f"{MODELMOUNT} is not there: make"
    return MODELMOUNT


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounts]:
    """`mount(cache, "nopassthrough", …)` mounts; at the test's end nothing of it is left, or the test has failed."""
    made = Mounts(tmp_path)
    yield made
    made.clean_up()


@pytest.fixture
def lazy(mount: Mounts, hub: HubProcess) -> Iterator[Callable[..., Mount]]:
    """
    `lazy(cache, "timeout=0.5", …)`: a mount with the Hub behind it; `source="hf://org/name"` for one repo of it.

    At the test's end the Hub has no faults and no slow line any more, and then the mount goes.
    """
    hub.reset()

    def make(cache: Path, *options: str, source: str | None = None, env: dict[str, str] | None = None, **how) -> Mount:
        if source is not None:
            options = (*options, f"cache_dir={cache}")
        return mount(source or cache, *options, env=online(hub) | (env or {}), **how)

    yield make
    hub.reset()


@pytest.fixture
def small_disk(tmp_path: Path, need_root) -> Iterator[Path]:
    """A disk of 20 MiB. To be asked for before the mount that uses it: it is taken away after it."""
    at = tmp_path / "disk"
    at.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", at], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs here: {done.stderr.strip()}")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


def fill_cache(library: Library, cache: Path, hub_repos: dict[str, HubRepo]) -> Path:
    """Every repo of the Hub downloaded by the library; org/tiny in all its revisions."""
    cache.mkdir(parents=True)
    for repo in hub_repos.values():
        if repo.type == "kernel" and library.version != CURRENT:
            continue
        library.download(repo.id, repo_type=repo.type, cache_dir=cache)
    for revision in TINY_REVISIONS[1:]:
        library.download("org/tiny", revision=revision, cache_dir=cache)
    return cache


@pytest.fixture(scope="session")
def made_cache(library, hub_repos, tmp_path_factory) -> Callable[[str], Path]:
    """`made_cache("1.17.0")`: a hub cache with every repo, made by that version. Not to be changed."""
    made: dict[str, Path] = {}

    def get(version: str = CURRENT) -> Path:
        if version not in made:
            base = tmp_path_factory.mktemp(f"cache-{version}")
            made[version] = fill_cache(library(version), base / "hub", hub_repos)
        return made[version]

    return get


@pytest.fixture(scope="session", params=VERSIONS)
def any_cache(request, made_cache) -> Path:
    """The cache of each version in turn."""
    return made_cache(request.param)


@pytest.fixture(scope="session")
def current_cache(made_cache) -> Path:
    """The cache made by the current version. Not to be changed."""
    return made_cache(CURRENT)


@pytest.fixture
def own_cache(current_cache: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    copy = tmp_path / "own" / "hub"
    copy.parent.mkdir()
    subprocess.run(["cp", "-a", current_cache, copy], check=True)
    return copy


@pytest.fixture(scope="session")
def local_dirs(library, hub_repos, tmp_path_factory) -> Callable[..., Tree]:
    """
    `local_dirs("org/tiny", "v1.0")`: the tree that `snapshot_download(local_dir=…)` makes of it.

    Without names of 255 bytes: there the library fails, as it adds ".lock" to them.
    """
    made: dict[tuple[str, str], Tree] = {}

    def get(repo_id: str, revision: str = "main") -> Tree:
        key = (repo_id, revision)
        if key not in made:
            target = tmp_path_factory.mktemp("local")
            where = {"repo_type": hub_repos[repo_id].type, "revision": revision, "local_dir": target}
            library().download(repo_id, ignore_patterns=["x" * 255], **where)
            made[key] = tree(target, ignore=[".cache"])
        return made[key]

    return get


@pytest.fixture
def handmade(fresh_cache: Path) -> Repo:
    """An empty repo `org/name` in an empty cache, to be filled by hand."""
    return Repo(fresh_cache)


@pytest.fixture
def cache(fresh_cache: Path) -> Path:
    """A cache with one small repo in it, made by hand."""
    simple_cache(fresh_cache)
    return fresh_cache


@pytest.fixture
def spot(tmp_path: Path) -> Path:
    """An empty directory to mount at."""
    path = tmp_path / "spot"
    path.mkdir()
    return path


@pytest.fixture
def tiny(mount: Mounts, current_cache: Path) -> Mount:
    """The cache of the current version, mounted."""
    return mount(current_cache)


@pytest.fixture
def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can do this")


@pytest.fixture
def stranger(need_root) -> int:
    """The uid of a user who is not root and owns nothing."""
    return pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def open_way(tmp_path: Path, need_root) -> None:
    """Let other users reach the test's directory: pytest closes it to them."""
    at = tmp_path
    while at != Path("/") and at.stat().st_uid == 0 and at != Path("/tmp"):
        at.chmod(at.stat().st_mode | 0o711)
        at = at.parent


# A private mount namespace in which everybody may open /dev/fuse; then the script, as the user.
AS_USER = """
mount -t tmpfs -o dev,mode=755 tmpfs "$TMP/dev" && mknod -m 666 "$TMP/dev/fuse" c 10 229 &&
mount --bind "$TMP/dev/fuse" /dev/fuse || exit 77
trap '"$MM" unmount --lazy "$MNT" 2>/dev/null' EXIT
setpriv --reuid="$USER_ID" --regid="$USER_ID" --clear-groups -- sh -c "$1"
"""


@pytest.fixture
def as_user(mount: Mounts, tmp_path: Path, stranger: int, open_way) -> Callable[..., subprocess.CompletedProcess[str]]:
    """
    `as_user(script, cache=…)` runs a shell script as a user who is not root and who owns all of the test's files.

    It has $MM, the program, $CACHE, $MNT, an empty directory, and $TMP, and is alone with its mounts: these are
    taken away at its end.
    """
    if shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("setpriv and unshare are not installed")

    def run(script: str, *, cache: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        for name in ("mnt", "dev"):
            (tmp_path / name).mkdir(exist_ok=True)
        program = shutil.copy(MODELMOUNT, tmp_path / "modelmount")  # where the user can reach it
        environment = mount.environment(
            MM=str(program),
            MNT=str(tmp_path / "mnt"),
            TMP=str(tmp_path),
            CACHE=str(cache or ""),
            USER_ID=str(stranger),
            **env,
        )
        subprocess.run(["chown", "-Rh", f"{stranger}:{stranger}", tmp_path], check=True)
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", AS_USER, "sh", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
        )
        if done.returncode == 77:
            pytest.skip(f"no private /dev/fuse here: {done.stderr.strip()}")
        return done

    return run
