"""Where to look next: hints from the watcher, whole scans, and glances in between, as one fair queue of paths."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.config import Spool
from agent.spool.files import QUIET_S
from agent.spool.scan import Found, glance, scan
from agent.spool.watcher import NEW_DIRECTORY_S, Bell, Watcher
from agent.state.fair_queue import FairQueue
from agent.state.ticket import Ticket

SCAN_REST = 4.0  # times a scan's own duration until the next: in a flood at most a fifth of the time goes into them
GLANCE_S = 0.3  # a want in a quiet directory is to be served within 2 s whatever goes on in the others
GLANCE_MOST = 200  # wants of each directory
BATCH = 100  # wants looked at between two looks at the bell: 10 to 20 ms


@dataclass(slots=True)
class Look:
    """Paths to read, each with whether its writer was seen to close it; and wants whose progress file is missing."""

    paths: list[tuple[str, bool]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


class Lookout:
    """Watches one spool. `known` are the tickets by path, which scans compare against."""

    def __init__(
        self, bell: Bell, watcher: Watcher, known: Mapping[str, Ticket], clock: Clock, config: Callable[[], Spool]
    ) -> None:
        self._root = config().dir
        self._bell = bell
        self._watcher = watcher
        self._known = known
        self._clock = clock
        self._config = config
        self._queue: FairQueue[str, bool] = FairQueue(lambda path: path, newest_too=True)
        self._later: dict[str, float] = {}  # wants with a writer, and the monotonic time to look again
        self._unanswered: list[str] = []
        self._scan_at: float | None = 0.0
        self._scanning: asyncio.Task[None] | None = None
        self._twice = False  # the scan that is due was asked for by the bell
        self._rest_until = 0.0
        self._glance_at = 0.0
        self._hinted = 0  # hints since the last glance

    async def next(self) -> Look:
        """What to look at now; empty where there was nothing after all."""
        hints = await self._bell.wait(self._pause())
        await self._scan_if_due(hints.everything)
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

    def look_again(self, path: str) -> None:
        """The want is still being written: look at it once it has been unchanged for long enough."""
        self._later[path] = self._clock.monotonic() + QUIET_S

    def settled(self, path: str) -> None:
        """The want was read, or is gone."""
        self._later.pop(path, None)

    async def rescan(self) -> None:
        """See that the watch is alive, and look at everything."""
        await asyncio.to_thread(self._watcher.ensure)
        self._bell.ring(None)

    def close(self) -> None:
        """Stop scanning."""
        if self._scanning:
            self._scanning.cancel()

    def _put(self, path: str, closed: bool) -> None:
        self._queue.put(path, closed or self._queue.get(path) is True)

    def _pause(self) -> float | None:
        if self._queue or self._unanswered:
            return 0.0
        times = list(self._later.values())
        if self._scan_at is not None and self._scanning is None:  # a scan that ends rings the bell
            times.append(max(self._scan_at, self._rest_until))
        return max(min(times) - self._clock.monotonic(), 0.0) if times else None

    async def _scan_if_due(self, everything: bool) -> None:
        """Scans run beside the work on what is known already: one of 50,000 wants takes a second."""
        now = self._clock.monotonic()
        if everything:
            self._scan_at, self._twice = now, True
        if self._scanning and self._scanning.done():
            await self._scanning
            self._scanning = None
        if self._scanning or self._scan_at is None or now < max(self._scan_at, self._rest_until):
            return
        # Once more a little later: files of a new directory may have come before the watch on it did.
        pause = NEW_DIRECTORY_S if self._twice else self._config().poll_interval_s if self._watcher.polling else None
        self._scan_at, self._twice = None if pause is None else now + pause, False
        self._scanning = asyncio.create_task(self._scan(), name="scan of the spool")

    async def _scan(self) -> None:
        """One look at everything; what it finds joins the queue."""
        began = self._clock.monotonic()
        if not self._watcher.polling:
            await asyncio.to_thread(self._watcher.ensure)  # the directory may be another one since the last look
        known = dict(self._known)
        silent = {path for path, ticket in known.items() if ticket.unwritable}
        found: Found = await asyncio.to_thread(scan, self._root, known, silent)
        for path in found.changed:
            if path not in self._later:
                self._put(path, False)
        for path in found.removed:  # looked at once more: it may have come back meanwhile
            self._put(path, False)
        self._unanswered += found.unanswered
        now = self._clock.monotonic()
        self._rest_until = now + (now - began) * SCAN_REST
        self._bell.wake()

    async def _glance_if_due(self) -> None:
        """In a flood events come late, and a scan takes long: see what the other directories have meanwhile."""
        began = self._clock.monotonic()
        if len(self._queue) + self._hinted < BATCH or began < self._glance_at:
            return
        self._hinted = 0
        for path in await asyncio.to_thread(glance, self._root, dict(self._known), GLANCE_MOST):
            if path not in self._later:
                self._put(path, False)
        now = self._clock.monotonic()
        self._glance_at = now + max(GLANCE_S, (now - began) * SCAN_REST)
