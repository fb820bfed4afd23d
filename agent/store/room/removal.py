"""Removing a published model so that its readers survive.

A process that has a file open or mapped keeps it. One that opens files by path finds all of them until one rename(2)
takes the whole directory aside, and none from then on. The record goes with the directory, so there is no moment at
which a model is recorded and not whole. A crash at any step leaves the model as it was, or a directory among the
stages, which the next agent's clearing removes.

A directory that holds more than the model (files of others; a longer id: `qwen` and `qwen/qwen2.5`) stays where it is.
Its files are unlinked one by one, first the one that programs open first, and the record last: it says until then what
is still to be done. `UNFINISHED` marks such a directory, for the next agent to finish it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agent.core.names import StoreName, show
from agent.disk import disk_errors, sync_directory
from agent.errors import Code, WantdError
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import LLMLB_GGUF, RECORD, UNFINISHED, Layout, Record, read_record
from agent.store.locks import Lock, Locks, read_holder
from agent.store.room.census import OWN_FILES
from agent.store.room.leases import is_open, no_lease

# Between taking a directory away and emptying it: who had just opened it gets to the end of its list.
GRACE_S = 0.1
_STAYS = (errno.EXDEV, errno.EBUSY)  # rename(2): on another file system than the stages, or a mount point


@dataclass(frozen=True, slots=True)
class Removed:
    """A model that is gone. `freed_bytes` are free on the disk; `held_bytes` will be when the processes that have its
    files open close them."""

    name: str
    model: str
    freed_bytes: int
    held_bytes: int


def unfinished(layout: Layout) -> list[StoreName]:
    """The models of which a removal that goes file by file was begun."""
    return [name for name, path in layout.near_stages() if path.endswith(f"/{UNFINISHED}")]


@dataclass(slots=True)
class Remover:
    """Removes models of one store, and from the view. Methods block on the disk."""

    layout: Layout
    locks: Locks
    inventory: Inventory
    view: HubView
    grace_s: float = GRACE_S

    def remove(self, name: StoreName) -> Removed:
        """Remove a model, whether wanted or not.

        Raises Leased; `model_not_found` when the store has no such model, `lock_timeout` when it is being downloaded,
        `store_unwritable`.
        """
        directory = self.layout.directory(name)
        with self._locked(name), disk_errors(self.layout.root, passing=FileNotFoundError):
            try:
                with no_lease(directory):
                    record = read_record(directory)
                    if record is None:
                        raise FileNotFoundError(directory)  # noqa: TRY301  as when it has gone meanwhile
                    return self._remove(name, directory, record)
            except FileNotFoundError:
                raise _not_there(name) from None

    def finish(self, name: StoreName) -> None:
        """Go on with a removal that was begun by a process that died. Does nothing where somebody is at the model."""
        directory = self.layout.directory(name)
        with contextlib.suppress(WantdError), self._locked(name), disk_errors(self.layout.root):
            if os.path.lexists(f"{directory}/{UNFINISHED}"):
                if record := read_record(directory):
                    _unlink_ours(directory, record)
                else:
                    _end(directory)
                self._prune(os.path.dirname(directory))

    @contextlib.contextmanager
    def _locked(self, name: StoreName) -> Iterator[Lock]:
        path = self.layout.model_lock(name)
        lock = self.locks.try_acquire(path)
        if lock is None:
            raise WantdError(
                Code.LOCK_TIMEOUT,
                f"{show(name)} is being worked on: {read_holder(path) or 'by this process'}",
                "try again when that has ended",
                model=name,
            )
        try:
            yield lock
        finally:
            lock.release()

    def _remove(self, name: StoreName, directory: str, record: Record) -> Removed:
        gone = self._move_aside(name, directory, record)
        if gone is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{directory}/{UNFINISHED}", 0o755)
        self._prune(os.path.dirname(directory))
        if gone:
            # Before the files: they are free when their last name goes.
            self.view.show(record)
            time.sleep(self.grace_s)
            freed, held = _clear(gone)
        else:
            freed, held = _unlink_ours(directory, record)
            self.view.show(record)
        return Removed(name, record.model, freed, held)

    def _move_aside(self, name: StoreName, directory: str, record: Record) -> str | None:
        """Where the model's directory is now; None where it has to stay in its place."""
        if not _holds_only(directory, record):
            return None
        gone = self.layout.stage(name)
        try:
            os.rename(directory, gone)
        except OSError as error:
            if error.errno not in _STAYS:
                raise
            return None
        sync_directory(os.path.dirname(directory))
        return gone

    def _prune(self, folder: str) -> None:
        """Remove the directories above a model that are empty now, but for the store itself."""
        while len(folder) > len(self.layout.root):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)


def _holds_only(directory: str, record: Record) -> bool:
    """Whether there is nothing in the directory but the model."""
    ours, folders = _ours(record)
    for folder, inner, names in os.walk(directory):
        below = os.path.relpath(folder, directory)
        prefix = "" if below == "." else f"{below}/"
        if any(f"{prefix}{name}" not in folders for name in inner) or any(f"{prefix}{n}" not in ours for n in names):
            return False
    return True


def _ours(record: Record) -> tuple[set[str], set[str]]:
    """The model's files, and the directories that they are in."""
    files = {*(file.name for file in record.files), *OWN_FILES}
    if not record.opens:
        files -= {LLMLB_GGUF} - {file.name for file in record.files}  # one that is there is not of ours
    folders = {UNFINISHED}
    for name in files:
        while name := name.rpartition("/")[0]:
            folders.add(name)
    return files, folders


def _unlink_ours(directory: str, record: Record) -> tuple[int, int]:
    """Remove the model's files and the directories of it that are empty then. Returns bytes freed and still held."""
    files, folders = _ours(record)
    freed = held = 0
    for name in sorted(files - {RECORD}, key=lambda name: (name not in (record.opens, "config.json"), name)):
        now, later = _unlink(f"{directory}/{name}")
        freed, held = freed + now, held + later
    for name in sorted(folders - {UNFINISHED}, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(f"{directory}/{name}")
    sync_directory(directory)
    now, later = _unlink(f"{directory}/{RECORD}")
    _end(directory)
    return freed + now, held + later


def _end(directory: str) -> None:
    for folder in (f"{directory}/{UNFINISHED}", directory):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _clear(folder: str) -> tuple[int, int]:
    """Remove a directory with all that is in it. Returns bytes freed, and those that readers still hold."""
    freed = held = 0
    for at, _, names in os.walk(folder):
        for name in names:
            now, later = _unlink(f"{at}/{name}")
            freed, held = freed + now, held + later
    shutil.rmtree(folder, ignore_errors=True)
    return freed, held


def _unlink(path: str) -> tuple[int, int]:
    """Remove a name. Returns the bytes that are free by that, and those that are not because a process has the file
    open."""
    try:
        info = os.lstat(path)
        last = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
        kept = last and not path.endswith(f"/{RECORD}") and is_open(path)  # the record is held by the removal itself
        os.unlink(path)
    except FileNotFoundError:
        return 0, 0
    size = info.st_blocks * 512 if last else 0
    return (0, size) if kept else (size, 0)


def _not_there(name: str) -> WantdError:
    return WantdError(
        Code.MODEL_NOT_FOUND, f"{show(name)} is not in the store", "`wantd ls` lists what is there", model=name
    )
