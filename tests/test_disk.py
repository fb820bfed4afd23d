"""A file is replaced in one step or not at all, and what the disk refuses is said in one way."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.disk import (
    TEMP_PREFIX,
    TEMP_SUFFIX,
    Sync,
    atomic_write,
    disk_error,
    disk_errors,
    remove_stale_temp,
    remove_stale_temps,
    sync_directory,
)
from agent.errors import Code, WantdError
from tests.harness import CHECKOUT, clean_environment


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """The descriptor of an open directory, `tmp_path`."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    yield fd
    os.close(fd)


def content(path: str | Path) -> bytes:
    return Path(path).read_bytes()


# Replacing


@pytest.mark.parametrize("sync", list(Sync))
@pytest.mark.parametrize("data", [b"", b"new", memoryview(b"longer than the old one" * 100_000)])
def test_the_content_is_replaced_and_nothing_else_is_left(data: bytes | memoryview, sync: Sync, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for before in (None, b"old"):
        if before is not None:
            path.write_bytes(before)
        atomic_write(str(path), data, sync=sync)
        assert content(path) == bytes(data)
    assert os.listdir(tmp_path) == ["file"]


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        atomic_write(str(path), b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o644), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_is_less_the_umask_unless_it_is_exact(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        atomic_write(f"{tmp_path}/less", b"")
        atomic_write(f"{tmp_path}/exact", b"", exact_mode=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "less").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "exact").stat().st_mode) == 0o644


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo"])
def test_what_has_the_name_is_replaced_and_never_followed(kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        os.mkfifo(path)
    atomic_write(str(path), b"new")
    assert stat.S_ISREG(path.lstat().st_mode)
    assert (content(path), content(victim)) == (b"new", b"precious")
    assert sorted(os.listdir(tmp_path)) == ["file", "victim"]


def test_names_are_used_in_the_open_directory_wherever_its_path_leads(folder: int, tmp_path: Path) -> None:
    """What a producer puts in the place of a directory that is open changes nothing for the agent."""
    moved, trap = tmp_path.with_name("moved"), tmp_path.with_name("trap")
    trap.mkdir()
    tmp_path.rename(moved)
    tmp_path.symlink_to(trap)
    try:
        for sync in Sync:
            atomic_write("file", sync.value.encode(), sync=sync, dir_fd=folder)
            assert content(moved / "file") == sync.value.encode()
        (moved / "below").mkdir()
        atomic_write("below/file", b"new", sync=Sync.DIRECTORY, dir_fd=folder)
        assert content(moved / "below" / "file") == b"new"
        with pytest.raises(OSError) as caught:
            atomic_write("below", b"new", dir_fd=folder)
        assert caught.value.filename == "below"
        assert sorted(os.listdir(moved)) == ["below", "file"]
        assert os.listdir(trap) == []
    finally:
        tmp_path.unlink()
        moved.rename(tmp_path)


def test_a_path_without_a_directory_is_of_the_current_one(tmp_path: Path) -> None:
    script = "from agent.disk import *; atomic_write('file', b'new', sync=Sync.DIRECTORY); sync_directory('/')"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=clean_environment(), check=True, timeout=60)
    assert content(tmp_path / "file") == b"new"


def test_a_temporary_file_that_a_reaper_took_is_written_once_more(tmp_path: Path) -> None:
    """A reaper whose clock is ahead takes a fresh file for a stale one."""
    path, data = tmp_path / "file", bytes(32 * 1024 * 1024)
    taken, done = threading.Event(), threading.Event()

    def take() -> None:
        while not done.is_set():
            for name in os.listdir(tmp_path):
                if name.startswith(TEMP_PREFIX):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(tmp_path / name)
                        taken.set()
                        return

    reaper = threading.Thread(target=take)
    reaper.start()
    try:
        while not taken.is_set():  # a write may be through before the reaper sees it
            atomic_write(str(path), data)
    finally:
        done.set()
        reaper.join()
    assert path.stat().st_size == len(data)
    assert os.listdir(tmp_path) == ["file"]


# Failing


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past `size`: write(2) stops half way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_half_way_keeps_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with file_size_limit(4096), pytest.raises(OSError) as caught:
        atomic_write(str(path), bytes(100_000), sync=Sync.DIRECTORY)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert content(path) == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_is_not_replaced_and_a_missing_one_not_made(tmp_path: Path) -> None:
    (tmp_path / "in the way").mkdir()
    for path, kind in ((tmp_path / "in the way", IsADirectoryError), (tmp_path / "gone" / "file", FileNotFoundError)):
        with pytest.raises(kind) as caught:
            atomic_write(str(path), b"new")
        assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["in the way"]


FAILING = """
import os, sys
from agent.disk import Sync, atomic_write
try:
    atomic_write(sys.argv[1], b"new", sync=Sync[sys.argv[2]])
except OSError as error:
    print(error.errno, error.filename)
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes a call fail")
@pytest.mark.parametrize(
    ("call", "sync", "kept"),
    [
        ("fsync:error=EIO:when=1", Sync.FILE, b"old"),
        ("rename,renameat,renameat2:error=EIO:when=1", Sync.NONE, b"old"),
        ("fsync:error=EIO:when=2", Sync.DIRECTORY, b"new"),
        ("fsync:error=EINVAL:when=2", Sync.DIRECTORY, b"new"),
        ("fsync:error=EIO:when=1..9", Sync.NONE, b"new"),
    ],
)
def test_what_fails_before_the_rename_keeps_the_old_file(call: str, sync: Sync, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    names = call.partition(":")[0]
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={names}", "-e", f"inject={call}"]
    command = [*strace, sys.executable, "-B", "-c", FAILING, str(path), sync.name]
    done = subprocess.run(command, env=clean_environment(), cwd=CHECKOUT, capture_output=True, timeout=60, check=False)
    if b"ptrace" in done.stderr:
        pytest.skip("tracing is not allowed here")
    assert content(path) == kept
    assert os.listdir(tmp_path) == ["file"]
    fails = ("EIO" in call and sync is not Sync.NONE) or kept == b"old"
    assert done.stdout.decode() == (f"{errno.EIO} {path}\n" if fails else ""), done.stderr


def test_a_file_system_that_cannot_sync_a_directory_is_no_error(tmp_path: Path, folder: int) -> None:
    sync_directory("/proc")  # EINVAL
    sync_directory(".", dir_fd=folder)
    with pytest.raises(FileNotFoundError):
        sync_directory(f"{tmp_path}/gone")


# Reaping


def test_only_temporary_files_of_writers_long_dead_are_removed(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    temps = {name: f"{TEMP_PREFIX}{name}{TEMP_SUFFIX}" for name in ("old", "young", "future")}
    for name, age in (*((temps[n], a) for n, a in (("old", 61), ("young", 59), ("future", -1000))), ("a.json", 9999)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age,) * 2)
    (tmp_path / f"{TEMP_PREFIX}stage-1a2b").mkdir()
    os.utime(tmp_path / f"{TEMP_PREFIX}stage-1a2b", (now - 9999,) * 2)
    remove_stale_temp(f"{tmp_path}/{temps['young']}", now)
    remove_stale_temp(f"{tmp_path}/gone", now)
    remove_stale_temps(str(tmp_path), now)
    remove_stale_temps(f"{tmp_path}/gone", now)
    kept = [temps["future"], temps["young"], f"{TEMP_PREFIX}stage-1a2b", "a.json"]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_writer_that_is_killed_leaves_what_the_reaper_knows(tmp_path: Path) -> None:
    script = (
        "import os, resource, signal, sys\n"
        "from agent.disk import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"  # past the limit, write(2) kills
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "atomic_write(sys.argv[1], bytes(100_000))\n"
    )
    command = [sys.executable, "-c", script, f"{tmp_path}/file"]
    done = subprocess.run(command, env=clean_environment(), check=False, timeout=60)
    assert done.returncode < 0
    (left,) = os.listdir(tmp_path)
    os.utime(tmp_path / left, (0, 0))
    remove_stale_temps(str(tmp_path), 1000.0)
    assert os.listdir(tmp_path) == []


# Saying


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [
        (errno.ENOSPC, Code.DISK_FULL, "free space"),
        (errno.EDQUOT, Code.DISK_FULL, "free space"),
        (errno.EACCES, Code.STORE_UNWRITABLE, "write access"),
        (errno.EPERM, Code.STORE_UNWRITABLE, "write access"),
        (errno.EROFS, Code.STORE_UNWRITABLE, "remount"),
        (errno.EIO, Code.STORE_UNWRITABLE, "dmesg"),
        (errno.ENOTDIR, Code.STORE_UNWRITABLE, "store.dir"),
    ],
)
def test_an_error_has_code_path_reason_and_hint(number: int, code: Code, hint: str) -> None:
    with pytest.raises(WantdError) as caught, disk_errors("/store/x.part"):
        raise OSError(number, os.strerror(number))
    error = caught.value
    assert error.code is code
    assert error.retryable is (code is Code.DISK_FULL)
    assert error.message == f"cannot write '/store/x.part': {os.strerror(number)} ({errno.errorcode[number]})"
    assert hint in error.hint


def test_the_path_of_the_error_is_named_where_it_is_a_whole_one() -> None:
    assert "'/store/y'" in disk_error("/store", OSError(errno.EIO, "broken", "/store/y")).message
    for other in ("y", b"/store/y", 7, None):
        assert "'/store'" in disk_error("/store", OSError(errno.EIO, "broken", other)).message
    odd = disk_error("/store/\x1b[31m\n", OSError("no number"))
    assert odd.message == r"cannot write '/store/\x1b[31m\n': no number"
    assert odd.code is Code.STORE_UNWRITABLE


def test_an_error_that_is_expected_passes() -> None:
    with pytest.raises(FileNotFoundError), disk_errors("/store", passing=FileNotFoundError):
        raise FileNotFoundError(errno.ENOENT, "gone", "/store/x")
    with pytest.raises(WantdError), disk_errors("/store", passing=FileNotFoundError):
        raise PermissionError(errno.EACCES, "refused", "/store/x")
    with pytest.raises(KeyError), disk_errors("/store"):
        raise KeyError("no error of the disk")
