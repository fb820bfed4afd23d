"""The lanes: threads that read pieces of the download that is due, over connections that all of them share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from agent.core.retry import AGE_S
from agent.transfer.download import Download, Piece, RequestShape
from agent.transfer.failures import Failure, FailureKind, bug
from agent.transfer.rate import Tuner
from agent.transfer.reader import Lane, Reader
from agent.transfer.small import LANE_SHARE

PRIORITIES = 10


class Lanes:
    """Up to `limit` threads and who gets the next free one: lowest priority number first, the waiting ones age.

    Downloads of one priority take turns, piece by piece.
    """

    def __init__(self, reader: Reader, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.tuner = Tuner(limit)
        self._reader = reader
        self._clock = clock
        self._ready = threading.Condition()
        self._queues: list[deque[Download]] = [deque() for _ in range(PRIORITIES)]
        self._queued: set[Download] = set()
        self._served = [0.0] * PRIORITIES
        self._lanes: list[Lane] = []
        self._threads: list[threading.Thread] = []
        self._busy: dict[Piece, Lane] = {}
        self._idle = 0
        self._closed = False

    def offer(self, download: Download) -> None:
        """The download has, or may have, pieces to take."""
        with self._ready:
            if download in self._queued or self._closed:
                return
            priority = min(max(download.request.priority, 0), PRIORITIES - 1)
            if not self._queues[priority]:
                self._served[priority] = self._clock()
            self._queues[priority].append(download)
            self._queued.add(download)
            self._call_one()

    def stop(self, download: Download) -> None:
        """Take every piece of the download from its lane, at once."""
        with self._ready:
            if download in self._queued:
                self._queues[min(max(download.request.priority, 0), PRIORITIES - 1)].remove(download)
                self._queued.discard(download)
            working = [(piece, lane) for piece, lane in self._busy.items() if piece.download is download]
        for piece, lane in working:
            piece.stopped = True
            lane.abort(piece)

    def tick(self, crowded: bool = False) -> None:
        """To be called several times a second: adapt the number of lanes, replace slow ones, wake idle ones.

        `crowded`: the lanes wait for the processors, not for the network (`rate.Processors`).
        """
        now = self._clock()
        with self._ready:
            received = sum(lane.received for lane in self._lanes)
            working = dict(self._busy)
            self.tuner.update(now, received, not self._has_place(), crowded)
            if self._has_place():
                self._call_one()
                self._ready.notify_all()
        for download in {piece.download for piece in working}:
            for piece in download.slow_pieces(now):
                if lane := working.get(piece):
                    lane.abort(piece)

    def close(self, seconds: float) -> None:
        """Stop all lanes and wait for their threads, `seconds` at most (one may sit in a look-up of a name)."""
        with self._ready:
            self._closed = True
            working = dict(self._busy)
            self._ready.notify_all()
        for piece, lane in working.items():
            lane.abort(piece)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _call_one(self) -> None:
        """Wake a lane where something may be there to take, or make one. Each that finds work calls the next."""
        if not self._queued:
            return
        if self._idle:
            self._ready.notify()
        elif len(self._lanes) == len(self._busy) and self._has_place() and not self._closed:
            self._start()

    def _has_place(self) -> bool:
        """Whether one more lane may go to work."""
        small = sum(piece.shape is RequestShape.SMALL for piece in self._busy)
        connections = len(self._busy) - small * (1 - LANE_SHARE)
        return connections < self.tuner.target and len(self._busy) < self.tuner.limit

    def _start(self) -> None:
        lane = Lane()
        self._lanes.append(lane)
        thread = threading.Thread(target=self._serve, args=(lane,), name=f"lane-{len(self._lanes)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, lane: Lane) -> None:
        while (piece := self._next(lane)) is not None:
            began = self._clock()
            failure: Failure | None
            try:
                failure = self._reader.read_piece(lane, piece)
            except Exception as error:  # noqa: BLE001  a lane must outlive a bug; the fetch reports it
                failure = Failure(FailureKind.FATAL, bug(piece.download.request.label, error))
            if piece.received and piece.shape is not RequestShape.SMALL:
                lane.rate = piece.received / max(self._clock() - began, 1e-3)
            with self._ready:
                self._busy.pop(piece, None)
            lane.hand(None)
            piece.download.settle(piece, failure)
            if piece.download.small is None:
                self.offer(piece.download)

    def _next(self, lane: Lane) -> Piece | None:
        """Wait for a piece. None when the lanes are closed."""
        with self._ready:
            while not self._closed:
                if self._has_place():
                    piece = self._pick(lane) or self._half()
                    if piece is not None:
                        self._busy[piece] = lane
                        lane.hand(piece)
                        self._call_one()
                        return piece
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
            return None

    def _pick(self, lane: Lane) -> Piece | None:
        now = self._clock()
        while self._queued:
            due = [p for p in range(PRIORITIES) if self._queues[p]]
            priority = min(due, key=lambda p: (p - (now - self._served[p]) / AGE_S, p))
            download = self._queues[priority].popleft()
            piece = download.take(self.tuner.target, lane.rate)
            if piece is None or piece.shape is RequestShape.SMALL:  # which is all there is of it
                self._queued.discard(download)
            else:
                self._queues[priority].append(download)
            if piece is not None:
                self._served[priority] = now
                return piece
        return None

    def _half(self) -> Piece | None:
        """Nothing is left to take: half of the longest piece that is on its way."""
        ranges = (piece for piece in self._busy if piece.shape is RequestShape.RANGE)
        longest = max(ranges, key=lambda piece: piece.last - piece.index, default=None)
        return longest.download.split(longest) if longest is not None else None
