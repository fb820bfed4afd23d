"""Events over server-sent events (the HTML standard, section 9.2) and over a WebSocket (RFC 6455)."""

from __future__ import annotations

import asyncio
import re

from aiohttp import WSMsgType, web

from agent.clock import Clock
from agent.http.errors import SAFETY_HEADERS, Refusal, bad_request
from agent.http.log import Event, EventLog
from agent.http.readers import Readers

READERS_MOST = 1500
BATCH_BYTES = 16 * 1024  # that are handed to a connection at once: what a stuck reader costs
RETRY_MS = 2000  # after which a browser connects again
HEARTBEAT_S = 30.0  # between two pings of a WebSocket; without a pong for half of that it is closed
MESSAGE_BYTES = 4096  # of a client's message, which nobody reads
_ID = re.compile("[0-9]{1,18}")


class Streams:
    """Handlers for readers of the log."""

    def __init__(self, log: EventLog, readers: Readers, clock: Clock) -> None:
        self._log = log
        self._readers = readers
        self._clock = clock

    def table(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/v1/events", self.events, name="events", allow_head=False),
            web.get("/v1/ws", self.socket, name="ws", allow_head=False),
        ]

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, until the client goes."""
        cursor = self._since(request)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", **SAFETY_HEADERS}
        )
        with self._readers.joined() as news:
            await response.prepare(request)
            _keep_little(request)
            await response.write(b"retry: %d\n\n" % RETRY_MS)
            while True:
                news.clear()
                events, cursor = self._next(cursor)
                if events:
                    await response.write(b"".join(map(_block, events)))
                    continue
                await news.wait()
                if self._log.last == cursor:
                    await response.write(b":\n\n")

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """The same, each event as one text message."""
        cursor = self._since(request)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES, compress=False)
        await socket.prepare(request)
        _keep_little(request)
        with self._readers.joined() as news:
            sending = asyncio.create_task(self._send(socket, cursor, news))
            try:
                async for _ in socket:
                    pass  # clients have nothing to say here
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return socket

    async def _send(self, socket: web.WebSocketResponse, cursor: int, news: asyncio.Event) -> None:
        while True:
            news.clear()
            events, cursor = self._next(cursor)
            for event in events:
                await socket.send_frame(event.body, WSMsgType.TEXT)
            if not events:
                await news.wait()

    def _next(self, cursor: int) -> tuple[list[Event], int]:
        found = self._log.read(cursor, BATCH_BYTES)
        if found is None:
            return [self._log.reset(self._clock.now())], self._log.last
        return found

    def _since(self, request: web.Request) -> int:
        """Where to go on: behind the id that the client read last, or with what comes next."""
        if len(self._readers) >= READERS_MOST:
            raise Refusal(
                503,
                "too_many_readers",
                f"{READERS_MOST} clients read events already",
                "try again later, or poll /v1/status",
            )
        since = request.query.get("since") or request.headers.get("Last-Event-ID")
        if not since:
            return self._log.last
        if not _ID.fullmatch(since):
            raise bad_request("since is not the id of an event")
        return int(since)


def _block(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.type.encode(), event.body)


def _keep_little(request: web.Request) -> None:
    """Let the connection buffer little: what a slow reader has not taken is kept once, in the log."""
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=BATCH_BYTES)
