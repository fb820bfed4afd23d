"""Files of published models that may have changed since they were proved: hashed before anything relies on them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from loguru import logger

from agent.core.names import show
from agent.jobs.disk import finish_before_cancel
from agent.state.job import Job
from agent.store.inventory import Held, Inventory
from agent.store.layout import Layout, Published
from agent.store.stamps import Stopped

AT_ONCE = 2  # files hashed at the same time, as in `jobs.adoption`


@dataclass(slots=True)
class Proving:
    """Hashes in threads of its own. Cancelling ends a hash at its next MiB."""

    layout: Layout
    inventory: Inventory
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "prove"))

    async def model(self, job: Job) -> Published | None:
        """The job's model, if it is whole and only its files' times are not as they were.

        Where a file is wrong, it is said; the job goes on, and downloads that file alone.
        """
        found = await asyncio.to_thread(self.layout.look, job.target)
        if found is None or not found[1]:
            return None
        published, written = found
        job.log.info("{}: {} of its files were written to since they were verified; verifying them again",
                     job.target.model, len(written))  # fmt: skip
        job.verify()
        held = [Held(published.directory, file.name, file.size, file.sha256) for file in written]
        right = [await self._prove(one, lambda _: None) for one in held]
        return published if all(right) else None

    async def first(self, held: Sequence[Held], on_bytes: Callable[[int], object]) -> str | None:
        """The path of the first of the files that has its bytes, or None. `on_bytes` is told how many are hashed."""
        for one in held:
            if await self._prove(one, on_bytes):
                return one.path
            on_bytes(0)
        return None

    async def _prove(self, held: Held, on_bytes: Callable[[int], object]) -> bool:
        loop, stopped = asyncio.get_running_loop(), threading.Event()

        def tell(done: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(on_bytes, done)

        work = self._threads.submit(self._hash, held, stopped, tell)

        def halt(work: Future[Any] = work) -> None:
            stopped.set()
            work.cancel()  # of one that waits for a thread

        return await finish_before_cancel(asyncio.wrap_future(work), halt)

    def _hash(self, held: Held, stopped: threading.Event, on_bytes: Callable[[int], object]) -> bool:
        try:
            wrong = self.inventory.prove(held, stopped.is_set, on_bytes)
        except Stopped:
            return False
        if wrong:
            logger.warning("damaged in the store: {}: {}; it is not used", show(held.path, 300), wrong)
        return wrong is None

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
