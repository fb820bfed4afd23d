"""Changes below a directory that others may write to: nothing follows a symbolic link, on the way or at the end.

A path is walked one name at a time, each relative to the directory opened before it (openat(2)). What is planted or
exchanged meanwhile, be it a link, a FIFO or a directory, is replaced or left alone, never followed, opened or waited
for. Only the top directory, which the configuration names, may be reached through links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator

from agent.disk import TEMP_PREFIX, TEMP_SUFFIX, atomic_write

# O_PATH needs no permission on the directory itself, so that one with mode 0 can be opened and repaired.
_OPEN = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ATTEMPTS = 3  # of one who replaces what is in the way, against one who keeps planting it
_PERMISSIONS = 0o777


class Folder:
    """An open directory. `mode` is for every directory made or found below it. All methods raise OSError.

    Names are single components. Methods that put something return whether they had to change anything.
    """

    def __init__(self, fd: int, mode: int) -> None:
        self.fd = fd
        self._mode = mode

    @classmethod
    def top(cls, path: str, mode: int) -> Folder:
        """Open the configured directory. Raises FileNotFoundError when there is none."""
        return cls(os.open(path, _OPEN), mode)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def make(self, name: str) -> Folder:
        """Open a directory, made where there is none. Anything else of that name is removed."""
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, self._mode, dir_fd=self.fd)
            if found := self.find(name):
                found.repair_mode()
                return found
            self.remove(name)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)

    def find(self, name: str) -> Folder | None:
        """Open a directory, or None where there is none of that name."""
        try:
            return Folder(os.open(name, _OPEN | os.O_NOFOLLOW, dir_fd=self.fd), self._mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextlib.contextmanager
    def below(self, parts: Iterable[str], *, make: bool) -> Iterator[Folder | None]:
        """The directory at the end of `parts`, made with all before it, or None where it is missing."""
        with contextlib.ExitStack() as opened:
            folder: Folder | None = self
            for part in parts:
                folder = folder and (folder.make(part) if make else folder.find(part))
                if folder is None:
                    break
                opened.enter_context(folder)
            yield folder

    def repair_mode(self) -> None:
        """Give a directory of ours its permissions back."""
        info = os.fstat(self.fd)
        if stat.S_IMODE(info.st_mode) & _PERMISSIONS != self._mode and info.st_uid == os.geteuid():
            os.chmod(f"/proc/self/fd/{self.fd}", stat.S_IMODE(info.st_mode) & ~_PERMISSIONS | self._mode)

    def names(self) -> list[str]:
        """The names in it."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def stat(self, name: str) -> os.stat_result | None:
        """What has the name, a link itself and not what it names; None for nothing."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readlink(self, name: str) -> str | None:
        """Where a symbolic link points; None for anything else, and for nothing."""
        try:
            return os.readlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    def read(self, name: str, limit: int) -> bytes | None:
        """The first `limit` bytes of a regular file; None for anything else, and for nothing."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except (FileNotFoundError, PermissionError):
            return None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a symbolic link; a socket
                raise
            return None
        try:
            return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def put_hard_link(self, name: str, source: str, info: os.stat_result) -> bool:
        """Make `name` a hard link to the file at the path `source`, whose lstat is `info`."""
        there = self.stat(name)
        if there is not None and os.path.samestat(there, info):
            return False
        self._put(name, lambda temp: os.link(source, temp, dst_dir_fd=self.fd, follow_symlinks=False))
        return True

    def put_symbolic_link(self, name: str, target: str) -> bool:
        """Make `name` a symbolic link to `target`."""
        if self.readlink(name) == target:
            return False
        self._put(name, lambda temp: os.symlink(target, temp, dir_fd=self.fd))
        return True

    def put_file(self, name: str, data: bytes, mode: int) -> bool:
        """Make `name` a file with this content."""
        there = self.stat(name)
        good = there is not None and stat.S_IMODE(there.st_mode) & _PERMISSIONS == mode
        if good and self.read(name, len(data) + 1) == data:
            return False
        if there is not None and stat.S_ISDIR(there.st_mode):
            self.remove(name)
        atomic_write(name, data, mode=mode, exact_mode=True, dir_fd=self.fd)
        return True

    def _put(self, name: str, create: Callable[[str], None]) -> None:
        try:
            create(name)
        except FileExistsError:
            temp = f"{TEMP_PREFIX}{os.urandom(8).hex()}{TEMP_SUFFIX}"
            create(temp)
            try:
                there = self.stat(name)
                if there is not None and stat.S_ISDIR(there.st_mode):
                    self.remove(name)
                os.rename(temp, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            finally:
                # After an error, or where another agent put the same file there: rename(2) then does nothing.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temp, dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Remove whatever has the name, with all that is in it."""
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=self.fd)
            except IsADirectoryError:
                shutil.rmtree(name, dir_fd=self.fd)

    def remove_temps(self) -> bool:
        """Remove temporary files, left by a writer that was killed. For who alone writes here."""
        temps = [name for name in self.names() if name.startswith(TEMP_PREFIX) and name.endswith(TEMP_SUFFIX)]
        for name in temps:
            self.remove(name)
        return bool(temps)

    def prune(self, parts: list[str]) -> None:
        """Remove the directory at the end of `parts`, then those before it, as long as they are empty."""
        while parts:
            with self.below(parts[:-1], make=False) as folder:
                try:
                    if folder:
                        os.rmdir(parts[-1], dir_fd=folder.fd)
                except FileNotFoundError:
                    pass
                except OSError:
                    return
            parts = parts[:-1]
