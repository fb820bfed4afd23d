"""A cap on each TCP connection, and a true count of what went over it.

nginx's `limit_rate` will not do: it counts by request, not by connection, and gives each request the first second for
nothing. Whoever asks in short ranges is hardly capped at all, which is a gift to us and not to the others. Here the
kernel paces each connection (`SO_MAX_PACING_RATE`, socket(7)), and `splice` moves the bytes, so that the relay costs
next to nothing of the two cores that are being measured.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from contextlib import suppress

PIPE_BYTES = 1024 * 1024  # the most that an unprivileged pipe may hold
SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; Python's socket module has no name for it
_TCPI_BYTES_ACKED = 120  # offset of tcpi_bytes_acked in struct tcp_info (linux/tcp.h), an unsigned 64-bit number


class Relay:
    """`with Relay(("127.0.0.1", port), 40_000_000) as relay: … relay.port …`: rate in bytes per second, 0 for none."""

    def __init__(self, target: tuple[str, int], rate: int) -> None:
        self._target = target
        self._rate = rate
        self._lock = threading.Lock()
        self._open: dict[socket.socket, socket.socket] = {}  # client to server
        self._ended_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, name="relay", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = [end for pair in self._open.items() for end in pair]
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @property
    def delivered_bytes(self) -> int:
        """Bytes that clients' kernels have acknowledged, headers with them."""
        with self._lock:
            return self._ended_bytes + sum(_acknowledged(client) for client in self._open)

    @property
    def is_quiet(self) -> bool:
        """Whether no connection is open."""
        with self._lock:
            return not self._open

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), name="relay-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._rate:
            client.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.pack("Q", self._rate))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open[client] = server
        up = threading.Thread(target=_pump, args=(client, server), name="relay-up", daemon=True)
        up.start()
        _pump(server, client)
        up.join()
        with self._lock:
            del self._open[client]
            self._ended_bytes += _acknowledged(client)
        client.close()
        server.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Move bytes until the source ends, then end the sink. A sink that is gone ends the source too."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        while n := os.splice(source.fileno(), write_end, PIPE_BYTES):
            while n:
                n -= os.splice(read_end, sink.fileno(), n)
    except OSError:
        with suppress(OSError):
            source.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(read_end)
        os.close(write_end)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _acknowledged(client: socket.socket) -> int:
    try:
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return 0
    return int(struct.unpack_from("<Q", info, _TCPI_BYTES_ACKED)[0])
