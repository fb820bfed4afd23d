"""Plans of jobs that wait for a slot: as many as `PLAN_FILES` files are kept, the others are made again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from agent.core.limits import PLAN_FILES


class HeldPlans:
    """How many files the plans have that are kept in memory while their jobs wait."""

    def __init__(self) -> None:
        self._files = 0

    @contextlib.contextmanager
    def held(self, files: int) -> Iterator[bool]:
        """Whether a plan of so many files may be kept for the block. One alone always may."""
        keeps = self._files == 0 or self._files + files <= PLAN_FILES
        if keeps:
            self._files += files
        try:
            yield keeps
        finally:
            if keeps:
                self._files -= files
