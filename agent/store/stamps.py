"""What published files looked like when their bytes were last proved, so that one that was written to is not trusted.

STORE/.stamps/<model>.json      {"<file>": [inode, size, mtime_ns, ctime_ns], …}

Two questions, two rules. Both leave the decision to the hash where they say no.
- *May this file become part of another model unread?* Only where all four are as noted, by any model that has the
  file: models share files by hard link. mtime alone can be set back; ctime cannot.
- *Is this model still what was published?* Where mtime is as noted. ctime moves with every link that somebody makes or
  removes, the view and other models among them, and inodes change when a store is copied to another disk.

Not in the record: a lease is a flock on the record's inode (so it must not be replaced), and the partial's removal and
the view's links, which change ctime, come after the record. A file without a stamp is neither trusted nor suspected.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Mapping

import msgspec

from agent.disk import atomic_write

MAX_BYTES = 32 * 1024 * 1024  # 100,000 files have about 12 MB
_READ = 1024 * 1024  # bytes of one read for the hash, between two looks at whether to stop


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """What stat(2) says of a file; times in ns since the epoch."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def written_since(self, earlier: Stamp) -> bool:
        """Whether the file seems to have been written to, or is another one."""
        return (self.size, self.mtime_ns) != (earlier.size, earlier.mtime_ns)


WRONG = Stamp(0, 0, 0, 0)  # of a file whose hash was found wrong: no file has it


class Stopped(Exception):
    """The caller asked to stop hashing."""


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a regular file, links followed; None where there is none."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(info: os.stat_result) -> Stamp | None:
    return Stamp(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns) if stat.S_ISREG(info.st_mode) else None


def read_stamps(path: str) -> dict[str, Stamp]:
    """The stamps by file name; none where they cannot be read."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=dict[str, Stamp])
    except (OSError, msgspec.DecodeError):
        return {}


def write_stamps(path: str, stamps: Mapping[str, Stamp]) -> None:
    """Replace the stamps. What the disk refuses is let go: unstamped files are hashed before they are trusted."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        atomic_write(path, msgspec.json.encode(stamps), mode=0o644)


def _open_unnoticed(path: str) -> int:
    """Open for reading that is no use of the model: access times stay, where the file is ours."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def hash_file(path: str, stop: Callable[[], bool], on_bytes: Callable[[int], object]) -> tuple[str, Stamp]:
    """The SHA-256 in hex, and the stamp of what was read. Blocks for as long as the disk needs.

    `on_bytes` is told how many bytes were hashed. Raises Stopped, OSError (also where the file changes meanwhile).
    """
    fd = _open_unnoticed(path)
    try:
        before = _stamp(os.fstat(fd))
        if before is None:
            raise OSError("it is not a regular file")
        sha256, done = hashlib.sha256(), 0
        buffer = memoryview(bytearray(min(_READ, max(before.size, 1))))
        while n := os.readv(fd, [buffer]):
            if stop():
                raise Stopped
            sha256.update(buffer[:n])
            done += n
            on_bytes(done)
        after = _stamp(os.fstat(fd))
        if after is None or after.written_since(before):
            raise OSError("it is being written to")
    finally:
        os.close(fd)
    return sha256.hexdigest(), before
