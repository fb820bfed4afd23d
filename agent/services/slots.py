"""Who may go next when there is room for few: by priority, with age counting, so that nobody starves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
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
    """`count` places. The priority (0 first, 9 last) is asked for at each turn: it may change while one waits."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._clock = clock
        self._taken = 0
        self._waiting: list[_Waiter] = []
        self._numbers = itertools.count()

    def resize(self, count: int) -> None:
        """Change the number of places; who has one keeps it."""
        self._count = count
        self._hand_out()

    @contextlib.asynccontextmanager
    async def place(self, priority: Callable[[], int], on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """Hold a place for the block; `on_wait` is called once if there is none at first."""
        waiter = _Waiter(priority, self._clock(), next(self._numbers))
        self._waiting.append(waiter)
        self._hand_out()
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
            self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self._taken < self._count:
            now = self._clock()
            first = min(self._waiting, key=lambda w: (w.priority() - (now - w.since) / AGING_S, w.number))
            self._waiting.remove(first)
            self._taken += 1
            first.turn.set()
