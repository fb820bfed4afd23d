"""One piece from one location: open it, check that the body is what was asked for, and write it down.

**Why threads and blocking sockets, and not aiohttp**, the project's HTTP library: a read of aiohttp costs the event
loop a wake-up, a parse and a copy, all under the GIL and on the loop's one core, where the coroutines of all other jobs
wait. In threads receiving, decrypting, summing and writing let go of the GIL, and one turn of the interpreter moves
256 KiB. `python -m bench.readers` shows both side by side; for 2 GiB over two connections on two cores, which nginx
shares: http 3.3 and 3.7 s with aiohttp, 1.9 s in threads; https 3.4 and 5.3 s with aiohttp, 3.2 and 3.8 s in threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from agent.core.access import Body, ConnectionLost, PlainHttp, ProtocolError, Stopped
from agent.core.ranges import SPAN_FIRST
from agent.transfer import small
from agent.transfer.checks import check_etag, is_whole, require_range, require_whole, size_error
from agent.transfer.download import Download
from agent.transfer.failures import EXPECTED, Failure, failure
from agent.transfer.http import HttpTransport
from agent.transfer.piece import Piece, RequestShape
from agent.transfer.rate import Bucket
from agent.transfer.verify import crc32

CHUNK = 256 * 1024  # bytes; stays in the core's L2 cache between receive, checksum and write
UNKNOWN_MAX = 128 * 1024**3  # bytes of a file whose size no listing gives; the largest single model file has 50 GB


class _OtherShape(Exception):
    """The piece has to be asked for in another way, which the download knows now."""


class Lane:
    """What one thread works with. `piece` and `cut` are guarded by `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.piece: Piece | None = None
        self.cut: Callable[[], None] | None = None
        self.stop = threading.Event()
        self.buffer = memoryview(bytearray(CHUNK))
        self.credit = 0  # bytes that the cap has granted and that were not read yet

    def watch(self, cut: Callable[[], None] | None) -> None:
        """What to call when the piece is stopped. Raises `Stopped` when it is already."""
        with self.lock:
            self.cut = cut
            if cut is not None and self.stop.is_set():
                raise Stopped

    def pause(self, seconds: float) -> None:
        """Sleep. Raises `Stopped` when the piece is stopped meanwhile."""
        if self.stop.wait(seconds):
            raise Stopped

    def hand(self, piece: Piece | None) -> None:
        """Give the lane a piece, or take it away when the lane is through with it."""
        with self.lock:
            self.piece, self.cut = piece, None
            self.stop.clear()
            if piece is not None and piece.stopped:
                self.stop.set()

    def abort(self, piece: Piece) -> None:
        """Stop the piece, if it is the one in work; from any thread."""
        with self.lock:
            if self.piece is piece:
                piece.stopped = True
                self.stop.set()
                if self.cut is not None:
                    self.cut()


class _Call:
    """One request of a lane, as a way of access sees it: `core.access.Caller`."""

    def __init__(self, lane: Lane, http: HttpTransport, piece: Piece, stall_s: float) -> None:
        self._lane, self._http, self._piece = lane, http, piece
        self.label, self.stall_s = piece.download.request.label, stall_s

    def watch(self, cut: Callable[[], None] | None) -> None:
        self._lane.watch(cut)

    def pause(self, seconds: float) -> None:
        self._lane.pause(seconds)

    def connected(self, address: str) -> None:
        self._piece.address = address

    def http(self, access: PlainHttp, span: tuple[int, int] | None) -> Body:
        return self._http.open(access, span, self)


class Reader:
    """Reads pieces. One for all lanes; holds nothing that belongs to one of them.

    `stall_s` gives `transfer.stall_timeout_s`; it is asked for at each request, from many threads.
    """

    def __init__(self, http: HttpTransport, bucket: Bucket, stall_s: Callable[[], float]) -> None:
        self._stall_s = stall_s
        self._http = http
        self._bucket = bucket

    def read_piece(self, lane: Lane, piece: Piece) -> Failure | None:
        """Read the piece and write it down. Returns why that failed, None when it did not or was stopped."""
        location = piece.location
        try:
            if piece.shape is RequestShape.RANGE:
                self._range(lane, piece)
            elif piece.shape is RequestShape.STREAM:
                self._stream(lane, piece)
            else:
                self._small(lane, piece)
        except (Stopped, _OtherShape):
            return None
        except EXPECTED as error:
            return failure(error, location, piece.download.request.label, self._stall_s())
        return None

    # -- the three shapes ---------------------------------------------------------------------------------------

    def _range(self, lane: Lane, piece: Piece) -> None:
        download = piece.download
        assert download.grid is not None  # noqa: S101  ranges are asked of grids only
        start, end = piece.pos, download.grid.end(piece.last - 1)
        with self._open(lane, piece, (start, end)) as body:
            if is_whole(body) and (body.start, body.end) != (start, end):
                with download.lock:
                    download.single = True
                raise _OtherShape
            require_range(piece, body, start, end)
            check_etag(piece, body)
            while piece.index < piece.last:
                self._granule(lane, piece, body)
            if piece.pos == end:
                body.finish()

    def _stream(self, lane: Lane, piece: Piece) -> None:
        download = piece.download
        with self._open(lane, piece, None) as body:
            require_whole(body)
            check_etag(piece, body)
            if download.grid is None and body.size is not None:
                self._learn(download, body.size)
                if body.size > SPAN_FIRST and body.ranges:
                    raise _OtherShape  # this request was for the size; now many lanes can help
                with download.lock:
                    assert download.grid is not None  # noqa: S101  learned
                    piece.index, piece.last = download.grid.take_all() or (0, download.grid.count)
            if download.grid is None:
                self._endless(lane, piece, body)
                return
            if body.size not in (None, download.size):
                raise size_error(piece, body.size)
            while piece.index < piece.last:
                self._granule(lane, piece, body)
            if body.finish():
                raise ProtocolError(f"the file has more than the expected {download.size} bytes")

    def _small(self, lane: Lane, piece: Piece) -> None:
        download, source = piece.download, piece.location.source
        data = memoryview(bytearray(download.size or 0))
        if data:
            with self._open(lane, piece, None) as body:
                require_whole(body)
                small.read_whole(body, data, lambda view: self._read(lane, piece, body, view))
        download.complete(small.keep(download.request, data, source))

    def _endless(self, lane: Lane, piece: Piece, body: Body) -> None:
        """A body that announced no length: to its end, within reason. What it was is known only then."""
        download = piece.download
        assert download.partial is not None  # noqa: S101  opened before streams are asked for
        download.partial.discard()
        download.stream_bytes = 0
        most = min(UNKNOWN_MAX, download.partial.free_bytes())
        while n := self._read(lane, piece, body, lane.buffer, ending=True):
            if piece.pos > most:
                raise ProtocolError(f"no length was announced and the file does not end after {most} bytes")
            download.partial.write(lane.buffer[:n], piece.pos - n)
            download.stream_bytes = piece.pos
        download.begin(download.partial.adopt(piece.pos))

    # -- their steps --------------------------------------------------------------------------------------------

    def _granule(self, lane: Lane, piece: Piece, body: Body) -> None:
        """Read one granule to its end. One that is there already is read and dropped."""
        download = piece.download
        assert download.grid is not None and download.partial is not None  # noqa: S101  granules come from grids
        index, end = piece.index, download.grid.end(piece.index)
        skip = download.grid.is_there(index)
        while piece.pos < end:
            view = lane.buffer[: min(CHUNK, end - piece.pos)]
            n = self._read(lane, piece, body, view)
            part = view[:n]
            if not skip:
                piece.crc = crc32(part, piece.crc)
                download.partial.write(part, piece.pos - n)
        if not skip:
            download.done(piece, index)
        piece.index, piece.crc = index + 1, 0

    def _read(self, lane: Lane, piece: Piece, body: Body, view: memoryview, *, ending: bool = False) -> int:
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
        n = body.read_into(view)
        if n == 0 and not ending:
            raise ConnectionLost("the body ended early")
        lane.credit = max(lane.credit - n, 0)
        piece.received += n
        piece.pos += n
        return n

    @contextlib.contextmanager
    def _open(self, lane: Lane, piece: Piece, span: tuple[int, int] | None) -> Iterator[Body]:
        """The body of a request for the span, or for the whole file; let go at the end."""
        access = piece.location.access
        call = _Call(lane, self._http, piece, self._stall_s())
        body = call.http(access, span) if isinstance(access, PlainHttp) else access.open(span, call)
        complete = False
        try:
            yield body
            complete = not lane.stop.is_set()
        finally:
            lane.watch(None)  # before it is closed: what was to be cut may be in other hands at once
            body.close(complete)

    def _learn(self, download: Download, size: int) -> None:
        """The size is known now: lay out the granules, unless the file is small."""
        assert download.partial is not None  # noqa: S101  opened before streams are asked for
        if size > UNKNOWN_MAX:
            raise ProtocolError(f"it announces {size} bytes, more than any file of a model has")
        etag = download.location.etag if download.location else None
        streamed = download.stream_bytes if download.request.has_hash else 0
        download.begin(download.partial.resume(size, etag, streamed))
