"""One job, from reference to published model: a linear coroutine. Whoever wants the model shares it.

What cannot go on now leaves the coroutine as `NotNow`, with what it waits for; nothing sleeps in here but for a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from loguru import logger

from agent.core.job import State
from agent.core.names import bare, is_whole_commit, show
from agent.core.plan import INDEX_MAX_BYTES, Plan, PlanFile, make_plan, needed_listings, query, weight_index
from agent.core.ports import Source, Transfer
from agent.core.progress import FileProgress, ModelProgress, timestamp
from agent.core.remote import Fetched, FetchRequest, Listing, Location
from agent.core.retention import Leftover
from agent.core.target import Target
from agent.errors import Code, WantdError
from agent.services.batch import Batches
from agent.services.slots import Slots
from agent.store.inventory import Inventory
from agent.store.layout import Layout, Published, Record, RecordFile
from agent.store.locks import Lock, Locks, read_holder
from agent.store.publish import Modes, Stage
from agent.store.space import Shortage, Space
from agent.store.sweep import remove

if TYPE_CHECKING:
    from loguru import Logger

T = TypeVar("T")

LOCK_POLL_S = 0.25  # portalocker's own interval; a waiter starts at most this late
FILES_AT_ONCE = 32  # files of one job under way: enough to hide a round trip each behind 16 connections
LOGGED_WANTS = 20  # of a job, named in each of its log lines
LOGGED_FILES = 20  # of a model, named in the line that says which source served them
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
    disk: Batches = field(default_factory=Batches)  # for the short steps of each file

    @property
    def log(self) -> Logger:
        """The log, with the fields that the journal is searched by."""
        wants = [ticket.path for ticket in itertools.islice(self.wanted_by, LOGGED_WANTS)]
        return logger.bind(model=self.target.model, want=wants)

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
    unverified: str  # policy.unverified: `refuse` or `accept`
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
            listings[repo, revision] = await self.source.listing(query(job.target, repo, revision))
        main = listings[needed_listings(selection)[0]]
        progress = job.progress
        progress.repo, progress.revision, progress.source = selection.repo, selection.revision, main.source
        progress.commit = main.commit if is_whole_commit(main.commit) else None
        progress.source_why = main.because.message if main.because else None
        try:
            return await self._plan_from(job, listings, main)
        except WantdError as error:
            raise _unsettled(error, listings.values()) from None

    async def _plan_from(self, job: Job, listings: dict[Any, Listing], main: Listing) -> Plan:
        """Choose the files, all of which can be verified unless `policy.unverified` accepts others."""
        selection = job.target.selection
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
            self._refuse_unverified([planned], main)
            path, _ = await self._one_file(job, planned, FileProgress(planned.name, planned.size), None)
            index = await asyncio.to_thread(_read_small, path, INDEX_MAX_BYTES)
        plan = make_plan(job.target, listings, index, self.formats)
        self._refuse_unverified(plan.files, main)
        return plan

    def _refuse_unverified(self, files: Sequence[PlanFile], listing: Listing) -> None:
        """Raise for a file whose hash nobody tells, where the policy says so."""
        unknown = [file.name for file in files if not (file.sha256 or file.git_sha1)]
        if unknown and self.unverified == "refuse":
            raise WantdError(
                Code.HUB_PROTOCOL,
                f"{listing.source} tells no hash of {show(unknown[0])}, so it could not be verified",
                'add its sha256 to the catalogue, or take files on trust with policy.unverified = "accept"',
                file=show(unknown[0]),
            )

    @contextlib.asynccontextmanager
    async def _model_lock(self, job: Job) -> AsyncIterator[Lock]:
        """A download slot and the model's lock, together: nobody sits on one while waiting for the other."""
        path = self.layout.model_lock(job.target.name)
        while True:
            async with self.slots.place(lambda: job.priority, lambda: job.go(State.WAITING, waiting={"for": "slot"})):
                if lock := await self._acquire(path, job.disk):
                    try:
                        yield lock
                    finally:
                        await _finish(asyncio.to_thread(lock.release))
                    return
            await self._until_free(job, path)

    async def _acquire(self, path: str, disk: Batches) -> Lock | None:
        """`try_acquire` off the loop; a lock that comes after the job was cancelled is given back."""
        task = disk.run(lambda: self.locks.try_acquire(path))
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
                _log_sources(job, plan, fetched)
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
        lock_path = self.layout.file_lock(key)
        while not (file_lock := await self._acquire(lock_path, job.disk)):
            await self._until_free(job, lock_path)
            await asyncio.to_thread(self.inventory.refresh)  # whoever had it may have published it
            if stage:
                job.go(State.DOWNLOADING)
        try:
            path, fetched = await job.disk.run(lambda: self._from_store(file)) or (None, None)
            if path is None or fetched is None:
                # Where another may be at the same partial, whatever flock says, this job has one of its own.
                own = f"{key}~{os.urandom(4).hex()}" if file_lock.contested else key
                path, fetched = self.layout.part(own), await self._fetch(job, file, own, shown, lock)
            if stage:
                await job.disk.run(functools.partial(stage.add, file.name, path))
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
            await _finish(job.disk.run(file_lock.release))
        shown.size, shown.sha256, shown.source = fetched.size, fetched.sha256, fetched.source
        self._moved(job, shown, fetched.size, State.READY, lock)
        return path, fetched

    def _from_store(self, file: PlanFile) -> tuple[str, Fetched] | None:
        if file.sha256 is None:
            return None
        path = self.inventory.find(file.sha256)
        if path is None:
            return None
        size = os.stat(path).st_size
        if file.size is not None and file.size != size:
            return None
        return path, Fetched(size, file.sha256, True, "store")

    async def _fetch(self, job: Job, file: PlanFile, key: str, shown: FileProgress, lock: Lock | None) -> Fetched:
        job.partial_keys.add(key)
        request = FetchRequest(
            label=f"{job.target.model} {file.name}",
            part_path=self.layout.part(key),
            journal_path=self.layout.journal(key),
            size=file.size,
            sha256=file.sha256,
            git_sha1=file.git_sha1,
            priority=job.priority,
        )

        asked = query(job.target, file.repo, file.commit)
        gave: dict[str, None] = {}  # who brought some of the bytes, in order

        async def locate(failed: WantdError | None) -> Location:
            location = await self.source.locate(asked, file.name, failed)
            if shown.source not in (None, location.source):
                why = failed.message if failed else "the other did not answer"
                job.log.info(
                    "{}: {} goes on from {} at byte {}: {}",
                    job.target.model,
                    ascii(file.name),
                    location.source,
                    shown.bytes_done,
                    why,
                )
            shown.source = job.progress.source = location.source
            return location

        def on_bytes(done: int, verifying: bool) -> None:
            if shown.source and 0 < shown.bytes_done < done:
                gave[shown.source] = None
            self._moved(job, shown, done, State.VERIFYING if verifying else State.DOWNLOADING, lock)

        fetched = await self.transfer.fetch(request, locate, on_bytes)
        return replace(fetched, source="+".join(dict.fromkeys([*gave, fetched.source])))

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
        job.log.info(
            "{} {}%: {} of {} bytes, {:.1f} MB/s, {} left",
            job.target.model,
            step * 100 // LOG_STEPS,
            progress.bytes_done,
            progress.bytes_total,
            progress.rate / 1e6,
            f"{left / progress.rate:.0f} s" if progress.rate else "unknown time",
        )

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
        """The bytes live in the store now. A partial that another job has in its hands is left to that one."""
        for key in job.partial_keys:
            remove(Leftover(key, (self.layout.part(key), self.layout.journal(key)), 0.0), self.layout, self.locks)


def _log_sources(job: Job, plan: Plan, fetched: list[Fetched]) -> None:
    """One line: which source served which file."""
    served: dict[str, list[str]] = {}
    for file, result in zip(plan.files, fetched, strict=True):
        served.setdefault(result.source, []).append(ascii(file.name))
    for source, names in served.items():
        more = f" and {len(names) - LOGGED_FILES} more" if len(names) > LOGGED_FILES else ""
        job.log.info("{}: {} served {}{}", job.target.model, source, ", ".join(names[:LOGGED_FILES]), more)


def _unsettled(error: WantdError, listings: Iterable[Listing]) -> WantdError:
    """The error about a plan. What a fallback's listing lacks settles nothing while the Hub could not be asked."""
    fallback = next((listing for listing in listings if listing.because), None)
    if fallback is None or fallback.because is None or error.retryable:
        return error
    because = fallback.because
    return WantdError(
        because.code,
        f"{because.message}; {fallback.source}: {error.message}",
        error.hint,
        retryable=because.retryable,
        retry_after_s=because.retry_after_s,
        file=error.file,
    )


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
