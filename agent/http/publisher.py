"""One subscriber of the feed: what changed goes into the list of wants and, where somebody listens, into the log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from agent.clock import Clock
from agent.core.progress import STEPS, AgentInfo, WantInfo, describe, show_model
from agent.core.states import FINAL, State
from agent.errors import WantdError
from agent.http.log import EventLog
from agent.http.rates import Rates
from agent.http.readers import Readers
from agent.http.wants import Wants
from agent.reports.sentences import waiting_text
from agent.state.feed import Change, Feed, Subject
from agent.state.job import Job
from agent.state.news import AgentNews, ModelNews
from agent.state.ticket import Ticket

_INTEREST = {
    state: at
    for at, state in enumerate((State.DOWNLOADING, State.VERIFYING, State.FAILED, State.RESOLVING, State.WAITING))
}


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a want is shown: models, and files of each of them."""

    models: int
    files: int


SHORT = Cut(models=50, files=20)  # of a want in lists and events: some kB at most for all but the strangest
AT_ONCE = 50  # wants that are rendered in one turn of the loop: 3 ms
BYTES_S = 0.5  # between two byte counts of one want
BYTES_MOST = 500  # wants whose byte counts are told in one round: one download may be watched by 100,000
# Without a reader nothing is rendered. One that reads the status first has so long to ask for events.
INTEREST_S = 60.0


class Publisher:
    """`serve` keeps `wants` and `log` true. All calls come from the event loop."""

    def __init__(
        self, feed: Feed, wants: Wants, log: EventLog, readers: Readers, agent: AgentInfo, clock: Clock
    ) -> None:
        self._changes = feed.subscribe()
        self.rates = Rates()
        self.wants = wants
        self.log = log
        self._readers = readers
        self._agent = agent
        self._clock = clock
        self._moved: dict[Job, None] = {}
        self._spreading: deque[Iterator[Ticket]] = deque()
        self._interest_until = 0.0
        self._told_at = 0.0

    @property
    def readers(self) -> int:
        """How many clients read events now."""
        return len(self._readers)

    def recent_rates(self) -> list[int]:
        """Bytes per second of the last minutes, one value for each `rates.STEP_S`, the newest last."""
        return self.rates.recent(self._clock.monotonic())

    def position(self) -> int:
        """The id to ask for events from, for a client that looks at documents first."""
        self._interest_until = self._clock.monotonic() + INTEREST_S
        return self.log.last

    def document(self, ticket: Ticket, cut: Cut) -> dict[str, Any]:
        """A want as lists, events and its own route show it: what its progress file says, cut, and more."""
        now, named = self._clock.now(), ticket.models
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
        shown = set(range(len(named)))
        if len(named) > cut.models:  # those that move or failed first
            shown = set(sorted(shown, key=lambda at: _INTEREST.get(named[at][1].state, len(_INTEREST)))[: cut.models])
        models = [show_model(*pair, cut.files if at in shown else None) for at, pair in enumerate(named)]
        error, waiting = ticket.error, ticket.waiting
        value, _ = describe(info, models, self._agent, now, least=ticket.fraction, error=error, waiting=waiting)
        if len(shown) < len(named):
            value["models_total"] = len(named)
        wait = waiting or next((model.waiting for model in models if model.waiting), None)
        value["path"] = self.wants.shown(ticket.path)
        value["priority"] = ticket.want.priority if ticket.want else None
        value["waiting_text"] = waiting_text(wait) if wait and value["waiting"] else None
        return value

    async def serve(self) -> None:
        """Read the feed until cancelled."""
        while True:
            due = self._told_at + BYTES_S - self._clock.monotonic()
            if not self._spreading:
                await self._changes.wait(max(due, 0.0) if self._moved else None)
            await self._take()
            if self._moved and self._clock.monotonic() >= self._told_at + BYTES_S:
                self._told_at = self._clock.monotonic()
                self.rates.note(sum(job.progress.rate for job in self._moved), self._told_at)
                self._tell_bytes()
            self._readers.wake()

    async def finish(self) -> None:
        """Read what is left in the feed, at the end."""
        await self._take()
        self._readers.wake()

    async def _take(self) -> None:
        for number, (subject, change) in enumerate(self._changes.take().items(), 1):
            self._note(subject, change)
            if number % AT_ONCE == 0:
                self._readers.wake()
                await asyncio.sleep(0)
        for _ in range(AT_ONCE):
            if not self._spreading:
                break
            if (ticket := next(self._spreading[0], None)) is None:
                self._spreading.popleft()
            elif not ticket.gone:
                self._want(ticket)
        await asyncio.sleep(0)

    def _note(self, subject: Subject, change: Change) -> None:
        if isinstance(subject, Ticket):
            if change is not Change.GONE:
                self._want(subject)
            elif self.wants.drop(subject):
                self._tell("want_gone", {"path": self.wants.shown(subject.path)}, subject.path)
        elif isinstance(subject, Job):
            self._moved.pop(subject, None)
            if change is Change.STATE:
                self._spreading.append(iter(list(subject.wanted_by)))
            elif change is Change.BYTES:
                self._moved[subject] = None
        elif isinstance(subject, ModelNews):
            self._tell("model", {"model": subject.model, "what": subject.what})
        elif isinstance(subject, AgentNews):
            self._tell("agent", {"what": subject.what, **msgspec.to_builtins(self._agent)})

    def _want(self, ticket: Ticket) -> None:
        """Note the want, and tell of it unless readers know this already."""
        row = self.wants.put(ticket)
        digest = _digest(ticket)
        if digest != row.told:
            row.told = digest
            if self._is_watched():
                self.log.change("want", self.document(ticket, SHORT), self._clock.now(), ticket.path)
            else:
                self.log.skip()

    def _tell(self, kind: str, data: dict[str, Any], key: str | None = None) -> None:
        if self._is_watched():
            self.log.change(kind, data, self._clock.now(), key)
        else:
            self.log.skip()

    def _tell_bytes(self) -> None:
        if not self._is_watched():
            self._moved.clear()
            return
        left = BYTES_MOST
        for job in self._moved:
            for ticket in islice(job.wanted_by, left):
                self.log.count("want", self.document(ticket, SHORT), self._clock.now(), ticket.path)
                left -= 1
        self._moved.clear()

    def _is_watched(self) -> bool:
        return bool(self._readers) or self._clock.monotonic() < self._interest_until


def _digest(ticket: Ticket) -> int:
    """Of all that is a change of state, a tenth of the bytes among it."""
    parts: list[tuple[object, ...]] = []
    for part in ticket.parts:
        if isinstance(part, WantdError):
            parts.append((State.FAILED, part.code))
        else:
            model = part.progress
            error = model.error.code if model.error else None
            parts.append((model.state, int(model.fraction * STEPS), model.waiting and str(model.waiting), error))
    error = ticket.error.code if ticket.error else None
    return hash((ticket.created_at, ticket.attempts, error, ticket.waiting, tuple(parts)))
