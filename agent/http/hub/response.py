"""Responses of a Hub: content with ranges and gzip, JSON, redirects, errors."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.typedefs import Handler

from agent.http.hub.content import Content

WRITE_CHUNK = 256 * 1024
SENDFILE_CHUNK = 4 * 1024 * 1024  # how far `on_sent` may lag behind the wire
GZIP_MIN_BYTES = 256  # smaller ones are not worth it
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")  # more digits than any file has bytes


class ContentResponse(web.StreamResponse):
    """Content: whole, one range of it where `ranged` (RFC 9110, section 14), or gzipped for clients that accept it
    where `compress`. As from the Hub, gzipped content has no length and no ranges.

    Nothing is sent before the handler and its middlewares have returned. A middleware may change headers, call `fit`
    and change what that settled (`span`, the length), replace `writer`, and have `on_sent` called with the number of
    body bytes that went out.
    """

    def __init__(
        self,
        content: Content,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        ranged: bool = False,
        compress: bool = False,
    ) -> None:
        super().__init__(status=status, headers=headers)
        self.content = content
        self.ranged = ranged
        self.compress = compress
        self.span = (0, content.size)
        self.writer: BodyWriter = write_body
        self.on_sent: Callable[[int], None] = _ignore
        self._fitted = False
        self._request: web.BaseRequest | None = None

    def fit(self, request: web.BaseRequest) -> None:
        """Settle status, span, length and coding for this request, once."""
        if self._fitted:
            return
        self._fitted = True
        if self.compress and self.content.size >= GZIP_MIN_BYTES and _accepts_gzip(request):
            self.headers["Content-Encoding"] = "gzip"
            if "ETag" in self.headers:
                self.headers["ETag"] = "W/" + self.headers["ETag"]
            self.content = Content(gzip.compress(b"".join(self.content.chunks())))
            self.span = (0, self.content.size)
            return
        if self.ranged:
            self._fit_range(request)
        self.content_length = self.span[1] - self.span[0]

    def _fit_range(self, request: web.BaseRequest) -> None:
        self.headers["Accept-Ranges"] = "bytes"
        size = self.content.size
        span = byte_range(request.headers.get("Range", ""), size) if request.method == "GET" else None
        if span is None:
            return
        start, stop = self.span = span
        satisfiable = start < stop
        self.set_status(206 if satisfiable else 416)
        self.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}" if satisfiable else f"bytes */{size}"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        self.fit(request)
        self._request = request
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body."""
        if self._request is not None and self._request.method != "HEAD":
            await self.writer(self._request, self)
        await super().write_eof(data)


BodyWriter = Callable[[web.BaseRequest, ContentResponse], Awaitable[None]]


async def write_body(request: web.BaseRequest, response: ContentResponse) -> None:
    """Write the response's span, from disk by sendfile. Raises ConnectionError when the client has gone."""
    content, (start, stop) = response.content, response.span
    if content.path is not None and response.content_length is not None:
        await _sendfile(request, content.path, start, stop, response.on_sent)
        return
    for chunk in content.chunks(start, stop, WRITE_CHUNK):
        await response.write(chunk)
        response.on_sent(len(chunk))


async def _sendfile(request: web.BaseRequest, path: str, start: int, stop: int, on_sent: Callable[[int], None]) -> None:
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
                on_sent(reached - at)
            if reached == at:
                raise ConnectionResetError(f"{path} became shorter")
            at = reached


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, stop) of a single range, empty when it cannot be satisfied, None where Range is to be ignored."""
    found = _RANGE.fullmatch(header.strip())
    if not found or header.strip() == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    start, stop = int(first), min(int(last) + 1, size) if last else size
    return (start, stop) if start < stop else (size, size)


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> ContentResponse:
    """A JSON document."""
    all_headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return ContentResponse(Content(orjson.dumps(document)), status, all_headers, compress=status == 200)


def redirect(status: int, location: str, headers: Mapping[str, str] | None = None) -> ContentResponse:
    """A redirect with the short text that the Hub sends along: its length is not the file's."""
    text = f"Redirecting to {location.partition('?')[0]}".encode()
    return ContentResponse(
        Content(text), status, {"Location": location, "Content-Type": "text/plain", **(headers or {})}
    )


class HubError(Exception):
    """An error as the Hub's clients know it: status, `X-Error-Code`, `X-Error-Message`."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        words = "".join(one if one.isprintable() else "?" for one in message)  # it may quote what a client sent
        self.headers = {"X-Error-Message": words, **({"X-Error-Code": code} if code else {}), **(headers or {})}

    def response(self) -> ContentResponse:
        """What to send."""
        return json_response({"error": str(self)}, self.status, self.headers)


class Moved(HubError):
    """The repository has another name now."""

    def __init__(self, location: str) -> None:
        super().__init__(307, None, "moved")
        self.location = location

    def response(self) -> ContentResponse:
        """A relative redirect."""
        return redirect(self.status, self.location)


def repo_not_found(request: web.Request) -> HubError:
    """No such repository: the Hub does not tell strangers whether it is missing or private."""
    if "Authorization" in request.headers:
        return HubError(404, "RepoNotFound", "Repository not found")
    return HubError(401, "RepoNotFound", "Invalid username or password.", {"WWW-Authenticate": "Bearer"})


@web.middleware
async def error_responses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into responses, aiohttp's own (no such route, wrong method) too."""
    try:
        return await handler(request)
    except HubError as error:
        return error.response()
    except web.HTTPException as error:
        return HubError(error.status, None, error.reason).response()


def _accepts_gzip(request: web.BaseRequest) -> bool:
    accepted = request.headers.get("Accept-Encoding", "").lower()
    return "gzip" in accepted and "identity" not in accepted


def _ignore(_: int) -> None:
    pass
