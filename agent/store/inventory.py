"""Which hashes the store already has, so that an equal file is linked and not downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent.store.layout import Layout, Record, read_record


@dataclass(frozen=True, slots=True)
class Entry:
    """A published model: its directory, and its record with the inode and change time (ns) of the record's file."""

    directory: str
    inode: int
    changed_ns: int
    record: Record


class Inventory:
    """Published files by SHA-256. `refresh` reads only records that are new or changed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: dict[str, Entry] = {}
        self._paths: dict[str, dict[str, int]] = {}

    def refresh(self) -> None:
        """Read the store again: other agents publish too, and people delete."""
        found: dict[str, Entry] = {}
        for directory, info in self._layout.record_places():
            known = self._seen.get(directory)
            if known and (known.inode, known.changed_ns) == (info.st_ino, info.st_mtime_ns):
                found[directory] = known
            elif record := read_record(directory):
                found[directory] = Entry(directory, info.st_ino, info.st_mtime_ns, record)
        paths: dict[str, dict[str, int]] = {}
        for directory, entry in found.items():
            for file in entry.record.files:
                paths.setdefault(file.sha256, {})[f"{directory}/{file.name}"] = file.size
        self._seen, self._paths = found, paths

    def entries(self) -> list[Entry]:
        """Every published model, as of the last `refresh`."""
        return list(self._seen.values())

    def find(self, sha256: str) -> str | None:
        """A published file with these bytes that still has its size, or None."""
        for path, size in self._paths.get(sha256, {}).items():
            try:
                if os.stat(path, follow_symlinks=False).st_size == size:
                    return path
            except OSError:
                continue
        return None
