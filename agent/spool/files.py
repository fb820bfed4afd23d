"""Reading wants and writing progress files, in a directory where anybody may have put anything.

A want is opened without following links and without blocking, and must be a regular file. A progress file replaces
whatever has its name (`agent.disk.atomic_write`). The agent never changes or removes a `.want`. No link is followed on
the way to any of them either (`agent.spool.folders`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator

from agent.core.want import MAX_BYTES, PROGRESS_SUFFIX, WANT_SUFFIX, too_large
from agent.disk import atomic_write
from agent.errors import Code, WantdError
from agent.spool.folders import Folders

_STAMP = struct.Struct("<QQqqI")
DEPTH = 4  # levels of subdirectories that are served (docs/protocol.md)
QUIET_S = 1.0  # a want that was not seen to be closed is read once it has been unchanged for so long


class Stamp(bytes):
    """Tells one content of a file from another without reading it.

    Inode, size, mtime and ctime in ns, and the owner, packed: 88 bytes of memory, where a tuple of them has 260.
    """

    __slots__ = ()

    @staticmethod
    def of(info: os.stat_result) -> Stamp:
        return Stamp(_STAMP.pack(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_uid))

    @property
    def size(self) -> int:
        """In bytes."""
        return int(_STAMP.unpack(self)[1])

    @property
    def owner(self) -> int:
        """The user id."""
        return int(_STAMP.unpack(self)[4])


class StillWrittenError(Exception):
    """The want has a writer, or changed too recently to know; look again when it is closed, or after `QUIET_S`."""


def progress_path(want_path: str) -> str:
    """The path of a want's progress file."""
    return want_path.removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX


def stamp_of(folders: Folders, path: str) -> Stamp:
    """The stamp of a want, whatever has its name. Raises OSError."""
    fd, name = folders.place(path)
    return Stamp.of(os.stat(name, dir_fd=fd, follow_symlinks=False))


def read_want(folders: Folders, path: str, *, closed: bool) -> tuple[bytes, Stamp]:
    """The bytes of a want, and its stamp when they were read. Never blocks on what is not a regular file.

    `closed` says that its writer was seen to close or rename it. Raises StillWrittenError, FileNotFoundError when it
    is gone, NotADirectoryError when its directory is something else now, and WantdError (`want_unreadable`,
    `want_too_large`).
    """
    folder, name = folders.place(path)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(error) from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise WantdError(
                Code.WANT_UNREADABLE,
                f"the want is {_kind(info.st_mode)}, not a regular file",
                "replace it with a plain file",
            )
        if info.st_size > MAX_BYTES:
            raise too_large(info.st_size)
        writer = _has_writer(fd)
        if writer or (writer is None and not closed and not _quiet(info)):
            raise StillWrittenError
        data = _read(fd, info.st_size)
        after = os.fstat(fd)
    except OSError as error:
        raise _unreadable(error) from None
    finally:
        os.close(fd)
    if Stamp.of(after) != Stamp.of(info) or len(data) != info.st_size:
        raise StillWrittenError
    return data, Stamp.of(info)


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) <= size:
        piece = os.read(fd, size + 1 - len(data))
        if not piece:
            break
        data += piece
    return data


def _has_writer(fd: int) -> bool | None:
    """Whether a process has the file open for writing; None where the kernel does not tell.

    A read lease is granted only while there is no writer (fcntl(2), F_SETLEASE). It takes the file's owner or
    CAP_LEASE, and is given back at once. A writer that opens the file in between raises SIGIO, which the agent ignores.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _quiet(info: os.stat_result) -> bool:
    age = time.time() - info.st_mtime
    return age > QUIET_S or age < -QUIET_S  # a time in the future says nothing; what changes later is read again


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _unreadable(error: OSError) -> WantdError:
    # open(2): ELOOP with O_NOFOLLOW for a symbolic link, ENXIO for a socket.
    texts = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: "it is a socket or device"}
    return WantdError(
        Code.WANT_UNREADABLE,
        f"cannot read the want: {texts.get(error.errno or 0, error.strerror)}",
        "replace it with a plain file that the agent's user may read",
    )


def write_progress(folders: Folders, want_path: str, data: bytes) -> None:
    """Replace a want's progress file with `data`. Raises OSError where the agent may not write, or the disk is full."""
    folder, name = folders.place(progress_path(want_path))
    atomic_write(name, data, dir_fd=folder)


def read_progress(folders: Folders, want_path: str, *, most: int) -> bytes:
    """The progress file beside a want: what an earlier agent of this user wrote. Never blocks.

    Raises OSError when it is not there, not a regular file of ours, or larger than `most` bytes.
    """
    folder, name = folders.place(progress_path(want_path))
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_size > most:
            raise PermissionError(errno.EPERM, "not a progress file of this agent")
        return _read(fd, info.st_size)
    finally:
        os.close(fd)


def read_any_progress(folders: Folders, want_path: str, most: int) -> bytes:
    """The first `most` bytes of a progress file, which may be anyone's. Never blocks. Raises OSError."""
    folder, name = folders.place(progress_path(want_path))
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "its progress file is not a plain file")
        return _read(fd, most - 1)
    finally:
        os.close(fd)


def remove_progress(folders: Folders, want_path: str) -> None:
    """Remove the progress file of a want that is gone, if it is there and ours to remove."""
    with contextlib.suppress(OSError):
        folder, name = folders.place(progress_path(want_path))
        os.unlink(name, dir_fd=folder)


def list_wants(root: str) -> Iterator[str]:
    """The path of every want in the spool, for one who only looks. Directories that cannot be read are left out."""
    pending = [(root, 0)]
    with Folders(root) as folders:
        while pending:
            folder, depth = pending.pop()
            with contextlib.suppress(OSError), folders.listing(folder) as fd, os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}"
                    if entry.name.startswith(".") or entry.name.endswith(PROGRESS_SUFFIX):
                        continue
                    if entry.name.endswith(WANT_SUFFIX):
                        yield path
                    elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                        pending.append((path, depth + 1))
