"""Plain HTTP: one request for bytes over a connection that lanes share, and whether the response can be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from agent import __version__
from agent.core.access import Caller, ConnectionLost, LocationExpired, PlainHttp, ProtocolError, RateLimited
from agent.core.names import show
from agent.core.retry import LANE_BUDGET_S
from agent.net.budget import HostBudgets
from agent.net.redirect import host_key
from agent.transfer.addresses import Addresses
from agent.transfer.dial import Dialer, Resolve, authority_of
from agent.transfer.wire import Connection, Head

_EXPIRED = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 410})
_KEPT = "%/:=&?~#+!$,;'@()*[]"  # what may stand in a request target as it is: a signature covers the exact text
_PAGE = re.compile(r"\.html?\b", re.IGNORECASE)


class HttpBody:
    """A `Body` over HTTP."""

    def __init__(
        self, head: Head, span: tuple[int, int] | None, access: PlainHttp, connection: Connection, dialer: Dialer
    ) -> None:
        self.start, self.end, self.size = _extent(head, span)
        etag = head.get("etag")
        self.etag = etag if etag and not etag.startswith("W/") else None  # a weak one may be the same for other bytes
        self.ranges = head.status == 206 or "bytes" in head.get("accept-ranges").lower()
        self.read_into = connection.read_into  # called for each 256 KiB: no method of its own in between
        self.finish = connection.finish
        self._access, self._connection, self._dialer = access, connection, dialer

    def close(self, complete: bool) -> None:
        """Keep the connection for the next request, or close it."""
        if complete:
            self._dialer.keep(self._access, self._connection)
        else:
            self._connection.close()


class HttpTransport:
    """Speaks plain HTTP for all lanes. Thread-safe. `environ` holds the proxy variables and SSL_CERT_FILE."""

    def __init__(
        self, budgets: HostBudgets, environ: Mapping[str, str], addresses: Addresses, resolve: Resolve
    ) -> None:
        self._budgets = budgets
        self._dialer = Dialer(environ, addresses, resolve)

    def open(self, access: PlainHttp, span: tuple[int, int] | None, caller: Caller) -> HttpBody:
        """Ask for the bytes of `span` (from, to exclusive), or for the whole file. See `core.access.Opener.open`.

        Raises the exceptions of `core.access`, and the `hub_protocol` of the address rule.
        """
        key = host_key(access.url)
        while (wait := self._budgets.delay(key)) > 0:
            if wait > LANE_BUDGET_S:
                raise RateLimited(wait)
            caller.pause(wait)
        connection, head = self._ask(access, span, caller)
        caller.connected(connection.address)
        try:
            self._budgets.observe(key, head.status, head.fields)
            self._check_status(head, key)
            _check_content(head, span, f"{caller.label} {urlsplit(access.url).path}")
            return HttpBody(head, span, access, connection, self._dialer)
        except BaseException:
            _drop(caller, connection)
            raise

    def close(self) -> None:
        """Close the connections that wait for their next request."""
        self._dialer.close()

    def _ask(self, access: PlainHttp, span: tuple[int, int] | None, caller: Caller) -> tuple[Connection, Head]:
        """Send the request and read the head."""
        parts = urlsplit(access.url)
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_KEPT)
        extra = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        headers = {"User-Agent": f"wantd/{__version__}", **access.headers, **extra}
        fresh = False
        while True:
            connection = self._dialer.connection(access, caller, fresh=fresh)
            try:
                return connection, connection.ask("GET", target, authority_of(access.url), headers)
            except ConnectionLost:
                _drop(caller, connection)
                if not connection.used:
                    raise
                fresh = True  # the server had closed this kept connection: that is no failure
            except BaseException:
                _drop(caller, connection)
                raise

    def _check_status(self, head: Head, key: str) -> None:
        status = head.status
        if status in (429, 503) and (wait := self._budgets.delay(key)) > 0:
            raise RateLimited(wait)
        if status in _EXPIRED:
            raise LocationExpired(f"it answered {status} to a request for bytes")
        if status == 408 or status == 429 or status >= 500:
            raise ConnectionLost(f"it answered {status}")
        if status not in (200, 206):
            raise ProtocolError(f"it answered {status} to a request for bytes")


def _check_content(head: Head, span: tuple[int, int] | None, names: str) -> None:
    """Raise unless it is content as it was asked for. `names`: what the file is called, here and there."""
    coding, kind = head.get("content-encoding").lower(), head.get("content-type").lower()
    if coding not in ("", "identity"):
        raise ProtocolError(f"the response is compressed ({show(coding, 40)}), which was not asked for")
    if kind.startswith("multipart/"):
        raise ProtocolError("the response has several parts, one range was asked for")
    if head.status == 206 and span is None:
        raise ProtocolError("it answered 206 to a request for the whole file")
    if head.status == 200 and kind.startswith("text/html") and not _PAGE.search(names):
        raise ProtocolError("the response is an HTML page, perhaps a login page of this network")


def _extent(head: Head, span: tuple[int, int] | None) -> tuple[int, int | None, int | None]:
    """First byte of the body, one behind the last, and the size of the file. The caller compares them with `span`."""
    if head.status == 200:
        return 0, head.length, head.length
    start, end, size = head.content_range
    if (start, end) == span and head.length not in (None, end - start):
        raise ProtocolError(f"a range of {end - start} bytes has a Content-Length of {head.length}")
    return start, end, size


def _drop(caller: Caller, connection: Connection) -> None:
    caller.watch(None)  # before it is closed: the system may give its number to another socket at once
    connection.close()
