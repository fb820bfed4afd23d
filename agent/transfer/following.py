"""The hash that follows behind the lanes: what is there of a file without a gap is hashed while the rest comes.

It is also where what a journal claims is proved: granules of an earlier life count once their checksum was found right,
and those that fail it are missing again (see `partial`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from agent.core.ranges import Grid
from agent.disk import disk_errors
from agent.transfer.partial import Partial
from agent.transfer.verify import READ_BYTES, Digest, checksum

FOLLOW_BYTES = 4 * 1024 * 1024  # the hash is woken for this much; less would be a wake-up for each granule


class Following:
    """The hash of one download. `lock` is the download's, which guards the grid and everything here.

    `wake` is called, from the hashing thread, when the hash has caught up with a complete file and when bytes turned
    out bad.
    """

    def __init__(self, lock: threading.Lock, wake: Callable[[], None], part_path: str, with_git: bool) -> None:
        self.digest: Digest | None = None
        self.closed = False
        self._lock = lock
        self._wake = wake
        self._part_path = part_path
        self._with_git = with_git
        self._grid: Grid | None = None
        self._partial: Partial | None = None
        self._hashed = 0  # granules
        self._unverified: dict[int, int] = {}  # granule -> the checksum that its journal claims
        self._running = False

    # -- with the lock held -------------------------------------------------------------------------------------

    def begin(self, grid: Grid, partial: Partial, claims: Mapping[int, int]) -> None:
        """A file is laid out; `claims` are the checksums of its journal, by granule."""
        self._grid, self._partial, self._unverified = grid, partial, dict(claims)
        self.rewind()

    def forget(self) -> None:
        """There is no file laid out any more."""
        self.digest = self._grid = self._partial = None
        self._unverified.clear()

    def rewind(self) -> None:
        """Hash from the beginning of the file."""
        self.digest = Digest(self._grid.size if self._grid else None, self._with_git)
        self._hashed = 0

    def start(self) -> bool:
        """Whether there is enough to hash, and no thread at it: then `run` has to be called in one."""
        if self._grid is None or self._running or self.closed:
            return False
        behind = (self._grid.front - self._hashed) * self._grid.granule
        self._running = behind >= FOLLOW_BYTES or self._grid.complete
        return self._running

    @property
    def is_done(self) -> bool:
        """Whether the hash has reached the end of a complete file."""
        return self._grid is not None and self._grid.complete and self._hashed == self._grid.count

    # -- in a thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Hash what is there without a gap. Raises `disk_full` or `store_unwritable`."""
        buffer = memoryview(bytearray(READ_BYTES))
        with disk_errors(self._part_path):
            while self._step(buffer):
                pass

    def _step(self, buffer: memoryview) -> bool:
        """Hash the next granules: one that has to be proved, or several fresh ones. False when there are none now."""
        with self._lock:
            index, digest, grid, partial = self._hashed, self.digest, self._grid, self._partial
            if self.closed or digest is None or grid is None or partial is None or index >= grid.front:
                self._running = False
                if grid is not None and grid.complete:
                    self._wake()
                return False
            wanted = self._unverified.pop(index, None)
            behind = index + 1
            if wanted is None:
                most = min(grid.front, index + max(FOLLOW_BYTES // grid.granule, 1))
                behind = next((n for n in range(behind, most) if n in self._unverified), max(most, behind))
            start, end = grid.start(index), grid.end(behind - 1)
        before = digest.copy() if wanted is not None else None
        found = checksum(partial.fd, start, end, buffer, digest, summed=wanted is not None)
        with self._lock:
            if digest is not self.digest:
                return True  # it was rewound meanwhile
            if found is not None and (wanted is None or found == wanted):
                self._hashed = behind
                return True
            for lost in range(index, behind):
                grid.lose(lost)
            if before is not None:
                self.digest = before
            else:  # another process has cut the file: what was hashed of these granules cannot be taken back
                self.rewind()
        partial.drop(range(index, behind))
        self._wake()
        return True
