"""Connections to the hosts that hold bytes: resolve, check the address, connect, TLS, proxy; kept alive for reuse."""

from __future__ import annotations

import base64
import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.core.access import AddressCheck, Caller, ConnectionLost, PlainHttp, ProtocolError, Stalled
from agent.core.names import show
from agent.core.retry import CONNECT_S, IDLE_CONNECTION_S
from agent.errors import WantdError
from agent.net.proxies import proxy_for
from agent.net.redirect import DEFAULT_PORTS, Origin, origin
from agent.transfer.addresses import Addresses
from agent.transfer.race import AddressInfo, connect_first
from agent.transfer.tls import Stream, Tls
from agent.transfer.wire import Connection, cut, reason

IDLE_MAX = 64  # connections kept in all

Resolve = Callable[..., list[Any]]  # as socket.getaddrinfo

_Key = tuple[Origin, str | None, AddressCheck]


class Dialer:
    """Makes and keeps connections for all lanes. Thread-safe. `environ` holds the proxy variables and SSL_CERT_FILE.

    A connection made under one rule is never used under another: a private balancer must not open the private network
    to a public Hub.
    """

    def __init__(self, environ: Mapping[str, str], addresses: Addresses, resolve: Resolve = socket.getaddrinfo) -> None:
        self._environ = environ
        self._addresses = addresses
        self._resolve = resolve
        self._lock = threading.Lock()
        self._idle: list[tuple[_Key, Connection]] = []
        self._closed = False
        self._context: ssl.SSLContext | None = None

    def connection(self, access: PlainHttp, caller: Caller, *, fresh: bool = False) -> Connection:
        """A connection on which the URL can be asked for: a kept one, unless `fresh`, or a new one.

        Raises `ConnectionLost`, `Stalled` and `ProtocolError` as the wire does, `Stopped`, and the `hub_protocol` of
        the address rule.
        """
        key = self._key(access)
        while not fresh and (kept := self._pick(key)):
            try:
                if kept.is_quiet() and not self._addresses.is_bad(_authority(key[0]), kept.address):
                    caller.watch(functools.partial(cut, kept.sock))
                    return kept
            except BaseException:
                kept.close()
                raise
            kept.close()
        return self._dial(*key, caller)

    def keep(self, access: PlainHttp, connection: Connection) -> None:
        """Keep a connection whose last response was read to its end; close it where it cannot be used again."""
        if not connection.reusable:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle.append((self._key(access), connection))
            surplus = len(self._idle) if self._closed else max(len(self._idle) - IDLE_MAX, 0)
            dropped, self._idle = self._idle[:surplus], self._idle[surplus:]
        for _, old in dropped:
            old.close()

    def close(self) -> None:
        """Close all that is kept, and keep nothing more."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _key(self, access: PlainHttp) -> _Key:
        return origin(access.url), proxy_for(access.url, self._environ), access.rule

    def _pick(self, wanted: _Key) -> Connection | None:
        """The kept connection to `wanted` that was used last; those that are kept too long are closed."""
        limit = time.monotonic() - IDLE_CONNECTION_S
        with self._lock:
            old = [entry for entry in self._idle if entry[1].idle_since < limit]
            self._idle = [entry for entry in self._idle if entry[1].idle_since >= limit]
            found = next((entry for entry in reversed(self._idle) if entry[0] == wanted), None)
            if found:
                self._idle.remove(found)
        for _, connection in old:
            connection.close()
        return found[1] if found else None

    def _dial(self, target: Origin, proxy: str | None, rule: AddressCheck, caller: Caller) -> Connection:
        stall_s, over_tls = caller.stall_s, target.scheme == "https"
        if proxy is None:
            sock, address = self._connect(target.host, target.port, caller, rule)
            tls = self._tls(sock, sock, target.host) if over_tls else None
            return Connection(sock, stall_s, tls=tls, address=address)
        # The proxy is one that a person configured, whatever its address; what it resolves, we cannot see.
        rule.check_literal(target.host)
        parts = urlsplit(proxy)
        try:
            host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme.lower()]
        except ValueError:
            raise ProtocolError("the proxy variables do not hold a proxy's URL") from None
        sock, _ = self._connect(host, port, caller, None)
        below = self._tls(sock, sock, host) if parts.scheme.lower() == "https" else None
        authority = _authority(target)
        login = _login(parts.username, parts.password)
        if not over_tls:
            connection = Connection(sock, stall_s, f"http://{authority}", below)
            connection.extra_headers = login
            return connection
        try:
            head = Connection(sock, min(stall_s, CONNECT_S), tls=below).ask("CONNECT", authority, authority, login)
            if head.status != 200:
                raise ConnectionLost(f"the proxy of the environment answered {head.status} to CONNECT")  # noqa: TRY301  closed below
        except BaseException:
            sock.close()
            raise
        return Connection(sock, stall_s, tls=self._tls(sock, below or sock, target.host))

    def _connect(self, host: str, port: int, caller: Caller, rule: AddressCheck | None) -> tuple[socket.socket, str]:
        """Connect to an address of the host that the rule allows: all are used in turn, bad ones are left alone."""
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectionLost(
                f"its name does not resolve: {getattr(error, 'strerror', None) or 'bad name'}"
            ) from None
        allowed: dict[str, AddressInfo] = {}
        refusal: WantdError | None = None
        for entry in found:
            try:
                if rule is not None:
                    rule.check(host, str(entry[4][0]))
            except WantdError as error:
                refusal = error
            else:
                allowed.setdefault(str(entry[4][0]), entry)
        if refusal is not None and not allowed:
            raise refusal
        key = _authority(Origin("", host, port))
        order = self._addresses.order(key, [(entry[0], address) for address, entry in allowed.items()])
        candidates = [allowed[address] for address in order]
        sock, address = connect_first(candidates, caller, lambda bad: self._addresses.failed(key, bad))
        self._addresses.connected(key, address)
        try:
            caller.watch(functools.partial(cut, sock))
            sock.settimeout(CONNECT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            raise ConnectionLost(f"no connection: {reason(error)}") from None
        except BaseException:
            sock.close()
            raise
        return sock, address

    def _tls(self, sock: socket.socket, below: Stream, host: str) -> Tls:
        """TLS over `below`, which is the socket or TLS over it. Closes the socket where that fails."""
        try:
            tls = Tls(below, self._trust(), host)
            sock.settimeout(CONNECT_S)
            tls.handshake(CONNECT_S)
        except TimeoutError:
            sock.close()
            raise Stalled(f"no TLS handshake within {CONNECT_S:g} s") from None
        except (OSError, ValueError) as error:
            sock.close()
            raise ConnectionLost(reason(error)) from None
        except BaseException:
            sock.close()
            raise
        return tls

    def _trust(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                context = ssl.create_default_context()
                context.set_alpn_protocols(["http/1.1"])
                if path := self._environ.get("SSL_CERT_FILE"):
                    try:
                        context.load_verify_locations(cafile=path)
                    except OSError as error:
                        raise ConnectionLost(f"SSL_CERT_FILE ({show(path)}) cannot be used: {reason(error)}") from None
                self._context = context
            return self._context


def authority_of(url: str) -> str:
    """The Host header for the URL: the port is left out where it is the scheme's own."""
    return _authority(origin(url), short=True)


def _authority(target: Origin, short: bool = False) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if short and target.port == DEFAULT_PORTS[target.scheme] else f"{host}:{target.port}"


def _login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
