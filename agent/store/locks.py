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
from typing import IO

import orjson
import portalocker
from portalocker.constants import LockFlags

from agent.core import waits
from agent.core.names import bare
from agent.core.words import timestamp
from agent.errors import Code, WantdError
from agent.store.layout import unwritable

# Rewritten in place with one write of constant length, so that a reader sees one content or the other.
CONTENT_BYTES = 512
SILENT_S = 60.0  # twelve heartbeats: a holder on another host that gave none for so long is taken for dead


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lock file says of who holds it; anything in it may be missing or stale."""

    pid: int | None
    host: str | None
    since: str | None
    progress: float | None
    heartbeat: str | None
    boot_id: str | None = None

    def shown(self) -> waits.Holder:
        """As `waiting.holder` of a progress file shows it."""
        return waits.Holder(self.pid, self.host, self.since, self.progress)

    def __str__(self) -> str:
        host, since, heartbeat = (bare(str(text)) for text in (self.host, self.since, self.heartbeat))
        return f"process {self.pid} on {host}, since {since}, last heard of at {heartbeat}"


def read_holder(path: str) -> Holder | None:
    """Who the lock file names, or None when it is gone or says nothing that can be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read(fd)
        finally:
            os.close(fd)
    except OSError:
        return None


def _read(fd: int) -> Holder | None:
    try:
        value = orjson.loads(os.pread(fd, CONTENT_BYTES * 4, 0))
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(value, dict):
        return None
    pid, progress = value.get("pid"), value.get("progress")
    host, since, heartbeat, boot = (
        text if isinstance(text, str) else None
        for text in (value.get("host"), value.get("started_at"), value.get("heartbeat_at"), value.get("boot_id"))
    )
    return Holder(
        pid if isinstance(pid, int) else None,
        host,
        since,
        float(progress) if isinstance(progress, (int, float)) else None,
        heartbeat,
        boot,
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
    """One held lock. Made by `Locks`; `release` gives it back and removes the file, where there is one.

    `contested` says that the file names another holder who seems to live: this file system grants flock to everyone,
    and what the lock guards must not be trusted to be guarded.
    """

    def __init__(self, path: str, file: IO[bytes] | None, owner: Locks, *, contested: bool = False) -> None:
        self.path = path
        self.contested = contested
        self.progress = 0.0
        self._file = file
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
        if file is not None:
            if not self.contested and _same_file(file.fileno(), self.path):
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
            file.close()
        self._owner.let_go(self)


class Locks:
    """The locks of this process. Methods touch the disk and never wait for another holder."""

    def __init__(self) -> None:
        self.host = socket.gethostname()
        self.boot_id = boot_id()
        self.held: set[Lock] = set()
        self._taken: set[str] = set()  # paths held or being taken: within one process this alone excludes
        self._guard = threading.Lock()

    def try_acquire(self, path: str) -> Lock | None:
        """Take the lock, or None when another holds it. Raises `store_unwritable` where locks cannot be had."""
        with self._guard:
            if path in self._taken:
                return None
            self._taken.add(path)
        lock = None
        try:
            lock = self._from_others(path)
        finally:
            if lock is None:
                self._taken.discard(path)
        return lock

    def try_claim(self, path: str) -> Lock | None:
        """Take the lock within this process alone, or None when another job of it holds it. Touches no disk."""
        with self._guard:
            if path in self._taken:
                return None
            self._taken.add(path)
        lock = Lock(path, None, self)
        self.held.add(lock)
        return lock

    def _from_others(self, path: str) -> Lock | None:
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
            before = _read(file.fileno())
            held = Lock(path, file, self, contested=before is not None and self._seems_alive(before))
            self.held.add(held)
            held.beat()
            return held

    def let_go(self, lock: Lock) -> None:
        """A lock of ours was released. A second time does nothing: the path may be another's by now."""
        with self._guard:
            if lock in self.held:
                self.held.discard(lock)
                self._taken.discard(lock.path)

    def _seems_alive(self, holder: Holder) -> bool:
        """Whether who a lock file names may still hold it, although flock says that nobody does.

        A holder that ended well removed its file; one that was killed is no process any more, or, where that cannot
        be seen from here, has not given a heartbeat for a while.
        """
        if holder.host == self.host and holder.boot_id == self.boot_id:
            # Our own number: in a container, an agent that died and started again often has the same.
            return holder.pid not in (None, os.getpid()) and process_start(holder.pid or 0) is not None
        try:
            age = datetime.now(UTC) - datetime.fromisoformat(holder.heartbeat or "")
        except (ValueError, TypeError):
            return False
        return abs(age.total_seconds()) < SILENT_S

    def is_free(self, path: str) -> bool:
        """Whether nobody holds the lock right now; leaves no file behind."""
        if path in self._taken:
            return False
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
