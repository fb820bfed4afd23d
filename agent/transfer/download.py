"""One file on its way: what the lanes have read of it, and what went wrong.

Lanes (threads) take pieces from it and report back; the coroutine that runs the fetch sleeps until `wake` is called,
which happens when the file is complete, hashed, or there is a failure to decide about.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from agent.core.access import PlainHttp
from agent.core.ranges import Grid, span_bytes
from agent.core.remote import FetchRequest, Location
from agent.core.retry import CROWDED_S, REPLACE_MAX_S, SLOW_AFTER_S, SPLIT_AFTER_S
from agent.errors import WantdError
from agent.net.redirect import host_key
from agent.transfer.failures import Failure, FailureKind
from agent.transfer.following import Following
from agent.transfer.journal import Identity
from agent.transfer.partial import Partial
from agent.transfer.piece import Piece, RequestShape
from agent.transfer.small import Outcome, is_small
from agent.transfer.verify import READ_BYTES, Digest, checksum

MOVED_BYTES = 64 * 1024  # a connection that gave less before it failed has not moved anything
SLOW_SHARE = 0.2  # of the median of its peers: below, a lane is replaced


class Download:
    """The state of one fetch. Thread-safe. `wake` may be called from any thread."""

    def __init__(self, request: FetchRequest, wake: Callable[[], None], follow: Callable[[Download], None]) -> None:
        self.request = request
        self.wake = wake
        self.lock = threading.Lock()
        self.size = request.size
        self.location: Location | None = None
        self.host = ""  # of the location: `host:port`, or what the source calls the far end
        self.generation = 0
        self.single = False
        self.paused = True
        self.closed = False
        self.failure: Failure | None = None
        self.moved_at = 0.0
        self.written = 0  # bytes of granules since the fetch began
        self._received: Counter[str] = Counter()  # the same, and those of small files, by source
        self._dropped: Counter[str] = Counter()  # bytes that have to be fetched again, by reason
        self.etag: str | None = None  # of the responses from this location
        self.ignore_etag = False
        self.partial: Partial | None = None
        self.grid: Grid | None = None
        self.stream_bytes = 0  # of a body of unknown size, so far
        self.small: Outcome | None = None
        self.pieces: set[Piece] = set()
        self.speeds: deque[float] = deque(maxlen=32)
        self._ask_to_follow = follow
        self._following = Following(self.lock, wake, request.part_path, request.git_sha1 is not None)
        self._tails: dict[int, tuple[int, int]] = {}  # granule -> offset and checksum of what a failed piece left
        self._cap: tuple[int, float] | None = None
        self._replaced = float("-inf"), SLOW_AFTER_S  # when slow pieces were replaced, and for how long not again
        self._users = 0

    # -- what the fetch does ------------------------------------------------------------------------------------

    @property
    def is_small(self) -> bool:
        """Whether the file is fetched as a small one (transfer/small.py)."""
        return is_small(self.size) and self.partial is None

    def begin(self, identity: Identity) -> None:
        """The size is known and the partial open: lay out the granules, those of the journal as there."""
        assert self.partial is not None  # noqa: S101  opened before
        with self.lock:
            self.size = identity.size
            if self.grid is not None:
                self._dropped["damaged"] += self.grid.lost_bytes
            self.grid = Grid(identity.size, identity.granule)
            claimed = range(self.grid.count) if self.partial.whole_without_journal else sorted(self.partial.sums)
            for index in claimed:
                self.grid.mark(index)
            self._following.begin(self.grid, self.partial, self.partial.sums)
            self._tails.clear()
        self._follow_if_due()

    def go(self, location: Location) -> None:
        """Let lanes take pieces from this location."""
        with self.lock:
            if location is not self.location:
                self.generation += 1
                self.single = not location.ranges
                if self.request.has_hash or _same(self.location, location):
                    self.etag = None
            self.location, self.host = location, _host(location)
            self.failure = None
            self.paused = False

    def adopt(self, partial: Partial) -> None:
        """Own the open partial; it is closed at once where the fetch has ended meanwhile."""
        with self.lock:
            if not self.closed:
                self.partial = partial
                return
        partial.close()

    def forget(self) -> None:
        """What was taken for the file's size is wrong: nothing is known any more. No lane may be at work."""
        with self.lock:
            if self.grid is not None:
                self._dropped["damaged"] += self.grid.lost_bytes
                self._dropped["changed"] += self.grid.there_bytes
            self.size = self.grid = None
            self.etag = None
            self._following.forget()
            self._tails.clear()

    def lose(self, indexes: list[int]) -> None:
        """The granules are bad: fetch them again, hash from the beginning."""
        assert self.partial is not None and self.grid is not None  # noqa: S101  called on complete files
        self.partial.drop(indexes)
        with self.lock:
            for index in indexes:
                self.grid.lose(index)
            self._following.rewind()
        self._follow_if_due()

    def bad_granules(self) -> list[int]:
        """Granules whose bytes on disk are not those that were received. Reads the whole file: not on the loop."""
        assert self.partial is not None and self.grid is not None  # noqa: S101  called on complete files
        buffer = memoryview(bytearray(READ_BYTES))
        sums = dict(self.partial.sums)
        return [
            index
            for index, crc in sums.items()
            if not self.closed and checksum(self.partial.fd, *self._span(index), buffer) != crc
        ]

    def close(self) -> None:
        """Nothing more is wanted. The files are closed when the last lane has left."""
        with self.lock:
            self.closed = self.paused = self._following.closed = True
            self._users += 1
        self.leave()

    # -- what lanes do ------------------------------------------------------------------------------------------

    def enter(self) -> bool:
        """Hold the files open. False when they are not to be used any more."""
        with self.lock:
            self._users += not self.closed
            return not self.closed

    def leave(self) -> None:
        """Let go of the files."""
        with self.lock:
            self._users -= 1
            last = self.closed and self._users == 0
            partial = self.partial if last else None
        if partial is not None:
            partial.close()
        if last:
            self.wake()

    @property
    def left(self) -> bool:
        """Whether it is closed and no thread uses its files."""
        return self.closed and self._users == 0

    @property
    def has_work(self) -> bool:
        """Whether a lane would find a piece to take."""
        now = time.monotonic()
        with self.lock:
            if self.paused:
                return False
            if self.is_small or self.grid is None or self.single:
                return not self.pieces and self.small is None
            return self.grid.untaken_bytes > 0 and not self._is_capped(now)

    def take(self, lanes: int) -> Piece | None:
        """The next piece, where about so many lanes work on the file; None when there is none.

        Once every granule is in some hand, it is half of what the lane with most still has to do.
        """
        now = time.monotonic()
        with self.lock:
            if self.paused:
                return None
            shape, span = self._next_span(lanes, now)
            if span is None:
                return self._split(now) if shape is RequestShape.RANGE and not self._is_capped(now) else None
            piece = self._hand_out(shape, span, now)
            if self.grid is not None and shape is RequestShape.RANGE:
                piece.pos, piece.crc = self._tails.pop(piece.index, (self.grid.start(piece.index), 0))
            return piece

    def done(self, piece: Piece, index: int) -> None:
        """A granule was written."""
        assert self.partial is not None and self.grid is not None  # noqa: S101  pieces come from grids
        with self.lock:
            if self.closed or piece.void:
                return
            self.partial.claim(index, piece.crc)
            self.grid.mark(index)
            size = self.grid.end(index) - self.grid.start(index)
            self.written += size
            self._received[self.location.source if self.location else ""] += size
            self.moved_at = time.monotonic()
        self._follow_if_due()

    def settle(self, piece: Piece, failure: Failure | None) -> None:
        """The lane is through with the piece: all of it came, or `failure` says why not."""
        now = time.monotonic()
        with self.lock:
            self.pieces.discard(piece)
            if piece.shape is not RequestShape.SMALL and self.grid is not None:
                self._give_back(piece)
            moved = self.moved_at > piece.started  # of a stream only what was missing counts, or it restarts endlessly
            if piece.shape is RequestShape.RANGE and piece.received >= MOVED_BYTES:
                moved, self.moved_at = True, now
                self.speeds.append(piece.received / max(now - piece.started, 1e-3))
            if failure and not self.closed and not piece.stopped and self._matters(piece, failure, moved, now):
                if self.failure is None or failure.kind is FailureKind.FATAL:
                    self.failure = failure
                self.paused = True
            tell = self.paused or self.small is not None
        self.leave()
        if tell:
            self.wake()

    def complete(self, small: Outcome) -> None:
        """A small file came whole; the fetch learns of it when the lane settles the piece."""
        self.small = small
        self._received[small.fetched.source] += small.fetched.size
        self._dropped["damaged"] += small.fetched.size if small.wrong else 0
        self.moved_at = time.monotonic()

    def follow(self) -> None:
        """Hash what is there without a gap; runs in a thread, one at a time."""
        try:
            self._following.run()
        except WantdError as error:
            self.fail(Failure(FailureKind.FATAL, error))
        self.leave()

    def fail(self, failure: Failure) -> None:
        """Let the fetch decide about a failure that belongs to no piece."""
        with self.lock:
            self.failure, self.paused = failure, True
        self.wake()

    # -- what the clock does ------------------------------------------------------------------------------------

    @property
    def progress(self) -> tuple[int, bool]:
        """Bytes that are on disk, the begun granules with them, and whether nothing but verification is left."""
        with self.lock:
            if self.grid is None:
                return self.stream_bytes, False
            begun = [p.pos - self.grid.start(p.index) for p in self.pieces if p.index < p.last]
            begun += [pos - self.grid.start(index) for index, (pos, _) in self._tails.items()]
            done = min(self.grid.there_bytes + sum(max(n, 0) for n in begun), self.grid.size)
            return done, self.grid.complete

    def received(self) -> Counter[str]:
        """Bytes that came since the fetch began, by source."""
        with self.lock:
            return Counter(self._received)

    def dropped(self) -> Counter[str]:
        """Bytes that were there and had to be fetched again, by reason: `damaged`, `changed` (upstream)."""
        with self.lock:
            return self._dropped + Counter(damaged=self.grid.lost_bytes if self.grid else 0)

    @property
    def there(self) -> list[tuple[int, int]]:
        """The byte ranges, each as its first byte and the one behind its last, that the journal vouches for."""
        with self.lock:
            return self.grid.there() if self.grid else []

    @property
    def all_there(self) -> bool:
        """Whether nothing but verification is left."""
        with self.lock:
            return self.grid is not None and self.grid.complete

    @property
    def digest(self) -> Digest | None:
        """The hash of the complete file; None while it has not reached the end."""
        with self.lock:
            return self._following.digest if self._following.is_done else None

    def slow_pieces(self, now: float) -> list[Piece]:
        """Pieces far slower than their peers, or, when they are alone, than those before them were."""
        with self.lock:
            live = {piece: speed for piece in self.pieces if (speed := piece.look(now)) is not None}
            if self.single or self.paused:
                return []
            slow = []
            for piece, speed in live.items():
                peers = [other for p, other in live.items() if p is not piece]
                if len(peers) < 2:  # the end of the file: what is left may hang on this one
                    peers = list(self.speeds)
                if len(peers) >= 2 and speed < SLOW_SHARE * statistics.median(peers):
                    slow.append(piece)
            return slow if slow and self._may_replace(now) else []

    # -- below: with the lock held ------------------------------------------------------------------------------

    def _may_replace(self, now: float) -> bool:
        """Whether slow pieces may be replaced now: where the new ones were soon as slow, it has not helped."""
        at, pause = self._replaced
        if now < at + pause:
            return False
        again = now < at + 2 * pause
        self._replaced = now, min(2 * pause, REPLACE_MAX_S) if again else SLOW_AFTER_S
        return True

    def _hand_out(self, shape: RequestShape, span: tuple[int, int], now: float) -> Piece:
        assert self.location is not None  # noqa: S101  pieces are taken from located downloads only
        piece = Piece(self, self.location, shape, span, now)
        self.pieces.add(piece)
        self._users += 1
        return piece

    def _split(self, now: float) -> Piece | None:
        """Half of the rest of the longest piece; None where that is not worth a request."""
        ranges = [piece for piece in self.pieces if piece.shape is RequestShape.RANGE and not piece.stopped]
        longest = max(ranges, key=lambda piece: piece.last - piece.index, default=None)
        if longest is None or self.grid is None or (left := longest.last - longest.index) < 3:
            return None
        seconds = max(now - longest.started, 1e-3)
        if not longest.received or left * self.grid.granule * seconds / longest.received < SPLIT_AFTER_S:
            return None
        last, longest.last = longest.last, longest.last - left // 2
        piece = self._hand_out(RequestShape.RANGE, (longest.last, last), now)
        piece.pos = self.grid.start(piece.index)
        return piece

    def _next_span(self, lanes: int, now: float) -> tuple[RequestShape, tuple[int, int] | None]:
        if self.is_small or self.grid is None:
            shape = RequestShape.SMALL if self.is_small else RequestShape.STREAM
            return shape, None if self.pieces or self.small else (0, 0)
        if self.single:
            return RequestShape.STREAM, None if self.pieces else self.grid.take_all()
        if self._is_capped(now):
            return RequestShape.RANGE, None
        rate = self.speeds[-1] if self.speeds else None
        most = span_bytes(self.grid.untaken_bytes, lanes, rate)
        if self.location is not None and self.location.span_bytes:
            most = min(most, self.location.span_bytes)
        return RequestShape.RANGE, self.grid.take(most)

    def _is_capped(self, now: float) -> bool:
        return self._cap is not None and now < self._cap[1] and len(self.pieces) >= self._cap[0]

    def _give_back(self, piece: Piece) -> None:
        assert self.grid is not None  # noqa: S101  the caller looked
        if piece.shape is RequestShape.RANGE and piece.index < piece.last and piece.pos > self.grid.start(piece.index):
            self._tails[piece.index] = (piece.pos, piece.crc)
        self.grid.give_back(0 if piece.shape is RequestShape.STREAM else piece.index, piece.last)

    def _matters(self, piece: Piece, failure: Failure, moved: bool, now: float) -> bool:
        """Whether the fetch has to decide; if not, the granules that were given back are simply taken again."""
        if failure.kind is FailureKind.FATAL:
            return True
        if piece.generation != self.generation:
            return False
        if failure.kind is FailureKind.PASSING and moved and not self.single:
            return False
        if failure.kind is FailureKind.PASSING and any(other.received for other in self.pieces):
            self._cap = (len(self.pieces), now + CROWDED_S)  # the others move: this was one connection too many
            return False
        return True

    def _span(self, index: int) -> tuple[int, int]:
        assert self.grid is not None  # noqa: S101  called with a grid
        return self.grid.start(index), self.grid.end(index)

    # -- without the lock ---------------------------------------------------------------------------------------

    def _follow_if_due(self) -> None:
        with self.lock:
            if not self._following.start():
                return
            self._users += 1
        self._ask_to_follow(self)


def _host(location: Location) -> str:
    """What the lanes of a location are counted under."""
    access = location.access
    if isinstance(access, PlainHttp):
        with contextlib.suppress(WantdError):  # no URL at all: asking there fails with the reason
            return host_key(access.url)
    return access.host or location.source


def _same(old: Location | None, new: Location) -> bool:
    return old is None or (old.etag is not None and old.etag == new.etag)
