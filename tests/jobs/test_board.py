"""The table of jobs: what begins, is shared, parks, goes on, fails and ends, and when. No process, no disk, no time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from agent.config import Transfer
from agent.core.progress import FileProgress
from agent.core.states import State
from agent.core.target import Target
from agent.core.waits import ForDisk, ForLock, ForRateLimit, ForRetry, ForSlot, ForWindow, Wait
from agent.errors import Code
from agent.jobs.board import Board
from agent.jobs.run import NotNow
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.store.locks import Lock, Locks
from tests.fakes import (
    START,
    FakeClock,
    FakeDisk,
    FakeRunner,
    FakeStore,
    Inline,
    error,
    logged,
    published,
    settle,
    target,
    ticket,
)

CONFIG = Transfer(retry_min_s=2.0, retry_max_s=60.0)


class Table:
    """A board with everything that it works with in the test's hands."""

    def __init__(self) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.jobs: dict[Target, Job] = {}
        self.runner = FakeRunner()
        self.store = FakeStore()
        self.disk = FakeDisk()
        self.clock = FakeClock()
        self.feed = Feed()
        self.changes = self.feed.subscribe()
        self.config = CONFIG
        self.chance = 0.0
        self.board = Board(
            self.jobs,
            self.runner,
            self.store,
            self.disk,
            self.clock,
            self.feed,
            lambda: self.config,
            lambda: self.chance,
        )

    async def want(self, name: str = "qwen3", *, by: str = "a", priority: int = 5) -> Job:
        """A want for the model, which the store does not have."""
        job = self.board.subscribe(ticket(by), target(name), priority, None)
        await settle()
        return job

    async def moving(self, name: str = "qwen3", done: int = 0, total: int = 100) -> Job:
        """A job that downloads, with so many bytes done."""
        job = await self.want(name, by=f"for {name}")
        job.resolve()
        job.download()
        file = FileProgress("m.gguf", total)
        job.progress.begin([file], total)
        job.moved(file, done, State.DOWNLOADING, 0.0)
        return job

    async def until(self, wait: Wait, name: str = "qwen3") -> None:
        """The run of the model ends because it has to wait."""
        await self.runner.fail(name, NotNow(wait))


@pytest.fixture
async def table() -> Table:
    return Table()


def only_want(job: Job) -> object:
    (wanted,) = job.wanted_by
    return wanted


# What intake does


async def test_the_first_want_begins_a_job_and_the_others_share_it(table: Table) -> None:
    first = await table.want(by="a")
    second = await table.want(by="b")
    other = await table.want("mistral", by="a")
    assert first is second
    assert other is not first
    assert table.runner.active == ["qwen3", "mistral"]
    assert table.jobs == {first.target: first, other.target: other}


async def test_the_best_priority_of_those_who_share_counts(table: Table) -> None:
    a, b = ticket("a"), ticket("b")
    job = table.board.subscribe(a, target(), 7, None)
    table.board.subscribe(b, target(), 2, None)
    assert job.priority == 2
    table.board.unsubscribe(b, [job])
    assert job.priority == 7


async def test_what_the_store_has_is_ready_without_a_run(table: Table) -> None:
    job = table.board.subscribe(ticket(), target(), 5, published(target(), 7))
    await settle()
    assert (job.progress.state, job.progress.bytes_done, table.runner.runs) == (State.READY, 7, [])
    table.board.subscribe(ticket("b"), target(), 5, published(target(), 7))
    assert job.progress.attempt == 1


async def test_what_was_ready_and_is_not_in_the_store_any_more_is_fetched_for_the_next_want(table: Table) -> None:
    job = table.board.subscribe(ticket(), target(), 5, published(target()))
    assert await table.want(by="b") is job
    assert (table.runner.active, job.progress.attempt) == (["qwen3"], 2)
    await table.runner.finish("qwen3")
    assert job.progress.state is State.READY


async def test_a_run_that_is_under_way_publishes_itself(table: Table) -> None:
    job = await table.moving()
    table.board.subscribe(ticket("b"), target(), 5, published(target()))
    assert job.progress.state is State.DOWNLOADING
    assert len(table.runner.runs) == 1


@pytest.mark.parametrize(("code", "attempt"), [(Code.GATED, 2), (Code.STALLED, 2), (Code.DISK_FULL, 1)])
async def test_one_that_failed_or_waits_is_ready_once_the_store_has_it_and_stays_so(
    table: Table, code: Code, attempt: int
) -> None:
    """Another agent, or a person, has put it there meanwhile."""
    job = await table.want()
    await table.runner.fail("qwen3", error(code))
    table.board.subscribe(ticket("b"), target(), 5, published(target()))
    assert (job.progress.state, job.progress.attempt) == (State.READY, attempt)
    await table.clock.advance(1000)
    await table.board.resume_for_room()
    await settle()
    assert job.progress.state is State.READY
    assert len(table.runner.runs) == 1


async def test_a_new_want_for_a_job_that_waits_changes_nothing_of_that(table: Table) -> None:
    job = await table.want()
    await table.runner.fail("qwen3", error(Code.STALLED))
    assert await table.want(by="b") is job
    assert table.runner.active == []
    assert job.progress.state is State.WAITING


async def test_work_stops_with_its_last_want(table: Table) -> None:
    a, b = ticket("a"), ticket("b")
    job = table.board.subscribe(a, target(), 5, None)
    table.board.subscribe(b, target(), 5, None)
    await settle()
    table.changes.take()
    table.board.unsubscribe(a, [job])
    await settle()
    assert (table.runner.active, table.changes.take()) == (["qwen3"], {})
    table.board.unsubscribe(b, [job])
    await settle()
    assert (table.runner.active, len(table.runner.cancelled), table.jobs) == ([], 1, {})
    assert table.changes.take() == {job: Change.GONE}
    table.board.unsubscribe(b, [job])  # it has left already
    assert table.changes.take() == {}


async def test_a_want_that_comes_back_while_its_old_run_still_stops_gets_a_run_of_its_own(table: Table) -> None:
    table.runner.slow_to_stop = asyncio.Event()
    old = await table.want()
    table.board.unsubscribe(only_want(old), [old])  # type: ignore[arg-type]
    new = await table.want(by="b")
    assert new is not old
    assert len(table.runner.runs) == 2
    table.runner.slow_to_stop.set()
    await settle()
    assert table.jobs == {new.target: new}
    await table.runner.finish("qwen3")
    assert new.progress.state is State.READY
    assert old.progress.state is not State.READY


async def test_one_of_several_that_leaves_does_not_disturb_the_next_job_for_the_same_target(table: Table) -> None:
    old = await table.want()
    mine = only_want(old)
    table.board.unsubscribe(mine, [old])  # type: ignore[arg-type]
    new = await table.want(by="b")
    table.board.unsubscribe(mine, [old])  # type: ignore[arg-type]
    assert table.jobs == {new.target: new}


async def test_an_appointment_ends_with_the_last_want(table: Table) -> None:
    job = await table.want()
    await table.runner.fail("qwen3", error(Code.STALLED))
    assert len(table.clock.appointments) == 1
    table.board.unsubscribe(only_want(job), [job])  # type: ignore[arg-type]
    assert table.clock.appointments == {}


# How a run ends


async def test_a_run_that_ends_well_is_ready(table: Table) -> None:
    job = await table.want()
    await table.clock.advance(2.5)
    with logged() as lines:
        await table.runner.finish("qwen3", 7)
    assert (job.progress.state, job.progress.path, job.progress.attempt) == (State.READY, "/models/qwen3/m.gguf", 1)
    assert lines == ["INFO qwen3 ready after 2.5 s: /models/qwen3/m.gguf"]
    assert table.runner.active == []


async def test_what_time_does_not_mend_fails_at_once_and_says_which_model(table: Table) -> None:
    job = await table.want()
    with logged() as lines:
        await table.runner.fail("qwen3", error(Code.GATED))
    assert job.progress.state is State.FAILED
    assert job.progress.error is not None
    assert (job.progress.error.code, job.progress.error.model) == (Code.GATED, "qwen3")
    assert lines == ["ERROR qwen3 failed: it is gated (gated)"]
    await table.clock.advance(10_000)
    assert len(table.runner.runs) == 1


async def test_an_error_that_knows_its_model_keeps_it(table: Table) -> None:
    job = await table.want()
    why = error(Code.GATED)
    why.model = "another"
    await table.runner.fail("qwen3", why)
    assert job.progress.error is not None
    assert job.progress.error.model == "another"


async def test_a_passing_fault_is_tried_again_when_its_time_comes(table: Table) -> None:
    job = await table.want()
    why = error(Code.STALLED)
    await table.runner.fail("qwen3", why)
    until = table.clock.now() + timedelta(seconds=2)
    assert job.progress.waiting == ForRetry(until, why)
    assert job.progress.attempt == 2
    await table.clock.advance(1.9)
    assert table.runner.active == []
    await table.clock.advance(0.1)
    assert table.runner.active == ["qwen3"]
    await table.runner.finish("qwen3")
    assert (job.progress.state, job.progress.attempt) == (State.READY, 2)


async def waits(table: Table, count: int) -> list[float]:
    """Seconds that the next failures wait."""
    seconds = []
    for _ in range(count):
        before = table.clock.now()
        await table.runner.fail("qwen3", error(Code.STALLED))
        waiting = table.jobs[target()].progress.waiting
        assert isinstance(waiting, ForRetry)
        seconds.append((waiting.until - before).total_seconds())
        await table.clock.advance(seconds[-1])
    return seconds


async def test_the_pause_grows_within_its_bounds_and_follows_the_configuration(table: Table) -> None:
    await table.want()
    table.chance = 0.5
    assert await waits(table, 6) == [3.0, 5.0, 9.0, 17.0, 31.0, 31.0]
    table.config = Transfer(retry_min_s=10.0, retry_max_s=20.0)
    assert await waits(table, 1) == [15.0]


async def test_the_pause_counts_from_the_last_progress(table: Table) -> None:
    job = await table.want()
    table.chance = 0.5
    assert await waits(table, 3) == [3.0, 5.0, 9.0]
    job.resolve()
    job.download()
    file = FileProgress("m.gguf", 100)
    job.progress.begin([file], 100)
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    assert await waits(table, 2) == [3.0, 5.0]  # then no more came
    job.moved(file, 2, State.DOWNLOADING, 0.0)
    assert await waits(table, 1) == [3.0]


async def test_what_a_server_asked_for_is_kept_to_and_shown_as_a_rate_limit(table: Table) -> None:
    job = await table.want()
    table.chance = 0.5
    await table.runner.fail("qwen3", error(Code.RATE_LIMITED, retry_after_s=60))
    assert job.progress.waiting == ForRateLimit(table.clock.now() + timedelta(seconds=61))
    await table.clock.advance(60.9)
    assert table.runner.active == []
    await table.clock.advance(0.1)
    assert table.runner.active == ["qwen3"]


async def test_another_fault_with_a_time_to_come_back_is_a_retry(table: Table) -> None:
    job = await table.want()
    await table.runner.fail("qwen3", error(Code.HUB_UNREACHABLE, retry_after_s=30))
    assert isinstance(job.progress.waiting, ForRetry)
    assert job.progress.waiting.until == table.clock.now() + timedelta(seconds=30)


async def test_a_fault_of_the_agent_itself_is_logged_whole_and_tried_again(table: Table) -> None:
    job = await table.want()
    with logged() as lines:
        await table.runner.fail("qwen3", ZeroDivisionError("oh"))
    waiting = job.progress.waiting
    assert isinstance(waiting, ForRetry)
    assert (waiting.because.code, waiting.because.message) == (Code.INTERNAL, "ZeroDivisionError in the agent")
    assert "ERROR a fault of wantd itself, in the job for qwen3" in lines[0]
    assert "ZeroDivisionError: oh" in "\n".join(lines)
    await table.clock.advance(waiting.until.timestamp() - table.clock.now().timestamp())
    assert table.runner.active == ["qwen3"]


async def test_nothing_is_kept_of_a_run_that_failed_when_nobody_wanted_it_any_more(table: Table) -> None:
    for ending in (error(Code.STALLED), error(Code.DISK_FULL), NotNow(ForDisk(1, 0))):
        job = await table.want()
        run = table.runner.latest("qwen3")
        job.wanted_by.clear()
        await table.runner.fail("qwen3", ending)
        assert run.job is job
        assert job.progress.waiting is None
        assert table.clock.appointments == {}
        table.jobs.clear()


async def test_failures_are_forgotten_with_the_job_and_with_success(table: Table) -> None:
    table.chance = 0.5
    await table.want()
    assert await waits(table, 2) == [3.0, 5.0]
    await table.runner.finish("qwen3")
    job = table.jobs[target()]
    table.store.models.clear()
    await table.board.recheck()
    await settle()
    assert await waits(table, 2) == [3.0, 5.0]
    wanted = only_want(job)
    table.board.unsubscribe(wanted, [job])  # type: ignore[arg-type]
    await table.want()
    assert await waits(table, 1) == [3.0]


# A touched want


@pytest.mark.parametrize("code", [Code.STALLED, Code.RATE_LIMITED, Code.GATED])
async def test_a_job_that_failed_or_waits_for_a_time_is_tried_at_once_when_asked(table: Table, code: Code) -> None:
    table.chance = 0.5
    job = await table.want()
    await table.runner.fail("qwen3", error(code))
    attempt = job.progress.attempt
    table.board.retry_now(job)
    await settle()
    assert (table.runner.active, job.progress.state, job.progress.attempt) == (["qwen3"], State.QUEUED, attempt + 1)
    assert table.clock.appointments == {}
    assert await waits(table, 1) == [3.0]  # counted from the first again


@pytest.mark.parametrize("wait", [ForDisk(10, 5), None])
async def test_one_that_moves_or_waits_for_something_else_is_left_alone(table: Table, wait: Wait | None) -> None:
    job = await table.want()
    if wait:
        await table.until(wait)
    table.board.retry_now(job)
    await settle()
    assert len(table.runner.runs) == 1


async def test_one_whose_run_itself_waits_is_left_alone(table: Table) -> None:
    job = await table.want()
    for wait in (ForLock(None), ForSlot(), ForRetry(table.clock.now(), error())):
        job.wait(wait)
        table.board.retry_now(job)
        await settle()
    assert len(table.runner.runs) == 1


async def test_a_ready_job_is_left_alone(table: Table) -> None:
    job = table.board.subscribe(ticket(), target(), 5, published(target()))
    table.board.retry_now(job)
    await settle()
    assert (table.runner.runs, job.progress.attempt) == ([], 1)


# Disk space


async def test_a_full_disk_parks_the_job_until_there_is_room_for_the_rest(table: Table) -> None:
    job = await table.moving(done=30)
    table.disk.free_bytes = 20
    await table.runner.fail("qwen3", error(Code.DISK_FULL))
    assert job.progress.waiting == ForDisk(70, 20)
    assert table.clock.appointments == {}
    assert job.progress.attempt == 1
    for free in (0, 69):
        table.disk.free_bytes = free
        await table.board.resume_for_room()
        await settle()
        assert table.runner.active == []
    table.disk.free_bytes = 70
    await table.board.resume_for_room()
    await settle()
    assert table.runner.active == ["qwen3"]


async def test_a_full_disk_before_there_is_a_plan_needs_something(table: Table) -> None:
    job = await table.want()
    await table.runner.fail("qwen3", error(Code.DISK_FULL))
    assert job.progress.waiting == ForDisk(1, 1000)


async def test_a_shortage_of_room_parks_the_job_as_it_is(table: Table) -> None:
    job = await table.want()
    await table.until(ForDisk(500, 100))
    assert job.progress.waiting == ForDisk(500, 100)
    table.disk.free_bytes = 500
    await table.board.resume_for_room()
    await settle()
    assert table.runner.active == ["qwen3"]


async def test_the_best_priority_gets_the_room_and_what_is_left_goes_to_who_fits(table: Table) -> None:
    needs = {"large": (300, 9), "urgent": (500, 0), "small": (150, 9), "huge": (800, 4)}
    for name, (need, priority) in needs.items():
        await table.want(name, by=name, priority=priority)
        await table.until(ForDisk(need, 0), name)
    table.disk.free_bytes = 820
    await table.board.resume_for_room()
    await settle()
    assert table.runner.active == ["urgent", "large"]
    table.disk.free_bytes = 150  # what those two have reserved is no longer free
    await table.board.resume_for_room()
    await settle()
    assert table.runner.active == ["urgent", "large", "small"]


async def test_the_disk_is_not_asked_while_nobody_waits_for_it(table: Table) -> None:
    class Unasked(FakeDisk):
        def free(self) -> int:
            raise AssertionError

    await table.want()
    board = Board(table.jobs, table.runner, table.store, Unasked(), table.clock, table.feed, lambda: CONFIG)
    await board.resume_for_room()


# The store


async def test_a_model_that_has_gone_from_the_store_is_fetched_again(table: Table) -> None:
    here = table.board.subscribe(ticket("a"), target("here"), 5, table.store.publish(target("here")))
    gone = table.board.subscribe(ticket("b"), target("gone"), 5, table.store.publish(target("gone")))
    moving = await table.want("moving", by="c")
    del table.store.models[target("gone")]
    with logged() as lines:
        await table.board.recheck()
    await settle()
    assert lines == ["WARNING gone: incomplete or changed in the store; fetching what is wrong"]
    assert sorted(table.runner.active) == ["gone", "moving"]
    assert (here.progress.state, gone.progress.attempt) == (State.READY, 2)
    assert moving.target not in table.store.looked


async def test_one_that_is_no_longer_wanted_or_was_begun_while_the_store_was_looked_at_is_left_alone(
    table: Table,
) -> None:
    a = ticket("a")
    dropped = table.board.subscribe(a, target("dropped"), 5, table.store.publish(target("dropped")))
    begun = table.board.subscribe(ticket("b"), target("begun"), 5, table.store.publish(target("begun")))
    table.store.models.clear()

    def meanwhile(_: Target) -> None:
        table.board.unsubscribe(a, [dropped])
        if begun.progress.state is State.READY:
            table.board.subscribe(ticket("c"), target("begun"), 5, None)

    table.store.on_look = meanwhile
    await table.board.recheck()
    await settle()
    assert [run.job.target.name for run in table.runner.runs] == ["begun"]
    assert begun.progress.attempt == 2


async def test_a_store_that_can_be_written_again_is_used(table: Table) -> None:
    job = await table.want()
    other = await table.want("gated", by="b")
    await table.runner.fail("qwen3", error(Code.STORE_UNWRITABLE))
    await table.runner.fail("gated", error(Code.GATED))
    table.store.writable = False
    await table.board.recheck()
    await settle()
    assert (table.runner.active, job.progress.state) == ([], State.FAILED)
    table.store.writable = True
    await table.board.recheck()
    await settle()
    assert (table.runner.active, job.progress.attempt) == (["qwen3"], 2)
    assert other.progress.state is State.FAILED


# Reports, and the end


async def test_a_held_lock_shows_how_far_its_job_is(table: Table) -> None:
    job = await table.moving(done=30)
    await table.want("unlocked", by="b")
    lock = Lock("/models/.locks/qwen3.lock", None, Locks())
    table.runner.latest("qwen3").lock = lock
    table.board.report_to_locks()
    assert lock.progress == pytest.approx(0.3)
    assert job.progress.fraction == pytest.approx(0.3)


async def test_partials_are_wanted_while_their_job_is(table: Table) -> None:
    a = ticket("a")
    job = table.board.subscribe(a, target(), 5, None)
    other = await table.want("other", by="b")
    job.partial_keys |= {"k1", "k2"}
    other.partial_keys.add("k3")
    assert set(table.board.wanted_partials()) == {"k1", "k2", "k3"}
    table.board.unsubscribe(a, [job])
    assert set(table.board.wanted_partials()) == {"k3"}


async def test_it_stops_everything_and_waits_for_what_was_stopping_already(table: Table) -> None:
    table.runner.slow_to_stop = asyncio.Event()
    a = ticket("a")
    leaving = table.board.subscribe(a, target("leaving"), 5, None)
    await table.want("staying", by="b")
    table.board.unsubscribe(a, [leaving])
    await settle()
    stopping = asyncio.create_task(table.board.stop())
    await settle()
    assert not stopping.done()
    assert len(table.runner.cancelled) == 0
    table.runner.slow_to_stop.set()
    await stopping
    assert len(table.runner.cancelled) == 2
    assert table.runner.active == []


async def test_the_clock_starts_nothing_that_runs_or_is_not_wanted(table: Table) -> None:
    job = await table.want()
    await table.runner.fail("qwen3", error(Code.STALLED))
    ((_, resume),) = table.clock.appointments.values()
    wanted = dict(job.wanted_by)
    job.wanted_by.clear()
    await resume()
    await settle()
    assert len(table.runner.runs) == 1
    job.wanted_by.update(wanted)
    await resume()
    await resume()
    await settle()
    assert len(table.runner.runs) == 2


# Windows


async def test_a_window_that_pauses_stops_downloads_and_its_end_resumes_them(table: Table) -> None:
    moving, urgent = await table.moving("a", done=40), await table.moving("b")
    parked = await table.want("c")
    await table.until(ForWindow(None), "c")
    pause = ForWindow(START + timedelta(hours=8))

    def holds(job: Job) -> ForWindow | None:
        return None if job is urgent else pause

    await table.board.obey_windows(holds)
    assert (moving.progress.waiting, moving.progress.bytes_done) == (pause, 40)
    assert urgent.progress.state is State.DOWNLOADING
    assert table.runner.active == ["b"]
    await table.board.obey_windows(holds)
    assert table.runner.active == ["b"]
    await table.board.obey_windows(lambda _: None)
    await settle()
    assert sorted(table.runner.active) == ["a", "b", "c"]
    await table.runner.finish("c")
    assert parked.progress.state is State.READY


async def test_a_want_that_goes_away_in_a_pause_is_not_resumed(table: Table) -> None:
    job = await table.moving()
    await table.board.obey_windows(lambda _: ForWindow(None))
    table.board.unsubscribe(only_want(job), [job])  # type: ignore[arg-type]
    await table.board.obey_windows(lambda _: None)
    await settle()
    assert table.runner.active == []
