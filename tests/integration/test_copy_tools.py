# SPDX-License-Identifier: Apache-2.0
"""Use 2, further: rsync, cp and friends copy out of the mount, and what they made belongs to who made it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.trees import assert_same, repo_tree, tree


def do(*command: str | os.PathLike, **popen) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, **popen)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done


def test_rsync_copies_once(tiny, hub_repos, tmp_path):
    source = f"{tiny.repo('org/tiny')}/"
    do("rsync", "-a", source, tmp_path / "out")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(tmp_path / "out"))
    assert do("rsync", "-a", "--itemize-changes", source, tmp_path / "out").stdout == ""


def test_rsync_sees_that_a_commit_is_another(tiny, hub_repos, tmp_path):
    """Files of the same size differ in time when their commit differs, so that rsync looks at them."""
    do("rsync", "-a", f"{tiny.repo('org/tiny', 'v1.0')}/", tmp_path / "out")
    do("rsync", "-a", f"{tiny.repo('org/tiny')}/", tmp_path / "out")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(tmp_path / "out"))


@pytest.mark.parametrize("how", [["-r"], ["-a"], ["-r", "--sparse=always"], ["-r", "--reflink=auto"]])
def test_cp(tiny, hub_repos, tmp_path, how):
    do("cp", *how, tiny.repo("org/tiny"), tmp_path / "out")
    assert_same(repo_tree(hub_repos["org/tiny"]), tree(tmp_path / "out"))


def test_python_copies(tiny, hub_repos, tmp_path):
    shutil.copytree(tiny.repo("org/pipeline"), tmp_path / "out")
    assert_same(repo_tree(hub_repos["org/pipeline"]), tree(tmp_path / "out"))


CHANGE = "cp -r {source} {target} && echo more >> {target}/config.json && rm -r {target}/onnx && rm -r {target}"


def test_a_users_copy_can_be_changed_and_deleted(mount, current_cache, tmp_path, stranger, open_way):
    """A user who is not root copies out of root's mount."""
    at = mount(current_cache, "allow_other")
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, stranger, stranger)
    script = CHANGE.format(source=at.repo("org/tiny"), target=place / "copy")
    do("sh", "-c", script, user=stranger, group=stranger, extra_groups=[])
    assert not (place / "copy").exists()


def test_others_are_kept_out_by_default(mount, current_cache, stranger, open_way):
    at = mount(current_cache)
    script = f"import os\ntry: os.listdir({str(at.path)!r})\nexcept PermissionError: print('kept out')"
    done = do("python3", "-c", script, user=stranger, group=stranger, extra_groups=[])
    assert done.stdout == "kept out\n"


def test_an_overlay_on_top_can_be_written(mount, current_cache, hub_repos, tmp_path, need_root):
    """Files show as writable, so that those of an overlay's lower layer can be changed in the upper one."""
    at = mount(current_cache)
    for name in ("upper", "scratch", "merged"):
        (tmp_path / name).mkdir()
    # A tmpfs for the upper layer: the test's own directory may lie on an overlay already.
    do("mount", "-t", "tmpfs", "tmpfs", tmp_path / "scratch")
    try:
        (tmp_path / "scratch" / "u").mkdir()
        (tmp_path / "scratch" / "w").mkdir()
        options = f"lowerdir={at.repo('org/tiny')},upperdir={tmp_path}/scratch/u,workdir={tmp_path}/scratch/w"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"])
        if done.returncode != 0:
            pytest.skip("this kernel makes no overlay here")
        try:
            assert_same(repo_tree(hub_repos["org/tiny"]), tree(tmp_path / "merged"))
            (tmp_path / "merged" / "config.json").write_text("changed")
            assert (tmp_path / "merged" / "config.json").read_text() == "changed"
            assert (at.repo("org/tiny") / "config.json").read_text() != "changed"
        finally:
            do("umount", tmp_path / "merged")
    finally:
        do("umount", tmp_path / "scratch")


def test_hashes_by_coreutils(tiny, hub_repos):
    base = tiny.repo("org/tiny")
    names = sorted(hub_repos["org/tiny"].files())
    lines = do("sha256sum", *names, cwd=base).stdout.splitlines()
    files = hub_repos["org/tiny"].files()
    assert [line.split()[0] for line in lines] == [files[name].content.sha256 for name in names]


def test_a_shell_in_the_mount(tiny):
    """grep -r, wc and globs: what people do first."""
    base: Path = tiny.repo("org/tiny")
    assert "README.md" in do("grep", "-rl", "A model of nothing", ".", cwd=base).stdout
    assert do("sh", "-c", "cat onnx/deep/er/*.txt | wc -l", cwd=base).stdout.strip() == "499"
