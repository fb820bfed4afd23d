"""watchdog's bell, and the scan that is the truth (SPEC section 2).

Events only say where to look first. Whatever they miss, a scan of the directory finds; when the kernel drops events,
when a directory appears, and at each rescan, the whole spool is scanned. Where inotify cannot be had, the
scan alone does the work, at the polling interval.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.spool.files import TEMP_PREFIX, Stamp, remove_stale_temp

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent
    from watchdog.observers.api import BaseObserver

DEPTH = 4  # levels of subdirectories, SPEC section 2
HINTS_MAX = 1000  # more paths than this are found faster by one scan than one by one
# A new directory is scanned again after this: its files may have come before the kernel's watch on it did.
NEW_DIRECTORY_S = 1.0


class HasStamp(Protocol):
    """What the scan compares against: anything that remembers the stamp it saw last."""

    @property
    def stamp(self) -> Stamp | None: ...


@dataclass(slots=True)
class Hints:
    """What the bell collected: paths of wants (True: the writer was seen to close it), and whether to scan all."""

    paths: dict[str, bool] = field(default_factory=dict)
    everything: bool = False


@dataclass(slots=True)
class Found:
    """What a scan found, against what was known: paths of wants, and wants whose progress file is missing."""

    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


class Bell:
    """Collects hints from watchdog's threads for the event loop."""

    def __init__(self, root: str, loop: asyncio.AbstractEventLoop) -> None:
        self._root = root
        self._loop = loop
        self._hints = Hints()
        self._event = asyncio.Event()
        self._rung = False

    def ring(self, path: str | None, *, closed: bool = False) -> None:
        """Look at `path` (None: at everything). From any thread; never raises."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to look
            self._loop.call_soon_threadsafe(self._note, path, closed)

    def _note(self, path: str | None, closed: bool) -> None:
        hints = self._hints
        if path is None or len(hints.paths) >= HINTS_MAX:
            hints.everything = True
        else:
            hints.paths[path] = hints.paths.get(path, False) or closed
        self._event.set()

    async def wait(self, timeout: float | None) -> Hints:
        """The hints since the last call; empty after `timeout` seconds with none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._event.wait()
        self._event.clear()
        hints, self._hints = self._hints, Hints()
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
    """Keeps a live watch on the spool, through deletion, re-creation and the want of inotify."""

    def __init__(self, root: str, bell: Bell, mode: str) -> None:
        self._root = root
        self._bell = bell
        self._mode = mode
        self._observer: BaseObserver | None = None
        self._identity: tuple[int, int] | None = None
        self._complained = False
        self._overflow = _OverflowHandler(bell)

    @property
    def polling(self) -> bool:
        """Whether scans are all there is."""
        return self._observer is None

    def ensure(self) -> None:
        """Start the watch, or start it anew when the directory is another one. Blocks; call it in a thread."""
        try:
            os.makedirs(self._root, mode=0o755, exist_ok=True)
            info = os.stat(self._root)
        except OSError as error:
            self._complain(f"the spool {self._root} cannot be made: {error.strerror}")
            self.stop()
            return
        identity = (info.st_dev, info.st_ino)
        if self._mode == "poll" or (self._observer and identity == self._identity and self._observer.is_alive()):
            return
        self.stop()
        self._observer = self._start()
        self._identity = identity if self._observer else None
        if self._observer:
            self._complained = False
            self._bell.ring(None)

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
        observer = InotifyObserver()
        try:
            observer.schedule(_Handler(self._bell, self._root), self._root, recursive=True, event_filter=kinds)  # type: ignore[arg-type]
            observer.start()
        except OSError as error:
            self._complain(f"no inotify ({error.strerror}): the spool is polled instead")
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


def is_want(root: str, path: str) -> bool:
    """Whether a path is a request of this spool: `*.want`, no dot in front, at most `DEPTH` folders down."""
    if not path.endswith(WANT_SUFFIX) or not path.startswith(root + "/"):
        return False
    parts = path[len(root) + 1 :].split("/")
    return len(parts) <= DEPTH + 1 and not any(part.startswith(".") for part in parts)


def scan(root: str, known: Mapping[str, HasStamp], silent: Collection[str] = (), *, tidy: bool = True) -> Found:
    """Look at the whole spool. `known` maps paths to what was seen last, `silent` are wants that cannot be answered.

    With `tidy`, removes progress files whose want is gone, and temporary files of agents that died. Blocks; call it
    in a thread.
    """
    found = Found()
    seen: set[str] = set()
    answers: set[str] = set()
    unknown: list[str] = []  # folders that could not be read just now: what was in them is not gone for that
    now = time.time()
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unknown.append(folder + "/")
            continue
        with entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    if tidy and name.startswith(TEMP_PREFIX):
                        remove_stale_temp(folder, name, now)
                elif name.endswith(WANT_SUFFIX):
                    _compare(entry, known, seen, found)
                elif name.endswith(PROGRESS_SUFFIX):
                    answers.add(entry.path)
                elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, depth + 1))
    found.removed = [path for path in known if path not in seen and not path.startswith(tuple(unknown))]
    if tidy:
        _settle_answers(seen, answers, silent, known, found)
    return found


def _compare(entry: os.DirEntry[str], known: Mapping[str, HasStamp], seen: set[str], found: Found) -> None:
    try:
        stamp = Stamp.of(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return
    except OSError:
        seen.add(entry.path)
        return
    seen.add(entry.path)
    last = known.get(entry.path)
    if last is None or last.stamp != stamp:
        found.changed.append(entry.path)


def _settle_answers(
    seen: set[str], answers: set[str], silent: Collection[str], known: Mapping[str, HasStamp], found: Found
) -> None:
    for answer in answers:
        want = answer.removesuffix(PROGRESS_SUFFIX) + WANT_SUFFIX
        if want not in seen:
            with contextlib.suppress(OSError):
                if not os.path.lexists(want):
                    os.unlink(answer)
    for path in seen:
        answer = path.removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX
        if path in known and answer not in answers and path not in silent:
            found.unanswered.append(path)
