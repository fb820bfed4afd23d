"""Files that belong to other programs of this host: found under a cache's root, opened so that nothing else is.

Such a cache may belong to a user who means harm. A name in it may be a link to a device, a FIFO, or a file that only
the agent may read; it may become one between two looks. So a path is resolved first and must stay below the root, what
it names must be a regular file of the expected size, it is opened without following a link and without blocking, and
the descriptor is asked again for all of that. Nothing in a cache is ever opened for writing.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from agent.core.names import show


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file in a cache of this host that may be the one that is needed.

    `cache` is the kind of cache: `hub`, `ollama`, `llama.cpp`, `lmstudio`. `size` is in bytes. `path` may be a link
    where `links` is true, as in the Hub's cache; it never counts where it leads out of `root`.
    """

    path: str
    root: str
    cache: str
    size: int
    links: bool = False

    @property
    def source(self) -> str:
        """What progress files and records call it."""
        return f"adopted:{self.cache}"


class Unusable(Exception):
    """The file cannot be taken from there. The text says why."""


def beneath(path: str, root: str) -> bool:
    """Whether an absolute path without links is below the directory `root`, which has none either."""
    return path.startswith(root.rstrip("/") + "/")


def resolved(path: str, root: str, links: bool) -> str | None:
    """The path without links, None where it leads out of `root`, or is a link and must not be one."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    if not beneath(real, top) or (not links and os.path.islink(path)):
        return None
    return real


def size_of(path: str, root: str, links: bool) -> int | None:
    """The size in bytes of a regular file below the root that this user may read; None for anything else."""
    try:
        real = resolved(path, root, links)
        if real is None:
            return None
        status = os.stat(real, follow_symlinks=False)
        return status.st_size if stat.S_ISREG(status.st_mode) and os.access(real, os.R_OK) else None
    except (OSError, ValueError):
        return None


def open_host_file(file: HostFile) -> int:
    """A descriptor to read the file by. Raises `Unusable`."""
    try:
        real = resolved(file.path, file.root, file.links)
        if real is None:
            raise Unusable("it leads out of its cache, or is a link")
        _check(os.stat(real, follow_symlinks=False), file)  # before: opening some devices does something
        fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Unusable(f"it cannot be opened: {error}") from None
    try:
        _check(os.fstat(fd), file)
        if not beneath(os.readlink(f"/proc/self/fd/{fd}"), os.path.realpath(file.root)):
            raise Unusable("it was moved out of its cache")  # noqa: TRY301  closed below
    except OSError as error:
        os.close(fd)
        raise Unusable(f"it cannot be checked: {error}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(status: os.stat_result, file: HostFile) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("it is not a regular file")
    if status.st_size != file.size:
        raise Unusable(f"it has {status.st_size} bytes now, expected {file.size}")


def shown(file: HostFile) -> str:
    """The file, for messages."""
    return show(file.path, 300)
