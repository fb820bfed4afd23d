"""Which jobs there are, who wants them, and when each goes on: starts, parks, resumes and cancels them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from agent.clock import Clock
from agent.config import Transfer
from agent.core.limits import SLICE_MODELS
from agent.core.retry import Backoff
from agent.core.states import FINAL, State
from agent.core.target import Target
from agent.core.waits import ForDisk, ForRateLimit, ForRetry, ForWindow, Wait
from agent.errors import Code, WantdError
from agent.jobs.run import NotNow, Run
from agent.state.feed import Feed
from agent.state.job import Job
from agent.state.ticket import Ticket
from agent.store.layout import Published


class CarriesOut(Protocol):
    """What the board needs of the runner."""

    async def run(self, run: Run) -> Published:
        """Have the model published. Raises WantdError, NotNow, CancelledError."""
        ...


class Shelf(Protocol):
    """What the board needs of the store. Every method touches the disk."""

    def published(self, target: Target) -> Published | None:
        """The model, if it is whole in the store."""
        ...

    def create(self) -> None:
        """Make the store's directories. Raises `store_unwritable`."""
        ...


class Room(Protocol):
    """What the board needs of the disk."""

    def free(self) -> int:
        """Bytes that are neither used nor reserved."""
        ...


@dataclass(slots=True)
class _Failures:
    """Failures in a row without progress, and the bytes that were there at the last one."""

    count: int = 0
    bytes_then: int = 0


class Board:
    """The table of jobs, one for each target that some want names. All calls come from the event loop.

    `config` is the `[transfer]` section in force; `chance` gives numbers in [0, 1) for the jitter of retries.
    """

    def __init__(
        self,
        jobs: dict[Target, Job],
        runner: CarriesOut,
        shelf: Shelf,
        room: Room,
        clock: Clock,
        feed: Feed,
        config: Callable[[], Transfer],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.jobs = jobs
        self._runner = runner
        self._shelf = shelf
        self._room = room
        self._clock = clock
        self._feed = feed
        self._config = config
        self._chance = chance
        self._runs: dict[Job, tuple[Run, asyncio.Task[None]]] = {}
        self._failures: dict[Job, _Failures] = {}
        self._ending: set[asyncio.Task[None]] = set()

    # What intake does

    def subscribe(self, ticket: Ticket, target: Target, priority: int, published: Published | None) -> Job:
        """Let the ticket share the job for the target, begun now if it is the first to want it.

        `published` is what the store has of it.
        """
        job = self.jobs.get(target)
        if job is None:
            job = self.jobs[target] = Job(target, self._feed)
        job.add(ticket, priority)
        state, runs = job.progress.state, job in self._runs
        if published and not runs and state is not State.READY:
            if state is State.FAILED:
                job.again()  # somebody else has put it there since
            self._ready(job, published)
        elif state is State.QUEUED and not runs:
            self._start(job)
        elif state is State.READY and published is None:
            self._start_again(job)
        return job

    def unsubscribe(self, ticket: Ticket, jobs: Iterable[Job]) -> None:
        """The ticket no longer wants these; work that no other want needs stops."""
        for job in jobs:
            if not job.remove(ticket) or job.wanted_by:
                continue
            self._clock.forget(_appointment(job))
            self._failures.pop(job, None)
            if self.jobs.get(job.target) is job:
                del self.jobs[job.target]
            if job in self._runs:
                _, task = self._runs[job]
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
                task.cancel()
                job.log.info("{} is no longer wanted: stopped", job.target.model)
            self._feed.gone(job)

    def retry_now(self, job: Job) -> None:
        """Try a job that failed, or that waits for its next try, again at once."""
        parked = job not in self._runs and isinstance(job.progress.waiting, ForRetry | ForRateLimit)
        if job.progress.state is State.FAILED or parked:
            self._failures.pop(job, None)
            self._start_again(job)

    # What the clock does

    async def recheck(self, names: Collection[str] | None = None) -> None:
        """A wanted model that has gone from the store is fetched again; a store that can be written again is used.

        With `names`, only these of the store's models are looked at.
        """
        ready = [
            job.target
            for job in self.jobs.values()
            if job.progress.state is State.READY and (names is None or job.target.name in names)
        ]
        for target in await asyncio.to_thread(self._missing, ready):
            job = self.jobs.get(target)
            if job and job.progress.state is State.READY:
                job.log.warning("{}: incomplete or changed in the store; fetching what is wrong", target.model)
                self._start_again(job)
        stuck = [job for job in self.jobs.values() if _failed_with(job, Code.STORE_UNWRITABLE)]
        writable: bool = await asyncio.to_thread(self._store_is_writable) if stuck else False
        for job in stuck if writable else []:
            self._start_again(job)

    def _missing(self, targets: list[Target]) -> list[Target]:
        return [target for target in targets if not self._shelf.published(target)]

    def _store_is_writable(self) -> bool:
        try:
            self._shelf.create()
        except WantdError:
            return False
        return True

    async def resume_for_room(self) -> None:
        """Jobs that wait for disk space go on, by priority, as far as there is room now."""
        waiting = [
            (job, job.progress.waiting)
            for job in self.jobs.values()
            if job not in self._runs and isinstance(job.progress.waiting, ForDisk)
        ]
        if not waiting:
            return
        free = await asyncio.to_thread(self._room.free)
        for job, wait in sorted(waiting, key=lambda pair: pair[0].priority):
            if isinstance(wait, ForDisk) and job.progress.waiting is wait and wait.need_bytes <= free:
                free -= wait.need_bytes
                self._start(job)

    async def obey_windows(self, holds: Callable[[Job], ForWindow | None]) -> None:
        """In a window that pauses, downloads stop and keep their partials; when it has ended, they go on."""
        for job, (_, task) in list(self._runs.items()):
            if job.progress.state in (State.DOWNLOADING, State.WAITING) and (wait := holds(job)):
                task.cancel()
                await asyncio.wait([task])
                if job.wanted_by and job not in self._runs and job.progress.state not in FINAL:
                    job.wait(wait)
        for job in list(self.jobs.values()):
            if isinstance(job.progress.waiting, ForWindow) and job not in self._runs and not holds(job):
                self._start(job)

    async def recover_lost(self) -> None:
        """Runs whose stage somebody has removed, and the partials with it, start over: their bytes go nowhere."""
        stages = [(job, run) for job, (run, _) in self._runs.items() if run.stage]
        lost = await asyncio.to_thread(lambda: [(job, run) for job, run in stages if run.stage and run.stage.is_lost])
        for job, run in lost:
            current, task = self._runs.get(job, (None, None))
            if task is None or current is not run:
                continue
            job.log.warning("{}: its partial download was removed; starting again", job.target.model)
            task.cancel()
            await asyncio.wait([task])
            if job.wanted_by and job not in self._runs:
                hint = "nothing to do: it is downloaded again"
                error = WantdError(Code.INTERNAL, "its partial download was removed from the store", hint)
                job.retry(ForRetry(self._clock.now(), error))
                self._start(job)

    def report_to_locks(self) -> None:
        """Note in each held lock how far its job is: its heartbeat shows it to those who wait for it."""
        for job, (run, _) in self._runs.items():
            if run.lock is not None:
                run.lock.progress = job.progress.fraction

    def wanted_partials(self) -> Collection[str]:
        """Keys of partials that some job may still use."""
        return {key for job in self.jobs.values() for key in job.partial_keys}

    async def stop(self) -> None:
        """Cancel everything and wait until it has stopped; partials and store stay whole."""
        tasks = [task for _, task in self._runs.values()] + list(self._ending)
        for number, task in enumerate(tasks):
            if not task.cancelling():  # once is enough: a second time would cut off what it finishes first
                task.cancel()
            if number % SLICE_MODELS == SLICE_MODELS - 1:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)

    # The life of a job

    def _start(self, job: Job) -> None:
        self._clock.forget(_appointment(job))
        run = Run(job)
        task = asyncio.create_task(self._work(run), name=f"job {job.target.name}")
        self._runs[job] = run, task

    def _start_again(self, job: Job) -> None:
        """A new attempt, from the first step."""
        job.again()
        self._start(job)

    async def _work(self, run: Run) -> None:
        job, began = run.job, self._clock.monotonic()
        try:
            try:
                published = await self._runner.run(run)
            finally:
                if self._runs.get(job, (None, None))[0] is run:
                    del self._runs[job]
        except NotNow as later:
            if job.wanted_by:
                self._park(job, later.wait, None)
        except WantdError as error:
            self._failed(job, error)
        except Exception as error:  # noqa: BLE001  the boundary of a job: a fault in here must not end the agent
            job.log.opt(exception=error).error("a fault of wantd itself, in the job for {}", job.target.model)
            hint = "please report it with the agent's log; it is tried again"
            self._failed(job, WantdError(Code.INTERNAL, f"{type(error).__name__} in the agent", hint))
        else:
            self._ready(job, published)
            seconds = self._clock.monotonic() - began
            job.log.info("{} ready after {:.1f} s: {}", job.target.model, seconds, published.path)

    def _ready(self, job: Job, published: Published) -> None:
        self._clock.forget(_appointment(job))
        self._failures.pop(job, None)
        job.ready(published)

    def _failed(self, job: Job, error: WantdError) -> None:
        if not job.wanted_by:
            return
        error.model = error.model or job.target.model
        failures = self._failures.setdefault(job, _Failures())
        moved = job.progress.bytes_done > failures.bytes_then
        failures.count = 1 if moved else failures.count + 1
        failures.bytes_then = job.progress.bytes_done
        config = self._config()
        delay = Backoff(config.retry_min_s, config.retry_max_s).delay(failures.count, error, self._chance())
        log = job.log.bind(code=error.code.value)
        if error.code is Code.DISK_FULL:
            need = max((job.progress.bytes_total or 0) - job.progress.bytes_done, 1)
            log.warning("{}: {}; continuing when there is room", job.target.model, error.message)
            self._park(job, ForDisk(need, self._room.free()), None)
        elif delay is None:
            log.error("{} failed: {} ({})", job.target.model, error.message, error.code)
            job.fail(error)
        else:
            log.warning("{}: {} ({}); retrying in {:.0f} s", job.target.model, error.message, error.code, delay)
            until = self._clock.now() + timedelta(seconds=delay)
            limited = error.code is Code.RATE_LIMITED
            self._park(job, ForRateLimit(until) if limited else ForRetry(until, error), delay)

    def _park(self, job: Job, wait: Wait, seconds: float | None) -> None:
        """Let the job wait: for `seconds`, or (None) until something starts it."""
        if seconds is None:
            job.wait(wait)
            return
        job.retry(wait)

        async def resume() -> None:
            if job not in self._runs and job.wanted_by:
                self._start(job)

        self._clock.after(_appointment(job), seconds, resume)


def _appointment(job: Job) -> str:
    return f"resume {job.target.name} {id(job)}"


def _failed_with(job: Job, code: Code) -> bool:
    return job.progress.error is not None and job.progress.error.code is code
