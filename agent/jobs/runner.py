"""One run of a job, from reference to published model: a linear coroutine.

What cannot go on now leaves the coroutine as `NotNow`, with what it waits for; nothing sleeps in here but for a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.core.limits import PLANS_AT_ONCE
from agent.core.plan import Plan
from agent.core.progress import FileProgress
from agent.core.remote import Fetched
from agent.core.retry import FAILED_PLAN_S
from agent.core.selection import RULES
from agent.core.target import Target
from agent.core.waits import ForSlot
from agent.core.words import timestamp
from agent.errors import WantdError
from agent.jobs.disk import finish_before_cancel
from agent.jobs.files import Files, partial_key
from agent.jobs.lock_waits import LockWaits
from agent.jobs.planner import Planner
from agent.jobs.plans import HeldPlans
from agent.jobs.revisit import Revisit
from agent.jobs.room import Room
from agent.jobs.run import NotNow, Run
from agent.jobs.slots import Slots
from agent.jobs.windows import Windows
from agent.state.job import Job
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import Layout, Published, Record, RecordFile
from agent.store.publish import Modes, Stage
from agent.store.sweep import forget

FILES_AT_ONCE = 32  # files of one job under way: enough to hide a round trip each behind 16 connections
LOGGED_FILES = 20  # of a model, named in the line that says which source served them


@dataclass(slots=True)
class Runner:
    """Carries out runs. Everything it works with is handed in.

    `planning` has the places for those whose plan is being made, `slots` those for downloads. `endpoint` is the Hub's,
    for the manifest that llmlb reads; `agent` is what a record says of who published it.
    """

    planner: Planner
    revisit: Revisit
    files: Files
    layout: Layout
    inventory: Inventory
    view: HubView
    room: Room
    windows: Windows
    planning: Slots
    slots: Slots
    waits: LockWaits
    clock: Clock
    modes: Modes
    endpoint: Callable[[], str]
    agent: str
    plans: HeldPlans = field(default_factory=HeldPlans)
    failures: int = 0  # plans in a row that could not be made now

    async def run(self, run: Run) -> Published:
        """Have the model published. Raises WantdError, NotNow, CancelledError; the store is whole after each."""
        job = run.job
        job.resolve()
        await asyncio.to_thread(self.layout.create_again)  # somebody may have removed it
        if proved := await self.files.proving.model(job):
            return proved
        first = await self._plan(run)
        if isinstance(first, Published):
            return first
        if wait := self.windows.holds(job):
            raise NotNow(wait)
        old: Published | None = first[0]
        kept: Plan | None = first[1]
        files = len(first[1].files)
        del first
        with contextlib.ExitStack() as waiting:
            if not waiting.enter_context(self.plans.held(files)):
                kept = None  # made again when there is a slot
            async with self._model_lock(run):
                waiting.close()
                # The last holder of the lock may have finished it.
                found = await asyncio.to_thread(self.layout.published, job.target)
                if found and (old is None or found.record != old.record):
                    return found
                if kept is not None:
                    return await self._carry_out(run, kept)
                again = await self._plan(run)
                return again if isinstance(again, Published) else await self._carry_out(run, again[1])

    async def _plan(self, run: Run) -> Published | tuple[Published | None, Plan]:
        """The plan, when it is the job's turn, and what is there of the model until it is carried out.

        The model itself where it is there, and all that there should be.
        """
        job = run.job
        async with self.planning.place(lambda: job.priority, path=job.first_want):
            old = await asyncio.to_thread(self.layout.published, job.target)
            if old and run.commit and old.record.provisional:
                completed = await self.planner.plan(run, run.commit)
                return old if completed.provisional else (old, completed)  # the first where the Hub has gone again
            if old and self.revisit.due(old, job.target):
                plan = await self.revisit.plan(run, old)
                return old if plan is None else (old, plan)
            return None, await self._plan_or_slow_down(run)

    async def _plan_or_slow_down(self, run: Run) -> Plan:
        """The plan. While sources fail everybody, each failure keeps its place for a moment: thousands may wait."""
        try:
            plan = await self.planner.plan(run)
        except WantdError as error:
            self.failures = self.failures + 1 if error.retryable else 0
            if self.failures > PLANS_AT_ONCE:
                await self.clock.sleep(FAILED_PLAN_S)
            raise
        self.failures = 0
        return plan

    async def is_known_whole(self, target: Target, commit: str) -> bool:
        """Whether a source that knows all files of the model can be asked now. Raises WantdError."""
        return await self.planner.is_known_whole(target, commit)

    @contextlib.asynccontextmanager
    async def _model_lock(self, run: Run) -> AsyncIterator[None]:
        """A download slot and the model's lock, together: nobody sits on one while waiting for the other."""
        job = run.job
        path = self.layout.model_lock(job.target.name)
        while True:
            async with self.slots.place(lambda: job.priority, lambda: job.wait(ForSlot()), job.first_want):
                if lock := await self.waits.acquire(path, run.disk):
                    run.lock = lock
                    try:
                        yield
                    finally:
                        run.lock = None
                        await finish_before_cancel(asyncio.to_thread(lock.release))
                    return
            await self.waits.until_free(job, path)

    async def _carry_out(self, run: Run, plan: Plan) -> Published:
        job = run.job
        job.planned(plan, await asyncio.to_thread(shown, plan))
        need = await asyncio.to_thread(self._need, plan)
        stage = Stage(self.layout, plan, self.modes)
        async with self._reserved(job, need, plan.size):
            job.download()
            await asyncio.to_thread(stage.begin)
            run.stage = stage
            try:
                fetched = await self._all_files(run, plan)
                job.verify()
                for line in await asyncio.to_thread(_sources, job, plan, fetched):
                    job.log.info("{}", line)
                record = await asyncio.to_thread(self._record, plan, fetched, job.restricted)
                published = await finish_before_cancel(asyncio.to_thread(stage.publish, record, self.endpoint()))
            except BaseException:
                run.stage = None
                await finish_before_cancel(asyncio.to_thread(stage.drop))
                raise
        job.publish(record)
        await asyncio.to_thread(self._forget_partials, job)
        await asyncio.to_thread(self.view.show, published.record)
        await asyncio.to_thread(stage.note_stamps)
        return published

    @contextlib.asynccontextmanager
    async def _reserved(self, job: Job, need: int, whole: int) -> AsyncIterator[None]:
        """So many bytes of room for the block; the model has `whole` bytes. Raises NotNow when it has to wait."""
        await self.room.reserve(job, need, whole)
        try:
            yield
        finally:
            self.room.release(job)

    def _need(self, plan: Plan) -> int:
        """Bytes of room for what is not there yet. Touches the disk."""
        self.inventory.refresh()
        need = 0
        for file in plan.files:
            key, size = partial_key(file), file.size or 0
            if not (file.sha256 and (self.inventory.find(file.sha256) or self.inventory.doubtful(file.sha256))):
                need += max(size - _allocated(self.layout.part(key)), 0)
        return need

    async def _all_files(self, run: Run, plan: Plan) -> list[Fetched]:
        results: list[Fetched | None] = [None] * len(plan.files)
        queue = iter(range(len(plan.files)))

        async def worker() -> None:
            for at in queue:
                _, results[at] = await self.files.obtain(run, plan.files[at], run.job.progress.files[at])

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(FILES_AT_ONCE, len(plan.files))):
                    group.create_task(worker(), name=f"{run.job.target.name} file {number}")
        except BaseExceptionGroup as several:  # not `except*`: before Python 3.11.4 that wraps what is raised in it
            expected, others = several.split((WantdError, NotNow))
            if others is not None or expected is None:
                raise
            raise _most_definite(expected) from None
        return [result for result in results if result is not None]

    def _record(self, plan: Plan, fetched: list[Fetched], restricted: bool | None) -> Record:
        served = {part for result in fetched for part in result.source.split("+")}
        own = plan.target.selection
        sources = served - {"store", "partial"} or served  # what was here already counts where nothing else came
        return Record(
            schema=1,
            model=plan.target.model,
            repo=own.repo,
            revision=own.revision,
            commit=plan.commit,
            format=plan.format,
            opens=plan.opens,
            selection=own.to_json(),
            source="+".join(sorted(sources)),
            files=[
                RecordFile(
                    file.name,
                    result.size,
                    result.sha256,
                    result.source,
                    etag=file.git_sha1 or file.sha256,
                    repo=file.repo if file.repo != own.repo else None,
                    commit=file.commit if file.commit != plan.commit else None,
                )
                for file, result in zip(plan.files, fetched, strict=True)
            ],
            published_at=timestamp(self.clock.now()),
            verified=all(result.verified for result in fetched),
            agent=self.agent,
            skipped=list(plan.skipped),
            warning=plan.warning,
            provisional=plan.provisional,
            rules=RULES,
            restricted=restricted,
        )

    def _forget_partials(self, job: Job) -> None:
        """The bytes live in the store now."""
        for key in job.partial_keys:
            forget(key, self.layout, self.waits.locks)


def shown(plan: Plan) -> list[FileProgress]:
    """The files as a progress file shows them."""
    return [FileProgress(file.name, file.size, file.sha256) for file in plan.files]


def _sources(job: Job, plan: Plan, fetched: list[Fetched]) -> list[str]:
    """Which source served which files, in a line for each source."""
    served: dict[str, list[str]] = {}
    for file, result in zip(plan.files, fetched, strict=True):
        served.setdefault(result.source, []).append(ascii(file.name))
    lines = []
    for source, names in served.items():
        more = f" and {len(names) - LOGGED_FILES} more" if len(names) > LOGGED_FILES else ""
        lines.append(f"{job.target.model}: {source} served {', '.join(names[:LOGGED_FILES])}{more}")
    return lines


def _allocated(path: str) -> int:
    """Bytes of a partial that the file system has already set aside."""
    try:
        return os.stat(path, follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


def _most_definite(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of errors that came together, a final one, if there is one: it says most."""
    flat: list[BaseException] = []
    pending: list[BaseException] = [several]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
        else:
            flat.append(error)
    return min(flat, key=lambda error: getattr(error, "retryable", True))
