"""A real HTTP server on loopback that can be told, request by request, how to misbehave."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

STEP = 16 * 1024


@dataclass(frozen=True)
class Asked:
    """A request as the server saw it; `number` counts from 0 over all requests."""

    number: int
    path: str
    headers: Mapping[str, str]
    range: tuple[int, int] | None  # first byte, one behind the last
    at: float  # seconds of the monotonic clock


@dataclass(frozen=True)
class Manner:
    """How to answer; the default is the right way."""

    status: int | None = None  # instead of 200 and 206
    body: bytes | None = None  # instead of the file's bytes
    headers: Mapping[str, str | None] = field(default_factory=dict)  # added or replaced; None leaves one out
    ignore_range: bool = False
    chunked: bool = False
    until_close: bool = False  # no length, the end of the connection is the end of the body
    rate: float = 0.0  # bytes per second, 0 for no cap
    head_rate: float = 0.0  # bytes of the head per second, 0 for no cap
    cut_after: int | None = None  # bytes of the body, then the connection is closed
    stall_after: int | None = None  # bytes of the body, then silence
    raw: bytes | None = None  # sent as it is instead of any answer, then the connection is closed
    endless: bool = False  # the body never ends


class Server:
    """Serves `files` by path. `manner` decides about each request; `asked` and `sent` tell what happened."""

    def __init__(
        self, files: Mapping[str, bytes], context: ssl.SSLContext | None = None, at: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self.files = dict(files)
        self.manner: Callable[[Asked], Manner] = lambda _: Manner()
        self.asked: list[Asked] = []
        self.sent = 0  # bytes of bodies
        self.open = 0  # connections
        self.most_open = 0
        self.busy = 0  # requests that are being answered
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._context = context
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(at, backlog=128)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, path: str) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            sockets = list(self._sockets)
        for sock in [self._listener, *sockets]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        try:
            if self._context:
                with self._lock:
                    self._sockets.discard(sock)
                sock = self._context.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._sockets.add(sock)
            while not self._closing.is_set() and self._one(sock):
                pass
        except OSError:
            pass
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.open -= 1
            sock.close()

    def _one(self, sock: socket.socket) -> bool:
        """Serve one request. False when the connection is over."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(65536)
            if not more:
                return False
            data += more
        lines = data.split(b"\r\n\r\n")[0].decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        asked_range = (int(match[1]), int(match[2]) + 1) if match else None
        with self._lock:
            asked = Asked(len(self.asked), lines[0].split(" ")[1], headers, asked_range, time.monotonic())
            self.asked.append(asked)
            self.busy += 1
        try:
            manner = self.manner(asked)
            if manner.raw is not None:
                sock.sendall(manner.raw)
                return False
            return self._answer(sock, asked, manner)
        finally:
            with self._lock:
                self.busy -= 1

    def _answer(self, sock: socket.socket, asked: Asked, manner: Manner) -> bool:
        whole = self.files.get(asked.path.split("?")[0])
        if whole is None and manner.status is None:
            manner = Manner(status=404, body=b"not here")
            whole = b""
        whole = whole or b""
        start, end = (0, len(whole)) if asked.range is None or manner.ignore_range else asked.range
        body = memoryview(whole)[start:end] if manner.body is None else memoryview(manner.body)
        partial = asked.range is not None and not manner.ignore_range
        status = manner.status or (206 if partial else 200)
        fields: dict[str, str | None] = {"Content-Length": str(len(body)), "Accept-Ranges": "bytes"}
        if partial:
            fields["Content-Range"] = f"bytes {start}-{end - 1}/{len(whole)}"
        if manner.chunked:
            fields |= {"Content-Length": None, "Transfer-Encoding": "chunked"}
        if manner.until_close or manner.endless:
            fields |= {"Content-Length": None, "Connection": "close"}
        fields |= manner.headers
        head = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
        sent = ("\r\n".join(head) + "\r\n\r\n").encode()
        if manner.head_rate:
            for byte in sent:
                sock.sendall(bytes([byte]))
                if self._closing.wait(1 / manner.head_rate):
                    return False
        else:
            sock.sendall(sent)
        self._body(sock, body, manner)
        return not (manner.until_close or manner.endless or manner.cut_after is not None)

    def _body(self, sock: socket.socket, body: memoryview, manner: Manner) -> None:
        began, done = time.monotonic(), 0
        step = STEP if not manner.rate else max(1, min(STEP, int(manner.rate / 50)))
        while manner.endless or done < len(body):
            part = body[done : done + step] if not manner.endless else memoryview(bytes(step))
            for limit in (manner.cut_after, manner.stall_after):
                if limit is not None:
                    part = part[: max(limit - done, 0)]
            if part:
                sock.sendall(b"%x\r\n%b\r\n" % (len(part), part) if manner.chunked else part)
                done += len(part)
                with self._lock:
                    self.sent += len(part)
            if manner.cut_after is not None and done >= manner.cut_after:
                return
            if manner.stall_after is not None and done >= manner.stall_after:
                sock.recv(1)  # until the client or the test gives up
                raise OSError("stalled")
            if manner.rate and self._closing.wait(max(began + done / manner.rate - time.monotonic(), 0)):
                return
        if manner.chunked:
            sock.sendall(b"0\r\n\r\n")
