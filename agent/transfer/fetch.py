"""One fetch from locate to verified: what to do next, and above all what to do about failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.core.names import show
from agent.core.remote import Fetched, FetchRequest, Locate, Location
from agent.core.retry import (
    DISK_MISMATCHES,
    FETCH_BUDGET_S,
    FETCH_REFUSALS,
    FILE_CHANGES,
    HASH_MISMATCHES,
    PARTIAL_POLL_S,
    PARTIAL_WAIT_S,
    Backoff,
)
from agent.errors import Code, WantdError
from agent.transfer import small
from agent.transfer.download import Download
from agent.transfer.failures import Failure, FailureKind
from agent.transfer.lanes import Lanes
from agent.transfer.partial import Partial
from agent.transfer.verify import mismatch

PARTIAL = "partial"  # the source of a file that was complete before any source was asked

T = TypeVar("T")


class Fetch:
    """The coroutine's state: what it has counted so far."""

    def __init__(
        self,
        download: Download,
        locate: Locate,
        changed: asyncio.Event,
        lanes: Lanes,
        disk: ThreadPoolExecutor,
        backoff: Backoff,
        chance: Callable[[], float],
    ) -> None:
        self._download = download
        self._request = download.request
        self._locate = locate
        self._changed = changed
        self._lanes = lanes
        self._disk = disk
        self._backoff = backoff
        self._chance = chance
        self._failed_at = 0.0
        self._attempt = self._refusals = self._restarts = self._mismatches = self._disk_mismatches = 0
        self._syncing: asyncio.Future[None] | None = None
        self._reserving: asyncio.Future[None] | None = None

    async def run(self) -> Fetched:
        """Fetch the file. Raises what `Transfer.fetch` raises."""
        download = self._download
        location = None
        # Only the source can tell whether a partial is of this file.
        if not self._request.has_hash or download.size is None:
            location = await self._place(None)
        if download.is_small:
            if done := await self._find_small():
                return done
        else:
            await self._open(location.etag if location else None)
        if not download.all_there:
            self._go(location or await self._place(None))
        while True:
            self._changed.clear()
            failure = download.failure
            if failure is not None:
                await self._mend(failure)
            elif download.small is not None:
                if fetched := await self._end_small(download.small):
                    return fetched
            elif download.all_there:
                if fetched := await self._end():
                    return fetched
            elif download.location is None:  # a complete partial turned out to be none
                self._go(await self._place(None))
            else:
                self._lanes.offer(download)
            await self._changed.wait()

    # -- beginning ----------------------------------------------------------------------------------------------

    async def _open(self, etag: str | None) -> None:
        """Open the partial, waiting while another fetch holds it, and take over what it has."""
        download = self._download
        deadline = time.monotonic() + PARTIAL_WAIT_S
        while not await self._run(self._try_open):
            if time.monotonic() > deadline:
                raise WantdError(
                    Code.LOCK_TIMEOUT,
                    f"another process has held {show(self._request.part_path)} for {PARTIAL_WAIT_S:.0f} s",
                    "`fuser` shows which process it is; the download continues when that ends",
                )
            await asyncio.sleep(PARTIAL_POLL_S)
        if download.size is not None:
            size = download.size
            await self._run(lambda: download.begin(self._partial.resume(size, etag)))
            if not download.all_there:
                self._reserving = self._beside(self._reserve)

    def _reserve(self) -> None:
        """Reserve the disk's blocks while the first bytes come; a full disk ends the fetch."""
        try:
            self._partial.reserve(lambda: not self._download.closed)
        except WantdError as error:
            self._download.fail(Failure(FailureKind.FATAL, error))

    def _try_open(self) -> bool:
        partial = Partial.open(self._request)
        if partial is not None:
            self._download.adopt(partial)
        return partial is not None

    async def _find_small(self) -> Fetched | None:
        """The small file that is on disk already, whole and right; None otherwise."""
        request = self._request
        if not small.is_worth_a_look(request):
            return None
        return await self._run(lambda: small.find(request, self._download.size or 0, PARTIAL))

    async def _place(self, failed: WantdError | None) -> Location:
        """Ask where the file is. A location with another file is refused, and the source asked again."""
        request = self._request
        for _ in range(FETCH_REFUSALS):
            location = await self._locate(failed)
            other = _other_file(request, location)
            if other is None:
                if self._download.size is None:
                    self._download.size = location.size
                return location
            failed = WantdError(
                Code.HUB_PROTOCOL,
                f"{show(location.source)} has another file: {other}",
                "remove that source from the configuration, or report it to its operator",
                file=request.label,
            )
        assert failed is not None  # noqa: S101  the loop ran
        raise failed

    def _go(self, location: Location) -> None:
        self._download.go(location)
        self._lanes.offer(self._download)

    # -- failures -----------------------------------------------------------------------------------------------

    async def _mend(self, failure: Failure) -> None:
        """Decide about a failure; raises its error when trying again is no use now."""
        download, error = self._download, failure.error
        if failure.kind is FailureKind.FATAL:
            raise error
        if download.moved_at > self._failed_at:
            self._attempt = self._refusals = 0
        self._failed_at = time.monotonic()
        if failure.kind is FailureKind.CHANGED:
            await self._restart_changed(error)
            return
        if not error.retryable:
            self._refusals += 1
            if self._refusals >= FETCH_REFUSALS:
                raise error
            self._go(await self._place(error))
            return
        self._attempt += 1
        delay = self._backoff.delay(self._attempt, error, self._chance())
        if delay is None or failure.wait_s > FETCH_BUDGET_S:
            raise error
        same = download.location
        if failure.kind is not FailureKind.RELOCATE or self._attempt > 1:
            await asyncio.sleep(delay)
        keep = failure.kind is FailureKind.RATE or (failure.kind is FailureKind.PASSING and self._attempt == 1)
        # Nothing could tell in the end that two versions were mixed.
        blind = not self._request.has_hash and download.grid is not None
        keep = keep and not (blind and (same is None or same.etag is None))
        location = same if keep and same is not None else await self._place(error)
        if blind and not _same_version(same, location):
            self._restarts += 1
            if self._restarts > FILE_CHANGES:
                raise error
            await self._restart()
        self._go(location)

    async def _restart_changed(self, error: WantdError) -> None:
        """The server has another version now: none of the old bytes may meet the new ones."""
        download = self._download
        self._restarts += 1
        if self._request.has_hash and self._restarts > 1:
            download.ignore_etag = True  # the hash decides in the end; this server's ETags mean nothing
        elif self._restarts > FILE_CHANGES:
            raise error
        await self._restart(forget=self._request.size is None)
        location = await self._place(error)
        if download.grid is None and download.size is not None:
            size = download.size
            await self._run(lambda: download.begin(self._partial.resume(size, location.etag)))
        self._go(location)

    async def _restart(self, *, forget: bool = False) -> None:
        """Stop the lanes and drop every byte."""
        download = self._download
        download.paused = True
        download.etag = None
        self._lanes.stop(download)
        while download.pieces:
            self._changed.clear()
            if download.pieces:
                await self._changed.wait()
        if forget:
            await self._run(self._partial.discard)
            download.forget()
        else:
            await self._run(lambda: download.begin(self._partial.restart()))

    # -- ending -------------------------------------------------------------------------------------------------

    async def _end_small(self, outcome: small.Outcome) -> Fetched | None:
        """A small file came whole: judge. None when it is fetched again."""
        if outcome.wrong is None:
            return outcome.fetched
        self._mismatches += 1
        if self._mismatches >= HASH_MISMATCHES:
            raise outcome.wrong
        self._download.small = None
        self._go(await self._place(outcome.wrong))
        return None

    async def _end(self) -> Fetched | None:
        """Every byte is there: sync while the hash catches up, then judge. None when something is missing again."""
        download = self._download
        if self._syncing is None:
            self._syncing = self._beside(self._partial.sync)
        digest = download.digest
        if digest is None or download.size is None:
            return None
        await self._syncing
        self._syncing = None
        wrong = mismatch(self._request, digest)
        if wrong is not None:
            await self._mend_mismatch(wrong)
            return None
        await self._run(self._partial.sync)  # what was mended since; nothing to do most often
        await self._run(self._partial.finish)
        location = download.location
        source = location.source if location else self._partial.source or PARTIAL
        return Fetched(download.size, digest.sha256, self._request.has_hash, source)

    async def _mend_mismatch(self, wrong: WantdError) -> None:
        """Find out what is bad: a finished partial that was none, the disk, or what the server sent."""
        download = self._download
        if self._partial.whole_without_journal and not download.moved_at:
            await self._restart()
            self._changed.set()
            return
        bad = await self._run(download.bad_granules)
        if bad and self._disk_mismatches < DISK_MISMATCHES:
            self._disk_mismatches += 1
            await self._run(lambda: download.lose(bad))
            self._changed.set()
            return
        self._mismatches += 1
        if self._mismatches >= HASH_MISMATCHES:
            await self._run(self._partial.discard)
            raise wrong
        await self._restart()
        self._go(await self._place(wrong))

    # -- tools --------------------------------------------------------------------------------------------------

    @property
    def _partial(self) -> Partial:
        assert self._download.partial is not None  # noqa: S101  opened in the beginning
        return self._download.partial

    def _beside(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Start blocking work. Its error is raised where the future is awaited, which need not happen."""
        future = asyncio.ensure_future(self._run(work))
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def _run(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread, the files held open meanwhile."""
        download = self._download

        def held() -> T:
            if not download.enter():
                raise asyncio.CancelledError
            try:
                return work()
            finally:
                download.leave()

        return await asyncio.get_running_loop().run_in_executor(self._disk, held)


def _other_file(request: FetchRequest, location: Location) -> str | None:
    """What the location announces in place of the file that is wanted; None where nothing contradicts."""
    if request.size is not None and location.size not in (None, request.size):
        return f"{show(request.label)} with {location.size} bytes, expected {request.size}"
    if request.sha256 and location.sha256 and location.sha256.lower() != request.sha256.lower():
        return f"{show(request.label)} with SHA-256 {location.sha256}, expected {request.sha256}"
    return None


def _same_version(old: Location | None, new: Location) -> bool:
    return old is not None and old.etag is not None and old.etag == new.etag
