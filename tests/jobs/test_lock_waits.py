"""Locks that others hold: taken when free, waited for in sight of everybody, given up when the holder hangs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import orjson
import pytest

from agent.core.retry import LOCK_POLL_S
from agent.core.states import State
from agent.core.waits import ForLock
from agent.errors import Code, WantdError
from agent.jobs.disk import Batches
from agent.jobs.lock_waits import LockWaits
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.store.locks import Locks
from tests.fakes import FakeClock, Inline, eventually, settle, target

TIMEOUT_S = 5.0


class Line:
    """A lock that another process holds (as far as these locks can see), and a job that wants it."""

    def __init__(self, folder: Path) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.path = str(folder / "qwen3.lock")
        self.clock = FakeClock()
        self.timeout_s = TIMEOUT_S
        self.others, self.ours = Locks(), Locks()
        self.waits = LockWaits(self.ours, lambda: self.timeout_s, self.clock)
        self.feed = Feed()
        self.changes = self.feed.subscribe()
        self.job = Job(target(), self.feed)

    def says(self, **content: object) -> None:
        """The holder writes to its lock file."""
        with open(self.path, "r+b") as file:
            file.write(orjson.dumps(content).ljust(511) + b"\n")

    async def ends(self, waiting: asyncio.Task[None]) -> float:
        """Seconds until the wait ends."""
        seconds = 0.0
        while not waiting.done():
            await self.clock.advance(LOCK_POLL_S)
            seconds += LOCK_POLL_S
        return seconds


@pytest.fixture
async def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


async def test_a_free_lock_is_taken_off_the_loop(line: Line) -> None:
    lock = await line.waits.acquire(line.path, Batches())
    assert lock is not None
    assert line.others.try_acquire(line.path) is None
    assert await line.waits.acquire(line.path, Batches()) is None
    lock.release()


async def test_without_a_disk_it_holds_among_the_jobs_of_this_process_alone(line: Line) -> None:
    lock = await line.waits.acquire(line.path, None)
    assert lock is not None
    assert await line.waits.acquire(line.path, None) is None
    assert not Path(line.path).exists()
    lock.release()


async def test_a_lock_that_comes_after_a_cancellation_is_given_back(tmp_path: Path) -> None:
    gate, disk, ours = threading.Event(), Batches(), Locks()
    waits = LockWaits(ours, lambda: TIMEOUT_S, FakeClock())
    blocked = disk.run(gate.wait)
    await asyncio.sleep(0)
    taking = asyncio.create_task(waits.acquire(str(tmp_path / "a.lock"), disk))
    await settle()
    taking.cancel()
    await settle()
    assert not taking.done()
    gate.set()
    await blocked
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert ours.held == set()


async def test_a_wait_shows_the_holder_and_how_far_it_is_and_ends_when_the_lock_is_free(line: Line) -> None:
    held = line.others.try_acquire(line.path)
    assert held is not None
    line.says(pid=4711, host="gpu-7", started_at="2026-11-22T07:04:11.120Z", progress=0.25)
    waiting = asyncio.create_task(line.waits.until_free(line.job, line.path))
    await settle()
    assert line.job.progress.state is State.WAITING
    assert isinstance(line.job.progress.waiting, ForLock)
    holder = line.job.progress.waiting.holder
    assert holder is not None
    assert (holder.pid, holder.host, holder.since) == (4711, "gpu-7", "2026-11-22T07:04:11.120Z")
    assert holder.progress == 0.25
    assert line.changes.take() == {line.job: Change.STATE}
    await line.clock.advance(LOCK_POLL_S)
    assert line.changes.take() == {}  # nothing new
    line.says(pid=4711, host="gpu-7", started_at="2026-11-22T07:04:11.120Z", progress=0.5)
    await line.clock.advance(LOCK_POLL_S)
    assert line.changes.take() == {line.job: Change.STATE}
    assert not waiting.done()
    held.release()
    await line.clock.advance(LOCK_POLL_S)
    await waiting


async def test_a_holder_that_says_nothing_is_waited_for_as_well(line: Line) -> None:
    held = line.others.try_acquire(line.path)
    assert held is not None
    Path(line.path).write_bytes(b"")
    waiting = asyncio.create_task(line.waits.until_free(line.job, line.path))
    await settle()
    assert line.job.progress.waiting == ForLock(None)
    assert await line.ends(waiting) == TIMEOUT_S + LOCK_POLL_S
    with pytest.raises(WantdError, match=r"no heartbeat for 5 s .*: a process that did not write who it is"):
        await waiting
    held.release()


async def test_patience_counts_from_the_last_sign_of_life_whatever_it_is(line: Line) -> None:
    held = line.others.try_acquire(line.path)
    assert held is not None
    signs = [
        {"pid": 1, "progress": 0.1, "heartbeat_at": "1"},
        {"pid": 1, "progress": 0.1, "heartbeat_at": "2"},
        {"pid": 1, "progress": 0.2, "heartbeat_at": "2"},
        {"pid": 2, "progress": 0.2, "heartbeat_at": "2"},
    ]
    waiting = asyncio.create_task(line.waits.until_free(line.job, line.path))
    for sign in signs:
        line.says(**sign)
        for _ in range(int((TIMEOUT_S - 1) / LOCK_POLL_S)):
            await line.clock.advance(LOCK_POLL_S)
        assert not waiting.done()
    await line.ends(waiting)
    with pytest.raises(WantdError) as caught:
        await waiting
    assert caught.value.code is Code.LOCK_TIMEOUT
    assert caught.value.retryable
    assert "process 2, last heartbeat at 2" in caught.value.message
    held.release()


async def test_patience_is_read_from_the_configuration_in_force(line: Line) -> None:
    held = line.others.try_acquire(line.path)
    assert held is not None
    waiting = asyncio.create_task(line.waits.until_free(line.job, line.path))
    await settle()
    await line.clock.advance(4)
    line.timeout_s = 2.0
    assert await line.ends(waiting) == LOCK_POLL_S
    with pytest.raises(WantdError, match="no heartbeat for 2 s"):
        await waiting
    held.release()


async def test_a_free_lock_is_not_waited_for(line: Line) -> None:
    await line.waits.until_free(line.job, line.path)
    assert line.job.progress.state is State.QUEUED


async def test_a_lock_of_a_job_of_this_process_is_waited_for(line: Line) -> None:
    mine = await line.waits.acquire(line.path, Batches())
    assert mine is not None
    waiting = asyncio.create_task(line.waits.until_free(line.job, line.path))
    await settle()
    mine.release()
    await line.clock.advance(LOCK_POLL_S)
    await eventually(waiting.done, "the wait is over")
