"""Which jobs there are, who wants them, and when each goes on: starts, parks, resumes and cancels them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.core.job import State
from agent.core.names import is_whole_commit
from agent.core.progress import ModelProgress, timestamp
from agent.core.retry import Backoff
from agent.core.target import Target
from agent.errors import Code, WantdError
from agent.services.housekeeping import Housekeeping
from agent.services.job import Job, NotNow
from agent.services.jobs import Runner
from agent.services.reporter import Ticket
from agent.store.layout import Published


class Board:
    """The table of jobs, one for each target that some want names. All calls come from the event loop."""

    def __init__(
        self,
        runner: Runner,
        clock: Housekeeping,
        backoff: Backoff,
        on_change: Callable[[Ticket, bool], None],
        random: Callable[[], float] = random.random,
    ) -> None:
        self._runner = runner
        self._clock = clock
        self.backoff = backoff
        self._on_change = on_change
        self._random = random
        self._failures: dict[Job, tuple[int, int]] = {}  # failures in a row without progress, bytes at the last one
        self._ending: set[asyncio.Task[None]] = set()
        self.jobs: dict[Target, Job] = {}

    # What intake does

    def subscribe(self, ticket: Ticket, target: Target, priority: int, published: Published | None) -> Job:
        """Let the ticket share the job for the target, begun now if it is the first to want it.

        `published` is what the store has of it.
        """
        job = self.jobs.get(target)
        if job is None:
            job = self.jobs[target] = Job(target, self._notify, ModelProgress())
        job.wanted_by[ticket] = priority
        job.priority = min(job.wanted_by.values())
        if published and job.task is None and job.progress.state is not State.READY:
            self._ready(job, published)
        elif job.progress.state is State.QUEUED and job.task is None:
            self._start(job)
        elif job.progress.state is State.READY and published is None:
            self._begin_anew(job)
        return job

    def unsubscribe(self, ticket: Ticket, jobs: Iterable[Job]) -> None:
        """The ticket no longer wants these; work that nobody else wants stops."""
        for job in jobs:
            if job.wanted_by.pop(ticket, None) is None:
                continue
            if job.wanted_by:
                job.priority = min(job.wanted_by.values())
                continue
            self._clock.forget(_appointment(job))
            self._failures.pop(job, None)
            if self.jobs.get(job.target) is job:
                del self.jobs[job.target]
            if job.task:
                self._ending.add(job.task)
                job.task.add_done_callback(self._ending.discard)
                job.task.cancel()
                job.log.info("{} is no longer wanted: stopped", job.target.model)

    def hurry(self, job: Job) -> None:
        """Try a job that failed, or that waits for its next try, again at once."""
        waits = job.progress.waiting or {}
        if job.progress.state is State.FAILED or (job.task is None and waits.get("for") in ("retry", "rate_limit")):
            self._failures.pop(job, None)
            self._begin_anew(job)

    # What the scheduler does

    async def recheck(self) -> None:
        """A wanted model that has gone from the store is fetched again; a store that can be written again is used."""
        ready = [job.target for job in self.jobs.values() if job.progress.state is State.READY]
        for target in await asyncio.to_thread(self._missing, ready):
            job = self.jobs.get(target)
            if job and job.progress.state is State.READY:
                job.log.warning("{} is wanted, but no longer whole in the store: it is fetched again", target.model)
                self._begin_anew(job)
        stuck = [job for job in self.jobs.values() if _failed_with(job, Code.STORE_UNWRITABLE)]
        writable: bool = await asyncio.to_thread(self._store_is_writable) if stuck else False
        for job in stuck if writable else []:
            self._begin_anew(job)

    def _missing(self, targets: list[Target]) -> list[Target]:
        return [target for target in targets if not self._runner.layout.published(target)]

    def _store_is_writable(self) -> bool:
        try:
            self._runner.layout.create()
        except WantdError:
            return False
        return True

    async def resume_for_room(self) -> None:
        """Jobs that wait for disk space go on, by priority, as far as there is room now."""
        waiting = [job for job in self.jobs.values() if job.task is None and _waits_for(job, "disk")]
        if not waiting:
            return
        free = await asyncio.to_thread(self._runner.space.free)
        for job in sorted(waiting, key=lambda job: job.priority):
            need = (job.progress.waiting or {}).get("need_bytes", 0)
            if need <= free:
                free -= need
                self._start(job)

    def wanted_partials(self) -> Collection[str]:
        """Keys of partials that some job may still use."""
        return {key for job in self.jobs.values() for key in job.partial_keys}

    async def stop(self) -> None:
        """Cancel everything and wait until it has stopped; partials and store stay whole."""
        tasks = [job.task for job in self.jobs.values() if job.task] + list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The life of a job

    def _start(self, job: Job) -> None:
        self._clock.forget(_appointment(job))
        job.task = asyncio.create_task(self._work(job), name=f"job {job.target.name}")

    def _begin_anew(self, job: Job) -> None:
        """A new attempt, from the first step."""
        attempt = job.progress.attempt + 1
        job.progress.go(State.QUEUED)
        job.progress.attempt, job.progress.path = attempt, None
        job.progress.begin([], None)
        self._notify(job, True)
        self._start(job)

    async def _work(self, job: Job) -> None:
        began = time.monotonic()
        try:
            published = await self._runner.run(job)
        except NotNow as later:
            job.task = None
            self._park(job, later.waiting, later.seconds)
        except WantdError as error:
            job.task = None
            self._failed(job, error)
        except asyncio.CancelledError:
            job.task = None
            raise
        except Exception as error:  # noqa: BLE001  the boundary of a job: a fault in here must not end the agent
            job.task = None
            job.log.opt(exception=error).error("a fault of wantd itself, in the job for {}", job.target.model)
            hint = "please report it with the agent's log; it is tried again"
            self._failed(job, WantdError(Code.INTERNAL, f"{type(error).__name__} in the agent", hint))
        else:
            job.task = None
            self._ready(job, published)
            seconds = time.monotonic() - began
            job.log.info("{} ready after {:.1f} s: {}", job.target.model, seconds, published.path)

    def _ready(self, job: Job, published: Published) -> None:
        progress, record = job.progress, published.record
        self._failures.pop(job, None)
        progress.repo, progress.revision = record.repo, record.revision
        progress.commit = record.commit if is_whole_commit(record.commit) else None
        progress.source = record.source if progress.files else "store"
        progress.path = published.path
        progress.show_published(((file.name, file.size, file.sha256) for file in record.files), published.size)
        progress.verified = record.verified
        for shown, file in zip(progress.files, record.files, strict=True):
            shown.source = file.source
        job.go(State.READY)

    def _failed(self, job: Job, error: WantdError) -> None:
        error.model = error.model or job.target.model
        failures, bytes_then = self._failures.get(job, (0, 0))
        moved = job.progress.bytes_done > bytes_then
        failures = 1 if moved else failures + 1
        self._failures[job] = failures, job.progress.bytes_done
        log = job.log.bind(code=error.code.value)
        delay = self.backoff.delay(failures, error, self._random())
        if error.code is Code.DISK_FULL:
            need = max((job.progress.bytes_total or 0) - job.progress.bytes_done, 1)
            log.warning("{}: {}; it goes on when there is room", job.target.model, error.message)
            self._park(job, {"for": "disk", "need_bytes": need, "free_bytes": self._runner.space.free()}, None)
        elif delay is None:
            log.error("{} failed: {} ({})", job.target.model, error.message, error.code)
            job.go(State.FAILED, error=error)
        else:
            log.warning("{}: {} ({}); next try in {:.0f} s", job.target.model, error.message, error.code, delay)
            job.progress.attempt += 1
            why: dict[str, Any] = {"for": "retry", "until": _until(delay), "because": error.to_json()}
            if error.code is Code.RATE_LIMITED:
                why = {"for": "rate_limit", "until": _until(delay)}
            self._park(job, why, delay)

    def _park(self, job: Job, waiting: dict[str, Any], seconds: float | None) -> None:
        if not job.wanted_by:
            return
        job.go(State.WAITING, waiting=waiting)
        if seconds is None:
            return

        async def resume() -> None:
            if job.task is None and job.wanted_by:
                self._start(job)

        self._clock.after(_appointment(job), seconds, resume)

    def _notify(self, job: Job, urgent: bool) -> None:
        for ticket in job.wanted_by:
            self._on_change(ticket, urgent)


def _until(seconds: float) -> str | None:
    """The time in `seconds`, as `waiting.until` shows it."""
    return timestamp(datetime.now(UTC) + timedelta(seconds=seconds))


def _appointment(job: Job) -> str:
    return f"resume {job.target.name} {id(job)}"


def _waits_for(job: Job, what: str) -> bool:
    return job.progress.state is State.WAITING and (job.progress.waiting or {}).get("for") == what


def _failed_with(job: Job, code: Code) -> bool:
    return job.progress.error is not None and job.progress.error.code is code
