"""Names that changed become jobs: reads wants, looks their models up, shares jobs, and takes back what is gone.

Work is done in small batches, taken in turn from each directory and from both ends of its queue, so that neither a
flood of wants nor one producer's rubbish delays another's request for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from loguru import logger

from agent.core.catalog import Catalog
from agent.core.job import State
from agent.core.progress import ModelProgress, timestamp, want_state
from agent.core.target import Target, make_target
from agent.core.want import Want, WantedModel
from agent.errors import WantdError
from agent.services.board import Board
from agent.services.housekeeping import Housekeeping
from agent.services.job import Job
from agent.services.look import Seen, look_at
from agent.services.path_queue import PathQueue
from agent.services.reporter import Reporter, Ticket
from agent.spool.files import QUIET_S
from agent.spool.scan import Found, glance, scan
from agent.spool.watcher import NEW_DIRECTORY_S, Bell, Watcher
from agent.store.layout import Layout, Published

SCAN_REST = 4.0  # times a scan's own duration until the next: in a flood at most a fifth of the time goes into them
GLANCE_S = 0.3  # a want in a quiet directory is to be served within 2 s whatever goes on in the others
GLANCE_MOST = 200  # wants of each directory
BATCH = 100  # wants looked at between two looks at the bell: 10 to 20 ms
# A model seen in the store this lately is not looked for again: 10,000 wants for one model are one look a second.
STORE_LOOK_S = 1.0
APPOINTMENT_MAX_S = 30 * 86400.0  # farther not_before times are looked at again after a month


class Intake:
    """Serves one spool."""

    def __init__(
        self,
        root: str,
        bell: Bell,
        watcher: Watcher,
        board: Board,
        reporter: Reporter,
        clock: Housekeeping,
        layout: Layout,
        catalog: Callable[[], Catalog],
        policy: Callable[[], str | list[str]],
        poll_interval_s: float,
    ) -> None:
        self._root = root
        self._bell = bell
        self._watcher = watcher
        self._board = board
        self._reporter = reporter
        self._clock = clock
        self._layout = layout
        self._catalog = catalog
        self._policy = policy
        self._poll_interval_s = poll_interval_s
        self._queue = PathQueue()
        self._later: dict[str, float] = {}  # wants with a writer, and the monotonic time to look again
        self._scan_at: float | None = 0.0
        self._scanning: asyncio.Task[None] | None = None
        self._twice = False  # the scan that is due was asked for by the bell
        self._rest_until = 0.0
        self._glance_at = 0.0
        self._hinted = 0  # hints since the last glance
        self._looked: dict[Target, tuple[float, Published]] = {}
        self._jobs: dict[Ticket, list[Job]] = {}
        self.tickets: dict[str, Ticket] = {}

    async def serve(self) -> None:
        """Run until cancelled."""
        try:
            while True:
                hints = await self._bell.wait(self._pause())
                await self._scan_if_due(hints.everything)
                for path, closed in hints.paths.items():
                    self._queue.put(path, closed)
                self._hinted += len(hints.paths)
                now = time.monotonic()
                for path in [path for path, due in self._later.items() if due <= now]:
                    del self._later[path]
                    self._queue.put(path, False)
                await self._glance_if_due()
                if self._queue:
                    await self._reporter.room()
                    await self._look(self._queue.take(BATCH))
        finally:
            if self._scanning:
                self._scanning.cancel()

    async def _scan_if_due(self, everything: bool) -> None:
        """Scans run beside the work on what is known already: one of 50,000 wants takes a second."""
        now = time.monotonic()
        if everything:
            self._scan_at, self._twice = now, True
        if self._scanning and self._scanning.done():
            await self._scanning
            self._scanning = None
        if self._scanning or self._scan_at is None or now < max(self._scan_at, self._rest_until):
            return
        # Once more a little later: files of a new directory may have come before the watch on it did.
        pause = NEW_DIRECTORY_S if self._twice else self._poll_interval_s if self._watcher.polling else None
        self._scan_at, self._twice = None if pause is None else now + pause, False
        self._scanning = asyncio.create_task(self._scan(), name="scan of the spool")

    async def _glance_if_due(self) -> None:
        """In a flood events come late, and a scan takes long: see what the other directories have meanwhile."""
        began = time.monotonic()
        if len(self._queue) + self._hinted < BATCH or began < self._glance_at:
            return
        self._hinted = 0
        for path in await asyncio.to_thread(glance, self._root, dict(self.tickets), GLANCE_MOST):
            if path not in self._later:
                self._queue.put(path, False)
        now = time.monotonic()
        self._glance_at = now + max(GLANCE_S, (now - began) * SCAN_REST)

    def _pause(self) -> float | None:
        if self._queue:
            return 0.0
        times = list(self._later.values())
        if self._scan_at is not None and self._scanning is None:  # a scan that ends rings the bell
            times.append(max(self._scan_at, self._rest_until))
        return max(min(times) - time.monotonic(), 0.0) if times else None

    async def rescan(self) -> None:
        """See that the watch is alive, look at everything, and check that what is ready still is.

        Answers that could not be written are tried once more: the disk may have room again.
        """
        await asyncio.to_thread(self._watcher.ensure)
        self._bell.ring(None)
        for path in list(self._reporter.unwritable):
            if ticket := self.tickets.get(path):
                self._reporter.changed(ticket)
        await self._board.recheck()

    async def reresolve(self) -> None:
        """The catalogue or the policy has changed: wants that it makes different begin anew, the others go on."""
        for ticket in list(self.tickets.values()):
            if ticket.want is None or ticket.waiting:
                continue
            before = [job.target for job in self._jobs.get(ticket, [])]
            targets = [t for t in (self._target(m) for m in ticket.want.models) if isinstance(t, Target)]
            if before != targets:
                await self._begin(ticket)

    async def _scan(self) -> None:
        """One look at everything; what it finds joins the queue."""
        began = time.monotonic()
        if not self._watcher.polling:
            await asyncio.to_thread(self._watcher.ensure)  # the directory may be another one since the last look
        found: Found = await asyncio.to_thread(scan, self._root, dict(self.tickets), self._reporter.unwritable)
        for path in found.changed:
            if path not in self._later:
                self._queue.put(path, False)
        for path in found.removed:  # looked at once more: it may have come back meanwhile
            self._queue.put(path, False)
        for path in found.unanswered:
            if ticket := self.tickets.get(path):
                self._reporter.changed(ticket)
        now = time.monotonic()
        self._rest_until = now + (now - began) * SCAN_REST
        self._bell.wake()

    async def _look(self, paths: list[tuple[str, bool]]) -> None:
        seen = await asyncio.to_thread(lambda: [look_at(path, closed) for path, closed in paths])
        begun: list[Ticket] = []
        for look in seen:
            if look.still:
                self._later[look.path] = time.monotonic() + QUIET_S
            elif look.stamp is None:
                self._drop(look.path)
            elif ticket := self._take_in(look):
                begun.append(ticket)
        await self._begin_all(begun)

    def _take_in(self, look: Seen) -> Ticket | None:
        """Note what was read; the ticket if it has to be begun."""
        self._later.pop(look.path, None)
        ticket = self.tickets.get(look.path)
        if ticket is None:
            ticket = self.tickets[look.path] = Ticket(look.path)
        elif ticket.stamp == look.stamp:
            return None  # our own reading, or an event that came late
        elif ticket.digest == look.digest and look.digest is not None:
            ticket.stamp = look.stamp
            return ticket if self._touched(ticket) else None
        self._release(ticket)
        ticket.begin_anew()
        ticket.stamp, ticket.digest = look.stamp, look.digest
        ticket.want, ticket.error = look.want, look.error
        if look.error:
            logger.bind(want=look.path, code=look.error.code.value).warning(
                "{}: {} ({})", ascii(look.path), look.error.message, look.error.code
            )
            self._reporter.changed(ticket)
            return None
        return ticket

    def _touched(self, ticket: Ticket) -> bool:
        """A want was written again with the same content. True when all of it has to be begun again."""
        models = [model for _, model in ticket.models]
        if want_state(models, ticket.error) is not State.FAILED:
            for job in self._jobs.get(ticket, []):
                self._board.hurry(job)
            return False
        attempt = max([ticket.attempt, *(model.attempt for model in models)]) + 1
        self._release(ticket)
        want, created = ticket.want, ticket.created_at
        ticket.begin_anew()
        ticket.want, ticket.attempt, ticket.created_at = want, attempt, created
        return want is not None

    async def _begin_all(self, tickets: list[Ticket]) -> None:
        due = [(ticket, ticket.want) for ticket in tickets if ticket.want and not self._not_yet(ticket)]
        # In a thread: near misses for a manifest of 10,000 unknown names take a second.
        resolved = await asyncio.to_thread(lambda: [(ticket, want, self._resolve(want)) for ticket, want in due])
        wanted = {target for _, _, targets in resolved for _, target in targets if isinstance(target, Target)}
        published = await self._in_store(wanted)
        for ticket, want, targets in resolved:
            if self.tickets.get(ticket.path) is not ticket or ticket.want is not want:
                continue  # removed, or written anew, in the meantime
            jobs: list[Job] = []
            ticket.models = []
            ticket.started_at = datetime.now(UTC)
            for name, target in targets:
                if isinstance(target, Target):
                    job = self._board.subscribe(ticket, target, want.priority, published[target])
                    jobs.append(job)
                    ticket.models.append((name, job.progress))
                else:
                    failed = ModelProgress()
                    failed.go(State.FAILED, error=target)
                    ticket.models.append((name, failed))
            self._jobs[ticket] = jobs
            self._reporter.changed(ticket)

    async def _begin(self, ticket: Ticket) -> None:
        self._release(ticket)
        ticket.finished_at, ticket.fraction, ticket.waiting = None, 0.0, None
        await self._begin_all([ticket])

    def _resolve(self, want: Want) -> list[tuple[str, Target | WantdError]]:
        return [(model.reference, self._target(model)) for model in want.models]

    def _target(self, model: WantedModel) -> Target | WantdError:
        try:
            return make_target(self._catalog(), self._policy(), model)
        except WantdError as error:
            return error

    def _not_yet(self, ticket: Ticket) -> bool:
        """Whether the want asks for a later time; then it is begun by appointment."""
        when = ticket.want.not_before if ticket.want else None
        seconds = (when - datetime.now(UTC)).total_seconds() if when else 0.0
        if seconds <= 0:
            return False

        async def begin() -> None:
            if self.tickets.get(ticket.path) is ticket and ticket.waiting:
                await self._begin(ticket)

        ticket.waiting = {"for": "not_before", "until": timestamp(when)}
        self._clock.after(f"begin {ticket.path}", min(seconds, APPOINTMENT_MAX_S), begin)
        self._reporter.changed(ticket)
        return True

    async def _in_store(self, targets: set[Target]) -> dict[Target, Published | None]:
        """What the store has of each. One that was not there may be there by now: it is looked for each time."""
        now = time.monotonic()
        self._looked = {target: look for target, look in self._looked.items() if look[0] > now - STORE_LOOK_S}
        known = {target: self._looked[target][1] for target in targets if target in self._looked}
        rest = [target for target in targets if target not in known]
        found = await asyncio.to_thread(lambda: {target: self._layout.published(target) for target in rest})
        self._looked |= {target: (now, published) for target, published in found.items() if published}
        return {**known, **found}

    def _release(self, ticket: Ticket) -> None:
        self._board.unsubscribe(ticket, self._jobs.pop(ticket, []))
        self._clock.forget(f"begin {ticket.path}")

    def _drop(self, path: str) -> None:
        """The want is gone: nothing is done for it any more, and its answer goes too."""
        self._later.pop(path, None)
        if ticket := self.tickets.pop(path, None):
            self._release(ticket)
            self._reporter.gone(ticket)
