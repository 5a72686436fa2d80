# SPDX-License-Identifier: Apache-2.0
"""The command line of lazy fetching: its options, hf:// URIs and web addresses, and what is said of a wrong one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.handmade import simple_cache
from tests.support.mounts import run

SECRET = "hf_thisIsNobodysBusiness"


@pytest.fixture
def refuse(mount, spot):
    """`refuse(2, "--timeout", "0", says=…)`: the mount ends with 2, says the words, and nothing is mounted."""

    def check(code: int, *arguments, says: tuple[str, ...] = (), env=None) -> str:
        done = run("mount", *arguments, spot, env=mount.environment(**(env or {})))
        assert done.returncode == code, f"exit code {done.returncode}: {done.stderr}"
        assert done.stdout == "" and done.stderr.startswith("modelmount: ")
        assert done.stderr.count("\n") == 1, done.stderr
        for word in says:
            assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"
        assert not os.path.ismount(spot)
        return done.stderr

    return check


def source_of(path: Path) -> str:
    """The first column of /proc/mounts."""
    for line in Path("/proc/mounts").read_text().splitlines():
        source, where = line.split(" ")[:2]
        if where == os.path.realpath(path):
            return source
    raise AssertionError(f"{path} is not mounted")


# Options.


@pytest.mark.parametrize(
    "name,value",
    [
        ("connections", "0"),
        ("connections", "65"),
        ("connections", "-1"),
        ("connections", "many"),
        ("timeout", "0"),
        ("timeout", "0.09"),
        ("timeout", "3600.1"),
        ("timeout", "1e2"),
        ("timeout", "inf"),
        ("timeout", "nan"),
        ("timeout", "1.2.3"),
        ("timeout", "-5"),
        ("timeout", "10s"),
        ("ref-ttl", "-1"),
        ("ref-ttl", "soon"),
        ("ref-ttl", "1000001"),
        ("endpoint", "hub.corp"),
        ("endpoint", "ftp://hub.corp"),
        ("endpoint", "https://"),
        ("endpoint", "https://hub.corp/?x=1"),
        ("endpoint", "https://user:password@hub.corp"),
        ("cache-dir", ""),
        ("cache-dir", "hf://org/name"),
        ("state-dir", ""),
    ],
)
def test_wrong_values(refuse, name, value):
    """As long option and as word of -o alike."""
    error = refuse(2, f"--{name}", value, says=(f"--{name} {value}",))
    word = name.replace("-", "_")
    assert refuse(2, "-o", f"{word}={value}", says=(f"-o {word}={value}",)).partition(": not ")[2] == (
        error.partition(": not ")[2]
    )


@pytest.mark.parametrize("name", ["endpoint", "cache-dir", "state-dir", "connections", "timeout", "ref-ttl"])
def test_missing_values(refuse, name, mount, spot):
    done = run("mount", spot, f"--{name}", env=mount.environment())
    assert done.returncode == 2 and f"--{name}: needs a value" in done.stderr
    word = name.replace("-", "_")
    refuse(2, "-o", word, says=(f"-o {word}=",))


@pytest.mark.parametrize("long,word", [("--offline", "offline"), ("--no-publish", "nopublish")])
def test_flags_take_no_value(refuse, long, word):
    refuse(2, f"{long}=yes", says=(f"{long}: takes no value",))
    refuse(2, "-o", f"{word}=yes", says=("takes no value",))


def test_misspelt(refuse):
    refuse(2, "-o", "ofline", says=("did you mean offline",))
    refuse(2, "-o", "end_point=https://hub.corp", says=("did you mean endpoint",))
    refuse(2, "--no-publsh", says=("--no-publsh", "--help"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--token", SECRET],
        [f"--token={SECRET}"],
        ["--token"],
        ["-o", f"token={SECRET}"],
        ["-o", "offline,token"],
    ],
)
def test_a_token_is_no_option(refuse, arguments):
    error = refuse(2, *arguments, says=("HF_TOKEN", "hf auth login"))
    assert SECRET not in error


def test_a_misspelt_token_is_not_repeated(refuse):
    assert SECRET not in refuse(2, f"--tokne={SECRET}")
    assert SECRET not in refuse(2, "-o", f"tokne={SECRET}")


def test_two_caches(refuse, cache, tmp_path):
    refuse(2, "--cache-dir", tmp_path / "other", cache, says=(str(cache), "--cache-dir", str(tmp_path / "other")))


@pytest.mark.parametrize("value", ["hub.corp", "ftp://hub.corp", "https://u:p@hub.corp", "https://hub.corp/#a"])
def test_an_endpoint_variable_that_is_malformed(refuse, cache, value):
    """It is not an argument: exit code 1."""
    for source in (cache, "hf://org/name"):
        refuse(1, source, env={"HF_ENDPOINT": value}, says=("HF_ENDPOINT",))


def test_an_endpoint_option_wins_over_the_variable(mount, cache, spot, tmp_path):
    env = mount.environment(HF_ENDPOINT="nonsense")
    run("mount", "--offline", "--endpoint", "https://hub.corp/", "--state-dir", tmp_path / "s", cache, spot, env=env, check=True)
    run("unmount", spot, env=env, check=True)


def test_an_empty_endpoint_variable_is_none(mount, cache):
    assert os.listdir(mount(cache, "offline", env={"HF_ENDPOINT": ""}) / "models") == ["org"]


def test_every_option_is_taken(mount, cache, spot, tmp_path):
    env = mount.environment()
    longs = ["--offline", "--no-publish", "--connections=8", "--timeout=2.5", "--ref-ttl=0", "--endpoint=http://127.0.0.1:1/hf"]
    run("mount", *longs, "--cache-dir", cache, "--state-dir", tmp_path / "state", spot, env=env, check=True)
    assert os.listdir(spot / "models") == ["org"]
    status = json.loads(run("status", "--json", spot, env=env, check=True).stdout)
    assert status["cache"] == str(cache) and (tmp_path / "state").is_dir()
    run("unmount", spot, env=env, check=True)
    words = f"offline,nopublish,connections=64,timeout=3600,ref_ttl=0.5,endpoint=http://127.0.0.1:1,cache_dir={cache}"
    at = mount(None, words)
    assert os.listdir(at / "models") == ["org"] and source_of(at.path) == str(cache)


def test_the_mountpoint_within_cache_dir(mount, cache):
    (cache / "mnt").mkdir()
    for source in ([], ["--offline", "hf://org/name"]):
        done = run("mount", "--cache-dir", cache, *source, cache / "mnt", env=mount.environment())
        assert done.returncode == 1 and f"lies in the cache {cache}" in done.stderr


# hf:// and web addresses.


@pytest.mark.parametrize(
    "source,says",
    [
        ("hf://", "no repo is named"),
        ("hf://datasets/", "no repo is named"),
        ("hf://org/na..me", "not the id of a repo"),
        ("hf://org/name@", "no revision"),
        ("hf://org/name/../x", "not a path"),
        ("hf://model/org/name", "plural"),
        ("hf://buckets/org/name", "buckets"),
        ("https://huggingface.co/org", "not the page of a repo"),
        ("https://huggingface.co/org/name/discussions", "not the page of a repo"),
        ("https://example.com/org/name", "not an address of the Hub"),
        ("huggingface.co/org/name/discussions", "not the page of a repo"),
        ("hub.corp:8080/org", "not the page of a repo"),
        ("HF://org/name", "neither a directory nor on the Hub"),
        ("s3://bucket/name", "neither a directory nor on the Hub"),
    ],
)
def test_sources_that_are_malformed(refuse, source, says):
    error = refuse(2, source, env={"HF_ENDPOINT": "http://hub.corp:8080/hf"}, says=(source, says))
    assert f"{source}: {source}" not in error


def test_a_uri_as_mountpoint(mount, spot):
    done = run("mount", spot, "hf://org/name", env=mount.environment())
    assert done.returncode == 2 and "the mountpoint comes last" in done.stderr


def test_ls_of_the_hub(mount):
    for source in ("hf://org/name", "https://huggingface.co/org/name", "hf.co/org/name"):
        done = run("ls", source, env=mount.environment())
        assert done.returncode == 2 and source in done.stderr and "mount it" in done.stderr


def test_a_directory_named_like_a_host_is_a_directory(mount, spot, tmp_path):
    simple_cache(tmp_path / "hf.co/org/hub")
    env = mount.environment()
    run("mount", "--offline", "hf.co/org/hub", spot, env=env, cwd=tmp_path, check=True)
    assert source_of(spot) == str(tmp_path / "hf.co/org/hub")
    run("unmount", spot, env=env, check=True)


@pytest.mark.parametrize(
    "source,shown",
    [
        ("hf://org/name", "hf://org/name"),
        ("hf://models/org/name@main/", "hf://org/name@main"),
        ("https://huggingface.co/org/name/tree/main", "hf://org/name@main"),
        ("hf.co/org/name", "hf://org/name"),
    ],
)
def test_one_repo_at_the_root(mount, cache, spot, source, shown):
    """What the cache knows mounts offline; /proc/mounts says the URI."""
    env = mount.environment()
    run("mount", "--offline", "--cache-dir", cache, source, spot, env=env, check=True)
    try:
        assert source_of(spot) == shown
        assert (spot / "config.json").read_text() == "{}"
    finally:
        run("unmount", spot, env=env, check=True)


def test_offline_what_is_not_cached_does_not_mount(refuse, cache, tmp_path):
    state = ("--state-dir", tmp_path / "state")
    error = refuse(1, "--offline", "--cache-dir", cache, *state, "hf://org/other", says=("org/other", "offline"))
    assert SECRET not in error
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        refuse(1, "--cache-dir", cache, *state, "hf://org/other", env={variable: "1"}, says=("org/other", "offline"))
