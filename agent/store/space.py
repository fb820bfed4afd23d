"""Free space, reserved before a byte is fetched and summed over everything in flight (SPEC section 5)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.errors import Code, WantdError


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is missing, in bytes, as `waiting.for = "disk"` shows it."""

    need_bytes: int
    free_bytes: int


@dataclass
class Space:
    """The ledger of one file system. `min_free_bytes()` stay free whatever happens.

    Reservations are of files not begun yet: a partial is preallocated when it is begun, and statvfs counts it then.
    """

    root: str
    min_free_bytes: Callable[[], int]
    _reserved: dict[object, int] = field(default_factory=dict)

    def reserve(self, key: object, need: int) -> Shortage | None:
        """Reserve `need` bytes under `key` (again: changes it), or say what is missing.

        Raises `insufficient_space` when it could not fit even if everything else were gone.
        """
        disk = os.statvfs(self.root)
        total = disk.f_frsize * disk.f_blocks - self.min_free_bytes()
        if need > total:
            raise WantdError(
                Code.INSUFFICIENT_SPACE,
                f"{need} bytes are needed, the whole file system of {self.root} has {max(total, 0)} to give",
                "put the store on a larger file system (store.dir), or choose a smaller quant",
            )
        others = sum(size for other, size in self._reserved.items() if other != key)
        free = max(disk.f_frsize * disk.f_bavail - self.min_free_bytes() - others, 0)
        if need > free:
            return Shortage(need, free)
        self._reserved[key] = need
        return None

    def free(self) -> int:
        """Bytes that nobody has reserved."""
        disk = os.statvfs(self.root)
        return max(disk.f_frsize * disk.f_bavail - self.min_free_bytes() - sum(self._reserved.values()), 0)

    def started(self, key: object, size: int) -> None:
        """A file of `size` bytes has been preallocated: statvfs counts it from now on."""
        if key in self._reserved:
            self._reserved[key] = max(self._reserved[key] - size, 0)

    def release(self, key: object) -> None:
        """Give the reservation back."""
        self._reserved.pop(key, None)
