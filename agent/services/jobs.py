"""One job, from reference to published model: a linear coroutine. Whoever wants the model shares it.

What cannot go on now leaves the coroutine as `NotNow`, with what it waits for; nothing sleeps in here but for a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from loguru import logger

from agent.core.job import State
from agent.core.names import bare, show
from agent.core.plan import INDEX_MAX_BYTES, Plan, PlanFile, make_plan, needed_listings, weight_index
from agent.core.progress import FileProgress, ModelProgress, timestamp
from agent.core.remote import Fetched, FetchRequest, Listing, Location
from agent.core.target import Target
from agent.errors import Code, WantdError
from agent.services.ports import Source, Transfer
from agent.services.slots import Slots
from agent.store.inventory import Inventory
from agent.store.layout import Layout, Published, Record, RecordFile
from agent.store.locks import Lock, Locks, read_holder
from agent.store.publish import Modes, Stage
from agent.store.space import Shortage, Space

T = TypeVar("T")

LOCK_POLL_S = 0.25  # portalocker's own interval; a waiter starts at most this late
FILES_AT_ONCE = 32  # files of one job under way: enough to hide a round trip each behind 16 connections
LOG_STEPS = 10  # a log line for each tenth, SPEC section 3


class NotNow(Exception):
    """The job waits for something; `waiting` is what the progress file says, `seconds` None means: until told."""

    def __init__(self, waiting: dict[str, Any], seconds: float | None) -> None:
        super().__init__(str(waiting))
        self.waiting = waiting
        self.seconds = seconds


@dataclass(eq=False, slots=True)
class Job:
    """A target that somebody wants. `priority` is the best of its wants, `notify` tells them of changes."""

    target: Target
    notify: Callable[[Job, bool], None]
    progress: ModelProgress
    priority: int = 5
    wanted_by: dict[Any, int] = field(default_factory=dict)  # who wants it, and with which priority
    task: asyncio.Task[None] | None = None
    partial_keys: set[str] = field(default_factory=set)

    def go(self, state: State, *, waiting: dict[str, Any] | None = None, error: WantdError | None = None) -> None:
        """Change state and tell."""
        self.progress.go(state, waiting=waiting, error=error)
        self.notify(self, True)


@dataclass(slots=True)
class Runner:
    """Carries jobs out. Everything it works with is handed in."""

    source: Source
    transfer: Transfer
    layout: Layout
    locks: Locks
    inventory: Inventory
    space: Space
    slots: Slots
    modes: Modes
    formats: Sequence[str]
    lock_timeout_s: float
    endpoint: str
    agent: str

    async def run(self, job: Job) -> Published:
        """Bring the model. Raises WantdError, NotNow, CancelledError; the store is whole after each of them."""
        job.go(State.RESOLVING)
        plan = await self._plan(job)
        async with self._model_lock(job) as lock:
            # Whoever held the lock before may have finished it.
            if found := await asyncio.to_thread(self.layout.published, job.target):
                return found
            return await self._bring(job, plan, lock)

    async def _plan(self, job: Job) -> Plan:
        selection = job.target.selection
        listings: dict[Any, Listing] = {}
        for repo, revision in needed_listings(selection):
            listings[repo, revision] = await self.source.listing(repo, revision)
        main = listings[needed_listings(selection)[0]]
        job.progress.repo, job.progress.revision = selection.repo, selection.revision
        job.progress.commit, job.progress.source = main.commit, main.source
        index_file, index = weight_index(selection, main), None
        if index_file is not None:
            if index_file.size and index_file.size > INDEX_MAX_BYTES:
                raise WantdError(
                    Code.HUB_PROTOCOL,
                    f"{show(index_file.name)} has {index_file.size} bytes, more than an index ever has",
                    "the repository is broken; name the files yourself with 'files'",
                )
            planned = PlanFile(
                index_file.name, main.repo, main.commit, index_file.size, index_file.sha256, index_file.git_sha1
            )
            path, _ = await self._one_file(job, planned, FileProgress(planned.name, planned.size), None)
            index = await asyncio.to_thread(_read_small, path, INDEX_MAX_BYTES)
        return make_plan(job.target, listings, index, self.formats)

    @contextlib.asynccontextmanager
    async def _model_lock(self, job: Job) -> AsyncIterator[Lock]:
        """A download slot and the model's lock, together: nobody sits on one while waiting for the other."""
        path = self.layout.model_lock(job.target.name)
        while True:
            async with self.slots.place(lambda: job.priority, lambda: job.go(State.WAITING, waiting={"for": "slot"})):
                if lock := await self._acquire(path):
                    try:
                        yield lock
                    finally:
                        await _finish(asyncio.to_thread(lock.release))
                    return
            await self._until_free(job, path)

    async def _acquire(self, path: str) -> Lock | None:
        """`try_acquire` off the loop; a lock that comes after the job was cancelled is given back."""
        task = asyncio.ensure_future(asyncio.to_thread(self.locks.try_acquire, path))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if lock := await task:
                lock.release()
            raise

    async def _until_free(self, job: Job, path: str) -> None:
        """Wait for a lock, showing its holder. Raises `lock_timeout` when the holder shows no life for too long."""
        alive: object = None
        deadline = time.monotonic() + self.lock_timeout_s
        while not await asyncio.to_thread(self.locks.is_free, path):
            holder = await asyncio.to_thread(read_holder, path)
            now = time.monotonic()
            life = (holder.pid, holder.heartbeat, holder.progress) if holder else None
            if life != alive:
                alive, deadline = life, now + self.lock_timeout_s
            if now > deadline:
                raise WantdError(
                    Code.LOCK_TIMEOUT,
                    f"the lock has been held for {self.lock_timeout_s:g} s without a sign of life by {holder}",
                    "look whether that process hangs or was stopped, and end it; the wait goes on by itself",
                )
            waiting = {"for": "lock", "holder": holder.to_json() if holder else None}
            if job.progress.state is not State.WAITING or job.progress.waiting != waiting:
                job.go(State.WAITING, waiting=waiting)
            await asyncio.sleep(LOCK_POLL_S)

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
                published = await _finish(asyncio.to_thread(stage.publish, self._record(plan, fetched), self.endpoint))
            except BaseException:
                await _finish(asyncio.to_thread(stage.drop))
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
                _, results[at] = await self._one_file(job, file, job.progress.files[at], stage, lock)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(FILES_AT_ONCE, len(plan.files))):
                    group.create_task(worker(), name=f"{job.target.name} file {number}")
        except* (WantdError, NotNow) as several:
            raise _first(several) from None
        return [result for result in results if result is not None]

    async def _one_file(
        self, job: Job, file: PlanFile, shown: FileProgress, stage: Stage | None, lock: Lock | None = None
    ) -> tuple[str, Fetched]:
        """Have one file complete and verified, and in the stage: from the store, or through the engine."""
        key = partial_key(file)
        job.partial_keys.add(key)
        lock_path = self.layout.file_lock(key)
        while not (file_lock := await self._acquire(lock_path)):
            await self._until_free(job, lock_path)
            if stage:
                job.go(State.DOWNLOADING)
        try:
            path, fetched = await self._from_store(file) or (None, None)
            if path is None or fetched is None:
                path, fetched = self.layout.part(key), await self._fetch(job, file, key, shown, lock)
            if stage:
                await asyncio.to_thread(stage.add, file.name, path)
        except FileNotFoundError:
            raise WantdError(
                Code.INTERNAL,
                f"the bytes of {show(file.name)} went away before they could be published",
                "nothing to do: it is tried again",
                file=bare(file.name),
            ) from None
        except WantdError as error:
            error.file = error.file or bare(file.name)
            raise
        finally:
            await _finish(asyncio.to_thread(file_lock.release))
        shown.size, shown.sha256 = fetched.size, fetched.sha256
        self._moved(job, shown, fetched.size, State.READY, lock)
        return path, fetched

    async def _from_store(self, file: PlanFile) -> tuple[str, Fetched] | None:
        if file.sha256 is None:
            return None
        path = await asyncio.to_thread(self.inventory.find, file.sha256)
        if path is None:
            return None
        size = (await asyncio.to_thread(os.stat, path)).st_size
        if file.size is not None and file.size != size:
            return None
        return path, Fetched(size, file.sha256, True, "store")

    async def _fetch(self, job: Job, file: PlanFile, key: str, shown: FileProgress, lock: Lock | None) -> Fetched:
        request = FetchRequest(
            label=f"{job.target.model} {file.name}",
            part_path=self.layout.part(key),
            journal_path=self.layout.journal(key),
            size=file.size,
            sha256=file.sha256,
            git_sha1=file.git_sha1,
            priority=job.priority,
        )

        async def locate(failed: WantdError | None) -> Location:
            return await self.source.locate(file.repo, file.commit, file.name, failed)

        def on_bytes(done: int, verifying: bool) -> None:
            self._moved(job, shown, done, State.VERIFYING if verifying else State.DOWNLOADING, lock)

        return await self.transfer.fetch(request, locate, on_bytes)

    def _moved(self, job: Job, shown: FileProgress, done: int, state: State, lock: Lock | None) -> None:
        """A file has come on: add up, tell, log each tenth. Without a lock (the index, before the plan) only note."""
        if lock is None:
            shown.bytes_done, shown.state = done, state
            return
        progress = job.progress
        before = int(progress.fraction * LOG_STEPS)
        if shown.state is State.QUEUED:
            self.space.started(job, shown.size or 0)
        progress.update(shown, done, state, time.monotonic())
        lock.progress = progress.fraction
        step = int(progress.fraction * LOG_STEPS)
        if step > before:
            self._log_step(job, step)
        phase = State.VERIFYING if progress.only_verifying else State.DOWNLOADING
        if (
            progress.state in (State.DOWNLOADING, State.VERIFYING)
            and phase is not progress.state
            and state is not State.READY
        ):
            job.go(phase)
        else:
            job.notify(job, step > before)

    def _log_step(self, job: Job, step: int) -> None:
        progress = job.progress
        left = (progress.bytes_total or 0) - progress.bytes_done
        logger.bind(model=job.target.model).info(
            "{} {}%: {} of {} bytes, {:.1f} MB/s, {} left",
            job.target.model,
            step * 100 // LOG_STEPS,
            progress.bytes_done,
            progress.bytes_total,
            progress.rate / 1e6,
            f"{left / progress.rate:.0f} s" if progress.rate else "unknown time",
        )

    def _record(self, plan: Plan, fetched: list[Fetched]) -> Record:
        sources = {result.source for result in fetched} - {"store"} or {"store"}
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
        """The bytes live in the store now. Whoever is just linking a partial finds them there instead."""
        for key in job.partial_keys:
            for path in (self.layout.part(key), self.layout.journal(key)):
                with contextlib.suppress(OSError):
                    os.unlink(path)


def partial_key(file: PlanFile) -> str:
    """The name of a file's partial: its SHA-256, else its git SHA-1, else a hash of where it comes from."""
    origin = f"{file.repo}@{file.commit}/{file.name}"
    return file.sha256 or file.git_sha1 or f"u{hashlib.sha256(origin.encode()).hexdigest()[:40]}"


def disk_waiting(shortage: Shortage) -> dict[str, Any]:
    """`waiting` for a job that waits for room."""
    return {"for": "disk", "need_bytes": shortage.need_bytes, "free_bytes": shortage.free_bytes}


def until(seconds: float) -> str | None:
    """The time in `seconds`, as `waiting.until` shows it."""
    return timestamp(datetime.now(UTC) + timedelta(seconds=seconds))


def _read_small(path: str, limit: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(limit)


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


async def _finish(work: Awaitable[T]) -> T:
    """Let work on the disk end before a cancellation goes on: half a publication is worse than a late stop."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
