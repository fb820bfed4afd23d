"""One file of a run: from the store, another program of this host, or the transfer engine, into the stage."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.clock import Clock
from agent.core.names import bare, show
from agent.core.plan import PlanFile, query
from agent.core.ports import Source, Transfer
from agent.core.progress import FileProgress
from agent.core.remote import SMALL_MAX, Fetched, FetchRequest, Location
from agent.core.states import State
from agent.errors import Code, WantdError
from agent.host_files import HostFile
from agent.jobs.adoption import Adoption, adopted
from agent.jobs.disk import finish_before_cancel
from agent.jobs.lock_waits import LockWaits
from agent.jobs.proving import Proving
from agent.jobs.run import Run
from agent.store.inventory import Held, Inventory
from agent.store.layout import Layout
from agent.store.locks import Lock
from agent.store.space import Space


@dataclass(slots=True)
class Files:
    """Has files complete and verified on this host. Everything it works with is handed in.

    Without `adoption`, what other programs have is not looked at. `slice_bytes` is how large the pieces are that a
    fleet keeps, 0 where there is none.
    """

    source: Source
    transfer: Transfer
    layout: Layout
    inventory: Inventory
    space: Space
    waits: LockWaits
    clock: Clock
    proving: Proving
    adoption: Adoption | None = None
    slice_bytes: Callable[[], int] = lambda: 0

    async def obtain(self, run: Run, file: PlanFile, shown: FileProgress) -> tuple[str, Fetched]:
        """The path of the file, complete and verified; it is in the stage too where the run has one.

        A run without a stage has no plan yet: the file is one that the plan depends on.
        """
        key = partial_key(file)
        lock_path = self.layout.file_lock(key)
        # Other processes are kept off by the model's lock; one that wants the file for another model may fetch it too.
        small = run.stage is not None and file.size is not None and file.size <= SMALL_MAX
        while not (file_lock := await self.waits.acquire(lock_path, None if small else run.disk)):
            await self.waits.until_free(run.job, lock_path)
            await asyncio.to_thread(self.inventory.refresh)  # the last holder may have published it
            if run.stage:
                run.job.download()
        try:
            path, fetched = await self._obtain(run, file, key, shown, file_lock)
            if run.stage:
                add = functools.partial(run.stage.add, file.name)
                try:
                    await run.disk.run(functools.partial(add, path))
                except FileNotFoundError:  # another job published it meanwhile, and removed the partial
                    await asyncio.to_thread(self.inventory.refresh)
                    path, fetched = await self._obtain(run, file, key, shown, file_lock)
                    await run.disk.run(functools.partial(add, path))
        except FileNotFoundError:
            raise WantdError(
                Code.INTERNAL,
                f"the bytes of {show(file.name)} disappeared before they could be published",
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
                await finish_before_cancel(run.disk.run(file_lock.release))
        shown.size, shown.sha256, shown.source = fetched.size, fetched.sha256, fetched.source
        self._moved(run, shown, fetched.size, State.READY)
        return path, fetched

    async def _obtain(
        self, run: Run, file: PlanFile, key: str, shown: FileProgress, file_lock: Lock
    ) -> tuple[str, Fetched]:
        """The file's path in the store, or as a partial."""
        # Where another may be at the same partial, whatever flock says, this job has one of its own.
        own = f"{key}~{os.urandom(4).hex()}" if file_lock.contested else key
        found, doubtful, candidates = await run.disk.run(lambda: self._look(file, own))
        if doubtful and not (found := await self._prove(run, file, shown, doubtful)):
            candidates = await run.disk.run(lambda: self._candidates(file, own))
        if found or (candidates and (found := await self._adopt(run, file, own, shown, candidates))):
            return found
        return self.layout.part(own), await self._fetch(run, file, own, shown)

    def _look(self, file: PlanFile, key: str) -> tuple[tuple[str, Fetched] | None, list[Held], list[HostFile]]:
        """The file in the store, else files there that must be hashed first, else who may have it on this host."""
        if file.sha256 and (path := self.inventory.find(file.sha256)):
            return self._from_store(file, path), [], []
        if file.sha256 and (doubtful := self.inventory.doubtful(file.sha256)):
            return None, doubtful, []
        return None, [], self._candidates(file, key)

    def _candidates(self, file: PlanFile, key: str) -> list[HostFile]:
        """Who may have the file on this host."""
        return self.adoption.candidates(file, key) if self.adoption else []

    async def _prove(
        self, run: Run, file: PlanFile, shown: FileProgress, doubtful: list[Held]
    ) -> tuple[str, Fetched] | None:
        """The file from the store, where one that may have been changed still has its bytes."""

        def on_bytes(done: int) -> None:
            if run.stage is not None:
                state = State.VERIFYING if done else State.QUEUED
                run.job.moved(shown, done, state, self.clock.monotonic())

        path = await self.proving.first(doubtful, on_bytes)
        return await run.disk.run(lambda: self._from_store(file, path)) if path else None

    async def _adopt(
        self, run: Run, file: PlanFile, key: str, shown: FileProgress, candidates: list[HostFile]
    ) -> tuple[str, Fetched] | None:
        """The file as another program has it, where one has.

        Its room stays reserved until it is there: unlike a download's partial, a copy is not preallocated.
        """
        assert self.adoption is not None  # noqa: S101  it gave the candidates
        job = run.job
        job.partial_keys.add(key)

        def on_bytes(candidate: HostFile, done: int) -> None:
            if run.stage is None:
                return
            if done:
                shown.source = job.progress.source = candidate.source
            job.moved(shown, done, State.DOWNLOADING if done else State.QUEUED, self.clock.monotonic())

        # Without a stage, the next round of clearing could take a link away (`store.sweep.debris`).
        taken = await self.adoption.take(file, key, candidates, on_bytes, may_link=run.stage is not None)
        if taken is None:
            shown.source = None
            return None
        if taken[0] != self.layout.part(key):
            job.partial_keys.add(adopted(key))
        if run.stage:
            self.space.started(job, taken[1].size)
        return taken

    @staticmethod
    def _from_store(file: PlanFile, path: str) -> tuple[str, Fetched] | None:
        size = os.stat(path).st_size
        if file.sha256 is None or file.size not in (None, size):
            return None
        return path, Fetched(size, file.sha256, True, "store")

    async def _fetch(self, run: Run, file: PlanFile, key: str, shown: FileProgress) -> Fetched:
        job = run.job
        job.partial_keys.add(key)
        request = FetchRequest(
            label=f"{job.target.model} {file.name}",
            part_path=self.layout.part(key),
            journal_path=self.layout.journal(key),
            size=file.size,
            sha256=file.sha256,
            git_sha1=file.git_sha1,
            priority=job.priority,
            slice_bytes=self.slice_bytes(),
            group=job.target.name,
        )
        asked = query(job.target, file.repo, file.commit)
        gave: dict[str, None] = {}  # the sources of some of the bytes, in order

        async def locate(failed: WantdError | None) -> Location:
            location = await self.source.locate(asked, file.name, failed)
            if shown.source not in (None, location.source):
                job.log.info(
                    "{}: {} continues from {} at byte {}: {}",
                    job.target.model,
                    ascii(file.name),
                    location.source,
                    shown.bytes_done,
                    failed.message if failed else "the other did not respond",
                )
            shown.source = job.progress.source = location.source
            return location

        def on_bytes(done: int, verifying: bool) -> None:
            if shown.source and 0 < shown.bytes_done < done:
                gave[shown.source] = None
            job.throttled(self.transfer.throttled_by(request.group))
            self._moved(run, shown, done, State.VERIFYING if verifying else State.DOWNLOADING)

        fetched = await self.transfer.fetch(request, locate, on_bytes)
        return replace(fetched, source="+".join(dict.fromkeys([*gave, fetched.source])))

    def _moved(self, run: Run, shown: FileProgress, done: int, state: State) -> None:
        """Some of a file has come. Before there is a plan its bytes count for nothing."""
        if run.stage is None:
            shown.bytes_done, shown.state = done, state
            return
        if shown.state is State.QUEUED:
            self.space.started(run.job, shown.size or 0)
        run.job.moved(shown, done, state, self.clock.monotonic())


def partial_key(file: PlanFile) -> str:
    """The name of a file's partial: its SHA-256, else its git SHA-1, else a hash of where it comes from."""
    origin = f"{file.repo}@{file.commit}/{file.name}"
    return file.sha256 or file.git_sha1 or f"u{hashlib.sha256(origin.encode()).hexdigest()[:40]}"
