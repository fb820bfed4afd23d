"""What unit tests hand in where an agent has the real thing: a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agent.clock import Work

START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """A `agent.clock.Clock` on which no time passes until `advance`."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self.appointments: dict[str, tuple[float, Work]] = {}
        self.intervals: dict[str, tuple[Callable[[], float], Work]] = {}
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    def now(self) -> datetime:
        return START + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self._sleepers.append((self._elapsed + seconds, over))
        await over.wait()

    def every(self, name: str, seconds: Callable[[], float], work: Work) -> None:
        self.intervals[name] = seconds, work

    def after(self, name: str, seconds: float, work: Work) -> None:
        self.appointments[name] = self._elapsed + max(seconds, 0.0), work

    def forget(self, name: str) -> None:
        self.appointments.pop(name, None)

    async def advance(self, seconds: float) -> None:
        """Let time pass: appointments that fall due are kept in order, sleepers wake, and what follows settles."""
        until = self._elapsed + seconds
        while due := [(at, name) for name, (at, _) in self.appointments.items() if at <= until]:
            at, name = min(due)
            self._elapsed = max(self._elapsed, at)
            _, work = self.appointments.pop(name)
            await work()
            await settle()
        self._elapsed = until
        for at, over in self._sleepers:
            if at <= until:
                over.set()
        self._sleepers = [(at, over) for at, over in self._sleepers if at > until]
        await settle()


async def settle() -> None:
    """Let every task that can go on do so, until all of them wait for something."""
    for _ in range(50):
        await asyncio.sleep(0)
