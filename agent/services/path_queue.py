"""Paths that wait to be looked at, so that no directory's flood keeps another's want waiting."""

from __future__ import annotations

import os
from collections import deque


class PathQueue:
    """Paths to look at, in turn by directory; from each the oldest and the newest in turn."""

    def __init__(self) -> None:
        self._folders: dict[str, deque[str]] = {}
        self._closed: dict[str, bool] = {}
        self._newest = False

    def __len__(self) -> int:
        return len(self._closed)

    def put(self, path: str, closed: bool) -> None:
        """Add a path; `closed` says that its writer was seen to close it."""
        if path not in self._closed:
            self._folders.setdefault(os.path.dirname(path), deque()).append(path)
        self._closed[path] = self._closed.get(path, False) or closed

    def take(self, count: int) -> list[tuple[str, bool]]:
        """The next paths, `count` at most, and whether each was closed."""
        taken: list[tuple[str, bool]] = []
        while self._folders and len(taken) < count:
            for folder in list(self._folders):
                paths = self._folders[folder]
                path = paths.pop() if self._newest else paths.popleft()
                taken.append((path, self._closed.pop(path)))
                if not paths:
                    del self._folders[folder]
                if len(taken) == count:
                    break
            self._newest = not self._newest
        return taken
