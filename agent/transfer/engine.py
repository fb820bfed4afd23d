"""The transfer engine: downloads files over as many connections as help, verified on the way.

`Engine` implements the `Transfer` of `agent.core.ports`. How the parts hang together:

    engine     the parts put together, progress, the clock
    fetch      a coroutine for each fetch: what to do next, above all about failures
    download   the state of one file: granules, pieces          following  the hash behind the lanes
    lanes      the threads, shared by all fetches: `core.shares` says who gets one, and who gives one back
    hosts      each host's number of connections          piece      what one lane has in hand
    reader     one piece from one location (and why these are threads)
    checks     whether it is what was asked for                 failures   what went wrong, and what to do about it
    http       plain HTTP; other ways to bytes come with their location (`agent.core.access`)
    dial       connections: proxies, reuse                      wire, tls  HTTP/1.1 and TLS on a socket
    addresses  which of a host's are used or left alone         race       connecting to the first that takes us
    partial    the part file                                    journal    what is there of it
    small      all that is different about small files
    verify     the hashes                                       rate       the cap, the number of connections
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from agent.config import Transfer as TransferConfig
from agent.core.remote import Fetched, FetchRequest, Locate, OnBytes
from agent.core.retry import CLOSE_S, FETCH_FAILURES, LEAVE_S, TICK_S, Backoff
from agent.errors import WantdError
from agent.net.budget import HostBudgets
from agent.transfer.addresses import Addresses
from agent.transfer.dial import Resolve
from agent.transfer.download import Download
from agent.transfer.failures import Failure, FailureKind
from agent.transfer.fetch import Fetch
from agent.transfer.http import HttpTransport
from agent.transfer.lanes import Lanes
from agent.transfer.rate import Bucket, Processors
from agent.transfer.reader import Reader

FLUSH_BYTES = 256 * 1024 * 1024  # written bytes, of all files together, after which the disk is made to start
WORKERS = max(2, min(4, os.cpu_count() or 2))  # threads for hashing and for the disk, each


class Engine:
    """Implements `Transfer`. To be used on one event loop; closed with `close`.

    `config` gives the `[transfer]` section in force, which is followed with every tick and every request. `environ`
    holds the proxy variables and SSL_CERT_FILE; `chance` gives numbers in [0, 1) for the jitter; `resolve` is the
    resolver of names.
    """

    def __init__(
        self,
        config: Callable[[], TransferConfig],
        budgets: HostBudgets,
        environ: Mapping[str, str],
        chance: Callable[[], float] = random.random,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._config = config
        self._chance = chance
        addresses = Addresses()
        self._bucket = Bucket(config().max_rate)
        self._http = HttpTransport(budgets, environ, addresses, resolve)
        self._lanes = Lanes(
            Reader(self._http, self._bucket, lambda: config().stall_timeout_s),
            config().connections,
            config().connections_per_host,
            addresses,
        )
        self._hashing = ThreadPoolExecutor(WORKERS, "hash")
        self._disk = ThreadPoolExecutor(WORKERS, "disk")
        self._reports: dict[Download, _Report] = {}
        self._received: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._flushing: Future[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop every connection and thread. Fetches should be cancelled before."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await asyncio.to_thread(self._lanes.close, CLOSE_S)
        self._http.close()
        self._hashing.shutdown(wait=False, cancel_futures=True)
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, request: FetchRequest, locate: Locate, on_bytes: OnBytes) -> Fetched:
        """See `agent.core.ports.Transfer.fetch`."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is no fetch left to wake
                loop.call_soon_threadsafe(changed.set)

        download = Download(request, wake, lambda d: _ignore(self._hashing.submit(d.follow)))
        config = self._config()
        backoff = Backoff(config.retry_min_s, config.retry_max_s, FETCH_FAILURES)
        fetch = Fetch(download, locate, changed, self._lanes, self._disk, backoff, self._chance)
        report = self._reports[download] = _Report(download, on_bytes)
        self._follow_config()  # not with the next tick: a fast host has 64 MB by then
        if self._ticker is None or self._ticker.done():
            self._ticker = loop.create_task(self._tick(), name="transfer-ticker")
        try:
            fetched = await fetch.run()
        finally:
            del self._reports[download]
            await self._leave(download, changed)
            self._received += download.received()
            self._dropped += download.dropped()
        report.tell(fetched.size, True)
        return fetched

    def throttled_by(self, group: str) -> str | None:
        """See `agent.core.ports.Transfer.throttled_by`."""
        return self._lanes.throttled_by(group)

    def there(self, part_path: str) -> list[tuple[int, int]] | None:
        """The byte ranges that are on disk of a file on its way; None where it is not on its way."""
        return next((one.there for one in self._reports if one.request.part_path == part_path), None)

    def received(self) -> Counter[str]:
        """Bytes that came since the start, by source."""
        return sum((one.received() for one in self._reports), Counter(self._received))

    def dropped(self) -> Counter[str]:
        """Bytes that had to be fetched again since the start, by reason."""
        return sum((one.dropped() for one in self._reports), Counter(self._dropped))

    @property
    def connections(self) -> int:
        """Connections that are at work now."""
        return sum(len(download.pieces) for download in self._reports)

    async def _leave(self, download: Download, changed: asyncio.Event) -> None:
        """Stop the lanes of a fetch that ends, however it ends, and wait for them within reason."""
        download.close()
        self._lanes.stop(download)
        with contextlib.suppress(TimeoutError):  # the last to leave closes the files
            async with asyncio.timeout(LEAVE_S):
                while not download.left:
                    changed.clear()
                    if not download.left:
                        await changed.wait()

    async def _tick(self) -> None:
        processors = Processors(len(os.sched_getaffinity(0)))
        while self._reports:
            await asyncio.sleep(TICK_S)
            self._follow_config()
            self._lanes.tick(processors.crowded(self._lanes.at_work), self._bucket.rate)
            for report in list(self._reports.values()):
                report.look()
            self._flush_early()

    def _follow_config(self) -> None:
        """What is on its way goes on under the cap and the number of connections that are configured now."""
        config = self._config()
        self._bucket.set_rate(config.max_rate)
        self._lanes.limit(config.connections, config.connections_per_host)

    def _flush_early(self) -> None:
        """Make the disk start, so that the last syncs are short."""
        if self._flushing is not None and not self._flushing.done():
            return
        unsynced = {download: report.unsynced for download, report in self._reports.items()}
        if sum(unsynced.values()) >= FLUSH_BYTES:
            for download, count in unsynced.items():
                self._reports[download].flushed += count
            self._flushing = self._disk.submit(_flush, [download for download, count in unsynced.items() if count])


class _Report:
    """Reports how far one download is, and knows how much of it was not yet flushed."""

    def __init__(self, download: Download, on_bytes: OnBytes) -> None:
        self._download = download
        self._on_bytes = on_bytes
        self._told: tuple[int, bool] | None = None
        self.flushed = 0  # bytes

    def tell(self, done: int, verifying: bool) -> None:
        if self._told != (done, verifying):
            self._told = (done, verifying)
            self._on_bytes(done, verifying)

    def look(self) -> None:
        done, all_there = self._download.progress
        if done or self._told:
            self.tell(done, all_there)

    @property
    def unsynced(self) -> int:
        """Bytes that were written since the last flush; none when all are there, for the last sync is under way."""
        return 0 if self._download.all_there else self._download.written - self.flushed


def _flush(downloads: Sequence[Download]) -> None:
    """Sync what is there of them, one after another."""
    for download in downloads:
        if not download.enter():
            continue
        try:
            if download.partial is not None:
                download.partial.sync()
        except WantdError as error:
            download.fail(Failure(FailureKind.FATAL, error))
        finally:
            download.leave()


def _ignore(_: object) -> None:
    """The result of the future is reported in other ways."""
