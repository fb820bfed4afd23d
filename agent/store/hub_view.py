"""The view: published models once more, as hard links, in the layout of the Hub's own cache.

Every library that reads that cache finds a model by its repository's name (HF_HUB_CACHE=HUB, HF_HUB_OFFLINE=1).

HUB/                                    `store.hub_cache`
  CACHEDIR.TAG                          tells backup programs to leave the directory out
  models--org--name/
    blobs/<etag>                        hard link to the store's file: SHA-256 for LFS files, else git's SHA-1
    snapshots/<commit>/<path>           symbolic link ../../blobs/<etag>, one ../ more for each folder in the path
    refs/<revision>                     the commit, 40 hex digits without a newline; written last
STORE/.view/models--org--name.json      the ledger: what wantd made there (`hub_ledgers`)
  .locks/.wantd-<store>/…               copies of the ledgers

Hard links, because a reader that frees space deletes the file that a snapshot's link points to: that must be a name of
the view, not the store's own. No `trees/<commit>.json`: with one, readers refuse a snapshot of some of the files.

The records of the store decide what is to be there, the ledger what may be removed; what is found in the view decides
nothing. The ledger is extended before the view is changed and cut down afterwards, so that a process killed in between
leaves nothing that the next one does not know of. It names blobs with their inodes: a file that a reader has put in
the place of one is not ours to remove.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loguru import logger

from agent.core.names import show
from agent.core.retry import VIEW_LOCK_POLL_S, VIEW_LOCK_S
from agent.disk import TEMP_PREFIX, TEMP_SUFFIX, remove_stale_temps
from agent.errors import WantdError
from agent.store.hub_layout import BLOBS, REFS, SNAPSHOTS, Ledger, Wanted, link_target, repo_folder, wanted
from agent.store.hub_ledgers import Ledgers
from agent.store.inventory import Entry, Inventory
from agent.store.layout import Layout, Record
from agent.store.locks import Lock, Locks
from agent.store.openat import Folder
from agent.store.publish import Modes

TAG_NAME = "CACHEDIR.TAG"
# https://bford.info/cachedir/
TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Hard links to the models of wantd, which mends changes.\n"
# Of all models, in turn, how many files are checked one by one at a rescan whether or not anything seems to have
# changed. Takes 20 ms; a store with fewer files is checked whole each time.
CHECKED_FILES = 1000
_READERS_MARKS = {".no_exist", "trees"}  # notes of readers on snapshots: of no use where there are none
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)

_Signature = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Checked:
    """A repository as it was when all of it was right: of which records, and what its directories looked like."""

    records: tuple[tuple[str, int, int], ...]
    files: int
    folders: tuple[str, ...]
    signature: _Signature | None


class HubView:
    """The view of one store at `root`; an empty `root` means none. Methods touch the disk, from any thread.

    None of them raises for what the disk refuses: it is logged once, and tried again at the next `mend`.
    """

    def __init__(self, root: str, layout: Layout, inventory: Inventory, modes: Modes) -> None:
        self.root = root
        self._layout = layout
        self._inventory = inventory
        self._modes = modes
        self._ledgers = Ledgers(root, layout, modes)
        self._locks = Locks()  # apart from those with heartbeats: held for milliseconds
        self._alone = threading.Lock()
        self._closed = threading.Event()
        self._checked: dict[str, _Checked] = {}
        self._turn: list[str] = []
        self._usable = False
        self._complaint = ""

    def show(self, record: Record) -> None:
        """Make the view of a model's repository true: it has just been published, or removed."""
        folder = repo_folder(record)
        if self.root and folder and self._is_usable():
            self._inventory.refresh()
            self._try(folder, self._repos().get(folder, []))

    def mend(self) -> None:
        """Make the view what the store says: what is missing is added, what has gone from the store is removed.

        Cheap where nothing has changed: a few stats for each model, and some models in turn are checked file by file.
        """
        ledgers = self._ledgers.folders()
        if not self.root and not ledgers:
            return
        self._inventory.refresh()
        usable = bool(self.root) and self._is_usable()
        if usable:
            remove_stale_temps(self.root, time.time())
        repos = self._repos() if usable else {}
        due = self._due(repos)
        for folder in sorted(repos.keys() | ledgers):
            if self._closed.is_set():
                return
            if usable:
                if folder in due or not self._as_checked(folder, repos.get(folder, [])):
                    self._try(folder, repos.get(folder, []))
            elif self._ledgers.read(folder).hub != self.root:
                self._try(folder, [])
        for folder in self._checked.keys() - repos.keys():
            del self._checked[folder]

    def close(self) -> None:
        """Stop before the next repository."""
        self._closed.set()

    # What is looked at

    def _repos(self) -> dict[str, list[Entry]]:
        """The folder of each repository with the models of it."""
        found: dict[str, list[Entry]] = {}
        for entry in self._inventory.entries():
            if folder := repo_folder(entry.record):
                found.setdefault(folder, []).append(entry)
        return found

    def _due(self, repos: dict[str, list[Entry]]) -> set[str]:
        """The repositories whose turn it is to be checked file by file."""
        due: set[str] = set()
        files = 0
        self._turn = self._turn or sorted(repos)
        while self._turn and files < CHECKED_FILES:
            folder = self._turn.pop()
            due.add(folder)
            files += sum(len(entry.record.files) for entry in repos.get(folder, []))
        return due

    def _as_checked(self, folder: str, models: list[Entry]) -> bool:
        checked = self._checked.get(folder)
        return (
            checked is not None
            and checked.signature is not None
            and checked.records == _records(models)
            and checked.signature == self._signature(checked.folders)
        )

    def _signature(self, folders: tuple[str, ...]) -> _Signature:
        """Changes with every name made, removed or replaced in the directories, and with their permissions."""
        found: list[tuple[int, int] | None] = []
        for folder in folders:
            try:
                info = os.lstat(f"{self.root}/{folder}")
                found.append((info.st_ino, info.st_ctime_ns))
            except OSError:
                found.append(None)
        return tuple(found)

    def _is_usable(self) -> bool:
        if not self._usable:
            why = obstacle(self._layout, self.root)
            self._usable = why is None
            if why:
                self._complain(f"{show(self.root, 300)}: {why}; models are not linked there")
        return self._usable

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            logger.warning("no view of the models in {}", text)
        self._complaint = text

    # One repository

    def _try(self, folder: str, models: list[Entry]) -> None:
        try:
            with self._exclusively() as alone:
                if alone:
                    self._mend(folder, models)
                    self._complaint = ""
        except OSError as error:
            self._usable = False  # may be another file system by now
            where = error.filename if isinstance(error.filename, str) else folder
            self._complain(f"{show(self.root, 300)}: {show(where, 300)}: {error.strerror}")
        except WantdError as error:
            self._complain(f"{show(self.root, 300)}: {error.message}")

    def _mend(self, folder: str, models: list[Entry]) -> None:
        ledger = self._ledgers.read(folder)
        if ledger.hub != self.root:
            self._remove(folder, ledger, Ledger(ledger.hub))
            self._ledgers.remove(folder, ledger.hub)
            ledger = Ledger(self.root)
        want = wanted([(entry.directory, entry.record) for entry in models], ledger)
        new = want.ledger(self.root)
        both = ledger.joined(new)
        if both != ledger:
            self._ledgers.write(folder, both)
        if want.links:
            self._put_all(folder, models, want, known=new == ledger)
        else:
            self._checked.pop(folder, None)
        if both != new:
            self._remove(folder, both, new)
            self._ledgers.write(folder, new)
        if not new.links:
            self._ledgers.remove(folder, new.hub)
        elif both == ledger == new:
            self._ledgers.copy(folder, new)

    def _put_all(self, folder: str, models: list[Entry], want: Wanted, *, known: bool) -> None:
        folders = _directories(folder, want)
        before = self._signature(folders)
        changed = self._put(folder, want)
        if changed and known:
            logger.info("mended {} in the view {}", folder, ascii(self.root))
        files = sum(len(entry.record.files) for entry in models)
        self._checked[folder] = _Checked(_records(models), files, folders, None if changed else before)

    def _put(self, folder: str, want: Wanted) -> bool:
        """Make what is missing: blobs, then the links to them, then refs. Returns whether anything was."""
        changed = False
        with self._top() as top, top.make(folder) as repo:
            with repo.make(BLOBS) as blobs:
                changed |= blobs.remove_temps()
                for etag, (path, info) in want.blobs.items():
                    if stat.S_IMODE(info.st_mode) != self._modes.file and info.st_uid == os.geteuid():
                        os.chmod(path, self._modes.file)  # a chmod in the view is one of the store's file
                    changed |= blobs.put_hard_link(etag, path, info)
            for below, files in want.folders().items():
                with repo.below([SNAPSHOTS, *below.split("/")], make=True) as at:
                    if at:
                        changed |= at.remove_temps()
                        for name, etag in files:
                            changed |= at.put_symbolic_link(name, link_target(f"{below}/{name}", etag))
            with repo.below(["trees"], make=False) as trees:
                for commit in {path.partition("/")[0] for path in want.links} if trees else ():
                    if trees and trees.stat(f"{commit}.json"):
                        trees.remove(f"{commit}.json")
            with repo.make(REFS) as refs:
                refs.remove_temps()
            for revision, commit in want.refs.items():
                *parts, name = revision.split("/")
                with repo.below([REFS, *parts], make=True) as at:
                    if at:
                        changed |= at.put_file(name, commit.encode(), self._modes.file)
        return changed

    @contextlib.contextmanager
    def _top(self) -> Iterator[Folder]:
        os.makedirs(self.root, self._modes.folder, exist_ok=True)
        with Folder.top(self.root, self._modes.folder) as top:
            if top.stat(TAG_NAME) is None:
                top.put_file(TAG_NAME, TAG, self._modes.file)
            yield top

    def _remove(self, folder: str, ledger: Ledger, kept: Ledger) -> None:
        """Remove what the ledger has and `kept` has not, as far as it is still what wantd made."""
        try:
            top = Folder.top(ledger.hub, self._modes.folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        with top:
            if repo := top.find(folder):
                with repo:
                    _remove_refs(repo, ledger, kept)
                    _remove_links(repo, ledger, kept)
                    _remove_blobs(repo, ledger, kept)
                    if not kept.links and set(repo.names()) <= _READERS_MARKS:
                        for name in repo.names():
                            repo.remove(name)
                top.prune([folder])

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[bool]:
        """Keep other threads and agents off the view. Gives False when another agent is at it for too long."""
        with self._alone:
            lock = self._acquire()
            try:
                yield lock is not None
            finally:
                if lock:
                    lock.release()

    def _acquire(self) -> Lock | None:
        until = time.monotonic() + VIEW_LOCK_S
        while not (lock := self._locks.try_acquire(self._layout.view_lock)):
            if time.monotonic() > until or self._closed.wait(VIEW_LOCK_POLL_S):
                return None
        return lock


def obstacle(layout: Layout, root: str, link: Callable[[str, str], None] = os.link) -> str | None:
    """Why there can be no view of the store at `root`, in words; None where there can be one.

    Found out by trying, in `root` or the nearest directory above it that exists: two mounts of one file system cannot
    be linked across either. `link` is link(2).
    """
    name, second = (f"{TEMP_PREFIX}{os.urandom(8).hex()}{TEMP_SUFFIX}" for _ in range(2))
    while not os.path.isdir(root) and root not in ("", "/"):
        root = os.path.dirname(root)
    source, linked, symbolic = f"{layout.locks}/{name}", f"{root}/{name}", f"{root}/{second}"
    try:
        os.close(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        link(source, linked)
        os.symlink(name, symbolic)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return "it is on another file system or mount than the store"
        if error.errno in _NO_LINKS:
            return "its file system has no hard or symbolic links"
        where = error.filename2 or error.filename
        return f"cannot write {show(str(where), 300)}: {error.strerror}"
    finally:
        for path in (source, linked, symbolic):
            with contextlib.suppress(OSError):
                os.unlink(path)
    return None


def _records(models: list[Entry]) -> tuple[tuple[str, int, int], ...]:
    return tuple((entry.directory, entry.inode, entry.changed_ns) for entry in models)


def _directories(folder: str, want: Wanted) -> tuple[str, ...]:
    """Every directory of the view in which the repository has something."""
    found = {folder, f"{folder}/{BLOBS}"}
    paths = [f"{folder}/{SNAPSHOTS}/{below}" for below in want.folders()]
    paths += [f"{folder}/{REFS}/{revision}".rpartition("/")[0] for revision in want.refs]
    for path in paths:
        while path != folder:
            found.add(path)
            path = path.rpartition("/")[0]
    return tuple(sorted(found))


def _remove_refs(repo: Folder, ledger: Ledger, kept: Ledger) -> None:
    for revision in ledger.refs.keys() - kept.refs.keys():
        parts = [REFS, *revision.split("/")]
        with repo.below(parts[:-1], make=False) as at:
            if at and at.read(parts[-1], 100) in [commit.encode() for commit in ledger.refs[revision]]:
                at.remove(parts[-1])
        _tidy(repo, parts[:-1])
    _tidy(repo, [REFS])


def _tidy(repo: Folder, parts: list[str]) -> None:
    """Remove a directory of which something was removed, if it is empty: perhaps by one who was killed before this."""
    with repo.below(parts, make=False) as at:
        if at:
            at.remove_temps()
    repo.prune(parts)


def _remove_links(repo: Folder, ledger: Ledger, kept: Ledger) -> None:
    """Snapshots' links whose blob is ours or gone."""
    folders = set()
    with repo.below([BLOBS], make=False) as blobs:
        for path in ledger.links.keys() - kept.links.keys():
            parts, etag = [SNAPSHOTS, *path.split("/")], ledger.links[path]
            folders.add(tuple(parts[:-1]))
            blob = blobs.stat(etag) if blobs else None
            with repo.below(parts[:-1], make=False) as at:
                ours = at and at.readlink(parts[-1]) == link_target(path, etag)
                if at and ours and (blob is None or blob.st_ino in ledger.blobs.get(etag, [])):
                    at.remove(parts[-1])
    for folder in sorted(folders, reverse=True):
        _tidy(repo, list(folder))


def _remove_blobs(repo: Folder, ledger: Ledger, kept: Ledger) -> None:
    gone = ledger.blobs.keys() - kept.blobs.keys()
    if gone:
        with repo.below([BLOBS], make=False) as blobs, repo.below([SNAPSHOTS], make=False) as snapshots:
            used = _used_blobs(snapshots) if snapshots else set()
            for etag in gone - used if blobs else ():
                there = blobs.stat(etag) if blobs else None
                if blobs and there and there.st_ino in ledger.blobs[etag]:
                    blobs.remove(etag)
    _tidy(repo, [BLOBS])


def _used_blobs(folder: Folder) -> set[str]:
    """The blobs that links below a directory name: readers make snapshots of their own that share ours."""
    used: set[str] = set()
    for name in folder.names():
        if target := folder.readlink(name):
            used.add(target.rpartition("/")[2])
        elif inner := folder.find(name):
            with inner:
                used |= _used_blobs(inner)
    return used
