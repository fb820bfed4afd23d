"""One job, from reference to published model: a linear coroutine. Whoever wants the model shares it.

What cannot go on now leaves the coroutine as `NotNow`, with what it waits for; nothing sleeps in here but for a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.core.job import State
from agent.core.plan import Plan
from agent.core.progress import FileProgress, timestamp
from agent.core.remote import Fetched
from agent.errors import WantdError
from agent.services.batch import unbroken
from agent.services.files import Files, partial_key
from agent.services.job import Job, NotNow
from agent.services.lock_waits import LockWaits
from agent.services.planning import Planner
from agent.services.slots import Slots
from agent.store.inventory import Inventory
from agent.store.layout import Layout, Published, Record, RecordFile
from agent.store.locks import Lock
from agent.store.publish import Modes, Stage
from agent.store.space import Shortage, Space
from agent.store.sweep import forget

FILES_AT_ONCE = 32  # files of one job under way: enough to hide a round trip each behind 16 connections
LOGGED_FILES = 20  # of a model, named in the line that says which source served them


@dataclass(slots=True)
class Runner:
    """Carries jobs out. Everything it works with is handed in."""

    planner: Planner
    files: Files
    layout: Layout
    inventory: Inventory
    space: Space
    slots: Slots
    waits: LockWaits
    modes: Modes
    endpoint: str
    agent: str

    async def run(self, job: Job) -> Published:
        """Bring the model. Raises WantdError, NotNow, CancelledError; the store is whole after each of them."""
        job.go(State.RESOLVING)
        plan = await self.planner.plan(job)
        async with self._model_lock(job) as lock:
            # Whoever held the lock before may have finished it.
            if found := await asyncio.to_thread(self.layout.published, job.target):
                return found
            return await self._bring(job, plan, lock)

    @contextlib.asynccontextmanager
    async def _model_lock(self, job: Job) -> AsyncIterator[Lock]:
        """A download slot and the model's lock, together: nobody sits on one while waiting for the other."""
        path = self.layout.model_lock(job.target.name)
        while True:
            async with self.slots.place(lambda: job.priority, lambda: job.go(State.WAITING, waiting={"for": "slot"})):
                if lock := await self.waits.acquire(path, job.disk):
                    try:
                        yield lock
                    finally:
                        await unbroken(asyncio.to_thread(lock.release))
                    return
            await self.waits.until_free(job, path)

    async def _bring(self, job: Job, plan: Plan, lock: Lock) -> Published:
        known = all(file.size is not None for file in plan.files)
        shown = [FileProgress(file.name, file.size, file.sha256) for file in plan.files]
        job.progress.begin(shown, plan.size if known else None)
        await asyncio.to_thread(self.inventory.refresh)
        stage = Stage(self.layout, plan, self.modes)
        with self._reserved(job, plan):
            job.go(State.DOWNLOADING)
            await asyncio.to_thread(stage.begin)
            try:
                fetched = await self._all_files(job, plan, stage, lock)
                job.go(State.VERIFYING)
                _log_sources(job, plan, fetched)
                published = await unbroken(asyncio.to_thread(stage.publish, self._record(plan, fetched), self.endpoint))
            except BaseException:
                await unbroken(asyncio.to_thread(stage.drop))
                raise
        await asyncio.to_thread(self._forget_partials, job)
        return published

    @contextlib.contextmanager
    def _reserved(self, job: Job, plan: Plan) -> Iterator[None]:
        """The room for what is not there yet, for the block. Raises NotNow when it has to wait for room."""
        need = 0
        for file in plan.files:
            key, size = partial_key(file), file.size or 0
            if not (file.sha256 and self.inventory.find(file.sha256)):
                need += max(size - _allocated(self.layout.part(key)), 0)
        if shortage := self.space.reserve(job, need):
            raise NotNow(disk_waiting(shortage), None)
        try:
            yield
        finally:
            self.space.release(job)

    async def _all_files(self, job: Job, plan: Plan, stage: Stage, lock: Lock) -> list[Fetched]:
        results: list[Fetched | None] = [None] * len(plan.files)
        queue = iter(range(len(plan.files)))

        async def worker() -> None:
            for at in queue:
                file = plan.files[at]
                _, results[at] = await self.files.bring(job, file, job.progress.files[at], stage, lock)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(FILES_AT_ONCE, len(plan.files))):
                    group.create_task(worker(), name=f"{job.target.name} file {number}")
        except* (WantdError, NotNow) as several:
            raise _first(several) from None
        return [result for result in results if result is not None]

    def _record(self, plan: Plan, fetched: list[Fetched]) -> Record:
        served = {part for result in fetched for part in result.source.split("+")}
        sources = served - {"store", "partial"} or served  # what was here already counts where nothing else came
        return Record(
            schema=1,
            model=plan.target.model,
            repo=plan.target.selection.repo,
            revision=plan.target.selection.revision,
            commit=plan.commit,
            format=plan.format,
            opens=plan.opens,
            selection=plan.target.selection.to_json(),
            source="+".join(sorted(sources)),
            files=[
                RecordFile(file.name, result.size, result.sha256, result.source)
                for file, result in zip(plan.files, fetched, strict=True)
            ],
            published_at=timestamp(datetime.now(UTC)) or "",
            verified=all(result.verified for result in fetched),
            agent=self.agent,
        )

    def _forget_partials(self, job: Job) -> None:
        """The bytes live in the store now."""
        for key in job.partial_keys:
            forget(key, self.layout, self.waits.locks)


def _log_sources(job: Job, plan: Plan, fetched: list[Fetched]) -> None:
    """One line: which source served which file."""
    served: dict[str, list[str]] = {}
    for file, result in zip(plan.files, fetched, strict=True):
        served.setdefault(result.source, []).append(ascii(file.name))
    for source, names in served.items():
        more = f" and {len(names) - LOGGED_FILES} more" if len(names) > LOGGED_FILES else ""
        job.log.info("{}: {} served {}{}", job.target.model, source, ", ".join(names[:LOGGED_FILES]), more)


def disk_waiting(shortage: Shortage) -> dict[str, Any]:
    """`waiting` for a job that waits for room."""
    return {"for": "disk", "need_bytes": shortage.need_bytes, "free_bytes": shortage.free_bytes}


def _allocated(path: str) -> int:
    """Bytes of a partial that the file system has already set aside."""
    try:
        return os.stat(path, follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together, the definite one says most."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [several]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            flat.append(error)
    return min(flat, key=lambda error: getattr(error, "retryable", True))
