"""The lanes: threads that read pieces of the download that is due, over connections that all of them share.

Who is due, and who has to give a lane back, is decided by `core.shares`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.addresses import slow_ones
from agent.core.shares import Claim, Hold, Shares
from agent.transfer.addresses import Addresses
from agent.transfer.download import MOVED_BYTES, Download
from agent.transfer.failures import Failure, FailureKind, bug
from agent.transfer.hosts import Host, Hosts
from agent.transfer.piece import Piece, RequestShape
from agent.transfer.reader import Lane, Reader

LEAVING_MAX = 64  # threads beyond the limit whose pieces were taken back, and that sit in a look-up of a name


@dataclass(eq=False, slots=True)
class _Work:
    """A piece in the hands of a lane. `counted` of its bytes are in the host's books."""

    lane: Lane
    host: Host
    hold: Hold
    counted: int = 0

    def count(self, piece: Piece) -> None:
        self.host.received += piece.received - self.counted
        self.counted = piece.received


class Lanes:
    """Threads, `total` at work at once at most and `per_host` of them for one host and port, and who gets the next."""

    def __init__(
        self,
        reader: Reader,
        total: int,
        per_host: int,
        addresses: Addresses,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._addresses = addresses
        self._clock = clock
        self._ready = threading.Condition()
        self._hosts = Hosts(min(total, per_host))
        self._shares = Shares(total)
        self._claims: dict[Download, Claim] = {}
        self._offered: dict[Claim, tuple[Download, Host]] = {}
        self._lanes: list[Lane] = []
        self._threads: list[threading.Thread] = []
        self._busy: dict[Piece, _Work] = {}
        self._leaving: set[Piece] = set()  # taken back, and their lanes have not left yet: they count no more
        self._idle = 0
        self._closed = False

    @property
    def at_work(self) -> int:
        """How many lanes have a piece."""
        return self._shares.lanes

    def limit(self, total: int, per_host: int) -> None:
        """There may be so many at once. Those that are too many end with the piece that they have."""
        with self._ready:
            self._shares.most = total
            self._hosts.limit(min(total, per_host))

    def offer(self, download: Download) -> None:
        """The download has, or may have, pieces to take. Its first lane may be taken back from another at once."""
        with self._ready:
            if self._closed or download.closed or download.location is None:
                return
            claim = self._claim(download)
            self._shares.offer(claim, self._clock())
            if not claim.lanes and not self._shares.has_room(claim):
                self._take_back(1)
            self._call_one()

    def stop(self, download: Download) -> None:
        """Take every piece of the download from its lane, at once; nothing more of them counts."""
        with self._ready:
            if (claim := self._claims.pop(download, None)) is not None:
                self._shares.withdraw(claim)
                del self._offered[claim]
            working = [(piece, work.lane) for piece, work in self._busy.items() if piece.download is download]
            for piece in [*(piece for piece, _ in working), *self._leaving]:
                piece.void |= piece.download is download
        for piece, lane in working:
            piece.stopped = True
            lane.abort(piece)

    def throttled_by(self, group: str) -> str | None:
        """The host that holds back what the group downloads, if one does."""
        with self._ready:
            hosts = (host for claim, (_, host) in self._offered.items() if claim.group == group)
            return next((host.name for host in hosts if host.throttle.holds_back), None)

    def tick(self, crowded: bool = False, cap: int = 0) -> None:
        """To be called several times a second: adapt the numbers of lanes, level the shares, replace slow lanes.

        `crowded`: the lanes wait for the processors, not for the network (`rate.Processors`). `cap`: of the rate, bytes
        per second, 0 for none.
        """
        now = self._clock()
        with self._ready:
            for piece, work in self._busy.items():
                work.count(piece)
            for host in self._hosts.tick(now, crowded, cap):
                self._leave_addresses(host, {piece.address for piece in self._at(host)})
            self._leave_slow_addresses(now)
            self._trim()
            for download in {piece.download for piece in self._busy if piece.shape is RequestShape.RANGE}:
                if not download.closed:  # what was not worth a split may be by now
                    self._shares.offer(self._claim(download), now)
            self._take_back(self._shares.lanes)
            self._call_one()
            self._ready.notify_all()
            working = {piece: work.lane for piece, work in self._busy.items()}
        for download in {piece.download for piece in working}:
            for piece in download.slow_pieces(now):
                if lane := working.get(piece):
                    lane.abort(piece)

    def close(self, seconds: float) -> None:
        """Stop all lanes and wait for their threads, `seconds` at most (one may sit in a look-up of a name)."""
        with self._ready:
            self._closed = True
            working = {piece: work.lane for piece, work in self._busy.items()}
            self._ready.notify_all()
        for piece, lane in working.items():
            lane.abort(piece)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    # -- with the lock held -------------------------------------------------------------------------------------

    def _claim(self, download: Download) -> Claim:
        """The download's claim, a new one where it is offered at another host than before."""
        host = self._hosts.get(download.host)
        old = self._claims.get(download)
        if old is not None and old.host is host.share and old.small == download.is_small:
            return old
        if old is not None:
            self._shares.withdraw(old)
            del self._offered[old]
        request = download.request
        claim = Claim(request.group or request.part_path, request.priority, host.share, download.is_small)
        self._claims[download], self._offered[claim] = claim, (download, host)
        return claim

    def _take_back(self, most: int) -> None:
        """Level the shares, by `most` lanes at most."""
        now = self._clock()
        while most > 0 and (found := self._shares.take_back(now)) is not None:
            claim, hold = found
            if len(self._leaving) >= LEAVING_MAX:
                return
            if not self._offered[claim][0].has_work:
                self._shares.withdraw(claim)
                continue
            self._recall(next(piece for piece, work in self._busy.items() if work.hold is hold))
            most -= 1
            self._call_one()

    def _recall(self, piece: Piece) -> None:
        """Take the piece from its lane; what came of it counts, and the lane no more."""
        work = self._busy[piece]
        self._let_go(piece, work)
        self._leaving.add(piece)
        work.lane.abort(piece)

    def _trim(self) -> None:
        """Take back what is above a limit that a host has now."""
        for host in {work.host for work in self._busy.values()}:
            while (hold := self._shares.surplus_at(host.share)) is not None:
                self._recall(next(piece for piece, work in self._busy.items() if work.hold is hold))

    def _at(self, host: Host) -> list[Piece]:
        """The pieces that come from the host and may be taken back."""
        return [p for p, work in self._busy.items() if work.host is host and p.shape is RequestShape.RANGE]

    def _leave_addresses(self, host: Host, addresses: set[str]) -> None:
        """Leave addresses of a host alone for a while, where it has others, and go on at those."""
        if not self._addresses.leave(host.name, addresses):
            return
        for piece in self._at(host):
            if piece.address in addresses:
                self._recall(piece)

    def _leave_slow_addresses(self, now: float) -> None:
        for host in {work.host for work in self._busy.values()}:
            speeds = self._addresses.speeds(host.name)  # of connections that have ended, by address
            live: dict[str, list[float]] = {}
            for piece in self._at(host):
                if piece.address and (speed := piece.look(now)) is not None:
                    live.setdefault(piece.address, []).append(speed)
            speeds |= live
            if slow := slow_ones(speeds):
                self._leave_addresses(host, slow)

    def _let_go(self, piece: Piece, work: _Work) -> None:
        """The piece counts no more."""
        work.count(piece)
        del self._busy[piece]
        now = self._clock()
        if piece.received >= MOVED_BYTES and piece.shape is RequestShape.RANGE and piece.address:
            rate = piece.received / max(now - work.hold.since, 1e-3)
            self._addresses.measured(work.host.name, piece.address, rate)
        self._shares.end(work.hold, now)

    def _call_one(self) -> None:
        """Wake a lane where something may be there to take, or make one. Each that finds work calls the next."""
        if self._closed or self._shares.next(self._clock()) is None:
            return
        if self._idle:
            self._ready.notify()
        elif len(self._lanes) == len(self._busy) + len(self._leaving):
            self._start()

    def _start(self) -> None:
        lane = Lane()
        self._lanes.append(lane)
        thread = threading.Thread(target=self._serve, args=(lane,), name=f"lane-{len(self._lanes)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _pick(self) -> tuple[Piece, Claim] | None:
        """A piece of the download that is due."""
        now = self._clock()
        while (claim := self._shares.next(now)) is not None:
            piece = self._offered[claim][0].take(claim.host.target)
            if piece is not None:
                return piece, claim
            self._shares.withdraw(claim)
        return None

    # -- in the threads -----------------------------------------------------------------------------------------

    def _serve(self, lane: Lane) -> None:
        while (piece := self._next(lane)) is not None:
            failure: Failure | None
            try:
                failure = self._reader.read_piece(lane, piece)
            except Exception as error:  # noqa: BLE001  a lane must outlive a bug; the fetch reports it
                failure = Failure(FailureKind.FATAL, bug(piece.download.request.label, error))
            with self._ready:
                if (work := self._busy.get(piece)) is not None:
                    self._let_go(piece, work)
                self._leaving.discard(piece)
            lane.hand(None)
            piece.download.settle(piece, failure)
            if piece.download.small is None:
                self.offer(piece.download)

    def _next(self, lane: Lane) -> Piece | None:
        """Wait for a piece. None when the lanes are closed."""
        with self._ready:
            while not self._closed:
                found = self._pick()
                if found is not None:
                    piece, claim = found
                    bound, host = piece.shape is not RequestShape.RANGE, self._offered[claim][1]
                    hold = self._shares.begin(claim, self._clock(), bound=bound)
                    if bound:  # that is all there is of it
                        self._shares.withdraw(claim)
                    self._busy[piece] = _Work(lane, host, hold)
                    lane.hand(piece)
                    self._call_one()
                    return piece
                self._idle += 1
                self._ready.wait()
                self._idle -= 1
            return None
