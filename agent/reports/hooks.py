"""Programs and addresses that are told when a want is ready or has failed: `[[hook]]` of the configuration.

At least once, through kills: what was told is noted after it was told, in a file beside the spool's lock. An agent that
starts sees each want become ready or fail again, and tells what is not noted. So a hook may hear of one thing twice,
and a hook that is added hears of every want that is ready or has failed already.

A hook is run without a shell, with the progress file's content on standard input, and is never in the way of a
download: it has its own tasks, and is ended when it hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from loguru import logger

from agent.clock import Clock
from agent.config import Hook
from agent.core.retry import HOOK_GIVE_UP_S, HOOK_RETRY_MAX_S, HOOK_RETRY_MIN_S, Backoff
from agent.core.states import FINAL, State
from agent.disk import atomic_write
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.state.ticket import Ticket

AT_ONCE = 4  # hooks running: they are the operator's own programs, and share the host with its models
TICKETS_A_TURN = 1000  # wants of one model that are looked at in one turn of the loop: a millisecond
CONFIG_LOOK_S = 2.0  # how soon a hook that was added by a reload hears of what is there already

Tell = Callable[[Hook, bytes, str], Awaitable[str | None]]  # the document, and the path of the want


@dataclass(slots=True)
class Telling:
    """One hook that is to hear of one want. Times are monotonic seconds; `tries` have failed."""

    hook: Hook
    ticket: Ticket
    state: State
    since: float
    due: float
    tries: int = 0


class Told:
    """What was told, as 16 hex digits each: in memory, and in a file that grows by a line each time. Blocks."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._keys: set[str] | None = None

    def __contains__(self, key: str) -> bool:
        return key in self.load()

    def load(self) -> set[str]:
        """What the file says; it is rewritten where most of its lines are obsolete."""
        if self._keys is None:
            self._keys = set()
            lines: list[str] = []
            with contextlib.suppress(OSError), open(self._path, encoding="ascii", errors="replace") as file:
                lines = file.read().splitlines()
            for line in lines:
                if line.startswith("+"):
                    self._keys.add(line[1:])
                else:
                    self._keys.discard(line[1:])
            if len(lines) > 2 * len(self._keys) + 1000:
                with contextlib.suppress(OSError):
                    atomic_write(self._path, "".join(f"+{key}\n" for key in sorted(self._keys)).encode())
        return self._keys

    def note(self, sign: str, keys: Sequence[str]) -> None:
        """Remember ("+") or forget ("-") keys. A full disk only means that something is told again."""
        known = self.load()
        for key in keys:
            if sign == "+":
                known.add(key)
            else:
                known.discard(key)
        with contextlib.suppress(OSError), open(self._path, "a", encoding="ascii") as file:
            file.write("".join(f"{sign}{key}\n" for key in keys))


class Hooks:
    """One subscriber of the feed. `tickets` are those of the spool; `document` gives what a progress file would say.

    `chance` gives numbers in [0, 1) for the jitter of retries.
    """

    def __init__(
        self,
        feed: Feed,
        tickets: Mapping[str, Ticket],
        clock: Clock,
        hooks: Callable[[], Sequence[Hook]],
        told: Told,
        document: Callable[[Ticket], Awaitable[bytes]],
        tell: Tell,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._changes = feed.subscribe()
        self._tickets = tickets
        self._clock = clock
        self._hooks = hooks
        self._told = told
        self._document = document
        self._tell = tell
        self._chance = chance
        self._known: Sequence[Hook] = ()
        self._keys: dict[Ticket, dict[str, Telling | None]] = {}  # of wants that are final: told, or (Telling) to tell
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Tell until cancelled."""
        try:
            while True:
                await self._changes.wait(self._pause())
                await self.look()
                self._start_due()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def look(self) -> None:
        """Take what the feed has, and what a reload has changed."""
        hooks = self._hooks()
        changes = self._changes.take()
        if not hooks:
            self._known, self._keys = (), {}
            return
        await asyncio.to_thread(self._told.load)
        if hooks != self._known:
            self._known = hooks
            await self._look_at(list(self._tickets.values()))
        for subject, change in changes.items():
            if change is Change.BYTES:
                continue
            await self._look_at([subject] if isinstance(subject, Ticket) else list(_wants_of(subject)))

    async def _look_at(self, tickets: Sequence[Ticket]) -> None:
        forgotten: list[str] = []
        for at, ticket in enumerate(tickets):
            if at % TICKETS_A_TURN == TICKETS_A_TURN - 1:
                await asyncio.sleep(0)
            state = ticket.state
            if ticket.gone or state not in FINAL:
                # It is wanted again, or no longer: the next time that it is ready is news.
                forgotten += [key for key in self._keys.pop(ticket, {}) if key in self._told]
                continue
            now = self._clock.monotonic()
            keys = self._keys.setdefault(ticket, {})
            for hook in self._known:
                key = _key(hook, ticket, state)
                if state.value in hook.on and key not in keys:
                    keys[key] = None if key in self._told else Telling(hook, ticket, state, now, now)
        if forgotten:
            await asyncio.to_thread(self._told.note, "-", forgotten)

    def _waiting(self) -> list[tuple[str, Telling]]:
        return [(key, one) for keys in self._keys.values() for key, one in keys.items() if one]

    def _pause(self) -> float | None:
        """Seconds until something is due."""
        if not self._hooks() and not self._known:
            return CONFIG_LOOK_S
        due = min((one.due for _, one in self._waiting()), default=self._clock.monotonic() + CONFIG_LOOK_S)
        return min(max(due - self._clock.monotonic(), 0.05), CONFIG_LOOK_S)

    def _start_due(self) -> None:
        now = self._clock.monotonic()
        for key, one in sorted(self._waiting(), key=lambda pair: pair[1].due):
            if one.due > now or len(self._running) >= AT_ONCE:
                return
            one.due = now + HOOK_GIVE_UP_S  # not again while it runs
            task = asyncio.create_task(self._deliver(key, one), name=f"hook {key}")
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changes.wake()

    async def _deliver(self, key: str, one: Telling) -> None:
        log = logger.bind(want=one.ticket.path)
        data = await self._document(one.ticket)
        problem = await self._tell(one.hook, data, one.ticket.path)
        now, name = self._clock.monotonic(), one.hook.name
        keys = self._keys.get(one.ticket, {})
        if keys.get(key) is not one:
            return  # it is no longer in that state
        if problem is None:
            await asyncio.to_thread(self._told.note, "+", [key])
            keys[key] = None
        elif now - one.since > HOOK_GIVE_UP_S:
            log.error("hook {} failed for a day and is given up for {}: {}", name, ascii(one.ticket.path), problem)
            await asyncio.to_thread(self._told.note, "+", [key])
            keys[key] = None
        else:
            one.tries += 1
            delay = Backoff(HOOK_RETRY_MIN_S, HOOK_RETRY_MAX_S).pause(one.tries, self._chance())
            one.due = now + delay
            log.warning("hook {} failed for {}: {}; retrying in {:.0f} s", name, ascii(one.ticket.path), problem, delay)


def _wants_of(subject: object) -> Sequence[Ticket]:
    return [want for want in subject.wanted_by if isinstance(want, Ticket)] if isinstance(subject, Job) else []


def _key(hook: Hook, ticket: Ticket, state: State) -> str:
    """One hook, one state of one request: another file, content or error is another."""
    error = ticket.error.code.value if ticket.error else ""
    parts = [msgspec.json.encode(hook).decode(), ticket.path, str(ticket.stamp), state.value, error]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]
