"""A Hub in a process of its own, one in the test's loop, and the official client in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from agent.embedded_hub.repo import Repo
from tests.hub.official import Official, official_environment, run_official
from tests.hub.process import HubProcess
from tests.hub.server import InstrumentedHub
from tests.hub.standard import standard_repos

MANY = 130


@pytest.fixture(scope="session")
def hub_process() -> Iterator[HubProcess]:
    with HubProcess("--page-size", "50", "--many", str(MANY)) as hub:
        yield hub


@pytest.fixture(scope="session")
def expected() -> dict[str, Repo]:
    """What the Hub process must hold: made again, from the same seed, in this process."""
    return {repo.id: repo for repo in standard_repos(many=MANY)}


@pytest.fixture
async def hub() -> AsyncIterator[InstrumentedHub]:
    async with InstrumentedHub(standard_repos(many=MANY), page_size=50) as hub:
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that unpacks nothing."""
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as session:
        yield session


@pytest.fixture
def official_env(hub_process: HubProcess, tmp_path: Path) -> dict[str, str]:
    """Without Xet: the trees name Xet hashes, as the Hub's do, and there is no Xet storage behind them."""
    return official_environment(hub_process.endpoint, tmp_path) | {"HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def official(official_env: dict[str, str]) -> Official:
    """`official(code, argument)`: see `run_official`."""
    return partial(run_official, official_env)
