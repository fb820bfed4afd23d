"""One file of a job: from the store, or through the transfer engine, under the file's lock, into the stage."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import time
from dataclasses import dataclass, replace

from agent.core.job import State
from agent.core.names import bare, show
from agent.core.plan import PlanFile, query
from agent.core.ports import Source, Transfer
from agent.core.progress import FileProgress
from agent.core.remote import SMALL_MAX, Fetched, FetchRequest, Location
from agent.errors import Code, WantdError
from agent.services.batch import unbroken
from agent.services.job import Job
from agent.services.lock_waits import LockWaits
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Lock
from agent.store.publish import Stage
from agent.store.space import Space

LOG_STEPS = 10  # a log line for each tenth, SPEC section 3


@dataclass(slots=True)
class Files:
    """Brings files. Everything it works with is handed in."""

    source: Source
    transfer: Transfer
    layout: Layout
    inventory: Inventory
    space: Space
    waits: LockWaits

    async def bring(
        self, job: Job, file: PlanFile, shown: FileProgress, stage: Stage | None = None, lock: Lock | None = None
    ) -> tuple[str, Fetched]:
        """Have the file complete and verified, and in the stage where there is one. Returns where it lies.

        `lock` is the model's, which shows the progress; none for what is needed before there is a plan.
        """
        key = partial_key(file)
        lock_path = self.layout.file_lock(key)
        # Other processes are kept off by the model's lock; one that wants the file for another model may bring it too.
        small = lock is not None and file.size is not None and file.size <= SMALL_MAX
        while not (file_lock := await self.waits.acquire(lock_path, None if small else job.disk)):
            await self.waits.until_free(job, lock_path)
            await asyncio.to_thread(self.inventory.refresh)  # whoever had it may have published it
            if stage:
                job.go(State.DOWNLOADING)
        try:
            path, fetched = await self._have(job, file, key, shown, lock, file_lock)
            if stage:
                add = functools.partial(stage.add, file.name)
                try:
                    await job.disk.run(functools.partial(add, path))
                except FileNotFoundError:  # another job published it meanwhile, and removed the partial
                    await asyncio.to_thread(self.inventory.refresh)
                    path, fetched = await self._have(job, file, key, shown, lock, file_lock)
                    await job.disk.run(functools.partial(add, path))
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
            if small:
                file_lock.release()
            else:
                await unbroken(job.disk.run(file_lock.release))
        shown.size, shown.sha256, shown.source = fetched.size, fetched.sha256, fetched.source
        self._moved(job, shown, fetched.size, State.READY, lock)
        return path, fetched

    async def _have(
        self, job: Job, file: PlanFile, key: str, shown: FileProgress, lock: Lock | None, file_lock: Lock
    ) -> tuple[str, Fetched]:
        """The file, complete and verified: where it lies in the store, or as a partial."""
        if found := await job.disk.run(lambda: self._from_store(file)):
            return found
        # Where another may be at the same partial, whatever flock says, this job has one of its own.
        own = f"{key}~{os.urandom(4).hex()}" if file_lock.contested else key
        return self.layout.part(own), await self._fetch(job, file, own, shown, lock)

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


def partial_key(file: PlanFile) -> str:
    """The name of a file's partial: its SHA-256, else its git SHA-1, else a hash of where it comes from."""
    origin = f"{file.repo}@{file.commit}/{file.name}"
    return file.sha256 or file.git_sha1 or f"u{hashlib.sha256(origin.encode()).hexdigest()[:40]}"
