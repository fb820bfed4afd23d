"""Time, and everything that happens by it: the one APScheduler.

`Clock` is what other parts are handed: two readings of time, intervals and appointments. `SystemClock` is the real
one; tests hand in one that they move. APScheduler runs on the wall clock, so a task on the monotonic clock watches for
jumps and sets every timer again after one. Work is short and guarded: what fails is reported and runs again, what hangs
is cut off, nothing runs twice at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from loguru import logger

from agent.errors import WantdError

JOB_TIMEOUT_S = 300.0  # a scan of a spool on a slow network file system may take a minute, not five
CLOCK_CHECK_S = 1.0  # also how soon a changed interval takes effect
CLOCK_JUMP_S = 1.5  # wall and monotonic clock apart by more than NTP slews in a second

Work = Callable[[], Awaitable[None]]


class Clock(Protocol):
    """Readings of time, and appointments."""

    def monotonic(self) -> float:
        """Seconds, which no step of the wall clock moves."""
        ...

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def every(self, name: str, seconds: Callable[[], float], work: Work) -> None:
        """Run `work` at an interval that is asked for again and again: it may change."""
        ...

    def after(self, name: str, seconds: float, work: Work) -> None:
        """Run `work` once in `seconds`; an appointment of the same name is replaced."""
        ...

    def forget(self, name: str) -> None:
        """Drop an appointment, if there is one."""
        ...


class SystemClock:
    """The real `Clock`. All calls come from the event loop."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._intervals: dict[str, tuple[Callable[[], float], float]] = {}
        self._due: dict[str, float] = {}  # appointments by monotonic time

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await asyncio.sleep(seconds)

    def every(self, name: str, seconds: Callable[[], float], work: Work) -> None:
        """See `Clock`. A change takes effect within `CLOCK_CHECK_S`."""
        self._intervals[name] = seconds, seconds()
        trigger = IntervalTrigger(seconds=seconds(), timezone=UTC)
        self._scheduler.add_job(_guarded, trigger, args=(name, work), id=name, name=name, replace_existing=True)

    def after(self, name: str, seconds: float, work: Work) -> None:
        """See `Clock`."""

        async def once() -> None:
            self._due.pop(name, None)
            await work()

        self._due[name] = time.monotonic() + max(seconds, 0.0)
        trigger = DateTrigger(datetime.now(UTC) + timedelta(seconds=max(seconds, 0.0)))
        self._scheduler.add_job(_guarded, trigger, args=(name, once), id=name, name=name, replace_existing=True)

    def forget(self, name: str) -> None:
        """See `Clock`."""
        if self._due.pop(name, None) is not None and self._scheduler.get_job(name):
            self._scheduler.remove_job(name)

    async def serve(self) -> None:
        """Run until cancelled."""
        self._scheduler.start()
        try:
            await self._watch_clock()
        finally:
            self._scheduler.shutdown(wait=False)

    async def _watch_clock(self) -> None:
        apart = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(CLOCK_CHECK_S)
            now = time.time() - time.monotonic()
            jumped = abs(now - apart) > CLOCK_JUMP_S
            if jumped:
                logger.warning("the clock jumped by {:+.0f} s; setting all timers again", now - apart)
                self._set_appointments()
            self._set_intervals(all_of_them=jumped)
            apart = now

    def _set_intervals(self, *, all_of_them: bool) -> None:
        """Set those again whose interval has changed."""
        for name, (seconds, before) in self._intervals.items():
            if all_of_them or seconds() != before:
                self._intervals[name] = seconds, seconds()
                trigger = IntervalTrigger(seconds=seconds(), timezone=UTC, start_date=datetime.now(UTC))
                self._scheduler.reschedule_job(name, trigger=trigger)

    def _set_appointments(self) -> None:
        for name, due in list(self._due.items()):
            if self._scheduler.get_job(name):
                left = max(due - time.monotonic(), 0.0)
                trigger = DateTrigger(datetime.now(UTC) + timedelta(seconds=left))
                self._scheduler.reschedule_job(name, trigger=trigger)


async def _guarded(name: str, work: Work) -> None:
    try:
        async with asyncio.timeout(JOB_TIMEOUT_S):
            await work()
    except TimeoutError:
        logger.error("the scheduled work '{}' took over {:.0f} s and was cut off", name, JOB_TIMEOUT_S)
    except (WantdError, OSError) as error:
        logger.error("the scheduled work '{}' failed: {}", name, ascii(str(error)))
