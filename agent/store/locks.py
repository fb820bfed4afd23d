"""Locks between processes: flock through portalocker, with content that tells waiters who holds it (SPEC section 6).

A lock is held only while a live process holds the flock; what the file says never decides anything, it only informs.
A file that its holder removed may still be opened by another process, which is why the inode is compared after locking.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import orjson
import portalocker
from portalocker.constants import LockFlags

from agent.core.progress import timestamp
from agent.errors import Code, WantdError
from agent.store.layout import unwritable

# Rewritten in place with one write of constant length, so that a reader sees one content or the other.
CONTENT_BYTES = 512


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lock file says of who holds it; anything in it may be missing or stale."""

    pid: int | None
    host: str | None
    since: str | None
    progress: float | None
    heartbeat: str | None

    def to_json(self) -> dict[str, Any]:
        """As `waiting.holder` of a progress file shows it."""
        return {"pid": self.pid, "host": self.host, "since": self.since, "progress": self.progress}

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}, last heard of at {self.heartbeat}"


def read_holder(path: str) -> Holder | None:
    """Who the lock file names, or None when it is gone or says nothing that can be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            value = orjson.loads(os.read(fd, CONTENT_BYTES * 4))
        finally:
            os.close(fd)
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(value, dict):
        return None
    pid, progress = value.get("pid"), value.get("progress")
    host, since, heartbeat = (
        text if isinstance(text, str) else None
        for text in (value.get("host"), value.get("started_at"), value.get("heartbeat_at"))
    )
    return Holder(
        pid if isinstance(pid, int) else None,
        host,
        since,
        float(progress) if isinstance(progress, (int, float)) else None,
        heartbeat,
    )


def boot_id() -> str:
    """Tells this boot of this machine from every other; empty where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: tells it from a later one with its pid (proc(5), stat, 22)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


class Lock:
    """One held lock. Made by `Locks.try_acquire`; `release` gives it back and removes the file."""

    def __init__(self, path: str, file: IO[bytes], owner: Locks) -> None:
        self.path = path
        self.progress = 0.0
        self._file: IO[bytes] | None = file
        # Between `fileno()` and the write another thread could close the file, and its number be another file's.
        self._closing = threading.Lock()
        self._owner = owner
        self._started_at = timestamp(datetime.now(UTC))

    def beat(self) -> None:
        """Write the heartbeat and the progress. A full disk loses a heartbeat, not the lock."""
        content = orjson.dumps(
            {
                "pid": os.getpid(),
                "started_at": self._started_at,
                "progress": round(self.progress, 4),
                "host": self._owner.host,
                "boot_id": self._owner.boot_id,
                "heartbeat_at": timestamp(datetime.now(UTC)),
            }
        )
        with self._closing, contextlib.suppress(OSError):
            if self._file:
                os.pwrite(self._file.fileno(), content.ljust(CONTENT_BYTES - 1) + b"\n", 0)

    def release(self) -> None:
        """Remove the file while it is still ours, then let go. Safe to call twice."""
        with self._closing:
            file, self._file = self._file, None
        if file is None:
            return
        self._owner.held.discard(self)
        if _same_file(file.fileno(), self.path):
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        file.close()


class Locks:
    """The locks of this process. Methods touch the disk and never wait for another holder."""

    def __init__(self) -> None:
        self.host = socket.gethostname()
        self.boot_id = boot_id()
        self.held: set[Lock] = set()

    def try_acquire(self, path: str) -> Lock | None:
        """Take the lock, or None when another holds it. Raises `store_unwritable` where locks cannot be had."""
        while True:
            try:
                lock = portalocker.Lock(
                    path,
                    "r+b",
                    timeout=0,
                    fail_when_locked=True,
                    flags=LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING,
                    buffering=0,
                    opener=_open,
                )
                file = lock.acquire()
            except portalocker.AlreadyLocked:
                return None
            except portalocker.LockException as error:
                raise WantdError(
                    Code.STORE_UNWRITABLE,
                    f"{path} cannot be locked: {error}",
                    "put the store on a file system with working flock(2); `wantd check` tests it",
                ) from None
            except OSError as error:
                raise unwritable(path, error) from None
            lock.fh = None  # the handle is ours from here on; portalocker would close it with its own object
            if not _same_file(file.fileno(), path):
                file.close()  # its last holder removed it between our open and our lock
                continue
            held = Lock(path, file, self)
            self.held.add(held)
            held.beat()
            return held

    def is_free(self, path: str) -> bool:
        """Whether nobody holds the lock right now; leaves no file behind."""
        if not os.path.lexists(path):
            return True
        lock = self.try_acquire(path)
        if lock is None:
            return False
        lock.release()
        return True

    def beat(self) -> None:
        """Heartbeats of all held locks."""
        for lock in list(self.held):
            lock.beat()

    def reap(self, folder: str) -> list[str]:
        """Remove lock files that nobody holds: each is locked first, and only the file that was locked goes."""
        removed = []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            names = [entry.path for entry in entries if entry.name.endswith(".lock")]
            for path in names:
                with contextlib.suppress(WantdError):
                    if self.is_free(path):
                        removed.append(path)
        return removed


def _open(path: str, flags: int) -> int:
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False
