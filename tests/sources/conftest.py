"""An embedded Hub that is true, a little one that says whatever a test wants, and sources that ask them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from agent.errors import Code
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.net.client import Http
from agent.sources.hub import HubSource
from agent.sources.llmlb import LlmlbSource
from agent.sources.proxy import ProxySource
from tests.hub.balancer import BalancedModel, EmbeddedBalancer
from tests.hub.server import InstrumentedHub
from tests.hub.standard import standard_repos

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MakeSource = Callable[..., HubSource]
MakeBalancer = Callable[..., Awaitable[EmbeddedBalancer]]


@pytest.fixture
async def hub() -> AsyncIterator[InstrumentedHub]:
    async with InstrumentedHub(standard_repos(size=20_000, many=130), page_size=50) as hub:
        yield hub


@pytest.fixture
async def make_source() -> AsyncIterator[MakeSource]:
    """`make_source(endpoint, token=…, …)`: a source with a client and a budget of its own."""
    async with AsyncExitStack() as stack:

        def make(endpoint: str, **more: Any) -> HubSource:
            budgets = HostBudgets()
            http = Http(AddressRule(False, endpoint), budgets)
            stack.push_async_callback(http.close)
            return HubSource(http, budgets, endpoint, **more)

        yield make


@pytest.fixture
async def make_llmlb() -> AsyncIterator[Callable[..., LlmlbSource]]:
    """`make_llmlb(url, key=…, hub=…)`: a source with a client and a budget of its own."""
    async with AsyncExitStack() as stack:

        def make(url: str, **more: Any) -> LlmlbSource:
            budgets = HostBudgets()
            http = Http(AddressRule(False, url), budgets, unreachable=Code.PROXY_UNREACHABLE)
            stack.push_async_callback(http.close)
            return LlmlbSource(http, budgets, url, **more)

        yield make


@pytest.fixture
async def make_proxy() -> AsyncIterator[Callable[..., ProxySource]]:
    """`make_proxy(url, kind=…)`: what the agent makes of a configured proxy."""
    async with AsyncExitStack() as stack:

        def make(url: str, kind: str = "auto", key: str | None = None) -> ProxySource:
            budgets = HostBudgets()
            http = Http(AddressRule(False, url), budgets, unreachable=Code.PROXY_UNREACHABLE)
            stack.push_async_callback(http.close)
            mirror = HubSource(http, budgets, url, name="mirror")
            return ProxySource(LlmlbSource(http, budgets, url, key=key), mirror, kind)

        yield make


@pytest.fixture
async def make_balancer() -> AsyncIterator[MakeBalancer]:
    """`await make_balancer(model, …, generations=("v0",), key=…)`: an embedded balancer, stopped at the end."""
    async with AsyncExitStack() as stack:

        async def make(*models: BalancedModel, **options: Any) -> EmbeddedBalancer:
            balancer = EmbeddedBalancer(models, **options)
            await stack.enter_async_context(balancer)
            return balancer

        yield make


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """A client that may go to loopback."""
    async with Http(AddressRule(private_ok=True), HostBudgets()) as client:
        yield client


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """`url = await serve(handler)`: every request of any method and path goes to the handler."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start
