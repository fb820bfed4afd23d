"""What is published, from the store's records: read again when it is asked for, and at most once a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.target import Target
from agent.state.job import Job
from agent.store.inventory import Entry, Inventory
from agent.store.layout import Layout

LOOK_S = 1.0  # a look at the store costs a stat for each model
USE_S = 10.0  # the sums of its files are made again after so long
WANTED_BY_MOST = 20


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes on disk: of published files, each inode once, and of partials."""

    published: int
    partial: int


class Shelf:
    """The published models, for handlers. Its own inventory: the jobs' one is theirs."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._inventory = Inventory(layout)
        self._look = asyncio.Lock()
        self._looked_at = -LOOK_S
        self._use: tuple[float, Use] | None = None

    async def entries(self) -> dict[str, Entry]:
        """Every model by the name of its directory below the store, in the order of the names."""
        async with self._look:
            if time.monotonic() - self._looked_at >= LOOK_S:
                await asyncio.to_thread(self._inventory.refresh)
                self._looked_at = time.monotonic()
        start = len(self._layout.root) + 1
        return dict(sorted((entry.directory[start:], entry) for entry in self._inventory.entries()))

    async def find(self, id: str) -> tuple[str, Entry] | None:
        """A model by the name of its directory, or by its reference, in any case."""
        entries = await self.entries()
        if entry := entries.get(id):
            return id, entry
        low = id.casefold()
        return next(
            ((name, entry) for name, entry in entries.items() if low in (name, entry.record.model.casefold())), None
        )

    async def use(self) -> Use:
        """What the store takes."""
        if self._use is None or time.monotonic() - self._use[0] > USE_S:
            await self.entries()
            self._use = time.monotonic(), await asyncio.to_thread(self._sum)
        return self._use[1]

    def _sum(self) -> Use:
        inodes: dict[tuple[int, int], int] = {}
        for entry in self._inventory.entries():
            for file in entry.record.files:
                _add(inodes, f"{entry.directory}/{file.name}")
        partials: dict[tuple[int, int], int] = {}
        for folder, _, names in os.walk(self._layout.partial):
            for name in names:
                _add(partials, f"{folder}/{name}")
        return Use(sum(inodes.values()), sum(size for inode, size in partials.items() if inode not in inodes))


def _add(inodes: dict[tuple[int, int], int], path: str) -> None:
    try:
        info = os.lstat(path)
    except OSError:
        return
    inodes[info.st_dev, info.st_ino] = min(info.st_size, info.st_blocks * 512)


def wanted_by(jobs: Mapping[Target, Job], prefix: str) -> dict[str, list[str]]:
    """Paths of wants, relative to the spool, by the name of the model that they want; some of each."""
    found: dict[str, list[str]] = {}
    for target, job in jobs.items():
        paths = found.setdefault(target.name, [])
        for ticket in job.wanted_by:
            if len(paths) >= WANTED_BY_MOST:
                break
            paths.append(ticket.path.removeprefix(prefix))
    return found


def model_document(name: str, entry: Entry, wants: Iterable[str], *, files: bool = False) -> dict[str, Any]:
    """A published model, with its files where they are asked for."""
    record = entry.record
    value: dict[str, Any] = {
        "model": record.model,
        "name": name,
        "path": f"{entry.directory}/{record.opens}" if record.opens else entry.directory,
        "bytes": sum(file.size for file in record.files),
        "commit": record.commit,
        "source": record.source,
        "verified": record.verified,
        "repo": record.repo,
        "revision": record.revision,
        "published_at": record.published_at,
        "wanted_by": list(wants),
        "last_used": None,
    }
    if files:
        value["files"] = [
            {"name": file.name, "size": file.size, "sha256": file.sha256, "source": file.source}
            for file in record.files
        ]
    return value
