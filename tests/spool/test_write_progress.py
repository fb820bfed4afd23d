"""A progress file is complete or not there, replaces whatever has its name, and leaves nothing else behind."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from agent.disk import TEMP_PREFIX
from agent.spool import files
from agent.spool.files import progress_path
from agent.spool.folders import Folders

Drop = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def want(spool: str) -> str:
    return f"{spool}/qwen3.want"


def write_progress(want: str, data: bytes) -> None:
    with Folders(os.path.dirname(want)) as folders:
        files.write_progress(folders, want, data)


def remove_progress(want: str) -> None:
    with Folders(os.path.dirname(want)) as folders:
        files.remove_progress(folders, want)


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_the_progress_file_is_beside_its_want(want: str, spool: str) -> None:
    assert progress_path(want) == f"{spool}/qwen3.progress"
    assert progress_path(f"{spool}/a.want.b.want") == f"{spool}/a.want.b.progress"
    write_progress(want, b"{}")
    assert os.listdir(spool) == ["qwen3.progress"]
    assert content(progress_path(want)) == b"{}"


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o644), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_everybody_may_read_it_less_the_umask(umask: int, mode: int, want: str) -> None:
    before = os.umask(umask)
    try:
        write_progress(want, b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(progress_path(want)).st_mode) == mode


def test_a_planted_symbolic_link_is_replaced_and_never_followed(want: str, spool: str) -> None:
    victim = f"{spool}/victim"
    with open(victim, "wb") as file:
        file.write(b"precious")
    for target in (victim, f"{spool}/not-there", progress_path(want)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(progress_path(want))
        os.symlink(target, progress_path(want))
        write_progress(want, b"{}")
        assert stat.S_ISREG(os.lstat(progress_path(want)).st_mode)
        assert content(progress_path(want)) == b"{}"
    assert content(victim) == b"precious"
    assert sorted(os.listdir(spool)) == ["qwen3.progress", "victim"]


def test_a_planted_hard_link_keeps_its_content(want: str, spool: str) -> None:
    with open(f"{spool}/victim", "wb") as file:
        file.write(b"precious")
    os.link(f"{spool}/victim", progress_path(want))
    write_progress(want, b"{}")
    assert content(f"{spool}/victim") == b"precious"


def test_a_planted_fifo_or_socket_is_replaced(want: str) -> None:
    os.mkfifo(progress_path(want))
    write_progress(want, b"1")
    os.unlink(progress_path(want))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(progress_path(want))
        write_progress(want, b"2")
    assert content(progress_path(want)) == b"2"


def test_a_planted_directory_cannot_be_replaced_and_nothing_is_left(want: str, spool: str) -> None:
    os.mkdir(progress_path(want))
    with pytest.raises(OSError):
        write_progress(want, b"{}")
    assert os.listdir(spool) == ["qwen3.progress"]


def test_where_nothing_may_be_written_nothing_is_left(want: str, spool: str, unprivileged: Drop) -> None:
    os.chmod(spool, 0o755 if os.geteuid() == 0 else 0o555)
    with unprivileged(), pytest.raises(PermissionError):
        write_progress(want, b"{}")
    assert os.listdir(spool) == []


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past `size`: write(2) stops half way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_half_way_keeps_the_old_file_and_leaves_nothing(want: str, spool: str) -> None:
    write_progress(want, b"old")
    with file_size_limit(4096), pytest.raises(OSError):
        write_progress(want, b"x" * 100_000)
    assert content(progress_path(want)) == b"old"
    assert os.listdir(spool) == ["qwen3.progress"]


def test_the_longest_name_is_the_longest_that_the_progress_file_can_have(spool: str) -> None:
    longest = f"{spool}/{'n' * (255 - len('.progress'))}.want"
    write_progress(longest, b"{}")
    assert content(progress_path(longest)) == b"{}"
    with pytest.raises(OSError, match="too long"):
        write_progress(f"{spool}/{'m' * 250}.want", b"{}")
    assert os.listdir(spool) == [os.path.basename(progress_path(longest))]


@pytest.mark.parametrize("name", [b"caf\xe9.want", b"a\nb.want", "モデル.want".encode(), b"-rf.want", b"a b'\".want"])
def test_a_want_of_any_name_has_a_progress_file(name: bytes, spool: str) -> None:
    want = f"{spool}/{os.fsdecode(name)}"
    write_progress(want, b"{}")
    assert os.listdir(os.fsencode(spool)) == [name.removesuffix(b".want") + b".progress"]


def test_nobody_can_prevent_a_progress_file_by_taking_names(want: str, spool: str) -> None:
    for number in range(200):
        os.mkdir(f"{spool}/{TEMP_PREFIX}{os.getpid()}-{number}.tmp")
    for number in range(20):
        write_progress(want, b"%d" % number)
    assert content(progress_path(want)) == b"19"


def test_a_reader_never_sees_half_of_a_progress_file(want: str) -> None:
    contents = [json.dumps({"number": number, "fill": "x" * 20_000}).encode() for number in range(200)]
    write_progress(want, contents[0])
    done = threading.Event()

    def write() -> None:
        for one in contents:
            write_progress(want, one)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    numbers = [0]
    while not done.is_set():
        numbers.append(json.loads(content(progress_path(want)))["number"])
    thread.join()
    assert numbers == sorted(numbers)


def test_removing_one_that_is_not_there_or_not_ours_is_no_error(want: str, spool: str, unprivileged: Drop) -> None:
    remove_progress(want)
    write_progress(want, b"{}")
    os.chmod(spool, 0o755 if os.geteuid() == 0 else 0o555)
    with unprivileged():
        remove_progress(want)
    assert os.listdir(spool) == ["qwen3.progress"]
    os.chmod(spool, 0o777)
    remove_progress(want)
    assert os.listdir(spool) == []


def test_a_directory_swapped_for_a_link_is_not_written_to_nor_cleared(spool: str) -> None:
    os.mkdir(f"{spool}/victim")
    with open(f"{spool}/victim/qwen3.progress", "wb") as file:
        file.write(b"precious")
    os.mkdir(f"{spool}/spool")
    os.symlink(f"{spool}/victim", f"{spool}/spool/team")
    with Folders(f"{spool}/spool") as folders:
        with pytest.raises(NotADirectoryError):
            files.write_progress(folders, f"{spool}/spool/team/qwen3.want", b"{}")
        with pytest.raises(NotADirectoryError):
            files.read_progress(folders, f"{spool}/spool/team/qwen3.want", most=100)
        files.remove_progress(folders, f"{spool}/spool/team/qwen3.want")
    assert content(f"{spool}/victim/qwen3.progress") == b"precious"
    assert os.listdir(f"{spool}/victim") == ["qwen3.progress"]
