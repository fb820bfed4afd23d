"""Free space, reserved before a byte is downloaded and summed over everything in flight."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.words import size
from agent.errors import Code, WantdError


@dataclass(frozen=True, slots=True)
class Shortage:
    """What was needed and what was free, in bytes, as `waiting.for = "disk"` shows them."""

    need_bytes: int
    free_bytes: int


@dataclass
class Space:
    """Reservations on the file system of `root`, of which `min_free_bytes()` always stay free.

    They are for files not begun yet: a partial is preallocated when it is begun, and statvfs counts it from then on.
    `statvfs` is `os.statvfs`.
    """

    root: str
    min_free_bytes: Callable[[], int]
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    _reserved: dict[object, int] = field(default_factory=dict)

    def reserve(self, key: object, need: int) -> Shortage | None:
        """Reserve `need` bytes under `key`, in place of what it had reserved, or return what is missing.

        Raises `insufficient_space` when the file system is too small even if it were empty.
        """
        disk = self.statvfs(self.root)
        total = disk.f_frsize * disk.f_blocks - self.min_free_bytes()
        if need > total:
            raise WantdError(
                Code.INSUFFICIENT_SPACE,
                f"{size(need)} needed, and the file system of {self.root} has {size(max(total, 0))} in all",
                "move the store to a larger file system (store.dir), or choose a smaller quant",
            )
        others = sum(reserved for other, reserved in self._reserved.items() if other != key)
        free = max(disk.f_frsize * disk.f_bavail - self.min_free_bytes() - others, 0)
        if need > free:
            return Shortage(need, free)
        self._reserved[key] = need
        return None

    @property
    def reserved(self) -> int:
        """Bytes that are reserved and not yet on disk."""
        return sum(self._reserved.values())

    def free(self) -> int:
        """Free bytes that are not reserved."""
        disk = self.statvfs(self.root)
        return max(disk.f_frsize * disk.f_bavail - self.min_free_bytes() - sum(self._reserved.values()), 0)

    def started(self, key: object, size: int) -> None:
        """A file of `size` bytes has been preallocated: statvfs counts it from now on."""
        if key in self._reserved:
            self._reserved[key] = max(self._reserved[key] - size, 0)

    def release(self, key: object) -> None:
        """Drop the reservation of `key`, if there is one."""
        self._reserved.pop(key, None)
