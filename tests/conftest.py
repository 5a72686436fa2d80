# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the tests of the Hub and of the mount: a running Hub with the repos of `support.repos`."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from tests.hub import HubProcess, HubRepo
from tests.support import repos
from tests.support.library import CURRENT, Library


@pytest.fixture(scope="session")
def hub_repos() -> dict[str, HubRepo]:
    """The repos the Hub serves, by name. Tests leave them as they are; they add repos of their own."""
    return {repo.id: repo for repo in repos.all_repos()}


@pytest.fixture(scope="session")
def hub(hub_repos: dict[str, HubRepo]) -> Iterator[HubProcess]:
    """A Hub for the whole run."""
    with HubProcess() as process:
        process.add(*hub_repos.values())
        process.add_token("hf_reader", "reader")
        process.add_token("hf_stranger", "stranger")
        yield process


@pytest.fixture(scope="session")
def library(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Library]]:
    """`library("1.17.0")`: that version of huggingface_hub, talking to the Hub of these tests."""
    made: dict[str, Library] = {}

    def get(version: str = CURRENT) -> Library:
        if version not in made:
            home = tmp_path_factory.mktemp(f"home-{version}")
            made[version] = Library(version, home, {"HF_ENDPOINT": hub.url})
        if not made[version].installed:
            pytest.skip(f"huggingface_hub {version} is not installed: make venv")
        return made[version]

    yield get
    for found in made.values():
        found.close()


@pytest.fixture
def current(library: Callable[..., Library]) -> Library:
    """The version of huggingface_hub that is current."""
    return library()


@pytest.fixture
def fresh_cache(tmp_path: Path) -> Path:
    """An empty hub cache."""
    cache = tmp_path / "cache" / "hub"
    cache.mkdir(parents=True)
    return cache
