"""The partial file and its journal: what is on disk of a file that is not complete.

**The journal never claims a range that is not on disk.** A line is appended, in one write, after `pwrite` of the
granule's last byte has returned. So:

- after `kill -9` every claimed byte is in the page cache, which outlives the process: what is lost is the one
  granule that each connection was in. No fsync is needed for that, and none is paid;
- after a power cut the kernel may have kept the line and lost the bytes, or half of each. Only an fsync for each line
  could order the two, so the claim carries its proof: a claimed granule counts only once its checksum was found right
  at resume, while the file's hash runs over it. One that fails is fetched again, alone;
- a failed fsync leaves pages in the cache that the disk never got (and that a checksum would find right): all claims
  since the last good fsync are taken back.

A journal is written whole (`atomic_write`, synced) at the start and at each resume, and appended to from then on. The
part file is locked (flock) for as long as a thread may write to it, which can be a moment longer than the fetch: a
fetch that was cancelled leaves a lane behind that is still in a DNS look-up, and the next fetch of the file waits for
it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterable

from agent.core.ranges import Grid, granule_for
from agent.core.remote import FetchRequest
from agent.disk import Sync, atomic_write, disk_error, disk_errors
from agent.errors import WantdError
from agent.transfer.journal import JOURNAL_MAX, Identity, journal, parse_journal
from agent.transfer.verify import READ_BYTES, checksum

# Bytes of one write. The kernel takes folios as large as the write, and a virtual machine may have handed large free
# blocks back to its host, whose faults cost ten times the copy. On such a machine 3 GiB took 2.3 to 3.8 s in writes of
# 32 to 128 KiB, 3.3 to 3.9 s in 256 KiB, 4.8 to 5.7 s in 16 KiB and 5.1 to 7.7 s in 1 or 4 MiB; where the memory stays
# with the guest, 64 KiB to 1 MiB are alike and 16 KiB take twice as long.
WRITE = 64 * 1024
RESERVE_STEP = 64 * 1024 * 1024  # bytes

_libc = ctypes.CDLL(None, use_errno=True)
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)


class Partial:
    """An open, locked part file with its journal. Methods may be called from several threads.

    Every method raises `disk_full` or `store_unwritable` with the path and the reason.
    """

    def __init__(self, fd: int, request: FetchRequest) -> None:
        self._fd = fd
        self._request = request
        self._journal = -1
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._identity: Identity | None = None
        self._unsynced: list[int] = []
        self.sums: dict[int, int] = {}
        self.whole_without_journal = False  # complete in length, no journal: a finished one, or junk

    @classmethod
    def open(cls, request: FetchRequest) -> Partial | None:
        """Open the part file, created if there is none, and lock it; None while another holds it."""
        path = request.part_path
        with disk_errors(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "is not a regular file", path)  # noqa: TRY301  closed below
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                now = os.stat(path, follow_symlinks=False)
                if (now.st_dev, now.st_ino) == (status.st_dev, status.st_ino):
                    return cls(fd, request)
            except (BlockingIOError, FileNotFoundError):
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        return None

    @property
    def source(self) -> str | None:
        """The source of the bytes, as the journal names it."""
        return self._identity.source if self._identity else None

    @property
    def fd(self) -> int:
        return self._fd

    def resume(self, size: int, etag: str | None, streamed: int = 0) -> Identity:
        """Take over what the journal claims of this file, or start from nothing; the file gets its full length.

        `streamed` bytes are there without a journal: they came from a stream, before the file's size was known.
        `sums` has the claims afterwards, none of them verified.
        """
        request = self._request
        mine = Identity(size, granule_for(size, request.slice_bytes), request.sha256, request.git_sha1, etag)
        with disk_errors(request.part_path):
            there = os.fstat(self._fd).st_size
            found = parse_journal(_read(request.journal_path), there)
            if found and mine.continues(found[0]):
                self.sums = found[1]
                self._unsynced = list(self.sums)
                mine = found[0]
            elif found is None and there == size and (request.sha256 or request.git_sha1):
                self.whole_without_journal = True
            elif streamed:
                self.sums = self._sum_up(mine, min(streamed, size))
                self._unsynced = list(self.sums)
            self._identity = mine
            if not self.whole_without_journal:
                self._begin()
        return mine

    def _sum_up(self, identity: Identity, streamed: int) -> dict[int, int]:
        """The checksums of the granules that are complete within the first `streamed` bytes."""
        grid, buffer = Grid(identity.size, identity.granule), memoryview(bytearray(READ_BYTES))
        sums = {i: checksum(self._fd, grid.start(i), grid.end(i), buffer) for i in range(streamed // identity.granule)}
        return {index: crc for index, crc in sums.items() if crc is not None}

    def restart(self) -> Identity:
        """Start the file over: nothing that is there counts."""
        assert self._identity is not None  # noqa: S101  begun before
        with self._lock, disk_errors(self._request.part_path):
            self.sums, self._unsynced, self.whole_without_journal = {}, [], False
            self._begin()
        return self._identity

    def discard(self) -> None:
        """Give the space back: nothing of the file is of use."""
        with self._lock, disk_errors(self._request.part_path):
            self.sums, self._unsynced, self.whole_without_journal = {}, [], False
            os.ftruncate(self._fd, 0)
        self.finish()

    def adopt(self, size: int) -> Identity:
        """The `size` bytes that were written are the whole file."""
        granule = granule_for(size, self._request.slice_bytes)
        self._identity = Identity(size, granule, self._request.sha256, self._request.git_sha1)
        self.whole_without_journal = True
        return self._identity

    def free_bytes(self) -> int:
        """Free bytes of the file system, for users without privileges."""
        with disk_errors(self._request.part_path):
            status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def reserve(self, wanted: Callable[[], bool]) -> None:
        """Reserve the file's blocks, step by step while it is `wanted`; to run beside the lanes.

        In one step it would hold the file's lock for long where a file system clears blocks (tmpfs: 0.3 s for a GiB).
        """
        size = self._identity.size if self._identity else 0
        with disk_errors(self._request.part_path):
            for start in range(0, size, RESERVE_STEP):
                if not wanted() or not _allocate(self._fd, start, min(RESERVE_STEP, size - start)):
                    return

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of the view at `offset`.

        One at a time: the kernel lets one thread write to a file (i_rwsem) and makes the others spin, which cost a
        sixth of all CPU time in a profile of four lanes; on our lock they sleep.
        """
        try:
            with self._writing:
                done = 0
                while done < len(view):
                    done += os.pwrite(self._fd, view[done : done + WRITE], offset + done)
        except OSError as error:
            raise disk_error(self._request.part_path, error) from None

    def claim(self, index: int, crc: int) -> None:
        """The granule is written: claim it in the journal."""
        with self._lock, disk_errors(self._request.journal_path):
            self.sums[index] = crc
            self._unsynced.append(index)
            self._append(b"[%d,%d]\n" % (index, crc))

    def drop(self, indexes: Iterable[int]) -> None:
        """The granules are bad: take back their claims."""
        with self._lock, disk_errors(self._request.journal_path):
            for index in indexes:
                self.sums.pop(index, None)
                self._append(b"[%d,null]\n" % index)

    def sync(self) -> None:
        """Sync the file's bytes to the disk. On failure, all claims since the last good sync are taken back."""
        with self._lock:
            syncing, self._unsynced = self._unsynced, []
        try:
            with disk_errors(self._request.part_path):
                os.fdatasync(self._fd)
        except WantdError:
            with contextlib.suppress(WantdError):  # the journal's disk may be gone as well
                self.drop(syncing)
            raise

    def finish(self) -> None:
        """The file is complete and verified. Its length alone says so from here on; the journal is removed."""
        with disk_errors(self._request.journal_path), contextlib.suppress(FileNotFoundError):
            os.unlink(self._request.journal_path)

    def close(self) -> None:
        """Close and unlock."""
        for fd in (self._fd, self._journal):
            if fd >= 0:
                os.close(fd)
        self._fd = self._journal = -1

    def _append(self, line: bytes) -> None:
        if self._journal >= 0:
            os.write(self._journal, line)

    def _begin(self) -> None:
        """Replace the journal with one that has the present claims, then give the file its length."""
        assert self._identity is not None  # noqa: S101  set by both callers
        path = self._request.journal_path
        atomic_write(path, journal(self._identity, self.sums), sync=Sync.FILE)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if self._journal >= 0:
            os.close(self._journal)
        self._journal = fd
        if not self.sums:
            os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._identity.size)


def _allocate(fd: int, start: int, length: int) -> bool:
    """Reserve blocks for a part of the file. False where the file system cannot. Raises OSError (ENOSPC).

    fallocate(2) itself: glibc's posix_fallocate writes a byte to each block where the file system cannot do it.
    """
    if _libc.fallocate(fd, 0, ctypes.c_int64(start), ctypes.c_int64(length)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_FALLOCATE:
        return False
    raise OSError(number, os.strerror(number))


def write_small(path: str, data: memoryview) -> None:
    """Write a small file to the disk in one step. Raises `disk_full`, `store_unwritable`."""
    with disk_errors(path):
        atomic_write(path, data, sync=Sync.FILE)


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(fd, "rb") as file:
        return file.read(JOURNAL_MAX) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
