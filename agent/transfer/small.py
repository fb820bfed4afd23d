"""Small files: everything that is different about them stands here.

Most files of a repository are small (configuration, tokenizer, licence), and for them the machinery of pieces would
cost far more than the bytes. A file of `SMALL_MAX` bytes or less, as its listing or its location says, goes like this:

- It is one piece (`RequestShape.SMALL`): one request for the whole body, into memory. No granules, no journal, no
  resume: one that breaks off is fetched again from its first byte.
- It is hashed in memory, and only what is right is written: temporary file, fdatasync, rename. No lock on the part
  file is needed: two processes that fetch one file for two models put the same bytes under one name.
- A lane with one waits half of its time or more, for the response and for the disk. So two of them count as one
  connection (`core.shares.SMALL_LOAD`), their speed says nothing about the lane, and none is ever replaced or split.
- Its part file is looked for only where a hash can prove it. It is whole, or it is not there.
- A wrong hash is tried once more from a new location, like that of any file, with nothing to drop in between.

The caller, `FetchRequest`, and what comes out, `Fetched`, are those of every file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from agent.core.access import Body, ProtocolError
from agent.core.remote import SMALL_MAX, Fetched, FetchRequest
from agent.errors import WantdError
from agent.transfer.partial import write_small
from agent.transfer.verify import READ_BYTES, Digest, checksum, mismatch


class Outcome(NamedTuple):
    """A small file that came whole, and what is wrong with it: None when it was verified and written."""

    fetched: Fetched
    wrong: WantdError | None


def is_small(size: int | None) -> bool:
    """Whether a file of `size` bytes (None: not known yet) is fetched as a small one."""
    return size is not None and size <= SMALL_MAX


def is_worth_a_look(request: FetchRequest) -> bool:
    """Whether `find` may find something. Most are not there, and a hop to a thread costs far more than this."""
    return request.has_hash and os.path.lexists(request.part_path)


def find(request: FetchRequest, size: int, source: str) -> Fetched | None:
    """The file that is on disk already, whole and right, as one from `source`; None otherwise. Blocks."""
    try:
        fd = os.open(request.part_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        digest = Digest(size, request.git_sha1 is not None)
        if os.fstat(fd).st_size != size:
            return None
        if checksum(fd, 0, size, memoryview(bytearray(READ_BYTES)), digest) is None:
            return None
        return None if mismatch(request, digest) else Fetched(size, digest.sha256, True, source)
    except OSError:
        return None  # cannot be read: it is fetched, and the write fails with the reason
    finally:
        os.close(fd)


def read_whole(body: Body, data: memoryview, read: Callable[[memoryview], int]) -> None:
    """Read a body that must be as long as `data`, by `read` into the views it is given."""
    if body.size not in (None, len(data)):
        raise ProtocolError(f"the file has {body.size} bytes there, expected {len(data)}")
    done = 0
    while done < len(data):
        done += read(data[done:])
    if body.finish():
        raise ProtocolError(f"the file has more than the expected {len(data)} bytes")


def keep(request: FetchRequest, data: memoryview, source: str) -> Outcome:
    """Verify the whole file, and write it if it is right. Raises `disk_full` or `store_unwritable`."""
    digest = Digest(len(data), request.git_sha1 is not None)
    digest.update(data)
    wrong = mismatch(request, digest)
    if wrong is None:
        write_small(request.part_path, data)
    return Outcome(Fetched(len(data), digest.sha256, request.has_hash, source), wrong)
