"""Wants become tickets and jobs: what changed in the spool is read, looked up, shared, and taken back when it is gone.

Work is done in small batches that are fair to directories, so that neither a flood of wants nor one producer's rubbish
delays another's request for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

from loguru import logger

from agent.clock import Clock
from agent.core.catalog import Catalog
from agent.core.limits import SLICE_MODELS
from agent.core.states import State
from agent.core.target import Target
from agent.core.waits import NotBefore
from agent.core.want import Want, WantedModel
from agent.errors import WantdError
from agent.jobs.board import Board
from agent.requests.bulk import Bulk
from agent.requests.lookout import Look
from agent.requests.read import Seen
from agent.requests.resolve import Resolver
from agent.state.feed import Feed
from agent.state.job import Job
from agent.state.ticket import Part, Ticket
from agent.store.layout import Published

# A model seen in the store this lately is not looked for again: 10,000 wants for one model are one look a second.
STORE_LOOK_S = 1.0
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

    def put_back(self, paths: list[tuple[str, bool]]) -> None:
        """These were not read yet: give them again when their turn comes."""
        ...

    def close(self) -> None:
        """Stop looking."""
        ...


class Intake:
    """Serves one spool: keeps `tickets` and, through the board, the jobs true to the wants that are there.

    `catalog` and `policy` (`policy.allow`) give what is in force now; `published` says what the store has of a target,
    and touches the disk, as `read` does, which may read only the first of what it is given. `settings` is the file that
    `policy.allow` is set in, for hints.
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
        read: Callable[[list[tuple[str, bool]]], list[Seen]],
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
        self.bulk = Bulk()  # to be served beside the intake
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
        seen = await asyncio.to_thread(self._read, paths)
        self._lookout.put_back(paths[len(seen) :])
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

    async def reresolve(self) -> None:
        """Where the catalog or the policy has changed, wants that it makes different begin again, the others go on."""
        before, now = self._resolved_with, (self._catalog(), self._policy())
        if before[0] is now[0] and before[1] == now[1]:
            return
        self._resolved_with = now
        tickets = [ticket for ticket in self.tickets.values() if ticket.want and not ticket.waiting]
        for at in range(0, len(tickets), SLICE_MODELS):
            few = []
            for ticket in tickets[at : at + SLICE_MODELS]:
                want = ticket.want
                if want and self._is_bulk(ticket, want):
                    self.bulk.put(ticket.path, partial(self._reresolve_bulk, ticket, want))
                elif want:
                    few.append((ticket, want))
            resolved = await asyncio.to_thread(self._resolver().resolve_all, [want.models for _, want in few])
            for (ticket, want), targets in zip(few, resolved, strict=True):
                if _differs(ticket.parts, targets) and ticket.want == want and not ticket.gone:
                    await self._begin(ticket)

    async def _reresolve_bulk(self, ticket: Ticket, want: Want) -> None:
        """The same for one want of many models."""
        resolver, parts = self._resolver(), ticket.parts
        for at in range(0, len(parts), SLICE_MODELS):
            some = slice(at, at + SLICE_MODELS)
            targets = await asyncio.to_thread(resolver.resolve, want.models[some])
            if not self._is_current(ticket, want):
                return
            if _differs(parts[some], targets):
                ticket.parts = ()
                ticket.resume()
                self._feed.changed(ticket)
                await self._release_bulk(ticket, [part for part in parts if isinstance(part, Job)])
                await self._begin_bulk(ticket, want)
                return

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
        failed, jobs = ticket.state is State.FAILED, _jobs(ticket)
        if failed:
            self._release(ticket)
            ticket.retry(now)
        if self._is_bulk(ticket, ticket.want):
            self.bulk.put(ticket.path, partial(self._retry_bulk, jobs))
        else:
            self._retry(jobs)
        return failed

    def _retry(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.wanted_by:  # by others too, who keep a job that has failed
                self._board.retry_now(job)

    async def _retry_bulk(self, jobs: Sequence[Job]) -> None:
        for at in range(0, len(jobs), SLICE_MODELS):
            self._retry(jobs[at : at + SLICE_MODELS])
            await asyncio.sleep(0)

    async def _begin_all(self, tickets: list[Ticket]) -> None:
        due: list[tuple[Ticket, Want]] = []
        for ticket in tickets:
            want = ticket.want
            if want is None or self._not_yet(ticket):
                continue
            if self._is_bulk(ticket, want):
                self.bulk.put(ticket.path, partial(self._begin_bulk, ticket, want))
                self._feed.changed(ticket)
            else:
                due.append((ticket, want))
        if not due:
            return
        wants = [want.models for _, want in due]
        resolved, published = await asyncio.to_thread(self._look_up, self._resolver(), wants, self._clock.monotonic())
        now = self._clock.now()  # one object for all of them
        for (ticket, want), targets in zip(due, resolved, strict=True):
            if self.tickets.get(ticket.path) is not ticket or ticket.want != want:
                continue  # removed, or rewritten, in the meantime
            ticket.started_at = now
            ticket.parts = self._subscribe(ticket, want, targets, published)
            _log_refused(ticket)
            self._feed.changed(ticket)

    async def _begin_bulk(self, ticket: Ticket, want: Want) -> None:
        """The same for one want of many models, slice by slice."""
        parts: list[Part] = []
        resolver, now = self._resolver(), self._clock.now()
        for at in range(0, len(want.models), SLICE_MODELS):
            models = want.models[at : at + SLICE_MODELS]
            [targets], published = await asyncio.to_thread(self._look_up, resolver, [models], self._clock.monotonic())
            if not self._is_current(ticket, want):
                await self._release_bulk(ticket, [part for part in parts if isinstance(part, Job)])
                return
            parts += self._subscribe(ticket, want, targets, published)
        ticket.started_at = now
        ticket.parts = parts
        _log_refused(ticket)
        self._feed.changed(ticket)

    def _subscribe(
        self,
        ticket: Ticket,
        want: Want,
        targets: Iterable[Target | WantdError],
        published: Mapping[Target, Published | None],
    ) -> list[Part]:
        return [
            self._board.subscribe(ticket, target, want.priority, published[target])
            if isinstance(target, Target)
            else target
            for target in targets
        ]

    async def _begin(self, ticket: Ticket) -> None:
        self._release(ticket)
        ticket.parts = ()
        ticket.resume()
        await self._begin_all([ticket])

    def _is_bulk(self, ticket: Ticket, want: Want) -> bool:
        """Whether work for the want is done in slices; also what comes after such work for it."""
        return len(want.models) > SLICE_MODELS or ticket.path in self.bulk

    def _is_current(self, ticket: Ticket, want: Want) -> bool:
        """Whether the ticket is still there, for this content."""
        return self.tickets.get(ticket.path) is ticket and ticket.want == want and not ticket.waiting

    def _resolver(self) -> Resolver:
        return Resolver(self._catalog(), self._policy(), self._settings)

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
        self, resolver: Resolver, wants: list[tuple[WantedModel, ...]], now: float
    ) -> tuple[list[list[Target | WantdError]], dict[Target, Published | None]]:
        """What the models of each want come down to, and what the store has of them. `now` is monotonic."""
        resolved = resolver.resolve_all(wants)
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
        jobs = _jobs(ticket)
        self._clock.forget(f"begin {ticket.path}")
        if len(jobs) > SLICE_MODELS or ticket.path in self.bulk:
            self.bulk.put(ticket.path, partial(self._release_bulk, ticket, jobs))
        else:
            self._board.unsubscribe(ticket, jobs)

    async def _release_bulk(self, ticket: Ticket, jobs: Sequence[Job]) -> None:
        for at in range(0, len(jobs), SLICE_MODELS):
            self._board.unsubscribe(ticket, jobs[at : at + SLICE_MODELS])
            await asyncio.sleep(0)

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


def _differs(parts: Sequence[Part], targets: Sequence[Target | WantdError]) -> bool:
    """Whether models now come down to something else."""
    had = [part.target for part in parts if isinstance(part, Job)]
    return had != [target for target in targets if isinstance(target, Target)]


def _jobs(ticket: Ticket) -> list[Job]:
    return [part for part in ticket.parts if isinstance(part, Job)]
