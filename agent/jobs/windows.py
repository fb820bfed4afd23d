"""The windows of `[[transfer.window]]` in force: which cap on the rate holds now, and which jobs it holds back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from agent.clock import Clock
from agent.config import Config, Transfer
from agent.core.waits import ForWindow
from agent.core.windows import Cap, Window, in_force
from agent.state.job import Job


class Windows:
    """Asks `core.windows` again only when something may have changed: the clock, or the configuration."""

    def __init__(self, config: Callable[[], Config], clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._asked: tuple[list[Window], datetime, Cap] | None = None

    def cap(self) -> Cap:
        """What holds now. A clock that jumps, in either direction, is asked again."""
        windows, now = self._config().transfer.window, self._clock.now().astimezone(UTC)
        if self._asked is not None:
            had, since, cap = self._asked
            if had is windows and since <= now and (cap.until is None or now < cap.until):
                return cap
        cap = in_force(windows, now)
        self._asked = (windows, now, cap)
        return cap

    def transfer(self) -> Transfer:
        """`[transfer]` as it holds now: an open window's cap takes the place of `max_rate`.

        In a pause nothing runs but what is urgent, under `max_rate`.
        """
        transfer = self._config().transfer
        rate = self.cap().max_rate if transfer.window else None
        return msgspec.structs.replace(transfer, max_rate=rate) if rate else transfer

    def holds(self, job: Job) -> ForWindow | None:
        """What a job waits for before it may download, or None."""
        if not self._config().transfer.window:
            return None
        cap = self.cap()
        if not cap.paused or (job.urgent and self._config().policy.urgent):
            return None
        return ForWindow(cap.until)
