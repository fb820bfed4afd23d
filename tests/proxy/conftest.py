"""A balancer and agents around Hubs that come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_ports
from tests.harness import AgentProcess
from tests.hub.balancer import BalancedModel
from tests.hub.process import HubProcess
from tests.proxy.places import Balancer

# Passing faults are tried again soon: what is tested is where the next try goes.
QUICK = {"transfer__retry_min_s": 0.1, "transfer__retry_max_s": 1.0, "hub__connect_timeout_s": 3}

MakeBalancer = Callable[..., Balancer]


@pytest.fixture
def make_balancer() -> Iterator[MakeBalancer]:
    """`make_balancer(model, …, key=…)`: a balancer, stopped at the end."""
    with ExitStack() as stack:

        def make(*models: BalancedModel, **options: Any) -> Balancer:
            return stack.enter_context(Balancer(*models, **options))

        yield make


@pytest.fixture
def make_hub() -> Iterator[Callable[..., HubProcess]]:
    """`make_hub(arguments)`: a Hub of this test alone, which may be stopped and started where it was."""
    with ExitStack() as stack:

        def make(*arguments: str) -> HubProcess:
            hub, cdn = free_ports(2)
            return stack.enter_context(HubProcess("--port", str(hub), "--cdn-port", str(cdn), *arguments))

        yield make


@pytest.fixture
def start_agent(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """`start_agent(endpoint, proxy__url=…)`: a running agent with that Hub."""
    with ExitStack() as stack:

        def start(endpoint: str, name: str = "agent", **settings: Any) -> AgentProcess:
            return stack.enter_context(AgentProcess(tmp_path / name, endpoint, **QUICK | settings))

        yield start
