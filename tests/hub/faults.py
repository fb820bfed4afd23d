"""Switches that make a server misbehave, path by path, while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agent.http.hub.response import WRITE_CHUNK, ContentResponse, HubError

PACE_S = 0.02  # a capped body is written in steps of this length


@dataclass(frozen=True)
class Faults:
    """What goes wrong with the responses that a rule matches. Every default means: nothing.

    Body switches act on any response's body; offsets of `flip_at` count in the file, all others in the body sent.
    """

    times: int | None = None  # how many requests the rule lasts; None: until it is cleared
    latency_s: float = 0.0  # silence before the status line, seconds
    status: int | None = None  # respond with this status and no body that helps
    retry_after: str | None = None  # the Retry-After header that goes with `status`
    max_rate: int | None = None  # bytes/s of one response's body
    stall_after: int | None = None  # send so many bytes, then nothing, the connection stays open
    cut_after: int | None = None  # send so many bytes, then close the connection
    flip_at: int | None = None  # the byte at this offset of the file is sent inverted
    short_by: int = 0  # a well-formed response that announces and sends so many bytes too few
    ignore_ranges: bool = False  # 200 and the whole file, whatever Range says
    endless: bool = False  # no length, and bytes without end after the true ones
    content_range: str | None = None  # says this instead of the true Content-Range
    etag: str | None = None  # says this instead of the true ETag (quotes are added), also as X-Linked-Etag

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Faults:
        """Raises ValueError for a switch that does not exist."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown switches: {', '.join(sorted(unknown))}")
        return cls(**values)

    @property
    def touches_body(self) -> bool:
        """Whether the body is not written as it is."""
        stops = (self.max_rate, self.stall_after, self.cut_after, self.flip_at)
        return self.endless or any(switch is not None for switch in stops)


NO_FAULTS = Faults()


class FaultBoard:
    """The rules in force. The glob is matched against listener and path, unquoted and without the query:
    `hub/api/models/org/name/…`, `hub/org/name/resolve/main/file`, `hub/api/resolve-cache/…`,
    `cdn/xet-bridge-us/org/name/<commit>/file`; `*` also matches `/`. The rule set last wins.
    """

    def __init__(self) -> None:
        self._rules: dict[str, Faults] = {}
        self._left: dict[str, int] = {}

    def set(self, glob: str, faults: Faults) -> None:
        """Put a rule in force, in place of one with the same glob."""
        self.clear(glob)
        self._rules[glob] = faults
        if faults.times is not None:
            self._left[glob] = faults.times

    def clear(self, glob: str | None = None) -> None:
        """Take back one rule, or all."""
        for name in [glob] if glob is not None else list(self._rules):
            self._rules.pop(name, None)
            self._left.pop(name, None)

    def take(self, target: str) -> Faults:
        """The faults for one request; counts it against the rule's `times`."""
        for glob in reversed(self._rules):
            if fnmatchcase(target, glob) and self._left.get(glob, 1) > 0:
                if glob in self._left:
                    self._left[glob] -= 1
                return self._rules[glob]
        return NO_FAULTS

    def spoiling(self, listener: str) -> Middleware:
        """A middleware that puts the rules into effect. It belongs outside the one that turns errors into responses."""

        @web.middleware
        async def spoil(request: web.Request, handler: Handler) -> web.StreamResponse:
            faults = self.take(listener + request.path)
            await asyncio.sleep(faults.latency_s)
            response = await handler(request) if faults.status is None else _ordered(faults)
            assert isinstance(response, ContentResponse)
            if faults is not NO_FAULTS:
                _spoil(request, response, faults)
            return response

        return spoil


def _ordered(faults: Faults) -> ContentResponse:
    """The response that a fault orders in place of the true one."""
    status = faults.status or 500
    headers = {"Retry-After": faults.retry_after} if faults.retry_after is not None else {}
    return HubError(status, None, f"The server was told to answer {status}", headers).response()


def _spoil(request: web.Request, response: ContentResponse, faults: Faults) -> None:
    for name in ("ETag", "X-Linked-Etag"):
        if faults.etag is not None and name in response.headers:
            response.headers[name] = f'"{faults.etag}"'
    if faults.ignore_ranges and response.ranged:
        response.ranged = False
        response.headers["Accept-Ranges"] = "bytes"
    response.fit(request)
    if faults.content_range is not None and "Content-Range" in response.headers:
        response.headers["Content-Range"] = faults.content_range
    start, stop = response.span
    response.span = (start, max(start, stop - faults.short_by))
    if response.content_length is not None:
        response.content_length = None if faults.endless else response.span[1] - start
    if faults.touches_body:

        async def write(_: web.BaseRequest, spoilt: ContentResponse) -> None:
            await _write(spoilt, faults)

        response.writer = write


async def _write(response: ContentResponse, faults: Faults) -> None:
    """Write the body as the faults want it: paced, cut or stalled."""
    limits = [limit for limit in (faults.cut_after, faults.stall_after) if limit is not None]
    end = min(limits, default=None)
    begun, sent = time.monotonic(), 0
    for chunk in _spoilt(response, faults):
        piece = chunk if end is None else chunk[: end - sent]
        sent += len(piece)
        if faults.max_rate is not None:
            await asyncio.sleep(max(0.0, begun + sent / faults.max_rate - time.monotonic()))
        await response.write(piece)
        response.on_sent(len(piece))
        if sent == end:
            break
    if sent != end:
        return
    if end == faults.stall_after:
        await asyncio.Event().wait()  # ends when the client goes or the server stops: the handler is cancelled
    raise ConnectionAbortedError("cut on purpose")  # what was written still goes out


def _spoilt(response: ContentResponse, faults: Faults) -> Iterator[bytes]:
    """The bytes as the faults want them: one inverted, or more and more of them."""
    step = WRITE_CHUNK if faults.max_rate is None else max(1, min(WRITE_CHUNK, int(faults.max_rate * PACE_S)))
    at = response.span[0]
    for chunk in response.content.chunks(*response.span, step):
        if faults.flip_at is not None and at <= faults.flip_at < at + len(chunk):
            where = faults.flip_at - at
            yield chunk[:where] + bytes([chunk[where] ^ 0xFF]) + chunk[where + 1 :]
        else:
            yield chunk
        at += len(chunk)
    while faults.endless:
        yield bytes(step)
