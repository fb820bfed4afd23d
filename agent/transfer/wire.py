"""A small strict reader of HTTP/1.1 (RFC 9112) over one blocking socket: ask, read the head, read the body.

Everything that a server sends is capped: the head in bytes and seconds, chunk lines, trailers, and the body by what was
announced. Nothing here knows files or retries; failures are raised as `ConnectionLost`, `Stalled` or `ProtocolError`.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass

from agent.core.access import ConnectionLost, ProtocolError, Stalled
from agent.core.names import show
from agent.core.retry import STALL_POLLS
from agent.transfer.tls import Stream, Tls

HEAD_MAX = 64 * 1024  # bytes; as much as nginx and Apache allow a client, no real response comes near
CHUNK_LINE_MAX = 1024  # bytes of a chunk's size and extensions
TRAILER_MAX = 8 * 1024  # bytes
INTERIM_MAX = 8  # responses 1xx before the final one
RATE_FLOOR = 1024  # bytes per second over the stall time; a model of 1 GB would take 12 days

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n]*)?\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}\Z")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})\Z")


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields (names in lower case, repeated ones joined by a comma)."""

    status: int
    fields: Mapping[str, str]

    def get(self, name: str) -> str:
        return self.fields.get(name, "")

    @property
    def length(self) -> int | None:
        """Content-Length, in bytes; None when it is not there."""
        text = self.fields.get("content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise ProtocolError(f"Content-Length is {show(text, 40)}")
        return int(text)

    @property
    def content_range(self) -> tuple[int, int, int]:
        """First byte, one behind the last, and total. Raises `ProtocolError` for anything but one whole byte range."""
        match = _RANGE.match(self.get("content-range"))
        if match is None:
            raise ProtocolError(f"Content-Range is {show(self.get('content-range'), 60)}")
        first, last, total = (int(group) for group in match.groups())
        return first, last + 1, total


class Connection:
    """One keep-alive connection. Not thread-safe, but for `cut`.

    `stall_s` is how long the server may be silent, and the time over which it must keep up `RATE_FLOOR`.
    """

    def __init__(
        self, sock: socket.socket, stall_s: float, target_prefix: str = "", tls: Tls | None = None, address: str = ""
    ) -> None:
        self.sock = sock
        self.address = address  # of the host itself; empty where a proxy stands in between
        self.tls = tls
        self.used = False
        self.idle_since = 0.0
        self.target_prefix = target_prefix  # scheme and host, for a proxy that wants absolute targets
        self.extra_headers: Mapping[str, str] = {}  # for the proxy alone
        self._stream: Stream = tls or sock
        self._stall_s = stall_s
        self._poll_s = max(stall_s / STALL_POLLS, 0.01)
        self._spare = b""
        self._left: int | None = 0  # bytes of the body (or chunk) still to come; None until the connection ends
        self._chunked = False
        self._first_chunk = False
        self._keep = False
        self._floor: tuple[float, int] = (0.0, 0)  # seconds waited and bytes got in the running stall window
        # A timeout of the kernel, not of Python: Python's would turn the socket non-blocking, and each read would be
        # two system calls and could not wait for the whole buffer.
        sock.settimeout(None)
        seconds = struct.pack("ll", int(self._poll_s), int(self._poll_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        limit = struct.pack("ll", int(stall_s), int(stall_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def ask(self, method: str, target: str, host: str, headers: Mapping[str, str]) -> Head:
        """Send a request and read the head of the response. Raises `ConnectionLost`, `Stalled`, `ProtocolError`."""
        fields = {"Host": host, "Accept-Encoding": "identity", **headers, **self.extra_headers}
        for name, value in fields.items():
            if not _FIELD.match(f"{name}:{value}".encode()) or any(c in value for c in "\r\n\0"):
                raise ProtocolError(f"the header {show(name, 40)} cannot be sent")
        lines = [f"{method} {self.target_prefix}{target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        try:
            self._stream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"sending the request failed: {reason(error)}") from None
        deadline = time.monotonic() + self._stall_s
        for _ in range(INTERIM_MAX):
            head, keep = self._read_head(deadline)
            if head.status >= 200:
                self._frame(head, keep and method != "CONNECT")
                self._floor = (0.0, 0)
                self.used = True
                return head
        raise ProtocolError(f"more than {INTERIM_MAX} interim responses")

    def read_into(self, view: memoryview) -> int:
        """Read body bytes until the view is full, the body ends, or a poll's time is over; at least one.

        Returns 0 at the proper end of the body. Raises `ConnectionLost` when it ends early.
        """
        while self._left == 0:
            if not self._chunked or not self._next_chunk():
                return 0
        part = view if self._left is None else view[: self._left]
        n = self._fill(part)
        if n == 0:
            if self._left is None:
                self._left = 0
                return 0
            raise ConnectionLost("the connection ended before the body did")
        if self._left is not None:
            self._left -= n
        return n

    def finish(self) -> bool:
        """Read what ends a chunked body whose bytes are all there. True when there are more bytes instead."""
        return self._chunked and self.read_into(memoryview(bytearray(1))) > 0

    @property
    def reusable(self) -> bool:
        """Whether the body was read to its end and the server keeps the connection."""
        return self._keep and self._left == 0 and not self._chunked and not self._spare

    def is_quiet(self) -> bool:
        """Whether an idle connection still looks alive: nothing to read, not even its end."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0) and (self.tls is None or self.tls.is_quiet)

    def _read_head(self, deadline: float) -> tuple[Head, bool]:
        data = self._spare
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_MAX:
                raise ProtocolError(f"the head is longer than {HEAD_MAX} bytes")
            if time.monotonic() > deadline:
                raise Stalled(f"no complete response within {self._stall_s:g} s")
            got = self._recv(16 * 1024)
            if got == b"":
                raise ConnectionLost("the connection ended before the response")
            data += got or b""
        if end > HEAD_MAX:
            raise ProtocolError(f"the head is longer than {HEAD_MAX} bytes")
        self._spare = data[end + 4 :]
        return _parse_head(data[:end])

    def _frame(self, head: Head, keep: bool) -> None:
        """Decide where the body ends (RFC 9112 section 6.3)."""
        coding = head.get("transfer-encoding").lower()
        if coding and (coding != "chunked" or "content-length" in head.fields):
            raise ProtocolError(f"Transfer-Encoding is {show(coding, 40)}, or has a Content-Length beside it")
        length = head.length
        self._chunked = coding == "chunked"
        self._first_chunk = True
        bodiless = head.status in (204, 304)
        self._left = 0 if bodiless or self._chunked else length
        self._keep = keep and self._left is not None

    def _next_chunk(self) -> bool:
        """Read the line of the next chunk. Returns False behind the last one, the trailers read."""
        if not self._first_chunk and self._line(2) != b"":
            raise ProtocolError("a chunk does not end where it said")
        self._first_chunk = False
        size = self._line(CHUNK_LINE_MAX).split(b";")[0].strip()
        if not _HEX.match(size):
            raise ProtocolError("a chunk has no size")
        self._left = int(size, 16)
        if self._left:
            return True
        room = TRAILER_MAX
        while line := self._line(room):
            room -= len(line)
        self._chunked = False
        return False

    def _line(self, most: int) -> bytes:
        while (end := self._spare.find(b"\r\n")) < 0:
            if len(self._spare) > most + 2:
                raise ProtocolError("a line of the chunked body is too long")
            one = memoryview(bytearray(4096))
            n = self._wait(one)
            if n == 0:
                raise ConnectionLost("the connection ended before the body did")
            self._spare += one[:n]
        if end > most:
            raise ProtocolError("a line of the chunked body is too long")
        line, self._spare = self._spare[:end], self._spare[end + 2 :]
        return line

    def _fill(self, view: memoryview) -> int:
        if self._spare:
            n = min(len(view), len(self._spare))
            view[:n] = self._spare[:n]
            self._spare = self._spare[n:]
            return n
        return self._wait(view)

    def _wait(self, view: memoryview) -> int:
        """Receive at least one byte, within the floor on the rate. Returns 0 when the connection ended."""
        entered = before = time.monotonic()
        waited, got = self._floor
        while True:
            n = self._receive(view)
            now = time.monotonic()
            waited += now - before
            before = now
            if n < 0 and now - entered >= self._stall_s:
                raise Stalled(f"no byte for {now - entered:.1f} s")
            got += max(n, 0)
            if waited >= self._stall_s:
                if got < RATE_FLOOR * self._stall_s:
                    raise Stalled(f"{got} bytes in {waited:.1f} s")
                waited, got = 0.0, 0
            if n >= 0:
                self._floor = (waited, got)
                return n

    def _receive(self, view: memoryview) -> int:
        """One try to fill the view. Returns -1 when nothing came in a poll's time, 0 when the connection ended."""
        try:
            return self._stream.recv_into(view, 0, socket.MSG_WAITALL)
        except (BlockingIOError, TimeoutError):
            return -1
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"reading failed: {reason(error)}") from None

    def _recv(self, most: int) -> bytes | None:
        """What came in one poll's time, b"" at the end of the connection, None when nothing came."""
        view = memoryview(bytearray(most))
        try:
            return bytes(view[: self._stream.recv_into(view)])
        except (BlockingIOError, TimeoutError):
            return None
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"reading the response failed: {reason(error)}") from None

    def close(self) -> None:
        """Close without ceremony: what is unread is dropped."""
        self.sock.close()


def cut(sock: socket.socket) -> None:
    """Wake the thread that waits on the socket, from any other."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # not connected yet, or ended already: no thread waits on it


def reason(error: OSError | ValueError) -> str:
    """Why a socket failed, in words without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    return getattr(error, "strerror", None) or type(error).__name__


def _parse_head(data: bytes) -> tuple[Head, bool]:
    status_line, *lines = data.split(b"\r\n")
    match = _STATUS.match(status_line)
    if match is None:
        raise ProtocolError(f"the first line is {show(status_line[:60].decode('latin-1'), 60)}")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.match(line)
        if field is None or any(bad in line for bad in (b"\r", b"\n", b"\0")):
            raise ProtocolError(f"header line {show(line[:60].decode('latin-1'), 60)}")
        name, value = field[1].decode().lower(), field[2].decode("latin-1")
        if name == "content-length" and fields.get(name, value) != value:
            raise ProtocolError("two different Content-Lengths")
        fields[name] = value if name not in fields or name == "content-length" else f"{fields[name]}, {value}"
    tokens = {token.strip() for token in fields.get("connection", "").lower().split(",")}
    keep = "close" not in tokens and (match[1] == b"1" or "keep-alive" in tokens)
    return Head(int(match[2]), fields), keep
