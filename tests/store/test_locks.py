"""Locks keep processes apart, tell who holds them, and outlive nobody."""

from __future__ import annotations

import json
import os
import signal
import threading
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

import msgspec
import pytest

from agent.core import waits
from agent.errors import Code, WantdError
from agent.store.layout import Layout
from agent.store.locks import CONTENT_BYTES, Holder, Lock, Locks, boot_id, read_holder
from tests.harness import wait_until
from tests.store import children
from tests.store.builders import put, read

PROCESSES = 8
ROUNDS = 25


@pytest.fixture
def path(layout: Layout) -> str:
    return f"{layout.locks}/qwen3.lock"


@pytest.fixture
def locks() -> Locks:
    return Locks()


def held(locks: Locks, path: str) -> Lock:
    lock = locks.try_acquire(path)
    assert lock is not None
    return lock


def start(processes: ForkServerContext, path: str, progress: float = 0.0) -> tuple[ForkServerProcess, Connection]:
    """A process that holds the lock, and the pipe that tells it to release it."""
    ours, theirs = processes.Pipe()
    process = processes.Process(target=children.hold, args=(path, progress, theirs))
    process.start()
    assert ours.poll(60) and ours.recv() == "held"
    return process, ours


def test_two_processes_exclude_each_other(processes: ForkServerContext, path: str, locks: Locks) -> None:
    process, talk = start(processes, path)
    assert locks.try_acquire(path) is None
    assert not locks.is_free(path)
    talk.send("release")
    assert talk.poll(60) and talk.recv() == "released"
    held(locks, path).release()
    process.join()


def test_one_process_excludes_itself_too(path: str, locks: Locks) -> None:
    lock = held(locks, path)
    assert locks.try_acquire(path) is None
    assert Locks().try_acquire(path) is None
    lock.release()
    held(locks, path).release()


def test_a_waiter_reads_who_holds_it_and_how_far_that_is(processes: ForkServerContext, path: str, locks: Locks) -> None:
    process, talk = start(processes, path, 0.4213)
    holder = read_holder(path)
    assert holder is not None and holder.pid == process.pid
    assert (holder.host, holder.progress) == (locks.host, 0.4213)
    assert holder.since and holder.heartbeat and holder.since <= holder.heartbeat
    assert holder.shown() == waits.Holder(process.pid, locks.host, holder.since, 0.4213)
    assert str(process.pid) in str(holder)
    talk.send("release")
    process.join()


def test_a_killed_holder_frees_it(processes: ForkServerContext, path: str, locks: Locks) -> None:
    process, _ = start(processes, path)
    process.kill()
    process.join()
    assert os.path.exists(path), "the file is left behind"
    lock = held(locks, path)
    holder = read_holder(path)
    assert holder is not None and holder.pid == os.getpid()
    lock.release()
    assert not os.path.exists(path)


def test_a_program_that_a_holder_started_does_not_keep_it(
    processes: ForkServerContext, path: str, locks: Locks
) -> None:
    ours, theirs = processes.Pipe()
    process = processes.Process(target=children.hold_with_a_child, args=(path, theirs))
    process.start()
    assert ours.poll(60)
    child = ours.recv()
    process.kill()
    process.join()
    try:
        os.kill(child, 0)
        held(locks, path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_released_lock_leaves_no_file(path: str, locks: Locks, layout: Layout) -> None:
    lock = held(locks, path)
    assert os.listdir(layout.locks) == ["qwen3.lock"]
    assert locks.held == {lock}
    lock.release()
    lock.release()
    assert (os.listdir(layout.locks), locks.held) == ([], set())
    lock.beat()
    assert os.listdir(layout.locks) == []


def test_many_processes_never_hold_it_at_once(processes: ForkServerContext, path: str, layout: Layout) -> None:
    counter = put(f"{layout.root}/counter", b"0")
    workers = [processes.Process(target=children.count, args=(path, counter, ROUNDS)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert int(read(counter)) == PROCESSES * ROUNDS
    assert os.listdir(layout.locks) == []


def test_the_content_is_what_the_contract_says_and_of_one_length(path: str, locks: Locks) -> None:
    lock = held(locks, path)
    for progress in (0.0, 0.123456, 1.0):
        lock.progress = progress
        locks.beat()
        data = read(path)
        assert len(data) == CONTENT_BYTES and data.endswith(b"\n")
        value = json.loads(data)
        assert value.keys() == {"pid", "started_at", "progress", "host", "boot_id", "heartbeat_at"}
        assert (value["progress"], value["boot_id"]) == (round(progress, 4), boot_id())
    assert os.stat(path).st_mode & 0o777 == 0o600
    lock.release()


def test_a_reader_never_sees_half_of_a_heartbeat(path: str, locks: Locks) -> None:
    lock = held(locks, path)
    done = threading.Event()

    def beat() -> None:
        for number in range(2000):
            lock.progress = number / 2000
            lock.beat()
        done.set()

    thread = threading.Thread(target=beat)
    thread.start()
    while not done.is_set():
        holder = read_holder(path)
        assert holder is not None and holder.pid == os.getpid()
    thread.join()
    lock.release()


def test_a_heartbeat_that_comes_during_the_release_goes_into_no_other_file(path: str, locks: Locks) -> None:
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            locks.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        for _ in range(60):
            held(locks, path).release()
            with open(path + ".other", "w+b") as other:  # takes the number that the lock's file had
                assert other.read() == b""
        assert os.path.getsize(path + ".other") == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff" * 100,
        b"null",
        b'{"pid": "x", "host": 7, "started_at": [], "progress": {}}',
        b'{"pid": 99999999999999999999999, "progress": 1e999}',
        b"[" * 5000,
    ],
)
def test_whatever_a_lock_file_says_can_be_shown(data: bytes, path: str) -> None:
    put(path, data)
    holder = read_holder(path)
    assert holder is None or isinstance(holder, Holder)
    if holder:
        msgspec.json.encode(holder.shown())
        assert str(holder)


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (Holder(None, None, None, None, None), "a process that did not write who it is into the lock file"),
        (Holder(7, None, None, None, None), "process 7"),
        (Holder(7, "gpu-7", "T1", 0.5, "T2"), "process 7 on gpu-7, since T1, last heartbeat at T2"),
    ],
)
def test_a_holder_is_told_by_what_is_known_of_it(holder: Holder, words: str) -> None:
    assert str(holder) == words


def test_no_lock_file_is_no_holder(path: str) -> None:
    assert read_holder(path) is None


def test_what_the_file_says_decides_nothing(path: str, locks: Locks) -> None:
    put(path, json.dumps({"pid": os.getppid(), "host": locks.host, "boot_id": boot_id()}).encode())
    assert locks.is_free(path)


def test_a_planted_symbolic_link_is_not_followed(path: str, locks: Locks, layout: Layout) -> None:
    victim = put(f"{layout.root}/victim", b"precious")
    os.symlink(victim, path)
    with pytest.raises(WantdError) as caught:
        locks.try_acquire(path)
    assert caught.value.code is Code.STORE_UNWRITABLE
    assert read_holder(path) is None
    assert locks.reap(layout.locks) == []
    assert read(victim) == b"precious"


def test_a_planted_fifo_blocks_nothing(path: str, locks: Locks) -> None:
    os.mkfifo(path)
    assert read_holder(path) is None
    if lock := locks.try_acquire(path):
        assert Locks().try_acquire(path) is None
        lock.release()


def test_a_planted_directory_is_an_error_and_stays(path: str, locks: Locks, layout: Layout) -> None:
    os.mkdir(path)
    with pytest.raises(WantdError) as caught:
        locks.try_acquire(path)
    assert caught.value.code is Code.STORE_UNWRITABLE
    assert locks.reap(layout.locks) == []
    assert os.path.isdir(path)


def test_a_place_without_directory_is_an_error_that_says_so(locks: Locks, layout: Layout) -> None:
    with pytest.raises(WantdError) as caught:
        locks.try_acquire(f"{layout.root}/nowhere/x.lock")
    assert caught.value.code is Code.STORE_UNWRITABLE
    assert "nowhere" in caught.value.message


def test_the_reaper_takes_what_the_dead_left_and_nothing_else(
    processes: ForkServerContext, path: str, locks: Locks, layout: Layout
) -> None:
    dead = f"{layout.locks}/dead.lock"
    killed = processes.Process(target=children.leave, args=(dead,))
    killed.start()
    killed.join()
    assert os.path.exists(dead)
    hidden = put(f"{layout.locks}/.{'ab' * 32}.lock", b"left by a crash")
    other = put(f"{layout.locks}/.agent-0123456789ab.json", b"{}")
    process, talk = start(processes, path)
    mine = held(locks, f"{layout.locks}/mine.lock")
    assert sorted(locks.reap(layout.locks)) == sorted([dead, hidden])
    assert sorted(os.listdir(layout.locks)) == sorted([os.path.basename(other), "mine.lock", "qwen3.lock"])
    assert read_holder(path) is not None
    mine.release()
    talk.send("release")
    process.join()


def test_a_file_that_was_put_in_the_place_of_a_held_one_is_not_taken_away(path: str, locks: Locks) -> None:
    lock = held(locks, path)
    os.unlink(path)
    put(path, b"somebody else's")
    lock.release()
    assert read(path) == b"somebody else's"


def test_asking_whether_it_is_free_leaves_no_file(path: str, locks: Locks) -> None:
    assert locks.is_free(path)
    assert not os.path.exists(path)


def test_a_waiter_gets_it_when_the_holder_dies(processes: ForkServerContext, path: str, locks: Locks) -> None:
    process, _ = start(processes, path)
    threading.Timer(0.05, process.kill).start()
    lock = wait_until(lambda: locks.try_acquire(path), "the lock")
    lock.release()
    process.join()


def content(locks: Locks, **changes: object) -> bytes:
    """What a holder writes into its lock file."""
    now = datetime.now(UTC).isoformat()
    holder = {"pid": os.getppid(), "host": locks.host, "boot_id": locks.boot_id, "started_at": now, "heartbeat_at": now}
    return json.dumps(holder | changes).encode()


@pytest.mark.parametrize(
    ("changes", "contested"),
    [
        ({}, True),
        ({"pid": 2**22 + 1}, False),
        ({"pid": os.getpid()}, False),
        ({"host": "elsewhere"}, True),
        ({"host": "elsewhere", "heartbeat_at": "2020-01-01T00:00:00Z"}, False),
        ({"boot_id": "an earlier boot", "heartbeat_at": "2020-01-01T00:00:00Z"}, False),
        ({"host": "elsewhere", "heartbeat_at": "soon"}, False),
    ],
)
def test_a_lock_whose_holder_seems_to_live_is_contested_and_its_file_is_left(
    path: str, locks: Locks, changes: dict[str, object], contested: bool
) -> None:
    """As on a file system that grants flock to everyone."""
    put(path, content(locks, **changes))
    lock = locks.try_acquire(path)
    assert lock
    assert lock.contested is contested
    lock.release()
    assert os.path.exists(path) is contested


def test_one_process_never_has_a_lock_twice(path: str, locks: Locks) -> None:
    lock = locks.try_acquire(path)
    assert lock
    assert locks.try_acquire(path) is None
    lock.release()
    again = locks.try_acquire(path)
    assert again
    again.release()


def test_a_claim_holds_within_this_process_and_touches_no_disk(path: str, locks: Locks, layout: Layout) -> None:
    claim = locks.try_claim(path)
    assert claim
    assert locks.try_claim(path) is None
    assert locks.try_acquire(path) is None
    assert not locks.is_free(path)
    locks.beat()
    assert os.listdir(layout.locks) == []
    claim.release()
    lock = locks.try_acquire(path)
    assert lock
    claim.release()  # a second time: what it names is held by another now
    assert locks.try_claim(path) is None
    lock.release()
    assert locks.is_free(path)
