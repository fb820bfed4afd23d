"""Who is connected. Clients that send nothing, or read nothing, are cut off, so that no number of them is a burden.

aiohttp's server waits for the first request without a limit. Here every connection that is not in the middle of a
request is closed after `IDLE_S`, whether it says nothing or sends its head a byte at a time.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from loguru import logger

from agent.core.listen import Address

IDLE_S = 15.0  # without a request; also how long the head of one may take
STUCK_S = 30.0  # in which a client has read nothing of what is waiting for it
SWEEP_S = 1.0  # between two looks at all of them
CONNECTIONS_MOST = 2048  # each costs some 15 kB
CONNECTIONS_SHARE = 2  # at most one in so many of the process's descriptors: files and sources need theirs
DESCRIPTORS = 16384  # that are asked for, where the limit of the system allows
BUFFERED_MOST = 32 * 1024 * 1024  # bytes that all clients together have not read yet
EVICTED_AT_ONCE = 32  # idle ones that are closed when there are too many


@dataclass(slots=True, eq=False)
class Connection:
    """Times are monotonic seconds. `buffered` bytes were unread at the last look, and since when nothing moved."""

    address: Address
    since: float
    requests: int = 0  # that are being served
    buffered: int = 0
    moved: float = 0.0


class Connections:
    """All connections of all listeners. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int | None = None) -> None:
        self._clock = clock
        self._most = _affordable() if most is None else most
        self._live: dict[asyncio.BaseProtocol, Connection] = {}
        self._warned_at = -IDLE_S

    def __len__(self) -> int:
        return len(self._live)

    def factory(self, server: web.Server, address: Address) -> Callable[[], asyncio.BaseProtocol]:
        """What a listener makes the protocol of a new connection with."""

        def make() -> asyncio.BaseProtocol:
            if len(self._live) >= self._most and not self._make_room():
                return _Closing()
            protocol = server()
            now = self._clock()
            self._live[protocol] = Connection(address, now, moved=now)
            return protocol

        return make

    def of(self, request: web.BaseRequest) -> Connection | None:
        """The connection that a request came on."""
        return self._live.get(request.protocol)

    @contextmanager
    def serving(self, connection: Connection) -> Iterator[None]:
        """A request is being served on it, for the block."""
        connection.requests += 1
        try:
            yield
        finally:
            connection.requests -= 1
            connection.since = self._clock()

    async def serve(self) -> None:
        """Look after them until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """Forget those that are closed; close those that are idle; cut those that read nothing."""
        now = self._clock()
        total, most, largest = 0, 0, None
        for protocol, connection in list(self._live.items()):
            transport = _transport(protocol)
            if transport is None or transport.is_closing():
                if now - connection.since > SWEEP_S or transport is not None:
                    del self._live[protocol]
                continue
            buffered = transport.get_write_buffer_size()
            if buffered == 0 or buffered != connection.buffered:
                connection.buffered, connection.moved = buffered, now
            total += buffered
            if buffered > most:
                most, largest = buffered, transport
            if buffered and now - connection.moved > STUCK_S:
                transport.abort()
            elif not buffered and not connection.requests and now - connection.since > IDLE_S:
                transport.close()
        if total > BUFFERED_MOST and largest is not None:
            largest.abort()

    def _make_room(self) -> bool:
        """Close those that were idle longest. False where none is idle."""
        self.sweep()
        idle = [(one.since, protocol) for protocol, one in self._live.items() if not one.requests]
        for _, protocol in sorted(idle, key=lambda pair: pair[0])[:EVICTED_AT_ONCE]:
            if transport := _transport(protocol):
                transport.abort()
            del self._live[protocol]
        if self._clock() - self._warned_at > IDLE_S:
            self._warned_at = self._clock()
            logger.warning("HTTP: {} connections are open; closing idle ones", self._most)
        return len(self._live) < self._most


class _Closing(asyncio.Protocol):
    """For a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _transport(protocol: asyncio.BaseProtocol) -> asyncio.Transport | None:
    transport: asyncio.Transport | None = getattr(protocol, "transport", None)
    return transport


def _affordable() -> int:
    """How many connections this process may have, after it has asked for more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return min(CONNECTIONS_MOST, (soft if soft > 0 else DESCRIPTORS) // CONNECTIONS_SHARE)
