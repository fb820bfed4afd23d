"""Who may go next when there is room for few: by priority, with age counting, so that nobody starves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

AGING_S = 60.0  # a minute of waiting is worth one step of priority: the last of ten goes first after ten minutes


@dataclass(eq=False, slots=True)
class _Waiter:
    priority: Callable[[], int]
    since: float
    number: int
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class Slots:
    """`count()` places: the number may change. So may a priority (0 first, 9 last): it is asked for at each turn.

    `monotonic` is the time in seconds.
    """

    def __init__(self, count: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._count = count
        self._monotonic = monotonic
        self._taken = 0
        self._waiting: list[_Waiter] = []
        self._numbers = itertools.count()

    def hand_out(self) -> None:
        """Give away what is free. To be called when `count` may have grown; nobody loses a place when it shrinks."""
        while self._waiting and self._taken < self._count():
            now = self._monotonic()
            first = min(self._waiting, key=lambda w: (w.priority() - (now - w.since) / AGING_S, w.number))
            self._waiting.remove(first)
            self._taken += 1
            first.turn.set()

    @contextlib.asynccontextmanager
    async def place(self, priority: Callable[[], int], on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold a place for the block; `on_wait` is called once if there is none at first."""
        waiter = _Waiter(priority, self._monotonic(), next(self._numbers))
        self._waiting.append(waiter)
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
                self._waiting.remove(waiter)
            self.hand_out()
