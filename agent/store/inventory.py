"""Which hashes the store already has, so that an equal file is linked and not downloaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

from agent.store.layout import Layout, Record, read_record
from agent.store.stamps import WRONG, Stamp, hash_file, read_stamps, stamp_of, write_stamps

STAMPS_KEPT = 256  # models whose stamps stay in memory; 2,000 files of one model are looked up one after the other


@dataclass(frozen=True, slots=True)
class Entry:
    """A published model: its directory, and its record with the inode and change time (ns) of the record's file.

    `linked` says that the directory is a symbolic link.
    """

    directory: str
    inode: int
    changed_ns: int
    record: Record
    linked: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A file of a published model: what its record says of it."""

    directory: str
    name: str
    size: int
    sha256: str

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"


class Inventory:
    """Published files by SHA-256. `refresh` reads only records that are new or changed. For any thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: dict[str, Entry] = {}
        self._held: dict[str, list[Held]] = {}
        self._lock = threading.Lock()  # of all that follows, and of changes to a file of stamps
        self._stamps: LRUCache[str, tuple[Stamp | None, dict[str, Stamp]]] = LRUCache(STAMPS_KEPT)

    def refresh(self) -> None:
        """Read the store again: other agents publish too, and people delete."""
        found: dict[str, Entry] = {}
        for directory, info in self._layout.record_places(linked=True):
            known = self._seen.get(directory)
            if known and (known.inode, known.changed_ns) == (info.st_ino, info.st_mtime_ns):
                found[directory] = known
            elif record := read_record(directory):
                linked = os.path.islink(directory)
                found[directory] = Entry(directory, info.st_ino, info.st_mtime_ns, record, linked)
        held: dict[str, list[Held]] = {}
        for directory, entry in found.items():
            for file in entry.record.files:
                held.setdefault(file.sha256, []).append(Held(directory, file.name, file.size, file.sha256))
        self._seen, self._held = found, held

    def entries(self) -> list[Entry]:
        """Every model that was published in the store itself, as of the last `refresh`: none that a link leads to."""
        return [entry for entry in self._seen.values() if not entry.linked]

    def find(self, sha256: str) -> str | None:
        """A published file with these bytes that is as it was when they were proved, or None."""
        there, noted = self._look(sha256)
        return next((held.path for held, stamp in there if stamp in noted), None)

    def doubtful(self, sha256: str) -> list[Held]:
        """Published files that should have these bytes but may have changed: `prove` them first."""
        there, noted = self._look(sha256)
        return [held for held, stamp in there if stamp not in noted and self._noted(held) is not WRONG]

    def prove(self, held: Held, stop: Callable[[], bool], on_bytes: Callable[[int], object]) -> str | None:
        """Hash the file. None where it has its bytes: it is trusted from then on; else what is wrong, in words.

        A file that is wrong is not asked for again until its model is published again. Blocks for as long as the disk
        needs. Raises Stopped.
        """
        try:
            sha256, stamp = hash_file(held.path, stop, on_bytes)
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        right = sha256 == held.sha256
        path = self._stamps_of(held.directory)
        with self._lock:
            write_stamps(path, read_stamps(path) | {held.name: stamp if right else WRONG})
        return None if right else f"its SHA-256 is {sha256}, expected {held.sha256}"

    def _look(self, sha256: str) -> tuple[list[tuple[Held, Stamp]], set[Stamp]]:
        """The files that are there with their size, and what any model has noted of one with these bytes."""
        holders = self._held.get(sha256, [])
        there = [(held, stamp_of(held.path)) for held in holders if not os.path.islink(held.path)]
        noted = {stamp for held in holders if (stamp := self._noted(held))}
        return [(held, stamp) for held, stamp in there if stamp and stamp.size == held.size], noted

    def _noted(self, held: Held) -> Stamp | None:
        path = self._stamps_of(held.directory)
        with self._lock:
            version, stamps = self._stamps.get(path, (None, {}))
            now = stamp_of(path)
            if version is None or now != version:
                stamps = read_stamps(path)
                self._stamps[path] = now, stamps
        stamp = stamps.get(held.name)
        return WRONG if stamp == WRONG else stamp

    def _stamps_of(self, directory: str) -> str:
        return self._layout.stamps_in(directory)
