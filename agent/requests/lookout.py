"""Where to look next: hints from the watcher, scans, and glances in between, as one fair queue of paths."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from agent.clock import Clock
from agent.config import Spool
from agent.core.retry import GLANCE_S, MISSED_S, SCAN_REST
from agent.spool.files import QUIET_S
from agent.spool.scan import Found, Known
from agent.spool.watcher import Bell
from agent.state.fair_queue import FairQueue
from agent.state.ticket import Ticket

GLANCE_MOST = 200  # wants of each directory
BATCH = 250  # wants looked at between two looks at the bell: 10 to 20 ms
PUT_AT_ONCE = 2000  # paths that join the queue in one turn of the loop: 5 ms
# A want that was rewritten in place, and whose event was lost, is found when its turn comes: each is looked at once in
# so many rescans, 5 minutes with one every 30 s. 100,000 wants are 10,000 lstat a rescan, 0.1 % of a core.
RESCANS_A_ROUND = 10
RESCAN_NAMES = 1000  # wants looked at in each rescan at least: 4 ms; up to so many wants, all of them
POLL_NAMES = 2000  # the same for each poll: 8 ms; 100,000 wants are gone through in 50 polls


@dataclass(slots=True)
class Look:
    """Paths to read, each with whether its writer was seen to close it; and wants whose progress file is missing."""

    paths: list[tuple[str, bool]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Due:
    """The scan that is due. `everything`: look at every known want; `crowded`: at those of these directories.

    `by_clock`: look at some wants in their turn.
    """

    everything: bool = False
    by_clock: bool = False
    crowded: set[str] = field(default_factory=set)


class Watch(Protocol):
    """The watch that rings the bell: a `Watcher`. `ensure`, `keep` and `missed` are called in a worker thread."""

    @property
    def polling(self) -> bool: ...

    @property
    def is_alive(self) -> bool: ...

    def ensure(self) -> None: ...

    def keep(self, folders: Collection[str]) -> None: ...

    def missed(self) -> None: ...


class Scans(Protocol):
    """What looks at the spool: a `Scanner`. `scan` and `glance` are called in a worker thread."""

    @property
    def folders(self) -> Collection[str]: ...

    def scan(self, known: Mapping[str, Known], *, everything: bool, crowded: Collection[str], names: int) -> Found: ...

    def glance(self, known: Mapping[str, Known], most: int) -> list[str]: ...


class Lookout:
    """Watches one spool. `known` are the tickets by path, which scans compare against."""

    def __init__(
        self,
        bell: Bell,
        watcher: Watch,
        scanner: Scans,
        known: Mapping[str, Ticket],
        clock: Clock,
        config: Callable[[], Spool],
    ) -> None:
        self._bell = bell
        self._watcher = watcher
        self._scanner = scanner
        self._known = known
        self._clock = clock
        self._config = config
        self._queue: FairQueue[str, bool] = FairQueue(lambda path: path, newest_too=True)
        self._later: dict[str, float] = {}  # wants with a writer, and the monotonic time to look again
        self._unanswered: list[str] = []
        self._scan_at: float | None = 0.0
        self._due = _Due(everything=True)
        self._scanning: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._glance_at = 0.0
        self._hinted = 0  # hints since the last glance
        self._heard_at = 0.0  # when there was a hint last
        self.scanned_at: datetime | None = None  # when the last scan ended

    async def next(self) -> Look:
        """What to look at now; empty where there was nothing after all."""
        hints = await self._bell.wait(self._pause())
        now = self._clock.monotonic()
        if hints.paths or hints.scan or hints.folders or hints.everything:
            self._heard_at = now
        if hints.scan or hints.folders or hints.everything:
            self._due.everything |= hints.everything
            self._due.crowded |= hints.folders
            self._scan_at = now
        await self._scan_if_due()
        for path, closed in hints.paths.items():
            self._put(path, closed)
        self._hinted += len(hints.paths)
        now = self._clock.monotonic()
        for path in [path for path, due in self._later.items() if due <= now]:
            del self._later[path]
            self._put(path, False)
        await self._glance_if_due()
        unanswered, self._unanswered = self._unanswered, []
        return Look(self._queue.take(BATCH), unanswered)

    @property
    def is_scanning(self) -> bool:
        """Whether a scan is on its way."""
        return self._scanning is not None and not self._scanning.done()

    def look_again(self, path: str) -> None:
        """The want is still being written: look at it once it has been unchanged for long enough."""
        self._later[path] = self._clock.monotonic() + QUIET_S

    def settled(self, path: str) -> None:
        """The want was read, or is gone."""
        self._later.pop(path, None)

    def put_back(self, paths: list[tuple[str, bool]]) -> None:
        """These were taken and not read: they wait for their turn again."""
        for path, closed in paths:
            self._put(path, closed)

    async def rescan(self) -> None:
        """By the clock: look at the directories, and at some of the wants."""
        self._due.by_clock = True
        self._scan_at = self._clock.monotonic()
        self._bell.wake()

    async def check_watch(self) -> None:
        """By the clock, more often: a watch that has died is opened again."""
        if not self._watcher.is_alive:
            await asyncio.to_thread(self._watcher.ensure)

    def close(self) -> None:
        """Stop scanning."""
        if self._scanning:
            self._scanning.cancel()

    def _put(self, path: str, closed: bool) -> None:
        self._queue.put(path, closed or self._queue.get(path) is True)

    async def _put_all(self, paths: list[str]) -> None:
        for at in range(0, len(paths), PUT_AT_ONCE):
            for path in paths[at : at + PUT_AT_ONCE]:
                self._put(path, False)
            self._bell.wake()
            await asyncio.sleep(0)  # others have their turn: 100,000 take 0.3 s

    def _pause(self) -> float | None:
        if self._queue or self._unanswered:
            return 0.0
        times = list(self._later.values())
        if self._scan_at is not None and self._scanning is None:  # a scan that ends rings the bell
            times.append(max(self._scan_at, self._rest_until))
        return max(min(times) - self._clock.monotonic(), 0.0) if times else None

    async def _scan_if_due(self) -> None:
        """Scans run beside the work on what is known already: one of 50,000 wants takes a second."""
        if self._scanning and self._scanning.done():
            await self._scanning
            self._scanning = None
        now = self._clock.monotonic()
        if self._scanning or self._scan_at is None or now < max(self._scan_at, self._rest_until):
            return
        due, self._due = self._due, _Due()
        self._scan_at = now + self._config().poll_interval_s if self._watcher.polling else None
        self._scanning = asyncio.create_task(self._scan(due), name="scan of the spool")

    async def _scan(self, due: _Due) -> None:
        """One look; what it finds joins the queue."""
        began = self._clock.monotonic()
        known = dict(self._known)
        names = POLL_NAMES if self._watcher.polling else 0
        if due.by_clock:
            names = max(names, RESCAN_NAMES, math.ceil(len(known) / RESCANS_A_ROUND))
        found = await asyncio.to_thread(self._look, due, known, names)
        if due.by_clock and not due.everything and not self._queue and self._heard_at < began - MISSED_S:
            await asyncio.to_thread(self._check_reports, found.changed)
        await self._put_all([path for path in found.changed if path not in self._later])
        await self._put_all(found.removed)  # looked at once more: they may have come back meanwhile
        self._unanswered += found.unanswered
        self.scanned_at = self._clock.now()
        now = self._clock.monotonic()
        self._rest_until = now + (now - began) * SCAN_REST
        if self._watcher.polling and self._scan_at is None:
            self._scan_at = now + self._config().poll_interval_s
        self._bell.wake()

    def _look(self, due: _Due, known: Mapping[str, Ticket], names: int) -> Found:
        self._watcher.ensure()
        found = self._scanner.scan(known, everything=due.everything, crowded=due.crowded, names=names)
        self._watcher.keep(self._scanner.folders)
        return found

    def _check_reports(self, changed: list[str]) -> None:
        """Nothing was heard for a while, and yet wants have changed: is the watch deaf?"""
        for path in changed[:BATCH]:
            try:
                info = os.lstat(path)
            except OSError:
                continue
            if max(info.st_mtime, info.st_ctime) < self._clock.now().timestamp() - MISSED_S:
                self._watcher.missed()
                return

    async def _glance_if_due(self) -> None:
        """In a flood events come late, and a scan takes long: see what the other directories have meanwhile."""
        began = self._clock.monotonic()
        if max(len(self._queue), self._hinted) < BATCH or began < self._glance_at:
            return
        self._hinted = 0
        for path in await asyncio.to_thread(self._scanner.glance, dict(self._known), GLANCE_MOST):
            if path not in self._later:
                self._put(path, False)
        now = self._clock.monotonic()
        self._glance_at = now + max(GLANCE_S, (now - began) * SCAN_REST)
