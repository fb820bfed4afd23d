"""Waiting for locks that other processes hold, in sight of everyone who wants the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock
from agent.core.names import show
from agent.core.retry import LOCK_POLL_S
from agent.core.waits import ForLock
from agent.errors import Code, WantdError
from agent.jobs.disk import Batches
from agent.state.job import Job
from agent.store.locks import Lock, Locks, read_holder


@dataclass(slots=True)
class LockWaits:
    """Takes locks off the event loop. `timeout_s` is the patience with a holder whose heartbeat stands still."""

    locks: Locks
    timeout_s: Callable[[], float]
    clock: Clock

    async def acquire(self, path: str, disk: Batches | None) -> Lock | None:
        """`try_acquire` off the loop; a lock that comes after the job was cancelled is given back.

        Without `disk` the lock holds within this process alone (`try_claim`).
        """
        if disk is None:
            return self.locks.try_claim(path)
        task = disk.run(lambda: self.locks.try_acquire(path))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if lock := await task:
                lock.release()
            raise

    async def until_free(self, job: Job, path: str) -> None:
        """Wait for a lock, showing its holder. Raises `lock_timeout` when the holder's heartbeat stops for too long."""
        alive: object = None
        moved_at = self.clock.monotonic()
        while not await asyncio.to_thread(self.locks.is_free, path):
            holder = await asyncio.to_thread(read_holder, path)
            now, patience = self.clock.monotonic(), self.timeout_s()
            life = (holder.pid, holder.heartbeat, holder.progress) if holder else None
            if life != alive:
                alive, moved_at = life, now
            if now - moved_at > patience:
                raise WantdError(
                    Code.LOCK_TIMEOUT,
                    f"no heartbeat for {patience:g} s from the holder of the lock {show(path)}: "
                    f"{holder or 'a process that did not write who it is into the lock file'}",
                    "check whether that process hangs or was stopped, and end it; the download then continues",
                )
            job.wait(ForLock(holder.shown() if holder else None))
            await self.clock.sleep(LOCK_POLL_S)
