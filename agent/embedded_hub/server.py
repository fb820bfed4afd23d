"""The embedded Hub: two listeners on loopback, `http://127.0.0.1:PORT` as the Hub and `http://localhost:PORT2` as the
storage that it redirects to, so that a client meets two hosts as it does in the world.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Self
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agent.embedded_hub.rate_limits import API, RESOLVERS, RateLimits
from agent.embedded_hub.repo import Repo, Repos
from agent.embedded_hub.storage import Signer, Storage
from agent.http.hub.response import HubError, error_responses
from agent.http.hub.routes import HubRoutes

ANONYMOUS = "unauthenticated; requests without a token have a lower rate limit"


class EmbeddedHub:
    """`async with EmbeddedHub(repos) as hub: … hub.endpoint …`; ports of 0 are any free ones.

    Its parts may be changed at any time. To do more, extend `hub_app`, `hub_middlewares` and `cdn_middlewares`.
    """

    def __init__(self, repos: Iterable[Repo] = (), *, port: int = 0, cdn_port: int = 0) -> None:
        self.repos = Repos(repos)
        self.storage = Storage(self.repos, Signer())
        self.routes = HubRoutes(self.repos, self.storage.locate)
        self.limits = RateLimits()
        self.endpoint = self.cdn = ""
        self._ports = (port, cdn_port)
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Listen. Afterwards `endpoint` and `cdn` are the URLs, without a trailing slash."""
        port, cdn_port = self._ports
        self.endpoint = f"http://127.0.0.1:{await self._listen(self.hub_app(), port)}"
        self.cdn = self.storage.base = f"http://localhost:{await self._listen(self.cdn_app(), cdn_port)}"

    async def stop(self) -> None:
        """Close listeners and connections; responses under way are cut."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def hub_app(self) -> web.Application:
        """What the Hub's host serves."""
        app = web.Application(middlewares=self.hub_middlewares())
        app.add_routes(self.routes.table())
        return app

    def cdn_app(self) -> web.Application:
        """What the storage's host serves."""
        app = web.Application(middlewares=self.cdn_middlewares())
        app.add_routes(self.storage.table())
        return app

    def hub_middlewares(self) -> list[Middleware]:
        """Around the Hub's handlers, outermost first."""
        return [self.announce, error_responses]

    def cdn_middlewares(self) -> list[Middleware]:
        """Around the storage's handlers, outermost first."""
        return [error_responses]

    @web.middleware
    async def announce(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Add to every response of the Hub an id, what is left of the quota, and a warning where there is no token."""
        token = request.headers.get("Authorization")
        allowed, headers = self.limits.take(_bucket(request.path), token or request.remote or "")
        if allowed:
            response = await handler(request)
        else:
            response = HubError(429, None, "You have reached the rate limit of this Hub.").response()
        response.headers.update(headers)
        response.headers["X-Request-Id"] = f"Root={uuid4()}"
        if token is None:
            response.headers["X-HF-Warning"] = ANONYMOUS
        return response

    async def _listen(self, app: web.Application, port: int) -> int:
        # Handlers are cancelled when their client goes, and not waited for at the end: a response may stall.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        bound: int = runner.addresses[0][1]
        return bound


def _bucket(path: str) -> str:
    is_api = path.startswith("/api/") and not path.startswith("/api/resolve-cache/")
    return API if is_api else RESOLVERS
