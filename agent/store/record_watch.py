"""Noticing at once that a published model was removed, where the kernel tells (inotify).

Each directory from the store's root down to the model's files has a watch, shared by the models that need it:

    STORE/                 entry `org`
      org/                 entry `name`
        name/              the record, the files, entry `1_Pooling`
          1_Pooling/       files

so that `rm` of a file, `rm -r`, and `mv` of a file or of a directory are all heard. What is heard is a hint: look into
the store before believing it. What is not heard (no inotify, more directories than the budgets allow, a file that was
cut short in place) is left for the rescan to find.

This uses watchdog's `InotifyFD`, one thread for all watches, which sleeps until the kernel has an event. watchdog's
observers start a thread for every watch that is not recursive, and their recursive watches have died of a KeyError in a
storm of mkdir, rename and `rm -r` (watchdog 7.1.0, `InotifyWatchGroup`, which is not used here).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable
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

from agent.store.layout import RECORD, Published

# Directories. Half of 8,192, the smallest default of fs.inotify.max_user_watches, which all programs of a user share;
# a watch costs about 1 KB of kernel memory.
WATCHES_MAX = 4096
# Directories below the root for one model: a repository may have any number, and must not use up what all share.
MODEL_WATCHES_MAX = 64

_EVENTS = Mask(
    InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO  # over a file of the model
    | InotifyConstants.IN_DELETE_SELF
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)

NOT_WATCHED = WatchDescriptor(-1)


def open_inotify() -> InotifyFD:
    """A running reader thread with an inotify instance of its own. Raises OSError (EMFILE when none is left)."""
    inotify = InotifyFD()
    inotify.name = "record watch"
    inotify.start()
    return inotify


class RecordWatch:
    """Reports published models whose record or a file of which was removed, renamed or replaced.

    Methods may be called from any thread; `watch` touches the disk, so call it in a worker thread. `ring` is called
    from any thread as well, once for any number of losses until the next `take`. It must not block or raise.

    A model that was reported is no longer watched: `watch` it again once it is complete. So a storm of removals costs
    one event for each model, and a directory that was moved away leaves no watch behind that follows it.
    """

    def __init__(
        self,
        root: str,
        ring: Callable[[], None],
        *,
        watches_max: int = WATCHES_MAX,
        open_inotify: Callable[[], InotifyFD] = open_inotify,
    ) -> None:
        self._root = root
        self._ring = ring
        self._watches_max = watches_max
        self._open_inotify = open_inotify
        self._lock = threading.Lock()  # guards all that follows
        self._inotify: InotifyFD | None = None  # opened for the first model
        self._refused = False  # by the kernel: not asked again before the next `ensure`
        self._folders: dict[str, _Folder] = {}
        self._models: dict[str, _Model] = {}
        self._lost: set[str] = set()
        self._rung = False  # since the last `take`
        self._said: set[str] = set()

    @property
    def watched(self) -> int:
        """How many models are watched."""
        return len(self._models)

    def watch(self, published: Published) -> bool:
        """Watch a model that was just found complete. True if it is watched from now on; False leaves it to the rescan.

        A model that is watched already costs nothing. Files that were removed since the model was read are reported.
        """
        self._drop_dead_thread()
        with self._lock:
            watched = self._watch(published)
        self._tell()
        return watched

    def unwatch(self, directory: str) -> None:
        """Stop watching the model in `directory`, if it is watched."""
        with self._lock:
            self._forget(directory)

    def ensure(self) -> None:
        """See that the reader thread is alive. If it has died, all models are reported. Call this at each rescan.

        Also lets `watch` ask the kernel again where it refused.
        """
        self._drop_dead_thread()
        with self._lock:
            self._refused = False
        self._tell()

    def take(self) -> set[str]:
        """The directories of the models that were reported since the last call."""
        with self._lock:
            lost, self._lost, self._rung = self._lost, set(), False
        return lost

    def stop(self) -> None:
        """Stop watching. Blocks until the thread has ended, 2 s at most."""
        with self._lock:
            inotify, self._inotify = self._inotify, None
            self._folders.clear()
            self._models.clear()
        if inotify:
            inotify.stop()
            inotify.join(timeout=2)

    def heard(self, folder: _Folder, name: str | None) -> None:
        """An entry of a watched directory is gone or another one; with None, the directory itself."""
        with self._lock:
            if self._folders.get(folder.path) is not folder:
                return  # an event from before the watch was removed
            self._lose(folder.needed_by.get(name, ()) if name is not None else folder.models)
        self._tell()

    def overflowed(self) -> None:
        """The kernel dropped events: any model may be gone."""
        with self._lock:
            self._lose(list(self._models))
        self._tell()

    def _watch(self, published: Published) -> bool:
        directory = published.directory
        version = (published.record.commit, published.record.published_at)
        if directory in self._models:
            if self._models[directory].version == version:
                return True
            self._forget(directory)
        needs = _needs(self._root, published)
        if not self._may_watch(needs):
            return False
        self._models[directory] = _Model(version, list(needs))
        try:
            for path, names in needs.items():
                self._add(directory, path, names)
        except OSError as error:
            self._failed(directory, error)
            return False
        # The watches are there: what is missing now was removed before them.
        if not all(os.path.lexists(f"{path}/{name}") for path, names in needs.items() for name in names):
            self._lose([directory])
        return directory in self._models

    def _may_watch(self, needs: dict[str, set[str]]) -> bool:
        if self._refused or len(needs) > MODEL_WATCHES_MAX:
            return False
        if len(self._folders) + sum(path not in self._folders for path in needs) > self._watches_max:
            self._say(f"{self._watches_max} directories of the store are watched, and no more of them")
            return False
        if self._inotify is None:
            try:
                self._inotify = self._open_inotify()
            except OSError as error:
                self._refused = True
                self._say(f"no inotify for the store ({error.strerror})")
                return False
        return True

    def _add(self, directory: str, path: str, names: Iterable[str]) -> None:
        folder = self._folders.get(path)
        if folder is None:
            assert self._inotify is not None  # noqa: S101  opened by _may_watch
            folder = _Folder(self, path)
            folder.wd = self._inotify.add_callback(os.fsencode(path), _EVENTS, folder, CallbackId(id(folder)))
            self._folders[path] = folder
            if folder.wd < 0:  # as watchdog reports EACCES
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        alone = (directory,)
        for name in names:
            others = folder.needed_by.get(name)
            folder.needed_by[name] = (*others, directory) if others else alone

    def _failed(self, directory: str, error: OSError) -> None:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            self._lose([directory])
            return
        self._forget(directory)
        if not isinstance(error, PermissionError):  # the limit of the kernel, ENOSPC, above all
            self._refused = True
            self._say(f"cannot watch all of the store ({error.strerror})")

    def _lose(self, directories: Iterable[str]) -> None:
        for directory in directories:
            self._forget(directory)
            self._lost.add(directory)

    def _forget(self, directory: str) -> None:
        model = self._models.pop(directory, None)
        for path in model.folders if model else ():
            folder = self._folders.get(path)
            if folder is None:
                continue  # of a model that could not be watched whole
            folder.drop(directory)
            if not folder.needed_by:
                del self._folders[path]
                if self._inotify:
                    self._inotify.remove_callbacks([(folder.wd, CallbackId(id(folder)))])

    def _drop_dead_thread(self) -> None:
        with self._lock:
            inotify = self._inotify
            if inotify is None or inotify.is_alive():
                return
            self._inotify = None
            self._lose(list(self._models))
        inotify.stop()  # closes its descriptors; not under the lock, since it calls back for each watch

    def _tell(self) -> None:
        with self._lock:
            due = bool(self._lost) and not self._rung
            self._rung = self._rung or due
        if due:
            self._ring()

    def _say(self, problem: str) -> None:
        """Log a problem, once: it would come with every model at every rescan."""
        if problem not in self._said:
            self._said.add(problem)
            logger.warning("{}: removed models are noticed at the next rescan", problem)


@dataclass(slots=True)
class _Model:
    version: tuple[str, str]  # commit and time of publication: tells it from another in the same directory
    folders: list[str]


@dataclass(slots=True, eq=False)
class _Folder:
    """A watched directory, and which of its entries are needed by which models (their directories)."""

    owner: RecordWatch
    path: str
    wd: WatchDescriptor = NOT_WATCHED
    needed_by: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def models(self) -> set[str]:
        """All models that need the directory."""
        return {directory for directories in self.needed_by.values() for directory in directories}

    def drop(self, directory: str) -> None:
        """The model needs nothing of it any more."""
        if directory.startswith(f"{self.path}/"):  # above the model: one entry, among those of many models
            names = [directory[len(self.path) + 1 :].partition("/")[0]]
        else:
            names = list(self.needed_by)
        for name in names:
            left = tuple(other for other in self.needed_by.get(name, ()) if other != directory)
            if left:
                self.needed_by[name] = left
            else:
                self.needed_by.pop(name, None)

    # What watchdog's thread calls (its WatchCallback). An exception in here would end the thread.

    def on_event(self, event: InotifyEvent) -> None:
        self.owner.heard(self, os.fsdecode(event.name) if event.name else None)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        self.owner.heard(self, None)

    def on_queue_overflow(self) -> None:
        self.owner.overflowed()


def _needs(root: str, published: Published) -> dict[str, set[str]]:
    """The directories from the root to the model's files, and the entries of each that the model needs."""
    needs: dict[str, set[str]] = {}
    for name in (RECORD, *(file.name for file in published.record.files)):
        path = f"{published.directory}/{name}"
        while len(path) > len(root):
            folder, _, entry = path.rpartition("/")
            entries = needs.setdefault(folder, set())
            if entry in entries:
                break  # and so is all above it
            entries.add(entry)
            path = folder
    return needs
