"""TLS over one blocking socket, or over another TLS: for reading much.

`ssl.SSLSocket` is either non-blocking, with a look at the clock and a poll around each record of 16 KiB, or blocks
without end: it tries again when the kernel's own timeout (SO_RCVTIMEO) ends a read. Here the socket stays a plain one
with the kernel's timeouts, one `recv` takes what has come, up to 128 KiB, into OpenSSL's memory, and the records are
decrypted from there. TLS to a host behind an HTTPS proxy, which SSLSocket cannot do, comes with it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol, cast

from agent.core.retry import TLS_READ_S

FEED = 128 * 1024  # bytes taken from the kernel at once; of 64 to 512 KiB the best on two cores


class Stream(Protocol):
    """What both a socket and TLS over one can do. A read raises BlockingIOError or TimeoutError when nothing came."""

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Receive what is there, at least one byte; 0 at the end."""
        ...

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        ...

    def close(self) -> None:
        """Close without ceremony."""
        ...


class Tls:
    """A client's side of TLS over `below`. Not thread-safe. Raises ssl.SSLError and what `below` raises."""

    def __init__(self, below: Stream, context: ssl.SSLContext, host: str) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # With a buffer it gives the number of bytes, which the stubs of the standard library do not know.
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)
        self._buffer = memoryview(bytearray(FEED))

    def handshake(self, seconds: float) -> None:
        """Agree on keys, and check the certificate. Raises TimeoutError when that takes longer."""
        until = time.monotonic() + seconds
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._feed(until)
            else:
                self._flush()
                return

    def recv_into(self, buffer: memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Fill the buffer, unless nothing more comes for as long as the socket waits; 0 at the end.

        A server that sends what holds no content (session tickets, without end) counts as one that sends nothing.

        A connection that ends without TLS's own end raises ConnectionError: it may have been cut on the way.
        """
        view = buffer[:nbytes] if nbytes else buffer
        n, until = 0, time.monotonic() + TLS_READ_S
        while n < len(view):
            try:
                more = self._read(len(view) - n, view[n:])
            except ssl.SSLWantReadError:
                try:
                    self._feed(until)
                except OSError:
                    if n:  # what came before the end, or the cut, counts; the next read tells of that
                        break
                    raise
                continue
            if more == 0 or not flags & socket.MSG_WAITALL:
                return n + more
            n += more
        return n

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        """Close what is below."""
        self._below.close()

    @property
    def is_quiet(self) -> bool:
        """Whether everything that came was read."""
        return not self._incoming.pending and not self._tls.pending()

    def _feed(self, until: float) -> None:
        """Take what has come. Raises TimeoutError past `until`, in monotonic seconds."""
        if time.monotonic() > until:
            raise TimeoutError
        self._flush()
        n = self._below.recv_into(self._buffer)
        if n == 0:
            raise ConnectionError("the connection ended without TLS's own end")
        self._incoming.write(self._buffer[:n])

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.sendall(self._outgoing.read())
