"""Writing to disk: whole files in one step, names that survive a power cut, and what an OSError means for a want.

A file that others read is never written in place. Its content goes to a new file in the same directory,
`.wantd-<16 hex digits>.tmp`, which is then renamed over the old one. A reader sees the old content or the new, and a
symbolic link, FIFO or hard link planted under the name is replaced, never followed. The temporary name is random, so
that nobody who may write to the directory can take it first, and short, because one made from the file's own name
could exceed NAME_MAX. A writer that is killed leaves its temporary file behind: `remove_stale_temps` removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from enum import Enum

from agent.core.names import show
from agent.errors import Code, WantdError

TEMP_PREFIX = ".wantd-"
TEMP_SUFFIX = ".tmp"
STALE_S = 60.0  # no write takes a minute: a temporary file that is older has lost its writer

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Sync(Enum):
    """What is on disk when `atomic_write` returns. A crash of the process alone loses nothing with any of them."""

    NONE = "none"  # a power cut may leave an empty file: for what is written again at every start
    FILE = "file"  # a power cut leaves the old file or the new one, whole
    DIRECTORY = "directory"  # a power cut leaves the new file


def atomic_write(
    path: str,
    data: bytes | memoryview,
    *,
    mode: int = 0o644,
    exact_mode: bool = False,
    sync: Sync = Sync.NONE,
    dir_fd: int | None = None,
) -> None:
    """Replace the file at `path` with `data`, or create it, in one step.

    Its permissions are `mode` less the umask, or with `exact_mode` those of `mode`. `path` is relative to the open
    directory `dir_fd` where one is given, as in `os.open` (an O_PATH descriptor will do). Raises OSError with `path`
    as its `filename`. Whatever was at `path` is then still there (but for a failed sync of the directory, which comes
    after the rename), and no temporary file is left.
    """
    folder, slash, _ = path.rpartition("/")

    def write() -> None:
        temporary = f"{folder}{slash}{TEMP_PREFIX}{os.urandom(8).hex()}{TEMP_SUFFIX}"
        fd = os.open(temporary, _NEW, mode, dir_fd=dir_fd)
        try:
            try:
                if exact_mode:
                    os.fchmod(fd, mode)
                _write_all(fd, data)
                if sync is not Sync.NONE:
                    os.fsync(fd)
            finally:
                os.close(fd)  # a network file system may report only now that it is full
            os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=dir_fd)
            raise

    try:
        try:
            write()
        except FileNotFoundError:
            # An agent whose clock is ahead may have taken the temporary file for a stale one. If instead the directory
            # is gone, the second attempt fails like the first.
            write()
        if sync is Sync.DIRECTORY:
            sync_directory(folder or slash or ".", dir_fd=dir_fd)
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: str, *, dir_fd: int | None = None) -> None:
    """Sync new names, renames and removals in a directory to the disk. Raises OSError.

    A file system that cannot sync directories is no error.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def remove_stale_temp(path: str, now: float, *, dir_fd: int | None = None) -> None:
    """Remove the temporary file if its writer is dead: if it is older than `STALE_S` at `now` (Unix time).

    `path` is relative to the open directory `dir_fd` where one is given.
    """
    with contextlib.suppress(OSError):
        if now - os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mtime > STALE_S:
            os.unlink(path, dir_fd=dir_fd)


def remove_stale_temps(folder: str, now: float) -> None:
    """Remove the temporary files in `folder` whose writers are dead. `now` is Unix time, in seconds."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries]:
            if name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX):
                remove_stale_temp(f"{folder}/{name}", now)


@contextlib.contextmanager
def disk_errors(path: str, *, passing: type[OSError] | tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Raise `disk_error` in place of any OSError of the block, except those of the types `passing`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, passing):
            raise
        raise disk_error(path, error) from None


def disk_error(path: str, error: OSError) -> WantdError:
    """What an OSError of the disk means for a want: `disk_full` (ENOSPC, EDQUOT) or `store_unwritable`.

    Names the absolute path that the error is about, else `path`.
    """
    where = error.filename if isinstance(error.filename, str) and error.filename.startswith("/") else path
    name = f" ({errno.errorcode.get(error.errno, error.errno)})" if error.errno else ""
    message = f"cannot write {show(where, 300)}: {error.strerror or error}{name}"
    if error.errno in _FULL:
        return WantdError(Code.DISK_FULL, message, "free space there; the download resumes where it stopped")
    return WantdError(Code.STORE_UNWRITABLE, message, _hint(error.errno))


def _hint(number: int | None) -> str:
    if number in (errno.EACCES, errno.EPERM):
        return "give the agent's user write access there, or set store.dir; `wantd check` lists what it may not write"
    if number == errno.EROFS:
        return "remount that file system read-write, or set store.dir to a directory on another one"
    if number == errno.EIO:
        return "check the disk and the kernel's log (dmesg), or set store.dir to a directory on another disk"
    return "check that directory, its mount and its owner with `wantd check`, or set store.dir to another one"
