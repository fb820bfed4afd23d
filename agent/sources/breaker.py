"""A circuit breaker: an unreachable source is left alone for a while, and then tried by one question, not by all.

closed    every question is asked
open      the source was unreachable: no question is asked for some seconds, and those under way stop waiting
probing   the time is over: one question is asked on behalf of all; its result closes or opens the breaker again
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from loguru import logger

from agent.core.retry import DOWN_MAX_S, DOWN_S, SOURCE_FAULTS
from agent.errors import Code, WantdError
from agent.net.faults import NoResponse

T = TypeVar("T")

UNREACHABLE = frozenset({Code.HUB_UNREACHABLE, Code.PROXY_UNREACHABLE})


class Breaker:
    """Stands before one source. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._faults = 0
        self._until = 0.0
        self._pause_s = DOWN_S
        self._opened = asyncio.Event()  # set while open
        self._why: WantdError | None = None
        self._probe: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the source is to be left alone."""
        return self._why is not None

    @property
    def is_due(self) -> bool:
        """Whether it is open, and time to see whether the source is back."""
        return self.is_open and self._clock() >= self._until

    @property
    def why(self) -> WantdError | None:
        """What the source ended with when it was last unreachable, None while it is not."""
        return self._why

    async def ask(self, name: str, question: Callable[[], Awaitable[T]], *, patient: bool = False) -> T:
        """The result of a question. Raises what it raises, and counts it.

        A caller that is not `patient` gets the reason as soon as another question finds the source unreachable.
        """
        task = asyncio.ensure_future(question())
        opened = asyncio.ensure_future(self._opened.wait()) if not patient and not self.is_open else None
        try:
            await asyncio.wait([task, opened] if opened else [task], return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self._why is not None:
                raise self._why
            result = await task
        except WantdError as error:
            if task.done():
                self._note(name, error)
            raise
        finally:
            for left in (task, opened):
                if left is not None and not left.done():
                    left.cancel()
        self._close(name)
        return result

    def probe(self, name: str, question: Callable[[], Awaitable[object]]) -> None:
        """If it is time to see whether the source is back, ask it in the background."""
        if not self.is_due or (self._probe and not self._probe.done()):
            return

        async def run() -> None:
            try:
                await self.ask(name, question, patient=True)
            except WantdError as error:
                if not self.is_open:
                    logger.debug("source {} answers again: {}", name, error.message)

        self._probe = asyncio.create_task(run(), name=f"probe {name}")

    async def close(self) -> None:
        """End a probe that is under way."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)

    def _note(self, name: str, error: WantdError) -> None:
        unreachable = error.code in UNREACHABLE and error.retryable
        if not unreachable and error.code not in (Code.RATE_LIMITED, Code.HUB_PROTOCOL):
            self._close(name)  # 401 and 404 come from a source that is there
            return
        self._faults += unreachable
        if not self.is_open and not isinstance(error, NoResponse) and self._faults < SOURCE_FAULTS:
            return
        self._pause_s = min(2 * self._pause_s, DOWN_MAX_S) if self.is_open else DOWN_S
        if not self.is_open:
            logger.warning("source {} unreachable, next try in {:.0f} s: {}", name, self._pause_s, error.message)
        # Others will get it: nothing of it may be about the model that this question was about.
        self._why = WantdError(error.code, error.message, error.hint, retry_after_s=error.retry_after_s)
        self._until = self._clock() + self._pause_s
        self._opened.set()

    def _close(self, name: str) -> None:
        if self.is_open:
            logger.info("source {} reachable again", name)
        self._faults = 0
        self._why = None
        self._opened.clear()
