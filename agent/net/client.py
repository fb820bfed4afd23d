"""Small HTTP exchanges: metadata, and where a file is. The bytes of models go through `agent.transfer`.

Everything that a server can cost its client is bounded here: time to connect, to respond and to finish, size of the
body, redirects, the addresses that are connected to, and how often it is asked.
"""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from agent import __version__
from agent.core.names import show
from agent.core.retry import BODY_S, CONNECT_S, HEAD_S, METADATA_BUDGET_S, METADATA_IDLE_S
from agent.errors import Code, WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets, rate_limited
from agent.net.faults import Forbidden, fault, protocol_error
from agent.net.proxies import proxy_for
from agent.net.redirect import host_key, next_hop, origin, same_origin
from agent.net.resolve import Lookups

USER_AGENT = f"wantd/{__version__}"
IN_FLIGHT = 16  # metadata requests at a time; the Hub allows an anonymous address 500 in 5 minutes
PIECE = 64 * 1024
# Commas and opening brackets of a response: the 60,000 files that 16 MiB may list have 480,000. A value takes up to 230
# bytes of memory, so that 16 MiB of `[],` would take half a GB.
JSON_MARKS = 600_000
ERROR_BODY = 64 * 1024  # of an error's body: enough for `{"error": "…"}`
REDIRECTS = (301, 302, 303, 307, 308)
GZIP = 16 + zlib.MAX_WBITS  # zlib's number for the gzip format


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange may cost: seconds to connect (the look-up of the name and TLS with it), to the whole head, to
    the whole body; bytes of the body.

    orjson holds the interpreter about 60 ms for each MiB, and 16 MiB list some 60,000 files.
    """

    connect_s: float = CONNECT_S
    head_s: float = HEAD_S
    body_s: float = BODY_S
    body_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `url` is that of its request, and may be signed; `hops` are the redirects before it.

    `location` is the absolute URL that a redirect leads to where it was not followed, else None.
    """

    status: int
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    location: str | None = field(default=None, repr=False)
    hops: tuple[Response, ...] = field(default=(), repr=False)

    def json(self) -> Any:
        """The body as JSON. Raises `hub_protocol` where it is something else, most often an HTML page."""
        if sum(self.body.count(mark) for mark in (b",", b"[", b"{")) > JSON_MARKS:
            raise protocol_error(self.url, f"JSON of more than {JSON_MARKS} values")
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            html = self.body.lstrip()[:1] == b"<"
            raise protocol_error(
                self.url,
                "an HTML page instead of JSON" if html else "not JSON",
                "check HF_ENDPOINT, and open it in a browser: a login page of this network may be in between",
            ) from None


class Http:
    """The one way to ask for metadata: `get`, `head`, `probe`, and `post`. To be used on one event loop, closed with
    `close`.

    `unreachable` is the code of connection faults: `hub_unreachable`, or `proxy_unreachable` for a load balancer.
    `rule` says where connections may go; the bytes of a file that was found with it are read under the same. `environ`
    is where the proxy variables are read. An `auth` is the value of the Authorization header; it goes to
    the origin of the first URL only.
    """

    def __init__(
        self,
        rule: AddressRule,
        budgets: HostBudgets,
        *,
        environ: Mapping[str, str] | None = None,
        unreachable: Code = Code.HUB_UNREACHABLE,
        limits: Limits | None = None,
    ) -> None:
        self.unreachable = unreachable
        self.rule = rule
        self._budgets = budgets
        self._environ = environ or {}
        self._limits = limits or Limits()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def get(self, url: str, auth: str | None = None) -> Response:
        """GET with its body, every redirect followed."""
        return await self._follow("GET", url, auth, elsewhere=True, body=True)

    async def head(self, url: str, auth: str | None = None) -> Response:
        """HEAD; redirects are followed while they stay with the origin. `location` is set for one that leaves it."""
        return await self._follow("HEAD", url, auth, elsewhere=False)

    async def probe(self, url: str, auth: str | None = None) -> Response:
        """GET of one byte that is not read, every redirect followed: signed URLs do not all response HEAD."""
        return await self._follow("GET", url, auth, elsewhere=True, extra={"Range": "bytes=0-0"})

    async def post(self, url: str, document: Any, auth: str | None = None) -> Response:
        """POST of a JSON document, redirects not followed."""
        headers = {"Content-Type": "application/json", **({"Authorization": auth} if auth else {})}
        return await self._exchange("POST", url, headers, body=True, data=orjson.dumps(document))

    async def close(self) -> None:
        """Close every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        await self.close()

    async def _follow(
        self,
        method: str,
        url: str,
        auth: str | None,
        *,
        elsewhere: bool,
        body: bool = False,
        extra: Mapping[str, str] | None = None,
    ) -> Response:
        hops: list[Response] = []
        while True:
            headers = {**(extra or {}), **({"Authorization": auth} if auth else {})}
            response = await self._exchange(method, url, headers, body)
            target = response.headers.get("Location")
            if response.status not in REDIRECTS or target is None:
                return _with(response, hops)
            location = next_hop(url, target, len(hops))
            stays = same_origin(url, location)
            if not (stays or elsewhere):
                return _with(response, hops, location)
            hops.append(response)
            auth = auth if stays else None
            url = location

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bool, data: bytes | None = None
    ) -> Response:
        """One request and its response, redirects not followed."""
        host = origin(url).host
        self.rule.check_literal(host)
        proxy = proxy_for(url, self._environ)
        await self._turn(host_key(url))
        async with self._slots:
            try:
                async with asyncio.timeout(self._limits.connect_s + self._limits.head_s):
                    # Encoded already: a signed URL must go out as it came.
                    response = await self._session(proxy is not None).request(
                        method, URL(url, encoded=True), headers=headers, data=data, proxy=proxy, allow_redirects=False
                    )
                async with response:
                    self._budgets.observe(host_key(url), response.status, response.headers)
                    content = await self._read(url, response) if body else b""
            except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
                raise fault(error, url, proxied=proxy is not None, code=self.unreachable) from None
        return Response(response.status, url, response.headers.copy(), content)

    async def _turn(self, host: str) -> None:
        """Wait for the host's budget. Raises `rate_limited` when that takes longer than `METADATA_BUDGET_S`."""
        waited = 0.0
        while (wait := self._budgets.delay(host)) > 0:
            if waited + wait > METADATA_BUDGET_S:
                raise rate_limited(show(host, 80), wait)
            await asyncio.sleep(wait)
            waited += wait

    async def _read(self, url: str, response: aiohttp.ClientResponse) -> bytes:
        """The whole body, within the limits."""
        good = response.status < 300
        limit = self._limits.body_bytes if good else ERROR_BODY
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if good and coding not in ("identity", "gzip"):
            raise protocol_error(url, f"content coding {show(coding, 40)}, which was not requested")
        # Not requested either, but mirrors pass on what the Hub gave them (olah does): bounded like the rest.
        unpack = zlib.decompressobj(GZIP) if coding == "gzip" else None
        data = bytearray()
        async with asyncio.timeout(self._limits.body_s):
            async for piece in response.content.iter_chunked(PIECE):
                try:
                    data += unpack.decompress(piece, limit + 1 - len(data)) if unpack else piece
                except zlib.error:
                    raise protocol_error(url, "a body that is not the gzip that it is announced as") from None
                if len(data) > limit:
                    if not good:
                        break
                    raise protocol_error(url, f"more than {limit} bytes of metadata")
        if good and unpack and not unpack.eof:
            raise protocol_error(url, "a gzip body without its end")
        return bytes(data)

    def _session(self, proxied: bool) -> aiohttp.ClientSession:
        """The session; a second one where requests go through an HTTP proxy, which may have a private address."""
        if proxied not in self._sessions:
            resolver: Any = {} if proxied else {"resolver": _Resolver(self.rule), "socket_factory": self._socket}
            self._sessions[proxied] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=IN_FLIGHT, keepalive_timeout=METADATA_IDLE_S, **resolver),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,  # it would send what netrc holds
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
            )
        return self._sessions[proxied]

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last gate: whatever led here, no socket is made for an address that the rule refuses."""
        family, kind, proto, _, address = info
        try:
            self.rule.check("", str(address[0]))
        except WantdError as refusal:
            raise Forbidden(refusal) from None
        return socket.socket(family, kind, proto)


class _Resolver(AbstractResolver):
    """The system's resolver, less the addresses that the rule refuses."""

    def __init__(self, rule: AddressRule) -> None:
        self._rule = rule
        self._system = Lookups()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        allowed: list[ResolveResult] = []
        refusal: WantdError | None = None
        for entry in found:
            try:
                self._rule.check(host, entry["host"])
                allowed.append(entry)
            except WantdError as error:
                refusal = error
        if refusal and not allowed:
            raise Forbidden(refusal)
        return allowed

    async def close(self) -> None:
        """Nothing is held."""


def _with(response: Response, hops: list[Response], location: str | None = None) -> Response:
    return Response(response.status, response.url, response.headers, response.body, location, tuple(hops))
