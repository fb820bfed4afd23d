"""Who holds a flock, asked of the kernel's table of locks without touching the lock.

/proc/locks (proc_locks(5)) is readable to every user, and looking at it disturbs nobody, where trying the lock could
make the attempt of a starting agent fail. It lists only processes that this PID namespace can see.
"""

from __future__ import annotations

import contextlib
import os

TABLE = "/proc/locks"


def flock_holder(path: str, table: str = TABLE) -> int | None:
    """The id of a process that holds an exclusive flock on the file, or None when none is seen."""
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return next(iter(flocks("WRITE", table).get((info.st_dev, info.st_ino), ())), None)


def flocks(mode: str = "READ", table: str = TABLE) -> dict[tuple[int, int], tuple[int, ...]]:
    """The processes that hold flocks, shared ("READ") or exclusive ("WRITE"), by device and inode of the file."""
    found: dict[tuple[int, int], tuple[int, ...]] = {}
    with contextlib.suppress(OSError), open(table, encoding="ascii", errors="replace") as file:
        # `1: FLOCK  ADVISORY  WRITE 4711 fe:00:2264547 0 EOF`; waiters have an arrow before the kind.
        for line in file.read().splitlines():
            fields = line.split()
            if len(fields) >= 6 and fields[1] == "FLOCK" and fields[3] == mode:
                major, minor, inode = fields[5].split(":")
                key = os.makedev(int(major, 16), int(minor, 16)), int(inode)
                found[key] = (*found.get(key, ()), int(fields[4]))
    return found
