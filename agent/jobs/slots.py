"""Who may go next when there is room for few: by priority, with age counting, so that nobody starves.

Among those of one priority, directories of wants have their turn one after the other: of 12,000 wants of one producer
none is ahead of the first want of another. Each step costs the same however many wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from agent.state.fair_queue import FairQueue

AGING_S = 60.0  # a minute of waiting is worth one step of priority: the last of ten goes first after ten minutes


@dataclass(eq=False, slots=True)
class _Waiter:
    priority: Callable[[], int]
    path: str
    since: float
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class _Class:
    """Those who wait with one priority."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.by_age: OrderedDict[_Waiter, None] = OrderedDict()
        self.in_turn: FairQueue[_Waiter, None] = FairQueue(lambda waiter: waiter.path)

    def add(self, waiter: _Waiter) -> None:
        self.by_age[waiter] = None
        self.in_turn.put(waiter, None)

    def remove(self, waiter: _Waiter) -> None:
        self.by_age.pop(waiter, None)
        self.in_turn.discard(waiter)

    def rank(self, now: float) -> float:
        """The priority of the one that has waited longest, with its age."""
        return self.priority - (now - next(iter(self.by_age)).since) / AGING_S

    def take(self) -> _Waiter:
        [(waiter, _)] = self.in_turn.take(1)
        del self.by_age[waiter]
        return waiter


class Slots:
    """`count()` places: the number may change. So may a priority (0 first, 9 last): see `reconsider`.

    `monotonic` is the time in seconds.
    """

    def __init__(self, count: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._count = count
        self._monotonic = monotonic
        self._taken = 0
        self._classes: dict[int, _Class] = {}

    @property
    def is_free(self) -> bool:
        """Whether a place could be had at once."""
        return self._taken < self._count() and not self._waiting()

    def reconsider(self) -> None:
        """Priorities may have changed, and `count` may have grown. For the clock: it looks at everybody who waits."""
        for known in self._waiting():
            for waiter in [waiter for waiter in known.by_age if waiter.priority() != known.priority]:
                known.remove(waiter)
                self._add(waiter)
        self.hand_out()

    def hand_out(self) -> None:
        """Give away what is free. Nobody loses a place when `count` shrinks."""
        while self._taken < self._count() and (waiting := self._waiting()):
            now = self._monotonic()
            first = min(waiting, key=lambda known: known.rank(now)).take()
            self._taken += 1
            first.turn.set()

    @contextlib.asynccontextmanager
    async def place(
        self, priority: Callable[[], int], on_wait: Callable[[], None] = lambda: None, path: str = ""
    ) -> AsyncIterator[None]:
        """Hold a place for the block; `on_wait` is called once if there is none at first.

        `path` is a want that it is for: turns are taken by its directory.
        """
        waiter = _Waiter(priority, path, self._monotonic())
        self._add(waiter)
        self.hand_out()
        try:
            if not waiter.turn.is_set():
                on_wait()
                await waiter.turn.wait()
            yield
        finally:
            if waiter.turn.is_set():
                self._taken -= 1
            else:
                for known in self._waiting():
                    known.remove(waiter)
            self.hand_out()

    def _add(self, waiter: _Waiter) -> None:
        priority = waiter.priority()
        if priority not in self._classes:
            self._classes[priority] = _Class(priority)
        self._classes[priority].add(waiter)

    def _waiting(self) -> list[_Class]:
        return [known for known in self._classes.values() if known.by_age]
