"""The other end of systemd's NOTIFY_SOCKET (sd_notify(3))."""

from __future__ import annotations

import contextlib
import socket

from tests.harness import DEADLINE_S


class Manager:
    """A service manager that listens at a path, or at an abstract address."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(DEADLINE_S)

    def next(self) -> list[str]:
        """The lines of the next datagram."""
        return self._socket.recv(4096).decode().split("\n")

    def drain(self) -> int:
        """Read what has come up to now, and how many that was."""
        count = 0
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(4096):
                count += 1
        self._socket.settimeout(DEADLINE_S)
        return count

    def close(self) -> None:
        self._socket.close()
