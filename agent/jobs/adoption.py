"""Files that other programs of this host have, taken in place of a download: which, in what order, and how often."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from cachetools import LRUCache
from loguru import logger

from agent.core.names import RepoId, SafeName, show
from agent.core.plan import PlanFile
from agent.core.remote import Fetched
from agent.disk import disk_errors
from agent.host_files import HostFile, Unusable, shown
from agent.jobs.disk import finish_before_cancel
from agent.store.adopt import Interrupted, Wanted, adopt
from agent.store.layout import Layout

AT_ONCE = 2  # files taken at the same time: one disk reads and writes, and two hashes fill two cores
REMEMBERED = 4096  # files that turned out to be others; each is tried again when it has changed

_State = tuple[int, int, int, int]


class HostFiles(Protocol):
    """Who has a file on this host (`sources.host_caches`)."""

    def find(
        self, repo: RepoId, name: SafeName, size: int | None, sha256: str | None, git_sha1: str | None
    ) -> list[HostFile]:
        """Files that may be this one, the most likely first. Blocks."""
        ...


@dataclass(slots=True)
class Adoption:
    """`link_mode` gives the permissions that a file must have for a hard link to do, None where none may be made."""

    caches: HostFiles
    layout: Layout
    link_mode: Callable[[], int | None]
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE, "adopt"))
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of `_wrong`
    _wrong: LRUCache[tuple[str, str], _State] = field(default_factory=lambda: LRUCache(REMEMBERED))

    def candidates(self, file: PlanFile, key: str) -> list[HostFile]:
        """Who may have the file. None where our own partial is complete: it only has to be verified. Blocks."""
        if _size(self.layout.part(key)) == file.size and not os.path.lexists(self.layout.journal(key)):
            return []
        found = self.caches.find(file.repo, file.name, file.size, file.sha256, file.git_sha1)
        states = [_state(one.path) for one in found]
        with self._lock:
            wrong = [self._wrong.get(_known(one, file)) for one in found]
        return [one for one, state, known in zip(found, states, wrong, strict=True) if state != known]

    async def take(
        self,
        file: PlanFile,
        key: str,
        candidates: Sequence[HostFile],
        on_bytes: Callable[[HostFile, int], object],
        *,
        may_link: bool,
    ) -> tuple[str, Fetched] | None:
        """The path of the file, taken from the first candidate that has it, or None.

        A copy becomes the partial `key`. A hard link must never be one: a later download would write into the other
        program's file. It keeps a name of its own, `adopted(key)`, which is only ever linked or removed. Cancelling
        ends the copy at its next chunk. Raises `disk_full`, `store_unwritable`.
        """
        loop = asyncio.get_running_loop()
        link_mode = self.link_mode() if may_link else None
        for candidate in candidates:
            stopped = threading.Event()

            def tell(done: int, candidate: HostFile = candidate) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                    loop.call_soon_threadsafe(on_bytes, candidate, done)

            work = self._threads.submit(self._take, file, key, candidate, link_mode, stopped, tell)

            def halt(work: Future[Any] = work, stopped: threading.Event = stopped) -> None:
                stopped.set()
                work.cancel()  # of one that waits for a thread

            if taken := await finish_before_cancel(asyncio.wrap_future(work), halt):
                return taken
            on_bytes(candidate, 0)
        return None

    def _take(
        self,
        file: PlanFile,
        key: str,
        candidate: HostFile,
        link_mode: int | None,
        stopped: threading.Event,
        on_bytes: Callable[[int], object],
    ) -> tuple[str, Fetched] | None:
        path, state = self.layout.part(adopted(key)), _state(candidate.path)
        wanted = Wanted(file.sha256, file.git_sha1)
        try:
            got = adopt(candidate, path, wanted, link_mode=link_mode, stop=stopped.is_set, on_bytes=on_bytes)
        except Interrupted:
            return None
        except Unusable as why:
            with self._lock:
                self._wrong[_known(candidate, file)] = state
            logger.warning(
                "not adopting {} from {}: {}; it is left as it is, and fetched", show(file.name), shown(candidate), why
            )
            return None
        logger.info("adopted {} from {} by {}", show(file.name), shown(candidate), got.way)
        if got.way != "hard link":
            path = self._keep(key, path)
        return path, Fetched(candidate.size, got.sha256, True, candidate.source)

    def _keep(self, key: str, path: str) -> str:
        """Make the copy the file's partial. The journal goes first: it speaks of the bytes that were there before."""
        part, journal = self.layout.part(key), self.layout.journal(key)
        with disk_errors(part):
            if os.path.lexists(journal):
                os.unlink(journal)
            os.rename(path, part)
        return part

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def adopted(key: str) -> str:
    """The key of what is being taken for the partial `key`."""
    return f"{key}~adopted"


def _known(candidate: HostFile, file: PlanFile) -> tuple[str, str]:
    return candidate.path, file.sha256 or file.git_sha1 or ""


def _state(path: str) -> _State:
    """What changes when a file does; zeros for one that cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _size(path: str) -> int | None:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return None
