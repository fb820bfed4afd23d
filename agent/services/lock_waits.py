"""Waiting for locks that other processes hold, in sight of whoever asked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from agent.core.job import State
from agent.errors import Code, WantdError
from agent.services.batch import Batches
from agent.services.job import Job
from agent.store.locks import Lock, Locks, read_holder

LOCK_POLL_S = 0.25  # portalocker's own interval; a waiter starts at most this late


@dataclass(slots=True)
class LockWaits:
    """Takes locks off the event loop. `timeout_s` is the patience with a holder that shows no life, in seconds."""

    locks: Locks
    timeout_s: float

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
        """Wait for a lock, showing its holder. Raises `lock_timeout` when the holder shows no life for too long."""
        alive: object = None
        deadline = time.monotonic() + self.timeout_s
        while not await asyncio.to_thread(self.locks.is_free, path):
            holder = await asyncio.to_thread(read_holder, path)
            now = time.monotonic()
            life = (holder.pid, holder.heartbeat, holder.progress) if holder else None
            if life != alive:
                alive, deadline = life, now + self.timeout_s
            if now > deadline:
                raise WantdError(
                    Code.LOCK_TIMEOUT,
                    f"the lock has been held for {self.timeout_s:g} s without a sign of life by {holder}",
                    "look whether that process hangs or was stopped, and end it; the wait goes on by itself",
                )
            waiting = {"for": "lock", "holder": holder.to_json() if holder else None}
            if job.progress.state is not State.WAITING or job.progress.waiting != waiting:
                job.go(State.WAITING, waiting=waiting)
            await asyncio.sleep(LOCK_POLL_S)
