"""Work for wants of many models, one small step at a time, while wants of few models go past."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from agent.state.fair_queue import FairQueue

Step = Callable[[], Awaitable[None]]


class Bulk:
    """Pieces of work for wants, by path. Those of one want are done in the order in which they came."""

    def __init__(self) -> None:
        self._queue: FairQueue[str, deque[Step]] = FairQueue(lambda path: path)
        self._at_work = ""
        self._there = asyncio.Event()

    def __contains__(self, path: str) -> bool:
        return path == self._at_work or path in self._queue

    def put(self, path: str, work: Step) -> None:
        """Do this for the want at `path`, after all that is to be done for it already."""
        steps = self._queue.get(path)
        if steps is None:
            self._queue.put(path, deque([work]))
        else:
            steps.append(work)
        self._there.set()

    async def serve(self) -> None:
        """Work until cancelled."""
        while True:
            await self._there.wait()
            await self.work()

    async def work(self) -> None:
        """Do all that there is to do."""
        self._there.clear()
        while taken := self._queue.take(1):
            [(path, steps)] = taken
            self._at_work = path
            try:
                await steps.popleft()()
            finally:
                self._at_work = ""
            if steps:
                later = self._queue.get(path)  # what came meanwhile is to be done after the rest
                steps.extend(later or ())
                self._queue.put(path, steps)
