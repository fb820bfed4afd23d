"""What a server was asked for and what it sent, so that a test can hold a client to its promises."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agent.http.hub.response import BodyWriter, ContentResponse

RECENT = 5000  # requests remembered: a whole test's worth, some hundred kB
CONTENT_STATUSES = (200, 206, 416)

FileOf = Callable[[web.Request], tuple[str, str] | None]
"""Whose bytes a request asks for: (repository, path), None where it asks for no file."""


@dataclass
class Seen:
    """One request. A token is kept only as its hash; `status` is None while no response has begun."""

    listener: str
    method: str
    path: str
    host: str
    range: str | None
    token_sha256: str | None
    status: int | None = None
    bytes_sent: int = 0

    @property
    def authorized(self) -> bool:
        """Whether an Authorization header came along, whatever was in it."""
        return self.token_sha256 is not None


class Ledger:
    """Counts by repository and file, and the latest requests, oldest first."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything seen so far."""
        self.bytes_sent: Counter[tuple[str, str]] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.recent: deque[Seen] = deque(maxlen=RECENT)
        self.seen_tokens: dict[str, set[str]] = {"hub": set(), "cdn": set()}
        self.open_bodies = 0
        self.most_open_bodies = 0

    def recording(self, listener: str, file_of: FileOf) -> Middleware:
        """A middleware that records each request and the bytes of its response. It belongs outside all others."""

        @web.middleware
        async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
            seen = self._note(listener, request)
            response = await handler(request)
            assert isinstance(response, ContentResponse)
            response.fit(request)
            seen.status = response.status
            file = file_of(request) if response.status in CONTENT_STATUSES else None
            response.on_sent = lambda count: self._sent(seen, file, count)
            if file is not None:
                response.writer = self._counting(file, response.writer)
            return response

        return record

    def _note(self, listener: str, request: web.Request) -> Seen:
        authorization = request.headers.get("Authorization")
        token = token_hash(authorization) if authorization is not None else None
        path = request.raw_path.partition("?")[0]  # the query may be a signature
        seen = Seen(listener, request.method, path, request.host, request.headers.get("Range"), token)
        self.recent.append(seen)
        if token is not None:
            self.seen_tokens.setdefault(listener, set()).add(token)
        return seen

    def _sent(self, seen: Seen, file: tuple[str, str] | None, count: int) -> None:
        """Body bytes were handed to the kernel."""
        seen.bytes_sent += count
        if file is not None:
            self.bytes_sent[file] += count

    def _counting(self, file: tuple[str, str], writer: BodyWriter) -> BodyWriter:
        async def write(request: web.BaseRequest, response: ContentResponse) -> None:
            self.requests[file] += 1
            self.open_bodies += 1
            self.most_open_bodies = max(self.most_open_bodies, self.open_bodies)
            try:
                await writer(request, response)
            finally:
                self.open_bodies -= 1

        return write

    def to_json(self) -> dict[str, Any]:
        """Everything, for the control face. Files are written `repo/file`."""
        return {
            "bytes_sent": {"/".join(file): count for file, count in self.bytes_sent.items()},
            "requests": {"/".join(file): count for file, count in self.requests.items()},
            "recent": [asdict(seen) | {"authorized": seen.authorized} for seen in self.recent],
            "seen_tokens": {listener: sorted(tokens) for listener, tokens in self.seen_tokens.items()},
            "open_bodies": self.open_bodies,
            "most_open_bodies": self.most_open_bodies,
        }


def token_hash(authorization: str) -> str:
    """SHA-256 of the token in an Authorization header, hexadecimal."""
    return hashlib.sha256(authorization.removeprefix("Bearer ").strip().encode()).hexdigest()
