"""One file on its way: what the lanes bring, what went wrong, and the hash that follows behind.

Lanes (threads) take pieces from it and report back; the coroutine that runs the fetch sleeps until `wake` is called,
which happens when the file is complete, hashed, or somebody has to decide what to do about a failure.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

from agent.core.ranges import Grid, span_bytes
from agent.core.remote import SMALL_MAX, Fetched, FetchRequest, Location
from agent.disk import disk_errors
from agent.errors import WantdError
from agent.transfer.journal import Identity
from agent.transfer.partial import Partial
from agent.transfer.pieces import Failure, Kind, Piece, Shape
from agent.transfer.verify import READ_BYTES, Digest, checksum

MOVED_BYTES = 64 * 1024  # a connection that brought less before it failed has not moved anything
CAP_S = 15.0  # seconds for which a host that refused one more connection is not asked for one more
FOLLOW_BYTES = 4 * 1024 * 1024  # the hash is woken for this much; less would be a wake-up for each granule
SLOW_SHARE = 0.2  # of the median of its peers: below, a lane is replaced
SPLIT_S = 1.0  # seconds a lane must still be busy before an idle one takes half of its rest


class Download:
    """The state of one fetch. Thread-safe. `wake` may be called from any thread."""

    def __init__(self, request: FetchRequest, wake: Callable[[], None], follow: Callable[[Download], None]) -> None:
        self.request = request
        self.wake = wake
        self.lock = threading.Lock()
        self.size = request.size
        self.location: Location | None = None
        self.generation = 0
        self.single = False
        self.paused = True
        self.closed = False
        self.failure: Failure | None = None
        self.moved_at = 0.0
        self.written = 0  # bytes of granules since the fetch began
        self.etag: str | None = None  # of the answers from this location
        self.ignore_etag = False
        self.partial: Partial | None = None
        self.grid: Grid | None = None
        self.digest: Digest | None = None
        self.stream_bytes = 0  # of a body of unknown size, so far
        self.small: tuple[Fetched, WantdError | None] | None = None
        self.pieces: set[Piece] = set()
        self.speeds: deque[float] = deque(maxlen=32)
        self._ask_to_follow = follow
        self._following = False
        self._hashed = 0  # granules
        self._unverified: dict[int, int] = {}
        self._tails: dict[int, tuple[int, int]] = {}  # granule -> offset and checksum of what a failed piece left
        self._cap: tuple[int, float] | None = None
        self._users = 0

    # -- what the fetch does ------------------------------------------------------------------------------------

    @property
    def is_small(self) -> bool:
        """Whether the file is brought in one piece, with no journal."""
        return self.size is not None and self.size <= SMALL_MAX and self.partial is None

    def begin(self, identity: Identity) -> None:
        """The size is known and the partial open: lay out the granules, those of the journal as there."""
        assert self.partial is not None  # noqa: S101  opened before
        with self.lock:
            self.size = identity.size
            self.grid = Grid(identity.size, identity.granule)
            claimed = range(self.grid.count) if self.partial.whole_without_journal else sorted(self.partial.sums)
            for index in claimed:
                self.grid.mark(index)
            self._unverified = dict(self.partial.sums)
            self._tails.clear()
            self._rewind()
        self._follow_if_due()

    def go(self, location: Location) -> None:
        """Let lanes take pieces from this location."""
        with self.lock:
            if location is not self.location:
                self.generation += 1
                self.single = not location.ranges
                if self.request.sha256 or self.request.git_sha1 or _same(self.location, location):
                    self.etag = None
            self.location = location
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
            self.size = self.grid = self.digest = None
            self.etag = None
            self._unverified.clear()
            self._tails.clear()

    def lose(self, indexes: list[int]) -> None:
        """The granules are bad: fetch them again, hash from the beginning."""
        assert self.partial is not None and self.grid is not None  # noqa: S101  called on complete files
        self.partial.drop(indexes)
        with self.lock:
            for index in indexes:
                self.grid.lose(index)
            self._rewind()
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
            self.closed = self.paused = True
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
        """Whether it is closed and nobody uses its files."""
        return self.closed and self._users == 0

    def take(self, lanes: int, rate: float | None) -> Piece | None:
        """The next piece for one of `lanes` lanes, whose speed was `rate` bytes per second. None when there is none."""
        now = time.monotonic()
        with self.lock:
            if self.paused:
                return None
            shape, span = self._next_span(lanes, rate, now)
            if span is None:
                return None
            piece = Piece(self, shape, *span, now)
            if self.grid is not None and shape is Shape.RANGE:
                piece.pos, piece.crc = self._tails.pop(piece.index, (self.grid.start(piece.index), 0))
            self.pieces.add(piece)
            self._users += 1
            return piece

    def split(self, victim: Piece) -> Piece | None:
        """Half of what the piece has still to bring, for an idle lane; None where that is not worth a request."""
        now = time.monotonic()
        with self.lock:
            left = victim.last - victim.index
            if self.paused or self.grid is None or victim.shape is not Shape.RANGE or left < 3 or victim.stopped:
                return None
            seconds = max(now - victim.started, 1e-3)
            if not victim.received or left * self.grid.granule * seconds / victim.received < SPLIT_S:
                return None
            last, victim.last = victim.last, victim.last - left // 2
            piece = Piece(self, Shape.RANGE, victim.last, last, now)
            piece.pos = self.grid.start(piece.index)
            self.pieces.add(piece)
            self._users += 1
            return piece

    def done(self, piece: Piece, index: int) -> None:
        """A granule was written."""
        assert self.partial is not None and self.grid is not None  # noqa: S101  pieces come from grids
        with self.lock:
            if self.closed or piece.stopped:
                return
            self.partial.claim(index, piece.crc)
            self.grid.mark(index)
            self.written += self.grid.end(index) - self.grid.start(index)
            self.moved_at = time.monotonic()
        self._follow_if_due()

    def settle(self, piece: Piece, failure: Failure | None) -> None:
        """The lane is through with the piece: all of it came, or `failure` says why not."""
        now = time.monotonic()
        with self.lock:
            self.pieces.discard(piece)
            if piece.shape is not Shape.SMALL and self.grid is not None:
                self._give_back(piece)
            moved = self.moved_at > piece.started  # of a stream only what was missing counts, or it restarts for ever
            if piece.shape is Shape.RANGE and piece.received >= MOVED_BYTES:
                moved, self.moved_at = True, now
                self.speeds.append(piece.received / max(now - piece.started, 1e-3))
            if failure and not self.closed and not piece.stopped and self._matters(piece, failure, moved, now):
                if self.failure is None or failure.kind is Kind.FATAL:
                    self.failure = failure
                self.paused = True
            tell = self.paused or self.small is not None
        self.leave()
        if tell:
            self.wake()

    def complete(self, small: tuple[Fetched, WantdError | None]) -> None:
        """A small file came whole; the fetch is told when the lane settles the piece."""
        self.small = small
        self.moved_at = time.monotonic()

    def follow(self) -> None:
        """Hash what is there without a gap; runs in a thread, one at a time."""
        buffer = memoryview(bytearray(READ_BYTES))
        try:
            with disk_errors(self.request.part_path):
                while self._follow_granule(buffer):
                    pass
        except WantdError as error:
            self.fail(Failure(Kind.FATAL, error))
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

    @property
    def all_there(self) -> bool:
        """Whether nothing but verification is left."""
        with self.lock:
            return self.grid is not None and self.grid.complete

    @property
    def hashed(self) -> bool:
        """Whether the hash has reached the end of the file."""
        with self.lock:
            return self.grid is not None and self.grid.complete and self._hashed == self.grid.count

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
            return slow

    # -- below: with the lock held ------------------------------------------------------------------------------

    def _next_span(self, lanes: int, rate: float | None, now: float) -> tuple[Shape, tuple[int, int] | None]:
        if self.is_small or self.grid is None:
            shape = Shape.SMALL if self.is_small else Shape.STREAM
            return shape, None if self.pieces or self.small else (0, 0)
        if self.single:
            return Shape.STREAM, None if self.pieces else self.grid.take_all()
        if self._cap and now < self._cap[1] and len(self.pieces) >= self._cap[0]:
            return Shape.RANGE, None
        return Shape.RANGE, self.grid.take(span_bytes(self.grid.untaken_bytes, lanes, rate))

    def _give_back(self, piece: Piece) -> None:
        assert self.grid is not None  # noqa: S101  the caller looked
        if piece.shape is Shape.RANGE and piece.index < piece.last and piece.pos > self.grid.start(piece.index):
            self._tails[piece.index] = (piece.pos, piece.crc)
        self.grid.give_back(0 if piece.shape is Shape.STREAM else piece.index, piece.last)

    def _matters(self, piece: Piece, failure: Failure, moved: bool, now: float) -> bool:
        """Whether the fetch has to decide; if not, the granules that were given back are simply taken again."""
        if failure.kind is Kind.FATAL:
            return True
        if piece.generation != self.generation:
            return False
        if failure.kind is Kind.PASSING and moved and not self.single:
            return False
        if failure.kind is Kind.PASSING and any(other.received for other in self.pieces):
            self._cap = (len(self.pieces), now + CAP_S)  # the others move: this was one connection too many
            return False
        return True

    def _rewind(self) -> None:
        self.digest = Digest(self.size, self.request.git_sha1 is not None)
        self._hashed = 0

    def _span(self, index: int) -> tuple[int, int]:
        assert self.grid is not None  # noqa: S101  called with a grid
        return self.grid.start(index), self.grid.end(index)

    # -- the hash that follows ----------------------------------------------------------------------------------

    def _follow_if_due(self) -> None:
        with self.lock:
            if self.grid is None or self._following or self.closed:
                return
            behind = (self.grid.front - self._hashed) * self.grid.granule
            if behind < FOLLOW_BYTES and not self.grid.complete:
                return
            self._following = True
            self._users += 1
        self._ask_to_follow(self)

    def _follow_granule(self, buffer: memoryview) -> bool:
        """Hash the next granules: one that has to be proved, or several fresh ones. False when there are none now."""
        with self.lock:
            index, digest, grid, partial = self._hashed, self.digest, self.grid, self.partial
            if self.closed or digest is None or grid is None or partial is None or index >= grid.front:
                self._following = False
                if grid is not None and grid.complete:
                    self.wake()
                return False
            wanted = self._unverified.pop(index, None)
            behind = index + 1
            if wanted is None:
                most = min(grid.front, index + max(FOLLOW_BYTES // grid.granule, 1))
                behind = next((n for n in range(behind, most) if n in self._unverified), max(most, behind))
            start, end = grid.start(index), grid.end(behind - 1)
        before = digest.copy() if wanted is not None else None
        found = checksum(partial.fd, start, end, buffer, digest, summed=wanted is not None)
        with self.lock:
            if digest is not self.digest:
                return True  # it was rewound meanwhile
            if found is not None and (wanted is None or found == wanted):
                self._hashed = behind
                return True
            for lost in range(index, behind):
                grid.lose(lost)
            if before is not None:
                self.digest = before
            else:  # somebody has cut the file: what was hashed of these granules cannot be taken back
                self._rewind()
        partial.drop(range(index, behind))
        self.wake()
        return True


def _same(old: Location | None, new: Location) -> bool:
    return old is None or (old.etag is not None and old.etag == new.etag)
