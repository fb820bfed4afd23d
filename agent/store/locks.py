"""Locks between processes: flock through portalocker, with content that tells waiters who holds the lock.

A lock is held only while a live process holds the flock. The content informs, and decides one thing: whether flock can
be trusted (`Lock.contested`). A process may open a lock file that its holder then removes, so the inode is compared
after locking. docs/architecture.md, "The life of a lock", has the states.
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
from agent.core.names import bare, show
from agent.core.words import timestamp
from agent.disk import disk_error
from agent.errors import Code, WantdError

# Rewritten in place with one write of constant length, so that a reader sees the old content or the new.
CONTENT_BYTES = 512
SILENT_S = 60.0  # twelve heartbeats: a holder on another host that gave none for so long is presumed dead


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lock file says about its holder; any of it may be missing or stale. Times are ISO 8601 in UTC."""

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
        """For a message: what is known of it."""
        if self.pid is None:
            return "a process that did not write who it is into the lock file"
        known = ((" on ", self.host), (", since ", self.since), (", last heartbeat at ", self.heartbeat))
        return f"process {self.pid}" + "".join(f"{word}{bare(text)}" for word, text in known if text)


def read_holder(path: str) -> Holder | None:
    """The holder that the lock file names, or None when it is gone or cannot be read."""
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
    """Identifies this boot of this machine (random(4), boot_id); empty where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc(5), stat, field 22). None when there is no such process.

    Tells it from a later process with the same pid.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


class Lock:
    """One held lock. Made by `Locks`; `release` removes its file, where it has one, and gives it back.

    `contested` means that the file named another holder who seems to be alive, although the flock was granted: do not
    rely on this lock to exclude others. `progress` (0 to 1) is shown to waiters.
    """

    def __init__(self, path: str, file: IO[bytes] | None, owner: Locks, *, contested: bool = False) -> None:
        self.path = path
        self.contested = contested
        self.progress = 0.0
        self._file = file
        # Between `fileno()` and the write another thread could close the file and its number be reused for another.
        self._closing = threading.Lock()
        self._owner = owner
        self._started_at = timestamp(datetime.now(UTC))

    def beat(self) -> None:
        """Write the heartbeat and the progress. An error of the disk loses a heartbeat, not the lock."""
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

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed the lock file: another process could take the lock. Touches the disk."""
        with self._closing:
            return self._file is not None and not same_file(self._file.fileno(), self.path)

    def release(self) -> None:
        """Remove the file while it is still ours, then unlock. Safe to call twice."""
        with self._closing:
            file, self._file = self._file, None
        if file is not None:
            if not self.contested and same_file(file.fileno(), self.path):
                with contextlib.suppress(OSError):
                    os.unlink(self.path)
            file.close()
        self._owner.released(self)


class Locks:
    """The locks of this process. Methods touch the disk and never wait for another holder."""

    def __init__(self) -> None:
        self.host = socket.gethostname()
        self.boot_id = boot_id()
        self.held: set[Lock] = set()
        self._taken: set[str] = set()  # paths held or being taken: within the process, this alone excludes
        self._guard = threading.Lock()

    def try_acquire(self, path: str) -> Lock | None:
        """Take the lock, or None when another holds it. Raises `store_unwritable`, `disk_full`."""
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
        """Take the lock within this process only, or None when another of its jobs has it. Touches no disk."""
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
                    f"cannot lock {show(path)}: {error}",
                    "move the store to a file system with working flock(2); `wantd check` tests it",
                ) from None
            except OSError as error:
                raise disk_error(path, error) from None
            lock.fh = None  # the handle is ours from here on; portalocker closes it with its own object
            if not same_file(file.fileno(), path):
                file.close()  # the last holder removed it between our open and our lock
                continue
            before = _read(file.fileno())
            held = Lock(path, file, self, contested=before is not None and self._seems_alive(before))
            self.held.add(held)
            held.beat()
            return held

    def released(self, lock: Lock) -> None:
        """A lock of ours was released. The second call for it does nothing: another may hold the path by then."""
        with self._guard:
            if lock in self.held:
                self.held.discard(lock)
                self._taken.discard(lock.path)

    def _seems_alive(self, holder: Holder) -> bool:
        """Whether the holder that a lock file names may still be alive, although flock says that nobody holds it.

        A holder that ended well removed the file. One that was killed is no longer a process or, on a host whose
        processes cannot be seen from here, has given no heartbeat for `SILENT_S`.
        """
        if holder.host == self.host and holder.boot_id == self.boot_id:
            # Our own pid: in a container, an agent that is restarted often gets the pid of the one that died.
            return holder.pid not in (None, os.getpid()) and process_start(holder.pid or 0) is not None
        try:
            age = datetime.now(UTC) - datetime.fromisoformat(holder.heartbeat or "")
        except (ValueError, TypeError):
            return False
        return abs(age.total_seconds()) < SILENT_S

    def is_free(self, path: str) -> bool:
        """Whether nobody holds the lock at the moment. Leaves no file behind."""
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
        """Remove the lock files in `folder` that nobody holds; returns their paths.

        Each is locked first, and only the file that was locked is removed.
        """
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


def same_file(fd: int, path: str) -> bool:
    """Whether the open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False
