"""Taking a file that another program of this host has, into a part file of ours, proved by its hash.

By reflink (FICLONE of ioctl_ficlonerange(2)) where the file system shares blocks, else by copy_file_range(2), else by
read and write. What is hashed is what was written here, read back from our own file: a cache whose file changes
meanwhile changes nothing that was proved. A hard link is made only on request, and only of a file that nobody but the
agent's user may write, with the permissions that it would be published with: the two names share one inode, and the
permissions with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from agent.disk import disk_error, disk_errors
from agent.host_files import HostFile, Unusable, open_host_file

FICLONE = 0x40049409  # _IOW(0x94, 9, int), linux/fs.h; Python 3.12 has it as fcntl.FICLONE
CHUNK = 8 * 1024 * 1024  # bytes between two looks at whether to stop: some milliseconds
SYNC_BYTES = 256 * 1024 * 1024  # written bytes after which the disk is made to start, as in transfer/engine.py
_READ = 1024 * 1024  # bytes of one read for the hash
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Interrupted(Exception):
    """The caller asked to stop. Nothing is left at the path."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was taken: its SHA-256 in hex, and how: `hard link`, `reflink` or `copy`."""

    sha256: str
    way: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the bytes must hash to: a SHA-256, else a git blob id, in lower-case hex."""

    sha256: str | None
    git_sha1: str | None


def adopt(
    file: HostFile,
    path: str,
    wanted: Wanted,
    *,
    link_mode: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> Adopted:
    """Take the file to `path`, verified and synced. Blocks for as long as the disk needs.

    What was at `path` is replaced. A hard link is made only where `link_mode` is given, and only of a file with these
    permissions. `on_bytes` is told how many bytes are here and hashed. Nothing is left at `path` unless it returns.

    Raises `Unusable` (not readable, changed, wrong hash), `Interrupted`, `disk_full`, `store_unwritable`.
    """
    source = open_host_file(file)
    try:
        with disk_errors(path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        try:
            return _take(source, file, path, wanted, link_mode, stop, on_bytes)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
    finally:
        os.close(source)


def _take(
    source: int,
    file: HostFile,
    path: str,
    wanted: Wanted,
    link_mode: int | None,
    stop: Callable[[], bool],
    on_bytes: Callable[[int], object],
) -> Adopted:
    if link_mode is not None and _link(source, file, path, link_mode):
        return Adopted(_prove(source, file.size, wanted, stop, on_bytes, None), "hard link")
    with disk_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        cloned = _clone(source, fd)
        copier = None if cloned else _Copier(source, fd, path)
        sha256 = _prove(fd, file.size, wanted, stop, on_bytes, copier)
        with disk_errors(path):
            if os.fstat(fd).st_size != file.size:
                raise Unusable("it has changed while it was copied")
            os.fdatasync(fd)
    finally:
        os.close(fd)
    return Adopted(sha256, "reflink" if cloned else "copy")


def _link(source: int, file: HostFile, path: str, mode: int) -> bool:
    """Give the file a second name at `path`, if that is safe. False where it is not, or not possible."""
    status = os.fstat(source)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != mode or mode & 0o022:
        return False
    try:
        os.link(os.path.realpath(file.path), path, follow_symlinks=False)
        made = os.stat(path, follow_symlinks=False)
    except OSError:  # another file system, no hard links, too many of them
        return False
    if (made.st_dev, made.st_ino) == (status.st_dev, status.st_ino):
        return True
    os.unlink(path)  # another file took the name meanwhile
    return False


def _clone(source: int, fd: int) -> bool:
    """Share the blocks of the whole file, where the file system can."""
    try:
        fcntl.ioctl(fd, FICLONE, source)
    except OSError:
        return False
    return True


def _prove(
    fd: int,
    size: int,
    wanted: Wanted,
    stop: Callable[[], bool],
    on_bytes: Callable[[int], object],
    copier: _Copier | None,
) -> str:
    """The SHA-256 of the file at `fd`, filled by `copier` where there is one. Raises as `adopt`."""
    sha256 = hashlib.sha256()
    # gitformat-loose: a blob's id is the SHA-1 of this header and the content.
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    buffer = memoryview(bytearray(min(_READ, max(size, 1))))
    done = 0
    while done < size:
        if stop():
            raise Interrupted
        end = min(done + CHUNK, size)
        if copier is not None:
            copier.copy(done, end)
        while done < end:
            part = buffer[: min(len(buffer), end - done)]
            n = _read(fd, part, done)
            sha256.update(part[:n])
            if wanted.sha256 is None:
                git.update(part[:n])
            done += n
        on_bytes(done)
    found, expected = sha256.hexdigest(), wanted.sha256
    if expected is None:
        found, expected = git.hexdigest(), wanted.git_sha1
    if expected is None or found != expected.lower():
        raise Unusable(f"its hash is {found}, expected {expected}")
    return sha256.hexdigest()


def _read(fd: int, part: memoryview, offset: int) -> int:
    try:
        n = os.preadv(fd, [part], offset)
    except OSError as error:
        raise Unusable(f"it cannot be read: {error.strerror}") from None
    if n == 0:
        raise Unusable("it has changed while it was read")
    return n


class _Copier:
    """Copies ranges in the kernel, else through a buffer. Keeps to the size that was checked."""

    def __init__(self, source: int, fd: int, path: str) -> None:
        self._source = source
        self._fd = fd
        self._path = path
        self._in_kernel = True
        self._unsynced = 0

    def copy(self, start: int, end: int) -> None:
        """Copy the bytes from `start` to `end`. Raises `Unusable`, `disk_full`, `store_unwritable`."""
        done = start
        while done < end:
            n = self._range(done, end - done) if self._in_kernel else 0
            done += n or self._buffered(done, min(end - done, _READ))
        self._unsynced += end - start
        if self._unsynced >= SYNC_BYTES:
            with disk_errors(self._path):
                os.fdatasync(self._fd)
            self._unsynced = 0

    def _range(self, offset: int, count: int) -> int:
        """Bytes copied by copy_file_range(2); 0 where it cannot be used here, and from then on."""
        try:
            n = os.copy_file_range(self._source, self._fd, count, offset, offset)
        except OSError as error:
            if error.errno in _FULL:
                raise disk_error(self._path, error) from None
            n = 0
        self._in_kernel = n > 0
        return n

    def _buffered(self, offset: int, count: int) -> int:
        data = memoryview(bytearray(count))
        n = _read(self._source, data, offset)
        with disk_errors(self._path):
            done = 0
            while done < n:
                done += os.pwrite(self._fd, data[done:n], offset + done)
        return n
