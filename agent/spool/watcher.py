"""The watch on the spool, and the bell that it rings.

Events only say where to look first: the scan is the truth. The watch is one inotify watch for each directory, added by
the scan just before it reads that directory, so that what comes into a new directory is either read or heard. Nothing
in here follows directories about: one that was renamed, removed or replaced is reported, and the next scan watches
what is there then.

This uses watchdog's `InotifyFD`, one thread that sleeps until the kernel has an event. watchdog's recursive observer is
not used: it follows directories, and died of a KeyError in a storm of mkdir, rename and `rm -r` (7.1.0,
`InotifyWatchGroup`) while it looked alive; it cannot be asked for changes of attributes without one event for every
write; and it makes three objects and two hand-offs between threads of what is here one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from loguru import logger
from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from agent.core.want import WANT_SUFFIX

# More paths of one directory than this are found faster by one scan than one by one. Each directory has a number of its
# own: a flood in one does not drown the hint about a want in another.
HINTS_MAX = 1000
HINTS_TOTAL = 50 * HINTS_MAX  # some 10 MB
# Reads are not among them: the agent's own would ring. IN_ATTRIB is how a touch is heard.
_EVENTS = Mask(
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVE
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
_GONE = InotifyConstants.IN_DELETE_SELF | InotifyConstants.IN_MOVE_SELF | InotifyConstants.IN_UNMOUNT
_CLOSED = InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVED_TO

MISSED_MAX = 3  # times that a scan finds what the watch did not report, until the spool is polled as well

Identity = tuple[int, int]  # device and inode


@dataclass(slots=True)
class Hints:
    """What the bell collected: where to look.

    `paths` are wants (True: the writer was seen to close it). `folders` had more hints than were kept: look at every
    want in them. `scan`: directories may have come or gone. `everything`: events were lost, look at every want.
    """

    paths: dict[str, bool] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    scan: bool = False
    everything: bool = False
    counts: Counter[str] = field(default_factory=Counter)  # paths in each directory


class Bell:
    """Collects hints from other threads for the event loop.

    One wake-up for any number of rings: each is a byte in the loop's own pipe, and a flood of them filled it, so that
    the byte of a signal found no room and SIGTERM was lost.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._hints = Hints()
        self._rung = False  # since the last `wait`
        self._event = asyncio.Event()

    def ring(self, path: str | None, *, closed: bool = False) -> None:
        """Look at `path`; with None, at the directories. From any thread; never raises."""
        with self._lock:
            self._note(path, closed)
            rung, self._rung = self._rung, True
        self._wake_loop(rung)

    def lost(self) -> None:
        """Look at everything: changes went unreported. From any thread; never raises."""
        with self._lock:
            self._hints.everything = True
            rung, self._rung = self._rung, True
        self._wake_loop(rung)

    def _wake_loop(self, rung: bool) -> None:
        if not rung:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to look
                self._loop.call_soon_threadsafe(self._event.set)

    def _note(self, path: str | None, closed: bool) -> None:
        hints = self._hints
        if path is None:
            hints.scan = True
            return
        folder = path.rpartition("/")[0]
        if path in hints.paths:
            hints.paths[path] |= closed
        elif len(hints.paths) >= HINTS_TOTAL:
            hints.everything = True
        elif hints.counts[folder] >= HINTS_MAX:
            hints.folders.add(folder)
        else:
            hints.counts[folder] += 1
            hints.paths[path] = closed

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


def open_inotify() -> InotifyFD:
    """A running reader thread with an inotify instance of its own. Raises OSError (EMFILE when none is left)."""
    inotify = InotifyFD()
    inotify.name = "spool watch"
    inotify.start()
    return inotify


class Watcher:
    """Keeps a live watch on the spool, through deletion, re-creation and the lack of inotify.

    `mode` gives `spool.watch`: "auto", "inotify" (never poll) or "poll". `ensure`, `watch`, `keep`, `missed` and `stop`
    touch the disk; call them in a worker thread. `open_inotify` returns a running reader thread, or raises OSError.
    """

    def __init__(
        self,
        root: str,
        bell: Bell,
        mode: Callable[[], str],
        open_inotify: Callable[[], InotifyFD] = open_inotify,
    ) -> None:
        self._root = root
        self._bell = bell
        self._mode = mode
        self._open_inotify = open_inotify
        self._lock = threading.Lock()  # guards the three that follow
        self._inotify: InotifyFD | None = None
        self._folders: dict[str, _Folder] = {}
        self._unwatched: set[str] = set()  # directories that the kernel has no watch left for
        self._missed = 0  # times that a scan found what the watch had not reported
        self._said: set[str] = set()
        self.refused = ""  # why there is no watch although the mode allows nothing else

    @property
    def polling(self) -> bool:
        """Whether scans at the polling interval take the place of events, or of some of them."""
        whole = self._inotify is not None and not self._unwatched and self._missed < MISSED_MAX
        return not whole and self._mode() != "inotify"

    @property
    def is_alive(self) -> bool:
        """False when there was a watch and its thread has died. Touches nothing: ask as often as you like."""
        inotify = self._inotify
        return inotify is None or inotify.is_alive()

    def ensure(self) -> None:
        """Create the spool's directory if it is gone, and open the watch if there is none, or a dead one."""
        try:
            os.makedirs(self._root, mode=0o755, exist_ok=True)
        except OSError as error:
            self._say(f"cannot make the spool {self._root}: {error.strerror}")
            return
        if not self.is_alive:
            logger.warning("the watch on the spool has died; watching again")
            self.stop()
        if self._mode() == "poll":
            self.stop()
        elif self._inotify is None:
            self._open()

    def watch(self, folder: str, identity: Identity, fd: int) -> None:
        """Hear of changes in a directory, open as `fd`, from now on. One that is watched already costs nothing."""
        with self._lock:
            there = self._folders.get(folder)
            if self._inotify is None or (there and there.identity == identity):
                return
            if there:
                self._forget(there)
            try:
                self._add(self._inotify, folder, identity, fd)
            except (FileNotFoundError, NotADirectoryError):
                return  # the scan sees that as well
            except OSError as error:
                if error.errno != errno.EACCES:
                    self._unwatched.add(folder)
                    self._say(f"cannot watch all of the spool with inotify ({error.strerror}); polling what is left")
            else:
                self._unwatched.discard(folder)

    def keep(self, folders: Collection[str]) -> None:
        """Of the watched directories, only these are there."""
        with self._lock:
            for folder in [folder for path, folder in self._folders.items() if path not in folders]:
                self._forget(folder)
            self._unwatched.intersection_update(folders)

    def missed(self) -> None:
        """A scan found changes that the watch did not report: open it again.

        Where that does not help (a network file system does not report what other hosts do), the spool is polled too.
        """
        if self._inotify is None or self._missed >= MISSED_MAX:
            return
        self._missed += 1
        if self._missed >= MISSED_MAX:
            self._say("inotify does not report all changes in the spool; polling it as well")
            return
        logger.warning("the watch on the spool missed changes; watching again")
        self.stop()

    def stop(self) -> None:
        """End the watch. Blocks until its thread has ended, 2 s at most."""
        with self._lock:
            inotify, self._inotify = self._inotify, None
            self._folders.clear()
            self._unwatched.clear()
        if inotify:
            # Not under the lock: it calls back for each watch.
            with contextlib.suppress(OSError):
                inotify.stop()
            inotify.join(timeout=2)

    # What the thread of inotify calls

    def on_change(self, folder: _Folder, name: str, *, is_directory: bool, closed: bool) -> None:
        """An entry of the directory was made, changed or removed; "" is the directory itself."""
        if is_directory and not name.startswith("."):
            self._bell.ring(None)
        elif name.endswith(WANT_SUFFIX) and not name.startswith("."):
            self._bell.ring(f"{folder.path}/{name}", closed=closed)

    def on_gone(self, folder: _Folder) -> None:
        """The directory was removed, renamed or unmounted."""
        with self._lock:
            if self._folders.get(folder.path) is folder:
                self._forget(folder)
        self._bell.ring(None)

    def on_overflow(self) -> None:
        """The kernel dropped events; watchdog logs that."""
        self._bell.lost()

    def _open(self) -> None:
        try:
            inotify = self._open_inotify()
        except OSError as error:
            if self._mode() == "inotify":
                self.refused = f'cannot watch the spool with inotify ({error.strerror}), and spool.watch = "inotify"'
                self._say(self.refused)
            else:
                self._say(f"cannot watch the spool with inotify ({error.strerror}); polling it instead")
            return
        with self._lock:
            self._inotify = inotify
        self.refused = ""
        fd = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            self.watch(self._root, (info.st_dev, info.st_ino), fd)
        finally:
            os.close(fd)
        self._bell.lost()  # what happened until now went unreported

    def _add(self, inotify: InotifyFD, path: str, identity: Identity, fd: int) -> None:
        folder = _Folder(self, path, identity)
        # The directory that is open, whatever has its name by now: inotify_add_watch(2) takes no descriptor.
        opened = f"/proc/self/fd/{fd}".encode()
        wd = inotify.add_callback(opened, _EVENTS, folder, CallbackId(id(folder)))
        if wd < 0:  # as watchdog reports EACCES
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        folder.wd = wd
        self._folders[path] = folder

    def _forget(self, folder: _Folder) -> None:
        self._folders.pop(folder.path, None)
        if self._inotify and folder.wd is not None:
            with contextlib.suppress(OSError):  # the kernel has forgotten it first
                self._inotify.remove_callbacks([(folder.wd, CallbackId(id(folder)))])

    def _say(self, problem: str) -> None:
        """Log a problem, once: it would come with every scan."""
        if problem not in self._said:
            self._said.add(problem)
            logger.warning("{}", problem)


@dataclass(slots=True, eq=False)
class _Folder:
    """A watched directory: what watchdog calls a WatchCallback. An exception in here would end its thread."""

    owner: Watcher
    path: str
    identity: Identity
    wd: WatchDescriptor | None = None

    def on_event(self, event: InotifyEvent) -> None:
        if event.mask & _GONE:
            self.owner.on_gone(self)
            return
        closed = bool(event.mask & _CLOSED)
        is_directory = bool(event.mask & InotifyConstants.IN_ISDIR)
        self.owner.on_change(self, os.fsdecode(event.name), is_directory=is_directory, closed=closed)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self.owner.on_gone(self)

    def on_queue_overflow(self) -> None:
        self.owner.on_overflow()
