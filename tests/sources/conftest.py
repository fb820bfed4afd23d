"""An embedded Hub that is true, a little one that says whatever a test wants, and sources that ask them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from agent.embedded_hub.server import EmbeddedHub
from agent.embedded_hub.standard import standard_repos
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.net.client import Http
from agent.sources.hub import HubSource

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MakeSource = Callable[..., HubSource]


@pytest.fixture
async def hub() -> AsyncIterator[EmbeddedHub]:
    async with EmbeddedHub(standard_repos(size=20_000, many=130), page_size=50) as hub:
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
