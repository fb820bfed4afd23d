"""The HTTP face put together: listeners, application, start and stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from functools import partial

from aiohttp import web
from loguru import logger

from agent.clock import Clock
from agent.core.listen import Address, TcpAddress
from agent.http import listeners
from agent.http.assets import Assets
from agent.http.connections import Connections
from agent.http.errors import refusals
from agent.http.guard import Guard, TokenFile
from agent.http.hub.published import PublishedModels
from agent.http.log import EventLog
from agent.http.metrics import Metrics
from agent.http.models import Shelf
from agent.http.publisher import Publisher
from agent.http.readers import Readers
from agent.http.reads import Facts, Reads
from agent.http.streams import Streams
from agent.http.wants import Wants
from agent.state.feed import Feed

BODY_BYTES = 64 * 1024  # of a request; the largest that there is names the files of a repository
LINGER_S = 2.0  # in which the rest of a body that nobody reads may still come
CLOSE_S = 0.2  # for requests that are being served when the agent stops


class Face:
    """One subscriber of the feed and its listeners. `start`, then `serve` until cancelled, then `stop`.

    `changes` are the routes that change something.
    """

    def __init__(self, facts: Facts, feed: Feed, clock: Clock, changes: Iterable[web.RouteDef] = ()) -> None:
        self._facts = facts
        config = facts.live
        self.readers = Readers()
        wants, log = Wants(config.config.spool.dir), EventLog(clock.now())
        self.publisher = Publisher(feed, wants, log, self.readers, facts.agent, clock)
        self.connections = Connections()
        shelf = Shelf(facts.layout)
        own = socket.gethostname().lower()
        guard = Guard(
            self.connections,
            lambda: frozenset({own, *config.config.http.hosts}),
            TokenFile(lambda: config.config.http.token_file),
        )
        self._listeners: list[tuple[Address, socket.socket]] = []
        self._servers: list[asyncio.Server] = []
        hub = PublishedModels(shelf, lambda: config.config.http)
        self.app = web.Application(middlewares=[refusals, guard.check, hub.serve], client_max_size=BODY_BYTES)
        self.app.add_routes(Assets().table())
        self.app.add_routes(Reads(facts, self.publisher, shelf, lambda: self.listening).table())
        self.app.add_routes(Streams(log, self.readers, clock).table())
        self.metrics = Metrics(facts, feed, wants, shelf, clock)
        self.app.add_routes(self.metrics.table())
        self.app.add_routes(hub.table())
        self.app.add_routes(changes)
        # Handlers end when their client goes: an event stream would not notice for a while.
        self._runner = web.AppRunner(
            self.app, access_log=None, handler_cancellation=True, lingering_time=LINGER_S, shutdown_timeout=CLOSE_S
        )

    @property
    def listening(self) -> list[str]:
        """Where it is reached: `unix:PATH`, `http://HOST:PORT`."""
        return list(dict.fromkeys(str(address) for address, _ in self._listeners))

    async def start(self, addresses: list[Address]) -> None:
        """Listen. An address that cannot be had is said, and gone on without."""
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101  it has just been set up
        self._listeners = await asyncio.to_thread(listeners.open_all, addresses)
        for address, listener in self._listeners:
            factory = self.connections.factory(server, address)
            make: Callable[..., object] = (
                loop.create_server if isinstance(address, TcpAddress) else loop.create_unix_server
            )
            self._servers.append(await make(factory, sock=listener, backlog=listeners.BACKLOG))  # type: ignore[misc]
        if self._listeners:
            logger.info("HTTP on {}", ", ".join(self.listening))

    async def serve(self) -> None:
        """Keep everything going until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.publisher.serve(), name="http publisher")
            group.create_task(self.readers.serve(), name="http readers")
            group.create_task(self.metrics.serve(), name="http metrics")
            group.create_task(self.metrics.write(), name="http metrics file")
            group.create_task(self.connections.serve(), name="http connections")

    async def stop(self) -> None:
        """Tell readers what is left to tell, and close."""
        for server in self._servers:
            server.close()
        await self.publisher.finish()
        await self.readers.wake_all()
        await self._runner.cleanup()
        for address, listener in self._listeners:
            await asyncio.to_thread(partial(listeners.close, address, listener))
