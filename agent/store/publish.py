"""A complete, verified model becomes visible in one step, and is never seen in part, whatever happens in between.

The files are linked into a stage, a directory beside the partials, synced, and the stage is renamed into place. Where
the model's directory exists already (it holds a longer id, or an older choice of files), the files are renamed into it
one by one, with the record removed first and written last: without its record a model is not published. Where it is on
another file system than the partials, the stage is copied there first.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from dataclasses import dataclass

import msgspec

from agent.core.names import SafeName
from agent.core.plan import Plan
from agent.disk import Sync, atomic_write, disk_errors, sync_directory
from agent.errors import WantdError
from agent.store.in_the_way import in_the_way
from agent.store.layout import (
    LLMLB_GGUF,
    MANIFEST,
    NEAR_STAGE,
    RECORD,
    Layout,
    Published,
    Record,
    read_record,
)
from agent.store.manifest import llmlb_manifest
from agent.store.stamps import Stamp, read_stamps, stamp_of, write_stamps

KEPT_SUFFIX = ".before-wantd"
# rename(2): the source is on another file system, or the destination is a mount point.
_ELSEWHERE = (errno.EXDEV, errno.EBUSY)
# link(2): the file system has no hard links, or the file has as many as it may have.
_NO_LINK = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Modes:
    """Permissions of what is published: 0644 and 0755 less the umask. Every user may read a model."""

    file: int
    folder: int

    @staticmethod
    def current() -> Modes:
        """From the umask of this process. Changes it for an instant: call it before there are threads."""
        umask = os.umask(0o077)
        os.umask(umask)
        return Modes(0o644 & ~umask, 0o755 & ~umask)


class Stage:
    """A model being assembled. Use it under the model's lock, and not on the event loop: it touches the disk."""

    def __init__(self, layout: Layout, plan: Plan, modes: Modes) -> None:
        self._layout = layout
        self._plan = plan
        self._modes = modes
        self._directory = layout.directory(plan.target.name)
        self.path = layout.stage(plan.target.name)
        self._placing = False
        self._added: dict[str, Stamp | None] = {}  # what they looked like when their bytes had just been proved
        self._folders: set[str] = set()  # known to exist; a look for each of thousands costs more than its link

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed the stage, and so most likely the partials beside it. Touches the disk."""
        return not self._placing and not os.path.isdir(self.path) and not self._placing

    def begin(self) -> None:
        """Start empty. Raises `store_unwritable`, `disk_full`."""
        with self._writing():
            for left in glob.glob(f"{glob.escape(self._directory)}/{NEAR_STAGE}*"):  # by an agent that died
                shutil.rmtree(left, ignore_errors=True)
            self._make_directories(self.path)

    def add(self, name: SafeName, source: str) -> None:
        """Add a complete, synced file, as a hard link where the file system allows.

        Raises FileNotFoundError when `source` is gone, `store_unwritable`, `disk_full`.
        """
        path = f"{self.path}/{name}"
        with self._writing():
            folder = os.path.dirname(path)
            if folder not in self._folders:
                self._make_directories(folder)
                self._folders.add(folder)
            _link_or_copy(source, path)
            os.chmod(path, self._modes.file)
        self._added[name] = stamp_of(path)

    def publish(self, record: Record, endpoint: str) -> Published:
        """Make the model visible. Raises `store_unwritable`, `forbidden_path`, `disk_full`."""
        opens = record.opens
        self._placing = True
        with self._writing():
            if opens and LLMLB_GGUF not in self._added:
                _second_name(self.path, opens, LLMLB_GGUF)
            if MANIFEST not in self._added:
                self._write(MANIFEST, llmlb_manifest(record, self._plan, endpoint))
            self._write(RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
            for folder, _, _ in os.walk(self.path):
                os.chmod(folder, self._modes.folder)
                sync_directory(folder)
            self._move_into_place(record)
        return Published(record, f"{self._directory}/{opens}" if opens else self._directory, self._directory)

    def note_stamps(self) -> None:
        """Note what the published files look like, once their partials are gone and the view has its links.

        Those that were changed, or copied, since they were added stay without a stamp.
        """
        path = self._layout.stamps_in(self._directory)
        now = {name: stamp_of(f"{self._directory}/{name}") for name in self._added}
        same = {name: stamp for name, stamp in now.items() if stamp and _unchanged(self._added[name], stamp)}
        write_stamps(path, read_stamps(path) | same)

    def drop(self) -> None:
        """Remove what is left of the stage. The files stay where they were linked from."""
        self._placing = True
        shutil.rmtree(self.path, ignore_errors=True)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        """Disk errors as WantdError, but for a file that is gone: the caller knows whether that is an error."""
        return disk_errors(self._layout.root, passing=FileNotFoundError)

    def _write(self, name: str, data: bytes) -> None:
        atomic_write(f"{self.path}/{name}", data, mode=self._modes.file, exact_mode=True, sync=Sync.FILE)

    def _move_into_place(self, record: Record) -> None:
        directory = self._directory
        try:
            self._make_directories(os.path.dirname(directory))
            os.rename(self.path, directory)
            self._forget_stamps()
        except (FileExistsError, NotADirectoryError):
            if not os.path.isdir(directory):
                raise self._in_the_way(directory) from None
            if os.stat(directory).st_dev != os.stat(self.path).st_dev:  # moved to another disk, and linked from here
                self._come_near()
            self._merge(directory, record)
        except OSError as error:
            if error.errno in _ELSEWHERE:
                self._come_near()
            elif error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._merge(directory, record)
        self._sync_up(os.path.dirname(directory))

    def _come_near(self) -> None:
        """Copy the stage into the model's directory, so that only renames are left to do."""
        near = f"{self._directory}/{NEAR_STAGE}-{os.urandom(6).hex()}"
        copied: dict[int, str] = {}
        for name in [*self._files(), RECORD]:
            path = f"{near}/{name}"
            self._make_directories(os.path.dirname(path))
            inode = os.lstat(f"{self.path}/{name}").st_ino
            if inode in copied:
                _link_or_copy(copied[inode], path)
            else:
                _copy(f"{self.path}/{name}", path)
            os.chmod(path, self._modes.file)
            copied[inode] = path
        self.drop()
        self.path = near

    def _make_directories(self, path: str) -> None:
        """As `os.makedirs`, with the store's mode for every new directory, not only for the last."""
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, self._modes.folder)
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", folder)

    def _sync_up(self, folder: str) -> None:
        """Sync a directory and those above it, up to the store's root: they may be new as well."""
        while len(folder) >= len(self._layout.root):
            sync_directory(folder)
            folder = os.path.dirname(folder)

    def _merge(self, directory: str, record: Record) -> None:
        old = read_record(directory)
        if old is not None and old.files == record.files and self._layout.published(self._plan.target):
            self.drop()  # another agent published the same files: where flock does not exclude, the first one wins
            return
        # Without `opens` the old version had no model.gguf of ours: a file of that name is somebody else's.
        ours = {file.name for file in old.files} | {MANIFEST, *([LLMLB_GGUF] if old.opens else [])} if old else set()
        staged = sorted(self._files(), key=lambda name: (name == LLMLB_GGUF, name == MANIFEST, name))
        for name in staged:
            self._check_way(directory, name, known=name in ours)
        self._forget_stamps()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{RECORD}")
        sync_directory(directory)
        for name in staged:
            self._replace(directory, name, known=name in ours)
        for name in ours - set(staged):
            with contextlib.suppress(OSError):
                os.unlink(f"{directory}/{name}")
        for folder in {os.path.dirname(f"{directory}/{name}") for name in staged}:
            self._sync_up(folder)
        os.rename(f"{self.path}/{RECORD}", f"{directory}/{RECORD}")
        sync_directory(directory)
        self.drop()

    def _forget_stamps(self) -> None:
        """Of the files that are replaced."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._layout.stamps_in(self._directory))

    def _files(self) -> list[str]:
        found = []
        for folder, _, names in os.walk(self.path):
            below = os.path.relpath(folder, self.path)
            found += [name if below == "." else f"{below}/{name}" for name in names if name != RECORD]
        return found

    def _replace(self, directory: str, name: str, *, known: bool) -> None:
        source, path = f"{self.path}/{name}", f"{directory}/{name}"
        try:
            self._make_directories(os.path.dirname(path))
            if os.path.lexists(path) and not known and not os.path.samestat(os.lstat(path), os.lstat(source)):
                with contextlib.suppress(FileNotFoundError):  # another agent that believes it holds the lock was faster
                    os.rename(path, _kept_name(path))
            os.rename(source, path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(source)  # rename(2) does nothing where both names are links to one file
        except (FileExistsError, NotADirectoryError):
            raise self._in_the_way(path) from None

    def _check_way(self, directory: str, name: str, *, known: bool) -> None:
        """Raise, while nothing has been touched, if the file cannot go there: files of another model stay in place."""
        path = f"{directory}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            raise self._in_the_way(path)
        folder = os.path.dirname(path)
        while len(folder) >= len(self._layout.root):
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise self._in_the_way(folder)
            if not known and folder != directory and (record := read_record(folder)):
                theirs = {LLMLB_GGUF, MANIFEST, *(file.name for file in record.files)}
                if path[len(folder) + 1 :] in theirs and os.path.lexists(path):
                    raise self._in_the_way(path)
            folder = os.path.dirname(folder)

    def _in_the_way(self, path: str) -> WantdError:
        return in_the_way(path, self._layout.root, self._directory)


def _unchanged(before: Stamp | None, now: Stamp) -> bool:
    return before is not None and before.inode == now.inode and not now.written_since(before)


def _kept_name(path: str) -> str:
    """A free name for somebody else's file that has the name of one of ours."""
    kept, number = path + KEPT_SUFFIX, 1
    while os.path.lexists(kept):
        number += 1
        kept = f"{path}{KEPT_SUFFIX}-{number}"
    return kept


def _link_or_copy(source: str, path: str) -> None:
    try:
        os.link(source, path, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno != errno.EXDEV and error.errno not in _NO_LINK:
            raise
        _copy(source, path)


def _second_name(folder: str, name: str, second: str) -> None:
    """A second name for a file: a hard link, else a symbolic one, else none; a copy would cost the model's size."""
    try:
        os.link(f"{folder}/{name}", f"{folder}/{second}")
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        with contextlib.suppress(OSError):
            os.symlink(name, f"{folder}/{second}")


def _copy(source: str, path: str) -> None:
    shutil.copyfile(source, path)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
