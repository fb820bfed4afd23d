"""Whatever has the name of a want, reading it harms nothing, blocks on nothing and never returns half of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from agent.core.want import MAX_BYTES
from agent.errors import Code, WantdError
from agent.spool import files
from agent.spool.files import Stamp, StillWrittenError
from agent.spool.folders import Folders
from tests.harness import wait_until

Drop = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def path(spool: str) -> str:
    return f"{spool}/qwen3.want"


def write(path: str, data: bytes = b"qwen3\n", *, age: float = 0.0) -> str:
    """A file that was last changed `age` seconds ago."""
    with open(path, "wb") as file:
        file.write(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


def read_want(path: str, *, closed: bool) -> tuple[bytes, Stamp]:
    with Folders(os.path.dirname(path)) as folders:
        return files.read_want(folders, path, closed=closed)


def refused(path: str) -> WantdError:
    with pytest.raises(WantdError) as caught:
        read_want(path, closed=True)
    assert caught.value.hint
    return caught.value


@contextlib.contextmanager
def writer(path: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the file open for writing, until its standard input ends."""
    with subprocess.Popen(
        ["sh", "-c", 'exec 3>>"$0"; echo half >&3; echo open; read line', path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        yield process
        process.kill()


def test_a_plain_file_is_read_with_the_stamp_it_was_read_at(path: str) -> None:
    write(path)
    assert read_want(path, closed=True) == (b"qwen3\n", Stamp.of(os.stat(path)))


def test_an_empty_file_is_a_want(path: str) -> None:
    assert read_want(write(path, b""), closed=True)[0] == b""


def test_a_want_that_another_process_has_open_for_writing_is_not_read(path: str) -> None:
    write(path, b"", age=3600)
    with writer(path) as process:
        for closed in (True, False):
            with pytest.raises(StillWrittenError):
                read_want(path, closed=closed)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        assert read_want(path, closed=False)[0] == b"half\n"


def test_a_writer_that_was_killed_holds_nothing_up(path: str) -> None:
    write(path, b"")
    with writer(path) as process:
        process.kill()
        process.wait()
        assert read_want(path, closed=False)[0] == b"half\n"


def test_readers_do_not_hold_a_want_up(path: str) -> None:
    write(path)
    with open(path, "rb"):
        assert read_want(path, closed=False)[0] == b"qwen3\n"


def test_reading_never_keeps_a_writer_out(path: str) -> None:
    write(path)
    read_want(path, closed=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # EWOULDBLOCK if a lease were left on it
    os.close(descriptor)


def test_where_writers_cannot_be_seen_a_want_is_read_once_it_has_been_quiet(path: str, unprivileged: Drop) -> None:
    if os.geteuid() != 0:
        pytest.skip("the file has to be another user's")
    write(path)
    with unprivileged():
        with pytest.raises(StillWrittenError):
            read_want(path, closed=False)
        assert read_want(path, closed=True)[0] == b"qwen3\n"
    for age in (2.0, -3600.0):  # a time in the future says nothing and must not hold a want up for an hour
        write(path, age=age)
        with unprivileged():
            assert read_want(path, closed=False)[0] == b"qwen3\n"


def test_a_file_that_grew_past_the_limit_is_refused_without_being_read(path: str) -> None:
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES)
    assert len(read_want(path, closed=True)[0]) == MAX_BYTES
    with open(path, "wb") as file:
        file.truncate(2**40)  # a sparse terabyte
    error = refused(path)
    assert error.code is Code.WANT_TOO_LARGE and str(2**40) in error.message


def test_a_symbolic_link_is_not_followed(path: str, spool: str) -> None:
    write(f"{spool}/secret", b"password")
    os.symlink(f"{spool}/secret", path)
    error = refused(path)
    assert error.code is Code.WANT_UNREADABLE and "symbolic link" in error.message
    os.unlink(path)
    os.symlink(path, path)
    assert "symbolic link" in refused(path).message


def test_a_fifo_blocks_nothing(path: str) -> None:
    os.mkfifo(path)
    assert "a FIFO" in refused(path).message


def test_a_socket_is_refused(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert "socket" in refused(path).message


def test_a_directory_is_refused(path: str) -> None:
    os.mkdir(path)
    assert "a directory" in refused(path).message


def test_a_device_is_refused(path: str) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("making a device takes root")
    assert "device" in refused(path).message


def test_a_want_that_the_agent_may_not_read_is_told_so(path: str, unprivileged: Drop) -> None:
    os.chmod(write(path), 0)
    with unprivileged():
        error = refused(path)
    assert error.code is Code.WANT_UNREADABLE
    assert "Permission denied" in error.message and "agent's user" in error.hint


def test_a_want_that_is_gone_is_gone(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_want(path, closed=True)


def test_no_look_at_a_want_leaves_a_descriptor_open(path: str, spool: str) -> None:
    os.mkfifo(f"{spool}/fifo.want")
    write(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        read_want(path, closed=True)
        refused(f"{spool}/fifo.want")
        with open(path, "ab"), pytest.raises(StillWrittenError):
            read_want(path, closed=True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_want_is_never_read_by_halves_while_its_writer_goes_on(path: str) -> None:
    """A process that writes a long want in many small steps, and a reader that looks all the time."""
    script = 'i=0; while [ $i -lt 2000 ]; do echo line$i; i=$((i+1)); done >"$0"'
    whole = b"".join(b"line%d\n" % number for number in range(2000))
    seen: list[bytes] = []

    with subprocess.Popen(["sh", "-c", script, path]) as process:

        def read() -> bool:
            with contextlib.suppress(StillWrittenError, FileNotFoundError):
                seen.append(read_want(path, closed=False)[0])
            return process.poll() is not None and bool(seen) and seen[-1] == whole

        wait_until(read, "the whole want")
    assert set(seen) <= {b"", whole}  # the instant between making the file and the first line has an empty one
