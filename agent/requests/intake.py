"""Wants become tickets and jobs: what changed in the spool is read, looked up, shared, and taken back when it is gone.

Work is done in small batches that are fair to directories, so that neither a flood of wants nor one producer's rubbish
delays another's request for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from loguru import logger

from agent.clock import Clock
from agent.core.catalog import Catalog
from agent.core.states import State
from agent.core.target import Target, make_target
from agent.core.waits import NotBefore
from agent.core.want import Want, WantedModel
from agent.errors import WantdError
from agent.jobs.board import Board
from agent.requests.lookout import Look
from agent.requests.read import Seen, read
from agent.state.feed import Feed
from agent.state.job import Job
from agent.state.ticket import Part, Ticket
from agent.store.layout import Published

# A model seen in the store this lately is not looked for again: 10,000 wants for one model are one look a second.
STORE_LOOK_S = 1.0
RERESOLVED_AT_ONCE = 200  # wants looked up again in one hop to a thread
APPOINTMENT_MAX_S = 30 * 86400.0  # farther not_before times are looked at again after a month


class Outlook(Protocol):
    """What intake needs of the lookout (`requests.lookout.Lookout`)."""

    async def next(self) -> Look:
        """What to look at now."""
        ...

    def look_again(self, path: str) -> None:
        """The want is still being written."""
        ...

    def settled(self, path: str) -> None:
        """The want was read, or is gone."""
        ...

    def close(self) -> None:
        """Stop looking."""
        ...


class Intake:
    """Serves one spool: keeps `tickets` and, through the board, the jobs true to the wants that are there.

    `catalog` and `policy` (`policy.allow`) give what is in force now; `published` says what the store has of a target,
    and touches the disk, as `read` does. `settings` is the file that `policy.allow` is set in, for hints.
    """

    def __init__(
        self,
        tickets: dict[str, Ticket],
        lookout: Outlook,
        board: Board,
        clock: Clock,
        feed: Feed,
        published: Callable[[Target], Published | None],
        catalog: Callable[[], Catalog],
        policy: Callable[[], str | list[str]],
        read: Callable[[str, bool], Seen] = read,
        settings: str = "config.toml",
    ) -> None:
        self.tickets = tickets
        self._lookout = lookout
        self._board = board
        self._clock = clock
        self._feed = feed
        self._published = published
        self._catalog = catalog
        self._policy = policy
        self._read = read
        self._settings = settings
        self._resolved_with = catalog(), policy()
        self._looked: dict[Target, tuple[float, Published]] = {}

    async def serve(self) -> None:
        """Run until cancelled."""
        try:
            while True:
                look = await self._lookout.next()
                for path in look.unanswered:
                    if ticket := self.tickets.get(path):
                        self._feed.changed(ticket)
                if look.paths:
                    await self._feed.wait_for_capacity()
                    await self.take_in(look.paths)
        finally:
            self._lookout.close()

    async def take_in(self, paths: list[tuple[str, bool]]) -> None:
        """Read these paths (True: the writer was seen to close it) and act on what they hold now."""
        seen = await asyncio.to_thread(lambda: [self._read(path, closed) for path, closed in paths])
        now = self._clock.now()  # one object for all of them
        begun: list[Ticket] = []
        for look in seen:
            if look.still:
                self._lookout.look_again(look.path)
                continue
            self._lookout.settled(look.path)
            if look.stamp is None:
                self._drop(look.path)
            elif ticket := self._note(look, now):
                begun.append(ticket)
        await self._begin_all(begun)

    def postponed(self) -> list[tuple[str, list[WantedModel]]]:
        """The wants whose time has not come, and what they name. May be called from any thread."""
        waiting = [ticket for ticket in list(self.tickets.values()) if ticket.waiting]
        return [(ticket.path, list(ticket.want.models)) for ticket in waiting if ticket.want]

    async def reresolve(self) -> None:
        """Where the catalog or the policy has changed, wants that it makes different begin again, the others go on."""
        before, now = self._resolved_with, (self._catalog(), self._policy())
        if before[0] is now[0] and before[1] == now[1]:
            return
        self._resolved_with = now
        tickets = list(self.tickets.values())
        for at in range(0, len(tickets), RERESOLVED_AT_ONCE):
            some = tickets[at : at + RERESOLVED_AT_ONCE]
            wants = [(ticket, ticket.want) for ticket in some if ticket.want and not ticket.waiting]
            resolved = await asyncio.to_thread(self._resolve_all, [want for _, want in wants])
            for (ticket, want), targets in zip(wants, resolved, strict=True):
                had = [job.target for job in _jobs(ticket)]
                differs = had != [target for target in targets if isinstance(target, Target)]
                if differs and ticket.want == want and not ticket.gone:
                    await self._begin(ticket)

    def _note(self, look: Seen, now: datetime) -> Ticket | None:
        """Note what was read; the ticket if it has to be begun."""
        ticket = self.tickets.get(look.path)
        if ticket is None:
            ticket = self.tickets[look.path] = Ticket(look.path, now)
        elif ticket.stamp == look.stamp:
            return None  # our own reading, or an event that came late
        elif ticket.digest == look.digest and look.digest is not None:
            ticket.stamp = look.stamp
            return ticket if self._touched(ticket, now) else None
        self._release(ticket)
        ticket.reset(now)
        ticket.stamp, ticket.digest = look.stamp, look.digest
        ticket.want, ticket.error = look.want, look.error
        if look.error:
            logger.bind(want=look.path, code=look.error.code.value).warning(
                "{}: {} ({})", ascii(look.path), look.error.message, look.error.code
            )
            self._feed.changed(ticket)
            return None
        return ticket

    def _touched(self, ticket: Ticket, now: datetime) -> bool:
        """A want was written again with the same content. True when all of it has to be begun again."""
        if ticket.want is None:
            return False  # the same bytes are wrong in the same way
        if ticket.state is not State.FAILED:
            for job in _jobs(ticket):
                self._board.retry_now(job)
            return False
        jobs = _jobs(ticket)
        self._release(ticket)
        ticket.retry(now)
        for job in jobs:
            if job.wanted_by:  # by others too, who keep a job that has failed
                self._board.retry_now(job)
        return True

    async def _begin_all(self, tickets: list[Ticket]) -> None:
        due = [(ticket, ticket.want) for ticket in tickets if ticket.want and not self._not_yet(ticket)]
        if not due:
            return
        # In a thread: near misses for a manifest of 10,000 unknown names take a second.
        resolved, published = await asyncio.to_thread(self._look_up, [want for _, want in due], self._clock.monotonic())
        now = self._clock.now()  # one object for all of them
        for (ticket, want), targets in zip(due, resolved, strict=True):
            if self.tickets.get(ticket.path) is not ticket or ticket.want != want:
                continue  # removed, or rewritten, in the meantime
            ticket.started_at = now
            parts: list[Part] = []
            for target in targets:
                if isinstance(target, Target):
                    parts.append(self._board.subscribe(ticket, target, want.priority, published[target]))
                else:
                    parts.append(target)
            ticket.parts = parts
            _log_refused(ticket)
            self._feed.changed(ticket)

    async def _begin(self, ticket: Ticket) -> None:
        self._release(ticket)
        ticket.parts = ()
        ticket.resume()
        await self._begin_all([ticket])

    def _resolve_all(self, wants: list[Want]) -> list[list[Target | WantdError]]:
        return [[self._target(model) for model in want.models] for want in wants]

    def _target(self, model: WantedModel) -> Target | WantdError:
        try:
            return make_target(self._catalog(), self._policy(), model, settings=self._settings)
        except WantdError as error:
            if error.model == model.reference:
                error.model = model.reference  # one string, not two
            return error.with_traceback(None)  # which would keep the frames, and all that is in them

    def _not_yet(self, ticket: Ticket) -> bool:
        """Whether the want asks for a later time; then it is begun by appointment."""
        when = ticket.want.not_before if ticket.want else None
        if when is None or when <= self._clock.now():
            return False

        async def begin() -> None:
            if self.tickets.get(ticket.path) is ticket and ticket.waiting:
                await self._begin(ticket)

        ticket.waiting = NotBefore(when)
        seconds = (when - self._clock.now()).total_seconds()
        self._clock.after(f"begin {ticket.path}", min(seconds, APPOINTMENT_MAX_S), begin)
        self._feed.changed(ticket)
        return True

    def _look_up(
        self, wants: list[Want], now: float
    ) -> tuple[list[list[Target | WantdError]], dict[Target, Published | None]]:
        """What each want's models come down to, and what the store has of them. `now` is monotonic."""
        resolved = self._resolve_all(wants)
        wanted = {target for targets in resolved for target in targets if isinstance(target, Target)}
        return resolved, self._in_store(wanted, now)

    def _in_store(self, targets: set[Target], now: float) -> dict[Target, Published | None]:
        """What the store has of each. One that was not there may be there by now: it is looked for each time."""
        looked = {target: look for target, look in self._looked.items() if look[0] > now - STORE_LOOK_S}
        known = {target: looked[target][1] for target in targets if target in looked}
        found = {target: self._published(target) for target in targets if target not in known}
        looked |= {target: (now, published) for target, published in found.items() if published}
        self._looked = looked  # one assignment: another look-up may run in another thread, and loses nothing but time
        return {**known, **found}

    def _release(self, ticket: Ticket) -> None:
        self._board.unsubscribe(ticket, _jobs(ticket))
        self._clock.forget(f"begin {ticket.path}")

    def _drop(self, path: str) -> None:
        """The want is gone: nothing is done for it any more, and its progress file goes too."""
        if ticket := self.tickets.pop(path, None):
            self._release(ticket)
            ticket.gone = True
            self._feed.gone(ticket)


def _log_refused(ticket: Ticket) -> None:
    """One line for the models of a want that the catalog, the policy or their own names refuse."""
    refused = [part for part in ticket.parts if isinstance(part, WantdError)]
    if refused:
        first, more = refused[0], f", and {len(refused) - 1} more" if refused[1:] else ""
        logger.bind(want=ticket.path, code=first.code.value, model=first.model).warning(
            "{}: {} ({}){}", ascii(ticket.path), first.message, first.code, more
        )


def _jobs(ticket: Ticket) -> list[Job]:
    return [part for part in ticket.parts if isinstance(part, Job)]
