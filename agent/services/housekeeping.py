"""Everything that happens by the clock: the one APScheduler (SPEC section 8).

It runs on the wall clock, so a task on the monotonic clock watches for jumps and arms every job anew after one. Jobs
are short and guarded: one that fails is reported and runs again, one that hangs is cut off, none runs twice at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from loguru import logger

from agent.errors import WantdError

JOB_TIMEOUT_S = 300.0  # a scan of a spool on a slow network file system may take a minute, not five
CLOCK_CHECK_S = 1.0
CLOCK_JUMP_S = 1.5  # wall and monotonic clock apart by more than NTP slews in a second


class Housekeeping:
    """Intervals and appointments on one scheduler. All calls come from the event loop."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._intervals: dict[str, float] = {}
        self._due: dict[str, float] = {}  # appointments by monotonic time, which no clock step moves

    def every(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` each `seconds`; calling it again changes the interval."""
        self._intervals[name] = seconds
        trigger = IntervalTrigger(seconds=seconds, timezone=UTC)
        self._scheduler.add_job(_guarded, trigger, args=(name, work), id=name, name=name, replace_existing=True)

    def after(self, name: str, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` once in `seconds`; an appointment of the same name is replaced."""

        async def once() -> None:
            self._due.pop(name, None)
            await work()

        self._due[name] = time.monotonic() + max(seconds, 0.0)
        trigger = DateTrigger(datetime.now(UTC) + timedelta(seconds=max(seconds, 0.0)))
        self._scheduler.add_job(_guarded, trigger, args=(name, once), id=name, name=name, replace_existing=True)

    def forget(self, name: str) -> None:
        """Drop an appointment, if there is one."""
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
            if abs(now - apart) > CLOCK_JUMP_S:
                logger.warning("the clock jumped by {:+.0f} s: all timers are armed anew", now - apart)
                self._arm_anew()
            apart = now

    def _arm_anew(self) -> None:
        now = datetime.now(UTC)
        for name, seconds in self._intervals.items():
            trigger = IntervalTrigger(seconds=seconds, timezone=UTC, start_date=now)
            self._scheduler.reschedule_job(name, trigger=trigger)
        for name, due in list(self._due.items()):
            if self._scheduler.get_job(name):
                left = max(due - time.monotonic(), 0.0)
                self._scheduler.reschedule_job(name, trigger=DateTrigger(now + timedelta(seconds=left)))


async def _guarded(name: str, work: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(JOB_TIMEOUT_S):
            await work()
    except TimeoutError:
        logger.error("the scheduler's job {} took over {:.0f} s and was cut off", name, JOB_TIMEOUT_S)
    except (WantdError, OSError) as error:
        logger.error("the scheduler's job {} failed: {}", name, ascii(str(error)))
