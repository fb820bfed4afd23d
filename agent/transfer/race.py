"""Connect to the first of several addresses that takes us, as RFC 8305 ("Happy Eyeballs") has it.

Attempts are started `ATTEMPT_S` after each other, or at once when one fails; the first that succeeds is used. Lanes are
threads with blocking sockets: aiohappyeyeballs, which does this for an event loop, would need one in each of them.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from agent.core.access import Caller, ConnectionLost
from agent.core.retry import ATTEMPT_S, CONNECT_S
from agent.transfer.wire import cut

AddressInfo = tuple[int, int, int, str, Any]  # of socket.getaddrinfo


def connect_first(
    candidates: Sequence[AddressInfo], caller: Caller, failed: Callable[[str], None]
) -> tuple[socket.socket, str]:
    """A connected, blocking socket, and its address. `failed` is told the addresses that refused, or did not respond.

    Raises `ConnectionLost` with the last reason, and `Stopped`.
    """
    waiting = deque(candidates)
    racing: dict[int, tuple[socket.socket, str, float]] = {}  # by descriptor: address, and when it has had its time
    reason, start_at = "its name has no address", 0.0
    poll = select.poll()
    try:
        while waiting or racing:
            now = time.monotonic()
            if waiting and (not racing or now >= start_at):
                family, kind, proto, _, address = waiting.popleft()
                sock = socket.socket(family, kind, proto)
                racing[sock.fileno()] = sock, str(address[0]), now + CONNECT_S
                start_at = now + ATTEMPT_S
                caller.watch(functools.partial(_cut_all, [each for each, _, _ in racing.values()]))
                sock.setblocking(False)
                number = sock.connect_ex(address)
                poll.register(sock, select.POLLOUT)
                events = [] if number in (0, errno.EINPROGRESS) else [(sock.fileno(), number)]
            else:
                caller.watch(functools.partial(_cut_all, [each for each, _, _ in racing.values()]))
                events = []
            ready = {fd: 0 for fd, _ in poll.poll(0 if events else ATTEMPT_S * 1000)} | dict(events)
            for fd, (sock, text, until) in list(racing.items()):
                number = ready.get(fd, 0) or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if fd in ready and not number:
                    del racing[fd]
                    sock.setblocking(True)
                    return sock, text
                if number or time.monotonic() > until:
                    reason = f"no connection: {os.strerror(number or errno.ETIMEDOUT)}"
                    poll.unregister(fd)
                    del racing[fd]
                    sock.close()
                    failed(text)
                    start_at = 0.0
    finally:
        for sock, _, _ in racing.values():
            sock.close()
    raise ConnectionLost(reason)


def _cut_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        cut(sock)
