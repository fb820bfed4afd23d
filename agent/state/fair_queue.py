"""A queue that is fair to directories: a flood in one keeps nothing in another waiting."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FairQueue(Generic[K, V]):
    """Items with a note each, taken in turn by directory: one of each, the longest waiting directory first.

    `path` gives an item's path. With `newest_too` the oldest and the newest item of a directory are taken in turn, so
    that neither end of a flood waits for the other.
    """

    def __init__(self, path: Callable[[K], str], *, newest_too: bool = False) -> None:
        self._path = path
        self._newest_too = newest_too
        self._newest = False
        self._folders: OrderedDict[str, OrderedDict[K, V]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: K) -> bool:
        return item in self._folders.get(os.path.dirname(self._path(item)), ())

    def get(self, item: K) -> V | None:
        """The item's note, or None when it is not waiting."""
        items = self._folders.get(os.path.dirname(self._path(item)))
        return items.get(item) if items else None

    def put(self, item: K, note: V) -> None:
        """Add an item, or replace its note; it keeps its place."""
        items = self._folders.setdefault(os.path.dirname(self._path(item)), OrderedDict())
        self._count += item not in items
        items[item] = note

    def put_back(self, taken: list[tuple[K, V]]) -> None:
        """What `take` gave last, or the end of it: it is first in turn again, in the same order."""
        for item, note in reversed(taken):
            self.put(item, note)
            folder = os.path.dirname(self._path(item))
            self._folders[folder].move_to_end(item, last=False)
            self._folders.move_to_end(folder, last=False)

    def discard(self, item: K) -> None:
        """Take an item out, if it is waiting."""
        folder = os.path.dirname(self._path(item))
        items = self._folders.get(folder)
        if items and item in items:
            del items[item]
            self._count -= 1
            if not items:
                del self._folders[folder]

    def take(self, count: int) -> list[tuple[K, V]]:
        """The next items with their notes, `count` at most."""
        taken: list[tuple[K, V]] = []
        while self._folders and len(taken) < count:
            for _ in range(min(len(self._folders), count - len(taken))):
                folder, items = self._folders.popitem(last=False)
                taken.append(items.popitem(last=self._newest))
                if items:
                    self._folders[folder] = items  # behind all others
            self._newest = self._newest_too and not self._newest
        self._count -= len(taken)
        return taken
