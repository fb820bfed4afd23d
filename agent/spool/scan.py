"""Looking at the spool: the truth about which wants there are.

A scan visits every directory, and reads only those that changed. What tells is the directory's own stat: any name that
is added, removed or renamed changes its mtime and ctime, and ctime cannot be set back. Both have a granularity (4 ms
on ext4, 2 s on FAT), so a listing counts only when it was made `SETTLED_S` or more after the change, or, where the
file system's clock is another one, after it was first seen.

A want that is rewritten in place, or touched, changes nothing in its directory. Events tell of that; for those that
were lost each scan looks at some wants in turn (`names`), so that each is looked at again and again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.disk import TEMP_PREFIX, remove_stale_temp
from agent.spool.files import DEPTH, Stamp, stamp_of
from agent.spool.folders import Folders

SETTLED_S = 2.5  # the coarsest file system has times in steps of 2 s (FAT)
AGAIN_S = 600.0  # a directory is read at the begin of the next round after so long, whatever its times say

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Known(Protocol):
    """What the scan compares against: anything that remembers the stamp it saw last."""

    @property
    def stamp(self) -> Stamp | None: ...

    @property
    def unwritable(self) -> str | None:
        """Why it can have no progress file, if it cannot."""
        ...


@dataclass(slots=True)
class Found:
    """What a scan found, against what was known: paths of wants, and wants whose progress file is missing."""

    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Folder:
    """A directory as it was last read, at `read_at`; `since` is when it first had this stamp. Both monotonic, in s."""

    stamp: tuple[int, int, int, int]  # device, inode, mtime and ctime in ns
    since: float
    read_at: float
    settled: bool  # it need not be read again while the stamp is the same
    subfolders: tuple[str, ...]


@dataclass(slots=True)
class _Look:
    """One scan on its way."""

    known: Mapping[str, Known]
    every_want_in: Callable[[str], bool]  # whether each known want of this directory is to be looked at
    again: bool  # read each directory, whatever its stamp says
    now: float  # monotonic
    wall: float  # Unix time
    found: Found = field(default_factory=Found)
    folders: dict[str, _Folder] = field(default_factory=dict)
    wants: dict[str, set[str]] = field(default_factory=dict)  # names in the directories that were read
    standing: list[str] = field(default_factory=list)  # new wants that have a progress file
    unknown: list[str] = field(default_factory=list)  # directories that could not be read just now


class Scanner:
    """Scans one spool. `watch` is told of each directory just before it is looked at: its path, its device and inode,
    and the descriptor that it is open as.

    Every method touches the disk: call it in a worker thread, one `scan` at a time.
    """

    def __init__(
        self,
        root: str,
        watch: Callable[[str, tuple[int, int], int], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._watch = watch
        self._monotonic = monotonic
        self._folders: dict[str, _Folder] = {}
        self._round: list[str] = []  # known wants that have yet to be looked at in this round

    @property
    def folders(self) -> Collection[str]:
        """The directories that the last scan found."""
        return self._folders.keys()

    def scan(
        self,
        known: Mapping[str, Known],
        *,
        everything: bool = False,
        crowded: Collection[str] = (),
        names: int = 0,
    ) -> Found:
        """Look at the spool. `known` maps paths to what was seen last.

        With `everything` each known want is looked at, with `crowded` each in these directories, and `names` more in
        turn. A directory that was not read for `AGAIN_S` is read when the turn comes round. New wants that have no
        progress file come first. Removes progress files whose want is gone, and temporary files of agents that died.
        """
        begins = names > 0 and not self._round
        if begins:
            self._round = list(known)
        look = _Look(
            known,
            every_want_in=lambda folder: everything or folder in crowded,
            again=begins,
            now=self._monotonic(),
            wall=time.time(),
        )
        self._visit(look, self._root, None, 0)
        self._folders = look.folders
        look.found.changed += look.standing
        self._find_removed(look)
        self._look_in_turn(look, names)
        return look.found

    def glance(self, known: Mapping[str, Known], most: int) -> list[str]:
        """New and changed wants, as far as they are soon found: the first `most` of each directory.

        For the time of a flood: what the other directories hold is seen long before the flood is through.
        """
        found = Found()
        pending = [(self._root, 0)]
        seen: set[str] = set()
        with Folders(self._root) as folders:
            while pending:
                folder, depth = pending.pop()
                if folder in seen:
                    continue
                seen.add(folder)
                there = self._folders.get(folder)
                pending += [(f"{folder}/{name}", depth + 1) for name in (there.subfolders if there else ())]
                with contextlib.suppress(OSError), folders.listing(folder) as fd, os.scandir(fd) as entries:
                    for entry in _first(entries, most):
                        path = f"{folder}/{entry.name}"
                        if entry.name.endswith(WANT_SUFFIX):
                            with contextlib.suppress(OSError):  # it is gone
                                _compare(path, Stamp.of(entry.stat(follow_symlinks=False)), known, found)
                        elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                            pending.append((path, depth + 1))
        return found.changed

    def _visit(self, look: _Look, path: str, parent: int | None, depth: int) -> None:
        """Look at one directory and those below it. `parent` is the open directory that it is in."""
        name = path.rpartition("/")[2] if parent is not None else path
        try:
            # Below the root no link is followed, at any level.
            fd = os.open(name, _DIRECTORY | (os.O_NOFOLLOW if parent is not None else 0), dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:
            look.unknown.append(path + "/")
            return
        try:
            info = os.fstat(fd)
            self._watch(path, (info.st_dev, info.st_ino), fd)
            info = os.fstat(fd)
            try:
                folder = look.folders[path] = self._read(look, path, fd, info, depth)
            except OSError:
                look.unknown.append(path + "/")
                return
            for subfolder in folder.subfolders:
                self._visit(look, f"{path}/{subfolder}", fd, depth + 1)
        finally:
            os.close(fd)

    def _read(self, look: _Look, path: str, fd: int, info: os.stat_result, depth: int) -> _Folder:
        """The directory, read name by name unless nothing says that it changed. Raises OSError."""
        stamp = info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns
        before = self._folders.get(path)
        same = before is not None and before.stamp == stamp
        every = look.every_want_in(path)
        again = every or (look.again and before is not None and look.now - before.read_at > AGAIN_S)
        if before and same and before.settled and not again:
            return before
        since = before.since if before and same else look.now
        wants: set[str] = set()
        answers: list[str] = []
        subfolders: list[str] = []
        temporary = False
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(WANT_SUFFIX) and not name.startswith("."):
                    wants.add(name)
                elif name.endswith(PROGRESS_SUFFIX) and not name.startswith("."):
                    answers.append(name)
                elif name.startswith("."):
                    if name.startswith(TEMP_PREFIX):
                        temporary = True
                        remove_stale_temp(name, look.wall, dir_fd=fd)
                elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                    subfolders.append(name)
        look.wants[path] = wants
        _remove_orphans(fd, wants, answers)
        _compare_names(look, path, fd, wants, answers, every=every)
        age = max(look.now - since, look.wall - max(info.st_mtime, info.st_ctime))
        return _Folder(stamp, since, look.now, age >= SETTLED_S and not temporary, tuple(subfolders))

    def _find_removed(self, look: _Look) -> None:
        """Wants that are known and not there. What could not be read is not gone for that."""
        if not look.wants and self._root in look.folders:
            return  # no directory was read: none has lost a name
        unknown = tuple(look.unknown)
        for path in look.known:
            folder, _, name = path.rpartition("/")
            there = look.wants.get(folder)
            gone = name not in there if there is not None else folder not in look.folders
            if gone and not (unknown and path.startswith(unknown)):
                look.found.removed.append(path)

    def _look_in_turn(self, look: _Look, names: int) -> None:
        with Folders(self._root) as folders:
            for _ in range(min(names, len(self._round))):
                path = self._round.pop()
                if path in look.known:
                    with contextlib.suppress(OSError):  # it is gone: its directory says so
                        _compare(path, stamp_of(folders, path), look.known, look.found)


def _first(entries: Iterator[os.DirEntry[str]], most: int) -> Iterator[os.DirEntry[str]]:
    """The entries that matter, up to `most` wants and five times as many others."""
    wants = others = 0
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(PROGRESS_SUFFIX):
            others += 1
        else:
            wants += entry.name.endswith(WANT_SUFFIX)
            yield entry
        if wants >= most or others >= 5 * most:
            return


def _compare_names(look: _Look, path: str, fd: int, wants: set[str], answers: list[str], *, every: bool) -> None:
    answered = {name.removesuffix(PROGRESS_SUFFIX) + WANT_SUFFIX for name in answers}
    standing: list[str] = []
    for name in wants:
        want = f"{path}/{name}"
        there = look.known.get(want)
        if there is None:
            # At a start: what an earlier agent has answered can wait, what none has cannot.
            (standing if name in answered else look.found.changed).append(want)
            continue
        if every:
            with contextlib.suppress(OSError):  # it may be looked at and not read just now, or it is gone
                _compare(want, Stamp.of(os.stat(name, dir_fd=fd, follow_symlinks=False)), look.known, look.found)
        if name not in answered and not there.unwritable:
            look.found.unanswered.append(want)
    look.standing += standing


def _compare(path: str, stamp: Stamp, known: Mapping[str, Known], found: Found) -> None:
    last = known.get(path)
    if last is None or last.stamp != stamp:
        found.changed.append(path)


def _remove_orphans(fd: int, wants: set[str], answers: list[str]) -> None:
    """Remove progress files whose want is gone."""
    for answer in answers:
        want = answer.removesuffix(PROGRESS_SUFFIX) + WANT_SUFFIX
        if want in wants:
            continue
        try:
            os.stat(want, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                os.unlink(answer, dir_fd=fd)
        except OSError:
            continue
