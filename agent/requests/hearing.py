"""Is the watch on the spool deaf? What a scan finds must have been heard of, before it or shortly after."""

from __future__ import annotations

from collections.abc import Iterable

from agent.spool.watcher import Hints


class Hearing:
    """Compares what scans find with the hints of the watch, from one check to the next, some seconds later.

    An event takes milliseconds. A want that is new or changed, and that no hint has named from the check before the
    scan to the check after it, was not reported.
    """

    def __init__(self) -> None:
        self._before: set[str] = set()  # heard of in the interval that has ended
        self._now: set[str] = set()
        self._suspects: dict[str, None] = {}

    def heard(self, hints: Hints) -> None:
        """Note what the watch told of. A hint that names no want clears everything."""
        self._now.update(hints.paths)
        for path in hints.paths:
            self._suspects.pop(path, None)
        if hints.scan or hints.folders or hints.everything:
            self._suspects.clear()

    def found(self, paths: Iterable[str]) -> None:
        """Note what a scan has found changed, and what waits for nothing else."""
        for path in paths:
            if path not in self._now and path not in self._before:
                self._suspects[path] = None

    def suspects(self) -> list[str]:
        """What was found by the last check's scan and not heard of until now. A new interval begins."""
        suspects = list(self._suspects)
        self._suspects.clear()
        self._before, self._now = self._now, set()
        return suspects
