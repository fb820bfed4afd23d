"""Room for jobs: reserved on the disk and below the quota, and made by removing what may go.

The event loop decides, threads look and remove. A model is removed only after a look at the jobs in the same turn of
the loop, and from then on counts as leaving: a want that comes meanwhile is not told that the model is there, whatever
its own look at the store has found (`leaving`), and so is downloaded again.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from loguru import logger

from agent.clock import Clock
from agent.config import Store
from agent.core.names import StoreName
from agent.core.retention import Census, Reason, due, make_room
from agent.core.retry import LEAVING_S, ROOM_SETTLE_POLL_S, ROOM_SETTLE_S
from agent.core.target import Target
from agent.core.waits import ForDisk, ForQuota, Pin
from agent.core.words import size
from agent.errors import Code, WantdError
from agent.jobs.disk import finish_before_cancel
from agent.jobs.run import NotNow
from agent.state.job import Job
from agent.state.news import ModelNews
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.room import census
from agent.store.room.leases import Leased
from agent.store.room.removal import Removed, Remover
from agent.store.room.uses import mark
from agent.store.space import Shortage, Space

PINS_SHOWN = 3  # of the models that hold room, and of the wants of each
ENDLESS = 2**62  # bytes; where there is no quota

Wants = Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class Room:
    """The room of one store. `config` is the `[store]` section in force, `jobs` all jobs by target.

    `others` are the wants that are no jobs of this agent, by the names of the models that they ask for: of other
    agents that use the store, and those whose time has not come. `tell` hears of each model that went. It touches the
    disk.
    """

    layout: Layout
    inventory: Inventory
    space: Space
    remover: Remover
    clock: Clock
    jobs: Mapping[Target, Job]
    config: Callable[[], Store]
    others: Callable[[], Wants] = dict
    tell: Callable[[ModelNews], object] = lambda _: None
    removed: Counter[Reason] = field(default_factory=Counter)  # models, since the start
    freed_bytes: int = 0  # since the start
    _leaving: dict[str, float] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that no two jobs have room made for one need

    # What jobs ask for

    async def reserve(self, job: Job, need: int, whole: int) -> None:
        """Reserve `need` bytes for the job, whose model has `whole` bytes; room is made where models may go.

        Raises NotNow with what the job has to wait for, `insufficient_space`.
        """
        quota = self.config().max_bytes
        if quota and whole > quota:
            raise WantdError(
                Code.INSUFFICIENT_SPACE,
                f"{size(whole)} needed, and the store may have {size(quota)} in all (store.max_bytes)",
                "raise store.max_bytes, or choose a smaller quant",
            )
        async with self._turn:
            short = await self._try(job, need)
            if short and self._evicts and await self._make(short):
                short = await self._settled(job, need)
        if short:
            kind = ForQuota if short.of_quota else ForDisk
            raise NotNow(kind(short.need_bytes, short.free_bytes, await self._pins()))
        self._leaving.pop(job.target.name, None)  # what is seen of it from here on is what this job publishes

    def release(self, job: Job) -> None:
        """Drop what the job has reserved."""
        self.space.release(job)

    def free(self) -> int:
        """Bytes on the disk that are neither used nor reserved."""
        return self.space.free()

    async def capacity(self) -> int:
        """Bytes that jobs could have reserved for them now, with what may be removed for it."""
        quota = self.config().max_bytes
        left = quota - await self._used() - self.space.reserved_bytes if quota else ENDLESS
        free = min(await asyncio.to_thread(self.space.balance), left)
        if self._evicts:
            free += (await self.census()).evictable(self._now)
        return max(free, 0)

    def leaving(self, name: StoreName) -> bool:
        """Whether the model is being removed, or was a moment ago: what was seen of it in the store is over."""
        gone = self._leaving.get(name)
        return gone is not None and self.clock.monotonic() < gone + LEAVING_S

    # What the clock asks for

    async def tend(self) -> None:
        """Remove what is due: unused models, and what is too much for quota and disk."""
        store = self.config()
        if not (store.keep_days or self._evicts):
            return
        async with self._turn:
            counted = await self.census()
            for name, model in counted.models.items():
                if model.leased:
                    await asyncio.to_thread(mark, self.layout.directory(StoreName(name)), self._now)
            for name, reason in await self.plan(counted):
                await self._remove(StoreName(name), reason)

    async def plan(self, counted: Census) -> list[tuple[str, Reason]]:
        """What `tend` would remove now, in order, and why."""
        store = self.config()
        over = max(await self._used() - store.max_bytes, 0) if store.max_bytes and self._evicts else 0
        short = await asyncio.to_thread(self.space.short_of) if self._evicts else 0
        return [(model.name, why) for model, why in due(counted, self._now, store.keep_days * 86400, over, short)]

    async def census(self) -> Census:
        """What the store holds now, with the wants of all who use it."""
        wanted = self.wanted()

        def look() -> Census:
            self.inventory.refresh()
            others = self.others()
            everyone = {name: (*wanted.get(name, ()), *others.get(name, ())) for name in wanted.keys() | others.keys()}
            return census.take(self.layout, self.remover.view.root, self.inventory.entries(), everyone)

        return await asyncio.to_thread(look)

    def wanted(self) -> dict[str, tuple[str, ...]]:
        """The wants of this agent that name each model, as paths."""
        found: dict[str, tuple[str, ...]] = {}
        for target, job in self.jobs.items():
            found[target.name] = (*found.get(target.name, ()), *(ticket.path for ticket in job.wanted_by))
        return found

    # What people ask for

    async def remove(self, name: StoreName) -> Removed:
        """Remove a model for a person.

        Raises Wanted, Leased, `model_not_found`, `lock_timeout`, `store_unwritable`.
        """
        if wants := (await asyncio.to_thread(self.others)).get(name):
            raise Wanted(name, wants)
        return await self._take_away(name, Reason.REQUESTED)

    # How

    @property
    def _now(self) -> float:
        return self.clock.now().timestamp()

    @property
    def _evicts(self) -> bool:
        return self.config().evict == "lru"

    async def _used(self) -> int:
        """What the store takes. What begins to be written while that is counted, counts."""
        before = self.space.reserved_bytes
        used = await asyncio.to_thread(census.used_bytes, self.layout)
        return used + max(before - self.space.reserved_bytes, 0)

    async def _try(self, job: Job, need: int) -> Shortage | None:
        used = await self._used() if self.config().max_bytes else 0
        return self.space.reserve(job, need, used)

    async def _settled(self, job: Job, need: int) -> Shortage | None:
        """Reserve what was made; some file systems need a moment to give it."""
        deadline = self.clock.monotonic() + ROOM_SETTLE_S
        while (short := await self._try(job, need)) and self.clock.monotonic() < deadline:
            await self.clock.sleep(ROOM_SETTLE_POLL_S)
        return short

    async def _make(self, short: Shortage) -> bool:
        """Remove models until there is enough; nothing where that cannot be. Returns whether anything went."""
        reason = Reason.QUOTA if short.of_quota else Reason.DISK
        missing, went = short.missing, False
        refused: set[str] = set()
        while missing > 0:
            counted = await self.census()
            for model in make_room(counted.without(refused), missing, self._now) or ():
                removed = await self._remove(StoreName(model.name), reason)
                if removed is None:
                    refused.add(model.name)
                    break
                missing, went = missing - removed.freed_bytes, True
            else:
                break
        return went

    async def _remove(self, name: StoreName, reason: Reason) -> Removed | None:
        """Remove a model that was found to be free; None where it is no longer, or the disk does not let it go."""
        try:
            return await self._take_away(name, reason)
        except (Wanted, Leased):
            return None
        except WantdError as error:
            logger.warning("{} was to be removed ({}): {}", name, reason, error.message)
            return None

    async def _take_away(self, name: StoreName, reason: Reason) -> Removed:
        if wants := self.wanted().get(name):
            raise Wanted(name, wants)
        # No await between that look and this mark.
        self._leaving[name] = float("inf")
        try:
            removed = await finish_before_cancel(asyncio.to_thread(self.remover.remove, name))
        except BaseException:
            del self._leaving[name]
            raise
        self._leaving = {other: at for other, at in self._leaving.items() if self.leaving(StoreName(other))}
        self._leaving[name] = self.clock.monotonic()
        self.removed[reason] += 1
        self.freed_bytes += removed.freed_bytes
        what: Literal["removed", "evicted"] = "removed" if reason is Reason.REQUESTED else "evicted"
        self.tell(ModelNews(removed.model, what, reason=reason))
        held = f", {size(removed.held_bytes)} more when its readers end" if removed.held_bytes else ""
        logger.bind(model=removed.model).info(
            "removed {} ({}): {} freed{}", removed.model, reason, size(removed.freed_bytes), held
        )
        return removed

    async def _pins(self) -> tuple[Pin, ...]:
        counted = await self.census()
        return tuple(
            Pin(
                model.name,
                counted.size(model.name),
                tuple(os.path.basename(path) for path in model.wanted_by[:PINS_SHOWN]),
                model.leased,
                model.in_use,
            )
            for model in counted.holding(self._now, evict=self._evicts)[:PINS_SHOWN]
        )


class Wanted(Exception):
    """The model stays: these wants name it."""

    def __init__(self, name: str, wants: tuple[str, ...]) -> None:
        super().__init__(f"{name} is wanted by {', '.join(wants)}")
        self.name = name
        self.wants = wants
