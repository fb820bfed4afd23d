"""One piece over one connection: ask, check that the answer is what was asked for, and write it down.

**Why threads and blocking sockets, and not aiohttp**, the project's HTTP library: a read of aiohttp costs the event
loop a wake-up, a parse and a copy, all under the GIL and on the loop's one core, where the coroutines of all other jobs
wait. In threads receiving, decrypting, summing and writing let go of the GIL, and one turn of the interpreter moves
256 KiB. `python -m bench.readers` shows both side by side; for 2 GiB over two connections on two cores, which nginx
shares: http 3.3 and 3.7 s with aiohttp, 1.9 s in threads; https 3.4 and 5.3 s with aiohttp, 3.2 and 3.8 s in threads.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from agent import __version__
from agent.core.names import show
from agent.core.ranges import SPAN_FIRST
from agent.core.remote import Fetched, Location
from agent.errors import Code, WantdError
from agent.net.budget import HostBudgets
from agent.net.redirect import host_key
from agent.transfer.answers import (
    Changed,
    check_etag,
    limited,
    refusal,
    refuse_page,
    size_error,
    stalled,
    unreachable,
    want_200,
    want_206,
)
from agent.transfer.dial import Dialer, authority_of
from agent.transfer.download import Download
from agent.transfer.partial import write_small
from agent.transfer.pieces import Failure, Kind, Piece, Shape
from agent.transfer.rate import Bucket
from agent.transfer.verify import Digest, crc32, mismatch
from agent.transfer.wire import Broken, Connection, Head, Refused, Stalled, cut

CHUNK = 256 * 1024  # bytes; stays in the core's L2 cache between receive, checksum and write
PATIENCE_S = 2.0  # seconds a lane itself waits for a host's budget; longer waits give the lane back
UNKNOWN_MAX = 128 * 1024**3  # bytes of a file whose size no listing told; the largest single model file has 50 GB

_EXPIRED = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 410})
_KEPT = "%/:=&?~#+!$,;'@()*[]"  # what may stand in a request target as it is: a signature covers the exact text


class Stopped(Exception):
    """The piece was taken from the lane: cancelled, too slow, or of no use any more."""


class _Relocate(Exception):
    pass


class _OtherShape(Exception):
    pass


class _Wait(Exception):
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Lane:
    """What one thread works with. `piece` and `sock` are guarded by `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.piece: Piece | None = None
        self.sock: socket.socket | None = None
        self.stop = threading.Event()
        self.buffer = memoryview(bytearray(CHUNK))
        self.rate: float | None = None  # bytes per second of the last piece
        self.received = 0
        self.credit = 0  # bytes that the cap has granted and that were not read yet

    def watch(self, sock: socket.socket) -> None:
        """The socket to cut when the piece is stopped. Raises `Stopped` when it is already."""
        with self.lock:
            self.sock = sock
            if self.stop.is_set():
                raise Stopped

    def pause(self, seconds: float) -> None:
        """Sleep. Raises `Stopped` when the piece is stopped meanwhile."""
        if self.stop.wait(seconds):
            raise Stopped

    def hand(self, piece: Piece | None) -> None:
        """Give the lane a piece, or take it away when the lane is through with it."""
        with self.lock:
            self.piece, self.sock = piece, None
            self.stop.clear()
            if piece is not None and piece.stopped:
                self.stop.set()

    def abort(self, piece: Piece) -> None:
        """Stop the piece, if it is the one in work; from any thread."""
        with self.lock:
            if self.piece is piece:
                piece.stopped = True
                self.stop.set()
                if self.sock is not None:
                    cut(self.sock)


class Reader:
    """Brings pieces. One for all lanes; holds nothing that belongs to one of them."""

    def __init__(self, dialer: Dialer, budgets: HostBudgets, bucket: Bucket, stall_s: float) -> None:
        self.stall_s = stall_s
        self._dialer = dialer
        self._budgets = budgets
        self._bucket = bucket

    def bring(self, lane: Lane, piece: Piece) -> Failure | None:
        """Bring the piece. Returns why it did not come, None when it did or was stopped."""
        location = piece.location
        try:
            if piece.shape is Shape.RANGE:
                self._range(lane, piece)
            elif piece.shape is Shape.STREAM:
                self._stream(lane, piece)
            else:
                self._small(lane, piece)
        except (Stopped, _OtherShape):
            return None
        except _Wait as wait:
            return Failure(Kind.RATE, limited(location, wait.seconds), wait.seconds)
        except Changed:
            return Failure(Kind.CHANGED, refusal(piece, "sends another version of the file than before"))
        except _Relocate as error:
            return Failure(Kind.RELOCATE, unreachable(piece, str(error)))
        except Refused as error:
            return Failure(Kind.RELOCATE, refusal(piece, f"cannot be used: {error}"))
        except Stalled as error:
            return Failure(Kind.PASSING, stalled(piece, str(error), self.stall_s))
        except Broken as error:
            return Failure(Kind.PASSING, unreachable(piece, str(error)))
        except WantdError as error:
            disk = error.code in (Code.DISK_FULL, Code.STORE_UNWRITABLE)
            return Failure(Kind.FATAL if disk else Kind.RELOCATE, error)
        return None

    # -- the three shapes ---------------------------------------------------------------------------------------

    def _range(self, lane: Lane, piece: Piece) -> None:
        download = piece.download
        assert download.grid is not None  # noqa: S101  ranges are asked of grids only
        start, end = piece.pos, download.grid.end(piece.last - 1)
        connection, head = self._ask(lane, piece, {"Range": f"bytes={start}-{end - 1}"})
        with _Closing(lane, connection, self._dialer, piece.location):
            if head.status == 200:
                refuse_page(piece, head)
                with download.lock:
                    download.single = True
                raise _OtherShape
            want_206(piece, head, start, end)
            check_etag(piece, head)
            while piece.index < piece.last:
                self._granule(lane, piece, connection)
            if piece.pos == end:
                connection.finish()

    def _stream(self, lane: Lane, piece: Piece) -> None:
        download = piece.download
        connection, head = self._ask(lane, piece, {})
        with _Closing(lane, connection, self._dialer, piece.location):
            want_200(head)
            refuse_page(piece, head)
            check_etag(piece, head)
            if download.grid is None and head.length is not None:
                self._learn(download, head.length)
                if head.length > SPAN_FIRST and "bytes" in head.get("accept-ranges").lower():
                    raise _OtherShape  # this request has told the size; now many lanes can help
                with download.lock:
                    assert download.grid is not None  # noqa: S101  learned
                    piece.index, piece.last = download.grid.take_all() or (0, download.grid.count)
            if download.grid is None:
                self._endless(lane, piece, connection)
                return
            if head.length not in (None, download.size):
                raise size_error(piece, head.length, download.size)
            while piece.index < piece.last:
                self._granule(lane, piece, connection)
            if connection.finish():
                raise Refused(f"it has more than the expected {download.size} bytes")

    def _small(self, lane: Lane, piece: Piece) -> None:
        download, size = piece.download, piece.download.size or 0
        data = memoryview(bytearray(size))
        if size:
            connection, head = self._ask(lane, piece, {})
            with _Closing(lane, connection, self._dialer, piece.location):
                want_200(head)
                refuse_page(piece, head)
                if head.length not in (None, size):
                    raise Refused(f"it has {head.length} bytes, expected {size}")
                while piece.pos < size:
                    self._read(lane, piece, connection, data[piece.pos :])
                if connection.finish():
                    raise Refused(f"it has more than the expected {size} bytes")
        digest = Digest(size, download.request.git_sha1 is not None)
        digest.update(data)
        wrong = mismatch(download.request, digest)
        if wrong is None:
            write_small(download.request.part_path, data)
        verified = bool(download.request.sha256 or download.request.git_sha1)
        download.complete((Fetched(size, digest.sha256, verified, piece.location.source), wrong))

    def _endless(self, lane: Lane, piece: Piece, connection: Connection) -> None:
        """A body that announced no length: to its end, within reason. What it was is known only then."""
        download = piece.download
        assert download.partial is not None  # noqa: S101  opened before streams are asked for
        download.partial.discard()
        download.stream_bytes = 0
        most = min(UNKNOWN_MAX, download.partial.free_bytes())
        while n := self._read(lane, piece, connection, lane.buffer, ending=True):
            if piece.pos > most:
                raise Refused(f"it announced no length and does not end after {most} bytes")
            download.partial.write(lane.buffer[:n], piece.pos - n)
            download.stream_bytes = piece.pos
        download.begin(download.partial.adopt(piece.pos))

    # -- their steps --------------------------------------------------------------------------------------------

    def _granule(self, lane: Lane, piece: Piece, connection: Connection) -> None:
        """Read one granule to its end. One that is there already is read and dropped."""
        download = piece.download
        assert download.grid is not None and download.partial is not None  # noqa: S101  granules come from grids
        index, end = piece.index, download.grid.end(piece.index)
        skip = download.grid.is_there(index)
        while piece.pos < end:
            view = lane.buffer[: min(CHUNK, end - piece.pos)]
            n = self._read(lane, piece, connection, view)
            part = view[:n]
            if not skip:
                piece.crc = crc32(part, piece.crc)
                download.partial.write(part, piece.pos - n)
        if not skip:
            download.done(piece, index)
        piece.index, piece.crc = index + 1, 0

    def _read(self, lane: Lane, piece: Piece, connection: Connection, view: memoryview, *, ending: bool = False) -> int:
        """Receive into the view, no faster than the cap allows. 0 only when the body may be `ending` here."""
        if lane.stop.is_set():
            raise Stopped
        if self._bucket.rate or lane.credit:
            while lane.credit <= 0:
                lane.credit, wait = self._bucket.grant()
                if not lane.credit:
                    break
                lane.pause(wait)
            view = view[: lane.credit] if lane.credit else view
        n = connection.read_into(view)
        if n == 0 and not ending:
            raise Broken("the body ended early")
        lane.credit = max(lane.credit - n, 0)
        lane.received += n
        piece.received += n
        piece.pos += n
        return n

    def _ask(self, lane: Lane, piece: Piece, extra: Mapping[str, str]) -> tuple[Connection, Head]:
        """Send the request and read the head; statuses that carry no bytes become exceptions."""
        location = piece.location
        url, key = location.url, host_key(location.url)
        parts = urlsplit(url)
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_KEPT)
        headers = {"User-Agent": f"wantd/{__version__}", **location.headers, **extra}
        while (wait := self._budgets.delay(key)) > 0:
            if wait > PATIENCE_S:
                raise _Wait(wait)
            lane.pause(wait)
        fresh = False
        while True:
            connection = self._dialer.connection(location.source, url, self.stall_s, lane.watch, fresh=fresh)
            try:
                head = connection.ask("GET", target, authority_of(url), headers)
                break
            except Broken:
                _drop(lane, connection)
                if not connection.used:
                    raise
                fresh = True  # the server had given up this kept connection: no fault of anybody
            except BaseException:
                _drop(lane, connection)
                raise
        self._budgets.observe(key, head.status, head.fields)
        try:
            self._want_body(head, key)
        except BaseException:
            _drop(lane, connection)
            raise
        return connection, head

    def _want_body(self, head: Head, key: str) -> None:
        status = head.status
        if status in (429, 503) and (wait := self._budgets.delay(key)) > 0:
            raise _Wait(wait)
        if status in _EXPIRED:
            raise _Relocate(f"it answered {status} to a request for bytes")
        if status == 408 or status == 429 or status >= 500:
            raise Broken(f"it answered {status}")
        if status not in (200, 206):
            raise Refused(f"it answered {status} to a request for bytes")
        if head.get("content-encoding").lower() not in ("", "identity"):
            raise Refused(f"it is compressed ({show(head.get('content-encoding'), 40)}), which nobody asked for")
        if head.get("content-type").lower().startswith("multipart/"):
            raise Refused("it came in several parts, one range was asked for")

    def _learn(self, download: Download, size: int) -> None:
        """The size is known now: lay out the granules, unless the file is small."""
        assert download.partial is not None  # noqa: S101  opened before streams are asked for
        if size > UNKNOWN_MAX:
            raise Refused(f"it announces {size} bytes, more than any file of a model has")
        etag = download.location.etag if download.location else None
        known = download.request.sha256 or download.request.git_sha1
        download.begin(download.partial.resume(size, etag, download.stream_bytes if known else 0))


class _Closing:
    """Keeps the connection for the next request when its answer was read to the end, else closes it."""

    def __init__(self, lane: Lane, connection: Connection, dialer: Dialer, location: Location) -> None:
        self._lane, self._connection, self._dialer, self._location = lane, connection, dialer, location

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        if kind is None and self._connection.reusable and not self._lane.stop.is_set():
            with self._lane.lock:
                self._lane.sock = None
            self._dialer.keep(self._location.source, self._location.url, self._connection)
        else:
            _drop(self._lane, self._connection)


def _drop(lane: Lane, connection: Connection) -> None:
    with lane.lock:  # nobody may cut a number that the system has given to another socket
        lane.sock = None
        connection.close()
