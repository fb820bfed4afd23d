"""watchdog's bell.

Events only say where to look first. Whatever they miss, a scan of the directory finds; when the kernel drops events,
when a directory appears, and at each rescan, the whole spool is scanned. Where inotify cannot be had, the
scan alone does the work, at the polling interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loguru import logger

from agent.spool.scan import is_want

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

# More paths of one directory than this are found faster by one scan than one by one. Each directory has a number of its
# own: a flood in one does not drown the hint about a want in another.
HINTS_MAX = 1000
HINTS_TOTAL = 50 * HINTS_MAX  # some 10 MB
# A new directory is scanned again after this: its files may have come before the kernel's watch on it did.
NEW_DIRECTORY_S = 1.0


@dataclass(slots=True)
class Hints:
    """What the bell collected: paths of wants (True: the writer was seen to close it), and whether to scan all."""

    paths: dict[str, bool] = field(default_factory=dict)
    everything: bool = False
    counts: Counter[str] = field(default_factory=Counter)  # paths in each directory


class Bell:
    """Collects hints from watchdog's threads for the event loop.

    One wake-up for any number of rings: each is a byte in the loop's own pipe, and a flood of them filled it, so that
    the byte of a signal found no room and SIGTERM was lost.
    """

    def __init__(self, root: str, loop: asyncio.AbstractEventLoop) -> None:
        self._root = root
        self._loop = loop
        self._lock = threading.Lock()
        self._hints = Hints()
        self._rung = False  # since the last `wait`
        self._event = asyncio.Event()

    def ring(self, path: str | None, *, closed: bool = False) -> None:
        """Look at `path` (None: at everything). From any thread; never raises."""
        with self._lock:
            self._note(path, closed)
            rung, self._rung = self._rung, True
        if not rung:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to look
                self._loop.call_soon_threadsafe(self._event.set)

    def _note(self, path: str | None, closed: bool) -> None:
        hints = self._hints
        folder = path.rpartition("/")[0] if path else ""
        if path is None or hints.counts[folder] >= HINTS_MAX or len(hints.paths) >= HINTS_TOTAL:
            hints.everything = True
        else:
            hints.counts[folder] += path not in hints.paths
            hints.paths[path] = hints.paths.get(path, False) or closed

    def wake(self) -> None:
        """End the wait without a hint. From the event loop."""
        self._event.set()

    async def wait(self, timeout: float | None) -> Hints:
        """The hints since the last call; empty after `timeout` seconds with none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()
        with self._lock:
            hints, self._hints, self._rung = self._hints, Hints(), False
        return hints


class _Handler:
    """watchdog's handler. An exception in here would kill its thread while all looks well, so none may leave."""

    def __init__(self, bell: Bell, root: str) -> None:
        self._bell = bell
        self._root = root

    def dispatch(self, event: FileSystemEvent) -> None:
        closed = event.event_type in ("closed", "moved")
        for raw in (event.src_path, event.dest_path):
            path = os.fsdecode(raw) if raw else ""
            if event.is_directory:
                self._bell.ring(None)
            elif is_want(self._root, path):
                self._bell.ring(path, closed=closed and path != "")


class _OverflowHandler(logging.Handler):
    """watchdog tells of lost events in its log only."""

    def __init__(self, bell: Bell) -> None:
        super().__init__(logging.WARNING)
        self._bell = bell

    def emit(self, record: logging.LogRecord) -> None:
        self._bell.ring(None)


class Watcher:
    """Keeps a live watch on the spool, through deletion, re-creation and the lack of inotify.

    `mode` gives `spool.watch`: "auto", "inotify" (never poll) or "poll".
    """

    def __init__(self, root: str, bell: Bell, mode: Callable[[], str]) -> None:
        self._root = root
        self._bell = bell
        self._mode = mode
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._complained = False
        self.refused = ""  # why there is no watch although the mode allows nothing else
        self._overflow = _OverflowHandler(bell)

    @property
    def polling(self) -> bool:
        """Whether scans at the polling interval take the place of events."""
        return self._observer is None and self._mode() != "inotify"

    def ensure(self) -> None:
        """Start the watch, again when the directory is another one. Blocks; call it in a thread."""
        try:
            os.makedirs(self._root, mode=0o755, exist_ok=True)
            info = os.stat(self._root)
        except OSError as error:
            self._complain(f"cannot make the spool {self._root}: {error.strerror}")
            self.stop()
            return
        identity = (info.st_dev, info.st_ino)
        mode = self._mode()
        if mode != "poll" and identity == self._identity and self._is_alive():
            return
        self.stop()
        if mode == "poll":
            return
        self._observer = self._start()
        self._identity = identity if self._observer else None
        if self._observer:
            self._complained, self.refused = False, ""
            self._bell.ring(None)

    def _is_alive(self) -> bool:
        """An observer whose emitter has died looks alive and rings no more."""
        threads = [self._observer, *self._observer.emitters] if self._observer else []
        return bool(threads) and all(thread.is_alive() for thread in threads)

    def _start(self) -> BaseObserver | None:
        from watchdog import events
        from watchdog.observers.inotify import InotifyObserver

        kinds = [
            events.FileClosedEvent,
            events.FileCreatedEvent,
            events.FileMovedEvent,
            events.FileDeletedEvent,
            events.DirCreatedEvent,
            events.DirMovedEvent,
            events.DirDeletedEvent,
        ]
        logging.getLogger("watchdog.observers.inotify_c").addHandler(self._overflow)
        observer: BaseObserver | None = None
        try:
            observer = InotifyObserver()  # raises where no instance is left
            observer.schedule(_Handler(self._bell, self._root), self._root, recursive=True, event_filter=kinds)  # type: ignore[arg-type]
            observer.start()
        except OSError as error:
            if self._mode() == "inotify":
                self.refused = f'cannot watch the spool with inotify ({error.strerror}), and spool.watch = "inotify"'
                self._complain(self.refused)
            else:
                self._complain(f"cannot watch the spool with inotify ({error.strerror}); polling it instead")
            if observer:
                observer.stop()  # at each rescan it is tried again: what was taken is given back
            return None
        return observer

    def _complain(self, text: str) -> None:
        if not self._complained:
            logger.warning("{}", text)
        self._complained = True

    def stop(self) -> None:
        """End the watch. Blocks shortly."""
        observer, self._observer = self._observer, None
        if observer:
            observer.stop()
            observer.join(timeout=2)
        logging.getLogger("watchdog.observers.inotify_c").removeHandler(self._overflow)
