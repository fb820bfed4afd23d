"""Fixtures for all tests: a Hub process and agents beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import AgentProcess
from tests.hub.process import HubProcess


@pytest.fixture(scope="module")
def shared_hub() -> Iterator[HubProcess]:
    """One Hub for the tests of a module."""
    with HubProcess("--many", "40", "--gguf-size", "6000000") as hub:
        yield hub


@pytest.fixture
def hub(shared_hub: HubProcess) -> HubProcess:
    """The module's Hub, with its faults, options and counts taken back."""
    shared_hub.clear_faults()
    shared_hub.restore_options()
    shared_hub.reset()
    return shared_hub


@pytest.fixture
def make_agent(tmp_path: Path, hub: HubProcess) -> Iterator[Callable[..., AgentProcess]]:
    """Makes agents that talk to the Hub; those still running are stopped at the end."""
    with ExitStack() as stack:

        def make(name: str = "agent", **settings: Any) -> AgentProcess:
            agent = AgentProcess(tmp_path / name, hub.endpoint, **settings)
            stack.push(agent.__exit__)
            return agent

        yield make


@pytest.fixture
def agent(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    """One running agent."""
    started = make_agent()
    started.start()
    return started
