"""The spool's directories, opened one name at a time: below its root no symbolic link is followed, at any level.

A producer owns his subdirectory, and may put a link in its place at any moment, also between two system calls. With
full paths the kernel follows that link: O_NOFOLLOW guards the last name alone. So whatever is done to a file of the
spool is done relative to the open directory that it is in (openat(2)), and a link in the place of a directory is
ENOTDIR.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import Self

from agent.core.limits import OPEN_FOLDERS

# O_PATH needs no permission to read the directory, only to go through it.
_THROUGH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Folders:
    """Directories of the spool below `root`, opened when they are asked for, `OPEN_FOLDERS` of them kept open.

    For one batch of work: what is kept open is closed at the end of the `with` block. Paths are absolute and begin with
    `root`, which may itself be reached through links. For worker threads, one thread at a time.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def place(self, path: str) -> tuple[int, str]:
        """The open directory that a path is in, and its name there. The directory is good until the next call.

        Raises OSError: FileNotFoundError and NotADirectoryError where there is no such directory.
        """
        folder, _, name = path.rpartition("/")
        return self._fd(folder), name

    @contextlib.contextmanager
    def listing(self, folder: str) -> Iterator[int]:
        """The directory itself, open for reading its names. Raises OSError."""
        fd = os.open(".", _LIST, dir_fd=self._fd(folder))
        try:
            yield fd
        finally:
            os.close(fd)

    def _fd(self, folder: str) -> int:
        fd = self._open.get(folder)
        if fd is None:
            fd = self._open[folder] = self._walk(folder)
            if len(self._open) > OPEN_FOLDERS:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(folder)
        return fd

    def _walk(self, folder: str) -> int:
        if folder != self._root and not folder.startswith(self._root.rstrip("/") + "/"):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
        fd = os.open(self._root, _THROUGH)
        for name in filter(None, folder[len(self._root) :].split("/")):
            try:
                below = os.open(name, _THROUGH | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd
