"""Progress files, written when they are worth it: each change of state at once, bytes in between now and then.

Writing goes on in a thread, in batches, in turn for each directory. Changes of state go first; byte counts of thousands
of wants that watch one download take at most a quarter of the time, however many they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from datetime import UTC, datetime

from loguru import logger

from agent.core.job import FINAL, State
from agent.core.progress import AgentInfo, ModelProgress, WantInfo, render, want_state
from agent.core.want import Want
from agent.errors import WantdError
from agent.spool.files import Stamp, remove_progress, write_progress

BATCH = 200  # progress files a hand-off to the thread at most: 10 to 20 ms of work on a machine that is not busy
BATCH_S = (
    0.05  # what a hand-off should last: on a busy one a file may take 15 ms, and who comes next waits for the batch
)
BACKLOG = 10 * BATCH  # intake pauses above this
BYTES_SHARE = 0.25  # at most this share of the time goes into byte counts


class Ticket:
    """A want as the agent knows it: what its file said, the models it asks for, and what was answered last."""

    __slots__ = (
        "attempt",
        "created_at",
        "digest",
        "error",
        "finished_at",
        "fraction",
        "gone",
        "models",
        "path",
        "stamp",
        "started_at",
        "state",
        "waiting",
        "want",
    )

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamp: Stamp | None = None
        self.digest: bytes | None = None
        self.gone = False
        self.state: State | None = None  # what was answered last
        self.begin_anew()

    def begin_anew(self) -> None:
        """A new request under the same name."""
        self.want: Want | None = None
        self.models: list[tuple[str, ModelProgress]] = []  # the reference as the want spells it, and how it goes
        self.error: WantdError | None = None
        self.waiting: dict[str, object] | None = None
        self.fraction = 0.0
        self.attempt = 1
        self.created_at = datetime.now(UTC)
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None


class _Turns:
    """Tickets with something to say, in turn for each directory: a flood in one keeps nobody in another waiting."""

    def __init__(self) -> None:
        self._folders: OrderedDict[str, OrderedDict[Ticket, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._folders.get(_folder(ticket), ())

    def add(self, ticket: Ticket) -> None:
        tickets = self._folders.setdefault(_folder(ticket), OrderedDict())
        self._count += ticket not in tickets
        tickets[ticket] = None

    def discard(self, ticket: Ticket) -> None:
        if ticket in self:
            tickets = self._folders[_folder(ticket)]
            del tickets[ticket]
            self._count -= 1
            if not tickets:
                del self._folders[_folder(ticket)]

    def take(self, count: int) -> list[Ticket]:
        """The longest waiting of each directory in turn, `count` at most."""
        taken: list[Ticket] = []
        while self._folders and len(taken) < count:
            folder, tickets = self._folders.popitem(last=False)
            taken.append(tickets.popitem(last=False)[0])
            if tickets:
                self._folders[folder] = tickets  # behind all others
        self._count -= len(taken)
        return taken


class Reporter:
    """Writes the answers. `changed` may be called as often as one likes."""

    def __init__(self, agent: AgentInfo, interval_s: float) -> None:
        self._agent = agent
        self.interval_s = interval_s
        self._urgent = _Turns()
        self._bytes = _Turns()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._batch = BATCH
        self._counts: Counter[State] = Counter()  # wants by the state that was answered last
        self.unwritable: dict[str, str] = {}  # path of the want -> why it has no progress file

    def changed(self, ticket: Ticket, *, urgent: bool = True) -> None:
        """The ticket has something new to say: a change of state (`urgent`), or just more bytes."""
        if urgent:
            self._bytes.discard(ticket)
            self._urgent.add(ticket)
            if len(self._urgent) >= BACKLOG:
                self._room.clear()
            self._wake.set()
        elif ticket not in self._urgent:
            if not self._bytes:
                self._wake.set()
            self._bytes.add(ticket)

    def gone(self, ticket: Ticket) -> None:
        """The want is gone: its answer is taken away, in turn with what is still being written."""
        ticket.gone = True
        self.unwritable.pop(ticket.path, None)
        self.changed(ticket)

    def summary(self) -> str:
        """How many wants move, wait, are ready and failed, as the answers say it."""
        counts = self._counts
        moving = sum(count for state, count in counts.items() if state not in (*FINAL, State.WAITING))
        waiting = f"{counts[State.WAITING]} waiting, " if counts[State.WAITING] else ""
        return f"{moving} moving, {waiting}{counts[State.READY]} ready, {counts[State.FAILED]} failed"

    def _count(self, ticket: Ticket, state: State | None) -> None:
        if ticket.state is not state:
            if ticket.state:
                self._counts[ticket.state] -= 1
            if state:
                self._counts[state] += 1
            ticket.state = state

    async def room(self) -> None:
        """Wait until the backlog is short enough to take more wants in."""
        await self._room.wait()

    async def serve(self) -> None:
        """Write until cancelled."""
        next_bytes = 0.0
        while True:
            if not self._urgent:
                pause = max(next_bytes - time.monotonic(), 0.0) if self._bytes else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
            self._wake.clear()
            if self._urgent:
                await self._write(self._urgent)
            elif self._bytes and time.monotonic() >= next_bytes:
                began = time.monotonic()
                await self._write(self._bytes)
                now = time.monotonic()
                next_bytes = now + ((now - began) / BYTES_SHARE if self._bytes else self.interval_s)

    async def drain(self) -> None:
        """Write what is left to write, at the end."""
        while self._urgent or self._bytes:
            await self._write(self._urgent or self._bytes)

    async def _write(self, queue: _Turns) -> None:
        tickets = queue.take(self._batch)
        for ticket in tickets:
            if ticket.gone:
                self._count(ticket, None)
        if len(self._urgent) < BACKLOG:
            self._room.set()
        answers = [(ticket.path, None if ticket.gone else self._render(ticket)) for ticket in tickets]
        began = time.monotonic()
        failures = await asyncio.to_thread(_write_all, answers)
        each = max((time.monotonic() - began) / len(answers), 1e-6)
        self._batch = min(max(int(BATCH_S / each), 1), BATCH)
        for ticket in tickets:
            if not ticket.gone:
                self._note(ticket.path, failures.get(ticket.path))

    def _note(self, path: str, problem: str | None) -> None:
        if problem is None:
            self.unwritable.pop(path, None)
        elif self.unwritable.get(path) != problem:
            if len(self.unwritable) < 1000:
                self.unwritable[path] = problem
            logger.warning("no progress file beside {}: {}; the want is carried out all the same", ascii(path), problem)

    def _render(self, ticket: Ticket) -> bytes:
        now = datetime.now(UTC)
        models = [model for _, model in ticket.models]
        state = State.WAITING if ticket.waiting and not ticket.error else want_state(models, ticket.error)
        self._count(ticket, state)
        if state in FINAL and ticket.finished_at is None and ticket.waiting is None:
            ticket.finished_at = now
        info = WantInfo(
            name=ticket.path.rpartition("/")[2],
            attempt=max([ticket.attempt, *(model.attempt for model in models)]),
            created_at=ticket.created_at,
            started_at=ticket.started_at,
            finished_at=ticket.finished_at,
            labels=dict(ticket.want.labels) if ticket.want else {},
        )
        data, ticket.fraction = render(
            info, ticket.models, self._agent, now, least=ticket.fraction, error=ticket.error, waiting=ticket.waiting
        )
        return data


def _write_all(answers: list[tuple[str, bytes | None]]) -> dict[str, str]:
    failures = {}
    for path, data in answers:
        try:
            if data is None:
                remove_progress(path)
            else:
                write_progress(path, data)
        except FileNotFoundError:
            continue  # the directory went away: the scan will say so
        except OSError as error:
            failures[path] = error.strerror or str(error)
    return failures


def _folder(ticket: Ticket) -> str:
    return ticket.path.rpartition("/")[0]
