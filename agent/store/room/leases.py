"""Leases: a shared flock on a model's record keeps the model from being removed, for as long as it is held.

Any program can take one (`flock -s STORE/qwen3/.wantd.json COMMAND`); `wantd run-with` does. Reading permission is
enough. A removal takes the exclusive flock first and keeps it until the model is out of the way, so that a lease is
either seen by the removal, or finds that there is no model.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator

from agent.store.layout import RECORD
from agent.store.lock_table import flocks
from agent.store.locks import same_file

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Leased(Exception):
    """Somebody holds a lease on the model; `pids` are those that can be seen from here."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        super().__init__(f"leased by {', '.join(map(str, pids)) or 'a process'}")
        self.pids = pids


def take_lease(directory: str) -> int:
    """Take a lease on the model. It ends when every process that has the returned descriptor has closed it.

    Waits where the model is just being removed, which takes milliseconds. Raises FileNotFoundError when there is none,
    OSError when its record cannot be read.
    """
    path = f"{directory}/{RECORD}"
    while True:
        fd = os.open(path, os.O_RDONLY | _OPEN)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if same_file(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


@contextlib.contextmanager
def lease(directory: str) -> Iterator[None]:
    """Hold a lease for the block. Raises as `take_lease`."""
    fd = take_lease(directory)
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def no_lease(directory: str) -> Iterator[None]:
    """Keep leases off for the block. Raises Leased where there is one, FileNotFoundError without a model."""
    path = f"{directory}/{RECORD}"
    fd = os.open(path, os.O_RDWR | _OPEN)  # NFS refuses the exclusive lock of a descriptor that cannot write
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Leased(holders(path)) from None
        if not same_file(fd, path):
            raise FileNotFoundError(path)
        yield
    finally:
        os.close(fd)


def holders(path: str) -> tuple[int, ...]:
    """The processes seen from here that hold a flock on the file."""
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return ()
    return flocks().get((info.st_dev, info.st_ino), ())


def is_open(path: str) -> bool:
    """Whether some process has the file open or mapped; False where that cannot be found out.

    By asking for the kernel's lease for writing (fcntl(2), F_SETLEASE), which is granted to nobody else's file, and
    only where there is no other descriptor. It is given back at once. One that opens the file in that microsecond
    waits for it; the signal that tells us of it must not be SIGIO, which would end the process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False
