"""Progress files, written when they are worth it: each change of state at once, bytes in between now and then.

Writing goes on in a thread, in batches that are fair to directories. Changes of state go first; byte counts of
thousands of wants that watch one download take at most a quarter of the time, however many they are.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import orjson
from loguru import logger

from agent.clock import Clock
from agent.core.limits import SLICE_MODELS
from agent.core.progress import AgentInfo, ModelShown, WantInfo, render, show_model
from agent.core.states import FINAL, State
from agent.core.waits import Wait
from agent.errors import WantdError
from agent.spool.files import read_progress, remove_progress, write_progress
from agent.spool.folders import Folders
from agent.state.fair_queue import FairQueue
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.state.ticket import Ticket, progress_of

BATCH = 200  # progress files a hand-off to the thread at most: 10 to 20 ms of work on a machine that is not busy
BATCH_S = 0.05  # what a hand-off should last: on a busy machine a file may take 15 ms, and the next want waits for it
SPREAD = 1000  # wants of a changed model that are queued in one turn of the loop: a millisecond
BYTES_SHARE = 0.25  # at most this share of the time goes into byte counts
LARGE_SHARE = 0.25  # the same for the progress files of wants of many models, 0.3 s each for 10,000
UNWRITABLE_WARNINGS = 20  # wants named in the log between two rescans; the rest is counted
# What may differ in a progress file that an earlier agent left: it need not be written again for that. Nor for `source`
# of a model that is ready: to the agent that fetched it that is the Hub, to the next one the store.
_NO_NEWS = ("agent", "created_at", "updated_at", "started_at", "finished_at")


@dataclass(frozen=True, slots=True)
class _Page:
    """A progress file to write, or (None) to remove. `first`: this agent has not written it before."""

    path: str
    data: bytes | None
    first: bool


@dataclass(slots=True)
class _Shown:
    """A want as it is at one moment, to be rendered in a thread."""

    ticket: Ticket
    info: WantInfo
    models: list[ModelShown]
    first: bool
    now: datetime
    least: float
    error: WantdError | None
    waiting: Wait | None


class _Spreading:
    """Changed models whose wants are yet to be queued, some at a time: one model may have 100,000 of them."""

    def __init__(self, queue: FairQueue[Ticket, None]) -> None:
        self._queue = queue
        self._pending: deque[Iterator[Ticket]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending)

    def add(self, job: Job) -> None:
        self._pending.append(iter(list(job.wanted_by)))

    def some(self, skip: FairQueue[Ticket, None] | None = None) -> None:
        """Queue the next `SPREAD` wants, but for those that wait in `skip`."""
        for _ in range(SPREAD):
            if not self._pending:
                return
            ticket = next(self._pending[0], None)
            if ticket is None:
                self._pending.popleft()
            elif not ticket.gone and not (skip and ticket in skip):
                self._queue.put(ticket, None)


class ProgressFiles:
    """One subscriber of the feed. `spool` is the spool's directory, `interval_s` gives `spool.progress_interval_s`;
    `counts` has wants by state shown.
    """

    def __init__(self, agent: AgentInfo, spool: str, feed: Feed, clock: Clock, interval_s: Callable[[], float]) -> None:
        self._agent = agent
        self._spool = spool
        self._clock = clock
        self._interval_s = interval_s
        self._changes = feed.subscribe()
        # The newest as well as the oldest: a fresh want does not wait for all that stand at a start.
        self._urgent: FairQueue[Ticket, None] = FairQueue(lambda ticket: ticket.path, newest_too=True)
        self._bytes: FairQueue[Ticket, None] = FairQueue(lambda ticket: ticket.path)
        self._urgent_jobs = _Spreading(self._urgent)
        self._bytes_jobs = _Spreading(self._bytes)
        self._large: OrderedDict[Ticket, None] = OrderedDict()  # wants of many models with something to write
        self._large_due = -math.inf
        self._named = 0  # wants that could not be written, named in the log since the last retry
        self._unnamed = 0
        self._fresh: set[Ticket] = set()  # of the urgent ones, those that have no progress file yet: what intake adds
        self._moved: dict[Job, None] = {}  # jobs with more bytes, not yet spread to their wants
        self._batch = BATCH
        self.counts: Counter[State] = Counter()
        self.unwritable: dict[Ticket, str] = {}

    def retry_unwritable(self) -> None:
        """Try again what could not be written: the disk may have room, the directory may be writable."""
        if self._unnamed:
            logger.warning("cannot write {} more progress files", self._unnamed)
        self._named = self._unnamed = 0
        for ticket in self.unwritable:
            self._urgent.put(ticket, None)
        self._changes.wake()

    async def serve(self) -> None:
        """Write until cancelled."""
        written_at, rest_s = -math.inf, 0.0  # the last byte counts, and the least rest after them
        while True:
            # The interval in force: a shorter one does not wait for the end of the longer one.
            due = written_at + (rest_s or self._interval_s())
            if not self._urgent and not self._urgent_jobs:
                times = ([due] if self._has_bytes else []) + ([self._large_due] if self._large else [])
                await self._changes.wait(max(min(times) - self._clock.monotonic(), 0.0) if times else None)
            self._sort()
            if self._large and self._clock.monotonic() >= self._large_due:
                await self._write_large()
            if self._urgent:
                await self._write(self._urgent)
            elif self._has_bytes and self._clock.monotonic() >= due:
                began = self._clock.monotonic()
                self._spread_bytes()
                await self._write(self._bytes)
                written_at = self._clock.monotonic()
                rest_s = (written_at - began) / BYTES_SHARE if self._has_bytes else 0.0

    async def drain(self) -> None:
        """Write what is left to write, at the end."""
        while True:
            self._sort()
            self._spread_bytes()
            if self._large:
                await self._write_large()
            elif not self._urgent and not self._urgent_jobs and not self._has_bytes:
                return
            await self._write(self._urgent or self._bytes)

    @property
    def _has_bytes(self) -> bool:
        return bool(self._bytes or self._bytes_jobs or self._moved)

    def _sort(self) -> None:
        """Take what the feed has, and queue it: states before bytes."""
        for subject, change in self._changes.take().items():
            if isinstance(subject, Ticket):
                self._bytes.discard(subject)
                self._urgent.put(subject, None)
                if subject.shown is None:
                    self._fresh.add(subject)
            elif isinstance(subject, Job) and change is Change.STATE:
                self._moved.pop(subject, None)
                self._urgent_jobs.add(subject)
            elif isinstance(subject, Job) and change is Change.BYTES:
                self._moved[subject] = None
        self._urgent_jobs.some()
        self._changes.backlog = len(self._fresh)

    def _spread_bytes(self) -> None:
        if not self._bytes and not self._bytes_jobs:
            for job in self._moved:
                self._bytes_jobs.add(job)
            self._moved.clear()
        self._bytes_jobs.some(skip=self._urgent)

    async def _write(self, queue: FairQueue[Ticket, None]) -> None:
        taken = [ticket for ticket, _ in queue.take(self._batch)]
        tickets = [ticket for ticket in taken if ticket.gone or len(ticket.parts) <= SLICE_MODELS]
        self._fresh.difference_update(taken)
        self._large.update((ticket, None) for ticket in taken if ticket not in tickets)
        if not tickets:
            return
        pages = [self._page(ticket) for ticket in tickets]
        self._changes.backlog = len(self._fresh)
        began = time.monotonic()  # of the machine, whatever clock the agent is given: it measures the disk
        failures = await asyncio.to_thread(_write_all, self._spool, pages)
        each = max((time.monotonic() - began) / len(pages), 1e-6)
        self._batch = min(max(int(BATCH_S / each), 1), BATCH)
        self._note([ticket for ticket in tickets if not ticket.gone], failures)

    def _note(self, tickets: list[Ticket], failures: dict[str, str]) -> None:
        """Remember which could not be written, and say it once for each reason."""
        fresh: list[Ticket] = []
        for ticket in tickets:
            problem = failures.get(ticket.path)
            if problem is None:
                self.unwritable.pop(ticket, None)
            elif ticket.unwritable != problem:
                self.unwritable[ticket] = problem
                fresh.append(ticket)
            ticket.unwritable = problem
        room = UNWRITABLE_WARNINGS - self._named
        for ticket in fresh[:room]:
            logger.warning(
                "cannot write the progress file of {} ({}); still downloading", ascii(ticket.path), ticket.unwritable
            )
        self._named += len(fresh[:room])
        self._unnamed += len(fresh[room:])

    def _count(self, ticket: Ticket, state: State | None) -> None:
        if ticket.shown is not state:
            if ticket.shown:
                self.counts[ticket.shown] -= 1
            if state:
                self.counts[state] += 1
            ticket.shown = state

    def _page(self, ticket: Ticket) -> _Page:
        if ticket.gone:
            self._count(ticket, None)
            self.unwritable.pop(ticket, None)
            return _Page(ticket.path, None, False)
        shown = self._begin_page(ticket)
        shown.models = [show_model(name, model) for name, model in ticket.models]
        return _rendered(shown, self._agent)

    async def _write_large(self) -> None:
        """The progress file of one want of many models: shown slice by slice, rendered and written in a thread."""
        began = self._clock.monotonic()
        ticket, _ = self._large.popitem(last=False)
        if ticket.gone:
            return
        shown = self._begin_page(ticket)
        parts = ticket.parts
        await _add_models(shown)
        if not ticket.gone and ticket.parts is parts:  # else there is more to come
            failures = await asyncio.to_thread(_write_shown, self._spool, shown, self._agent)
            if not ticket.gone:
                self._note([ticket], failures)
        now = self._clock.monotonic()
        self._large_due = now + (now - began) * (1 / LARGE_SHARE - 1)

    def _begin_page(self, ticket: Ticket) -> _Shown:
        """The want itself; its models are to be added."""
        first, state = ticket.shown is None, ticket.state
        self._count(ticket, state)
        return self._shown(ticket, first)

    async def document(self, ticket: Ticket) -> bytes:
        """What the ticket's progress file says now, for those who are told in another way."""
        shown = self._shown(ticket, False)
        await _add_models(shown)
        return await asyncio.to_thread(lambda: _render(shown, self._agent)[0])

    def _shown(self, ticket: Ticket, first: bool) -> _Shown:
        now = self._clock.now()
        if ticket.state in FINAL and ticket.finished_at is None:
            ticket.finished_at = now
        info = WantInfo(
            name=ticket.path.rpartition("/")[2],
            attempt=ticket.attempts,
            created_at=ticket.created_at,
            started_at=ticket.started_at,
            finished_at=ticket.finished_at,
            labels=dict(ticket.want.labels) if ticket.want else {},
        )
        return _Shown(ticket, info, [], first, now, ticket.fraction, ticket.error, ticket.waiting)


def _rendered(shown: _Shown, agent: AgentInfo) -> _Page:
    ticket = shown.ticket
    data, ticket.fraction = _render(shown, agent)
    return _Page(ticket.path, data, shown.first)


def _render(shown: _Shown, agent: AgentInfo) -> tuple[bytes, float]:
    return render(
        shown.info, shown.models, agent, shown.now, least=shown.least, error=shown.error, waiting=shown.waiting
    )


async def _add_models(shown: _Shown) -> None:
    """The want's models, slice by slice: of 10,000 of them the loop must not be held."""
    want, parts = shown.ticket.want, shown.ticket.parts
    names = [model.reference for model in want.models] if want else []
    for at in range(0, len(parts), SLICE_MODELS):
        for name, part in zip(names[at : at + SLICE_MODELS], parts[at : at + SLICE_MODELS], strict=True):
            shown.models.append(show_model(name, progress_of(part)))
        await asyncio.sleep(0)


def _write_shown(spool: str, shown: _Shown, agent: AgentInfo) -> dict[str, str]:
    return _write_all(spool, [_rendered(shown, agent)])


def _write_all(spool: str, pages: list[_Page]) -> dict[str, str]:
    """Write and remove; why it failed, by path of the want."""
    failures = {}
    with Folders(spool) as folders:
        for page in pages:
            try:
                if page.data is None:
                    remove_progress(folders, page.path)
                elif not (page.first and _says_the_same(folders, page.path, page.data)):
                    write_progress(folders, page.path, page.data)
            except (FileNotFoundError, NotADirectoryError):
                continue  # the directory went away: the scan will say so
            except OSError as error:
                failures[page.path] = error.strerror or str(error)
    return failures


def _says_the_same(folders: Folders, want_path: str, data: bytes) -> bool:
    """Whether the progress file that is there differs in nothing but who wrote it, and when."""
    try:
        there = orjson.loads(read_progress(folders, want_path, most=4 * len(data)))
    except (OSError, orjson.JSONDecodeError):
        return False
    new = orjson.loads(data)
    if not isinstance(there, dict):
        return False
    for value in (there, new):
        models = value.get("models")
        for model in models if isinstance(models, list) else ():
            if isinstance(model, dict) and model.get("state") == State.READY:
                model.pop("source", None)
    return all(there.get(key) == new.get(key) for key in {*there, *new} - set(_NO_NEWS))
