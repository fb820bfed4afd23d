"""Opening the sockets of `http.listen`. One that cannot be had is said, and the others serve without it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from loguru import logger

from agent.core.listen import SOCKET_PATH_MAX, Address, TcpAddress, UnixAddress

BACKLOG = 1024
# Every user may ask, as over loopback; what changes something looks at who asks (agent/http/guard.py).
SOCKET_MODE = 0o666


class Unusable(Exception):
    """Why there is no listening on an address."""


def open_all(addresses: list[Address]) -> list[tuple[Address, socket.socket]]:
    """Sockets that listen, each with its address; port 0 has become a number. Touches the disk; looks up names."""
    found: list[tuple[Address, socket.socket]] = []
    for address in addresses:
        try:
            found += _open_unix(address) if isinstance(address, UnixAddress) else _open_tcp(address)
        except Unusable as why:
            logger.warning("not listening on {}: {}", address, why)
    return found


def close(address: Address, listener: socket.socket) -> None:
    """Stop listening, and take a socket file away."""
    listener.close()
    if isinstance(address, UnixAddress):
        with contextlib.suppress(OSError):
            os.unlink(address.path)


def _open_tcp(address: TcpAddress) -> list[tuple[Address, socket.socket]]:
    try:
        places = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
    except OSError as error:
        raise Unusable(f"no such host: {error.strerror or error}") from None
    found: list[tuple[Address, socket.socket]] = []
    for family, kind, _, _, place in dict.fromkeys(places):
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            for _, opened in found:
                opened.close()
            raise Unusable(_why(error)) from None
        listener.setblocking(False)
        found.append((TcpAddress(address.host, listener.getsockname()[1]), listener))
    return found


def _open_unix(address: UnixAddress) -> list[tuple[Address, socket.socket]]:
    path = address.path
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise Unusable(f"the path is longer than the {SOCKET_PATH_MAX} bytes that a socket's path may have")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if _is_left_over(path):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unusable(_why(error)) from None
    listener.setblocking(False)
    return [(address, listener)]


def _is_left_over(path: str) -> bool:
    """Whether a socket is there that no process listens on: what a killed agent leaves."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False  # a file of somebody's: binding fails, and says so
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose queue is full is one that listens
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there"
    return error.strerror or str(error)
