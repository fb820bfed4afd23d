"""Who holds a flock, asked of the kernel's table of locks without touching the lock.

/proc/locks (proc_locks(5)) is readable to every user, and looking at it disturbs nobody, where trying the lock could
make the attempt of a starting agent fail. It lists only processes that this PID namespace can see.
"""

from __future__ import annotations

import os

TABLE = "/proc/locks"


def flock_holder(path: str, table: str = TABLE) -> int | None:
    """The id of a process that holds an exclusive flock on the file, or None when none is seen."""
    try:
        info = os.stat(path, follow_symlinks=False)
        with open(table, encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    # `1: FLOCK  ADVISORY  WRITE 4711 fe:00:2264547 0 EOF`; waiters have an arrow before the kind.
    wanted = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[3] == "WRITE" and fields[5] == wanted:
            return int(fields[4])
    return None
