"""Fixtures for all tests: a Hub process and agents beside it; and in which order `make test` runs them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import CHECKOUT, AgentProcess
from tests.hub.process import HubProcess

# Modules that take seconds, the longest first, so that no worker is left with a long one at the end.
LONG = (
    "tests/torture/test_torture.py",
    "tests/proxy/test_fallback.py",
    "tests/transfer/test_resume.py",
    "tests/e2e/test_wants.py",
    "tests/proxy/test_reports.py",
    "tests/e2e/test_crashes.py",
    "tests/e2e/test_scale.py",
    "tests/bench/test_short.py",
    "tests/cli/test_commands.py",
    "tests/e2e/test_errors.py",
    "tests/transfer/test_responses.py",
    "tests/proxy/test_outage.py",
    "tests/torture/",
    "tests/e2e/",
    "tests/transfer/",
    "tests/proxy/",
    "tests/store/",
)
# Long modules whose tests share nothing that is worth keeping: each of their tests is sent to whichever worker is free.
DIVISIBLE = {"tests/torture/test_torture.py", "tests/proxy/test_fallback.py", "tests/transfer/test_resume.py"}


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in its own hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Beside other workers: a module's tests stay together, since they share a Hub, and long modules come first."""
    if gone := [path for path in (*LONG, *DIVISIBLE) if not (CHECKOUT / path).exists()]:
        raise pytest.UsageError(f"tests/conftest.py: there is no {', '.join(gone)}")
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        module = item.nodeid.partition("::")[0]
        if module not in DIVISIBLE:
            item.add_marker(pytest.mark.xdist_group(module))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    return next((place for place, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG))


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
