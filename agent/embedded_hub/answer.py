"""An answer as a value, and the one place that puts answers on the wire: ranges, compression, faults, accounting."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from agent.embedded_hub.faults import Faults
from agent.embedded_hub.ledger import Ledger, Seen
from agent.embedded_hub.repo import HubFile

WRITE_CHUNK = 256 * 1024
SENDFILE_CHUNK = 4 * 1024 * 1024  # how far the byte counts may lag behind
PACE_S = 0.02  # a capped body is written in steps of this length
GZIP_MIN_BYTES = 256  # smaller ones are not worth it

Count = Callable[[int], None]  # told how many body bytes went out


@dataclass
class Answer:
    """What to send. `file` names whose bytes these are for the accounting; `ranged` whether Range is honoured;
    `compress` whether a client that takes gzip gets it, without a length; `unsized` whether nobody gets a length.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: HubFile = field(default_factory=lambda: HubFile(b""))
    file: tuple[str, str] | None = None
    ranged: bool = False
    compress: bool = False
    unsized: bool = False


class HubError(Exception):
    """An error answer of the Hub, as its clients know them."""

    def __init__(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        extra = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.answer = json_answer({"error": message}, status, extra)


def json_answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A JSON document as an answer."""
    all_headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Answer(status, all_headers, HubFile(orjson.dumps(document)), compress=status == 200)


def redirect(status: int, location: str, headers: dict[str, str] | None = None) -> Answer:
    """A redirect with the short text that the Hub sends along, so that its length misleads whoever reads it."""
    text = f"Redirecting to {location.partition('?')[0]}".encode()
    return Answer(status, {"Location": location, "Content-Type": "text/plain", **(headers or {})}, HubFile(text))


async def send(request: web.Request, answer: Answer, faults: Faults, ledger: Ledger, seen: Seen) -> web.StreamResponse:
    """Send it, with what the faults do to it."""
    body = answer.body
    start, stop = 0, body.size
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.ranged:
        response.headers["Accept-Ranges"] = "bytes"
        span = byte_range(request.headers.get("Range", ""), body.size) if request.method == "GET" else None
        if span and not faults.ignore_ranges:
            start, stop = span
            satisfiable = start < stop
            response.set_status(206 if satisfiable else 416)
            shown = f"bytes {start}-{stop - 1}/{body.size}" if satisfiable else f"bytes */{body.size}"
            response.headers["Content-Range"] = faults.content_range or shown
    for name in ("ETag", "X-Linked-Etag"):
        if faults.etag and name in response.headers:
            response.headers[name] = f'"{faults.etag}"'
    compressed = answer.compress and body.size >= GZIP_MIN_BYTES and _takes_gzip(request)
    if compressed:
        response.headers["Content-Encoding"] = "gzip"
        if "ETag" in response.headers:
            response.headers["ETag"] = "W/" + response.headers["ETag"]
        body = HubFile(gzip.compress(b"".join(body.chunks())))
        start, stop = 0, body.size
    stop = max(start, stop - faults.short_by)
    if not compressed and not faults.endless and not answer.unsized:
        response.content_length = stop - start
    seen.status = response.status
    await response.prepare(request)
    if request.method == "HEAD":
        await response.write_eof()
        return response
    if answer.file:
        ledger.file_opened(answer.file)
    try:
        await _send_body(request, response, body, (start, stop), faults, lambda n: ledger.sent(seen, answer.file, n))
    except ConnectionError:  # the client has gone, which is its good right
        if request.transport is not None:
            request.transport.close()
    finally:
        if answer.file:
            ledger.file_closed()
    return response


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, stop) of a single range, empty when it cannot be satisfied, None where Range is to be ignored."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not found or header.strip() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    start, stop = int(first), min(int(last) + 1, size) if last else size
    return (start, stop) if start < stop else (size, size)


def _takes_gzip(request: web.Request) -> bool:
    accepted = request.headers.get("Accept-Encoding", "").lower()
    return "gzip" in accepted and "identity" not in accepted


async def _send_body(
    request: web.Request,
    response: web.StreamResponse,
    body: HubFile,
    span: tuple[int, int],
    faults: Faults,
    count: Count,
) -> None:
    if faults.touches_body:
        await _spoil(request, response, _spoilt(body, span, faults), faults, count)
    elif body.path is not None and response.content_length is not None:
        await _sendfile(request, body.path, *span, count)
    else:
        for chunk in body.chunks(*span, WRITE_CHUNK):
            await response.write(chunk)
            count(len(chunk))
    if request.transport is not None and not request.transport.is_closing():
        await response.write_eof()


async def _sendfile(request: web.Request, path: str, start: int, stop: int, count: Count) -> None:
    loop = asyncio.get_running_loop()
    with open(path, "rb", buffering=0) as file:  # noqa: ASYNC230  a local open costs microseconds
        at = start
        while at < stop:
            if request.transport is None:
                raise ConnectionResetError("the client has gone")
            file.seek(at)
            try:
                await loop.sendfile(request.transport, file, at, min(SENDFILE_CHUNK, stop - at))
            finally:  # asyncio leaves the file where it got to, also when the client goes in the middle
                reached = file.tell()
                count(reached - at)
            if reached == at:
                raise ConnectionResetError(f"{path} became shorter")
            at = reached


async def _spoil(
    request: web.Request, response: web.StreamResponse, chunks: Iterator[bytes], faults: Faults, count: Count
) -> None:
    """Write the body as the faults want it: paced, cut or stalled."""
    limits = [limit for limit in (faults.cut_after, faults.stall_after) if limit is not None]
    end = min(limits, default=None)
    begun, sent = time.monotonic(), 0
    for chunk in chunks:
        piece = chunk if end is None else chunk[: end - sent]
        sent += len(piece)
        if faults.max_rate is not None:
            await asyncio.sleep(max(0.0, begun + sent / faults.max_rate - time.monotonic()))
        await response.write(piece)
        count(len(piece))
        if sent == end:
            break
    if sent != end:
        return
    if end == faults.stall_after:
        await asyncio.Event().wait()  # ends when the client goes or the Hub stops: the handler is cancelled
    elif request.transport is not None:
        request.transport.close()  # what was written still goes out


def _spoilt(body: HubFile, span: tuple[int, int], faults: Faults) -> Iterator[bytes]:
    """The bytes as the faults want them: one inverted, or more and more of them."""
    step = WRITE_CHUNK if faults.max_rate is None else max(1, min(WRITE_CHUNK, int(faults.max_rate * PACE_S)))
    at = span[0]
    for chunk in body.chunks(*span, step):
        if faults.flip_at is not None and at <= faults.flip_at < at + len(chunk):
            where = faults.flip_at - at
            yield chunk[:where] + bytes([chunk[where] ^ 0xFF]) + chunk[where + 1 :]
        else:
            yield chunk
        at += len(chunk)
    while faults.endless:
        yield bytes(step)
