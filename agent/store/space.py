"""Free space, reserved before a byte is downloaded and summed over everything in flight."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.words import size
from agent.errors import Code, WantdError


@dataclass(frozen=True, slots=True)
class Shortage:
    """What was needed and what was free, in bytes: on the disk, or of the store's quota."""

    need_bytes: int
    free_bytes: int
    missing: int  # bytes that would have to be freed; more than the difference where too much is used already
    of_quota: bool = False


@dataclass
class Space:
    """Reservations on the file system of `root`, of which `min_free_bytes()` always stay free, and in the store, which
    may have `max_bytes()` (0: as much as there is).

    They are for files not begun yet: a partial is preallocated when it is begun, and statvfs counts it from then on.
    `statvfs` is `os.statvfs`.
    """

    root: str
    min_free_bytes: Callable[[], int]
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    max_bytes: Callable[[], int] = lambda: 0
    _reserved: dict[object, int] = field(default_factory=dict)

    def reserve(self, key: object, need: int, used: int = 0) -> Shortage | None:
        """Reserve `need` bytes under `key`, in place of what it had reserved, or return what is missing.

        `used` is what the store takes, with all that was `started` (`room.census.used_bytes`): it counts where there
        is a quota. Raises `insufficient_space` when the file system is too small even if it were empty.
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
        free = disk.f_frsize * disk.f_bavail - self.min_free_bytes() - others
        if need > max(free, 0):
            return Shortage(need, max(free, 0), need - free)
        left = self.max_bytes() - used - others
        if self.max_bytes() and need > max(left, 0):
            return Shortage(need, max(left, 0), need - left, of_quota=True)
        self._reserved[key] = need
        return None

    @property
    def reserved(self) -> int:
        """Bytes that are reserved and not yet on disk."""
        return sum(self._reserved.values())

    def free(self) -> int:
        """Free bytes that are not reserved."""
        return max(self.balance(), 0)

    def balance(self) -> int:
        """Free bytes that are not reserved; below 0 where more is reserved or in use than should be."""
        disk = self.statvfs(self.root)
        return disk.f_frsize * disk.f_bavail - self.min_free_bytes() - self.reserved_bytes

    @property
    def reserved_bytes(self) -> int:
        """Reserved, and not begun yet."""
        return sum(self._reserved.values())

    def short_of(self) -> int:
        """Bytes that would have to be freed on the disk for `min_free_bytes` to be free."""
        disk = self.statvfs(self.root)
        return max(self.min_free_bytes() - disk.f_frsize * disk.f_bavail, 0)

    def started(self, key: object, size: int) -> None:
        """A file of `size` bytes has been preallocated: statvfs counts it from now on."""
        if key in self._reserved:
            self._reserved[key] = max(self._reserved[key] - size, 0)

    def release(self, key: object) -> None:
        """Drop the reservation of `key`, if there is one."""
        self._reserved.pop(key, None)
