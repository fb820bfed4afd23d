"""Progress files: what is written when, for thousands of wants at once, and on a disk that takes nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.core.limits import SLICE_MODELS
from agent.core.progress import AgentInfo, FileProgress
from agent.core.states import State
from agent.core.waits import NotBefore
from agent.core.want import Want, WantedModel
from agent.core.words import timestamp
from agent.errors import Code
from agent.reports.progress_files import BATCH, BYTES_SHARE, SPREAD, UNWRITABLE_WARNINGS, ProgressFiles
from agent.state.feed import BACKLOG, Feed
from agent.state.job import Job
from agent.state.ticket import Ticket
from tests.fakes import START, FakeClock, Inline, error, eventually, logged, published, settle, target

INTERVAL_S = 0.5


class WatchedTicket(Ticket):
    """`on_look` is called with its path when its progress file is made."""

    __slots__ = ("on_look",)
    on_look: Callable[[str], object]

    @property
    def attempts(self) -> int:
        self.on_look(self.path)
        return 1


class Desk:
    """A writer of progress files in a spool of the test, which runs while the test lets it."""

    def __init__(self, spool: Path) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.spool = spool
        self.clock = FakeClock()
        self.feed = Feed()
        self.interval_s = INTERVAL_S
        self.files = ProgressFiles(
            AgentInfo(4711, "gpu-7", "0.1.0"), str(spool), self.feed, self.clock, lambda: self.interval_s
        )
        self._serving: asyncio.Task[None] | None = None

    async def go(self) -> None:
        """Let it write what is due."""
        if self._serving is None:
            self._serving = asyncio.create_task(self.files.serve())
        self.files.retry_unwritable()  # wakes it: its waits are in real time
        await settle()

    async def later(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        await self.go()

    async def stop(self) -> None:
        if self._serving:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    def ticket(self, name: str = "a", *jobs: Job) -> Ticket:
        """A want that asks for these."""
        return self._asking(Ticket(str(self.spool / f"{name}.want"), self.clock.now()), jobs)

    def watched(self, on_look: Callable[[str], object], name: str, *jobs: Job) -> Ticket:
        """The same, and it is noticed when its progress file is made."""
        ticket = WatchedTicket(str(self.spool / f"{name}.want"), self.clock.now())
        ticket.on_look = on_look
        self._asking(ticket, jobs)
        return ticket

    def _asking(self, ticket: Ticket, jobs: Sequence[Job]) -> Ticket:
        ticket.want = Want(tuple(WantedModel(job.target.model) for job in jobs), labels={"team": "x"})
        ticket.parts = jobs
        for job in jobs:
            job.add(ticket, 5)
        return ticket

    def job(self, name: str = "qwen3", total: int = 100) -> tuple[Job, FileProgress]:
        """A job that downloads one file."""
        job = Job(target(name), self.feed)
        job.resolve()
        file = FileProgress("m.gguf", total)
        job.progress.begin([file], total)
        job.download()
        return job, file

    def read(self, name: str = "a") -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.spool / f"{name}.progress").read_bytes())
        return value

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.spool))

    @property
    def counts(self) -> dict[State, int]:
        return {state: count for state, count in self.files.counts.items() if count}


@pytest.fixture
async def desk(tmp_path: Path) -> Any:
    desk = Desk(tmp_path)
    yield desk
    await desk.stop()


async def test_a_want_has_its_progress_file_as_soon_as_it_is_told_of(desk: Desk) -> None:
    job, _ = desk.job()
    ticket = desk.ticket("a", job)
    ticket.started_at = desk.clock.now()
    desk.feed.changed(ticket)
    await desk.go()
    said = desk.read()
    assert (said["want"], said["state"], said["attempt"]) == ("a.want", "downloading", 1)
    assert (said["labels"], said["created_at"]) == ({"team": "x"}, timestamp(START))
    assert (said["started_at"], said["finished_at"]) == (timestamp(START), None)
    assert said["agent"] == {"pid": 4711, "host": "gpu-7", "version": "0.1.0"}
    assert said["models"][0]["model"] == "qwen3"


async def test_a_change_of_a_jobs_state_is_written_at_once_for_every_want(desk: Desk) -> None:
    job, _ = desk.job()
    await desk.go()
    desk.ticket("first", job)
    for number in range(SPREAD + BATCH):
        desk.ticket(f"away/w{number}", job)  # nothing to write there: it goes faster
    desk.ticket("last", job)
    job.verify()
    await desk.go()
    await eventually(lambda: desk.counts == {State.VERIFYING: SPREAD + BATCH + 2}, "all are counted")
    await eventually(lambda: desk.names == ["first.progress", "last.progress"], "both are written")


async def test_byte_counts_are_written_once_in_an_interval_and_show_the_newest(desk: Desk) -> None:
    job, file = desk.job()
    desk.feed.changed(desk.ticket("a", job))
    await desk.go()
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    await desk.go()
    assert desk.read()["bytes_done"] == 1
    for done in (2, 3):
        job.moved(file, done, State.DOWNLOADING, 0.1)
        await desk.later(INTERVAL_S / 2 - 0.01)
        assert desk.read()["bytes_done"] == 1
    await desk.later(0.02)
    assert desk.read()["bytes_done"] == 3
    desk.interval_s = 10.0
    job.moved(file, 4, State.DOWNLOADING, 0.2)
    await desk.later(INTERVAL_S)
    assert desk.read()["bytes_done"] == 4
    job.moved(file, 5, State.DOWNLOADING, 0.3)
    await desk.later(9.9)
    assert desk.read()["bytes_done"] == 4
    await desk.later(0.2)
    assert desk.read()["bytes_done"] == 5


async def test_a_tenth_and_a_state_do_not_wait_for_the_interval(desk: Desk) -> None:
    job, file = desk.job()
    desk.feed.changed(desk.ticket("a", job))
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    await desk.go()
    job.moved(file, 10, State.DOWNLOADING, 0.1)
    await desk.go()
    assert desk.read()["bytes_done"] == 10
    job.moved(file, 11, State.DOWNLOADING, 0.1)
    job.fail(error(Code.GATED))
    await desk.go()
    assert (desk.read()["state"], desk.read()["bytes_done"]) == ("failed", 11)


async def test_states_are_written_before_byte_counts(desk: Desk) -> None:
    (job, file), (other, _) = desk.job(), desk.job("other")
    await desk.go()
    order: list[str] = []
    for number in range(BATCH):
        desk.watched(order.append, f"bytes{number}", job)
    desk.watched(order.append, "state", other)
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    other.verify()
    desk.feed.changed(desk.watched(order.append, "new"))
    await desk.go()
    assert sorted(order[:2]) == [f"{desk.spool}/new.want", f"{desk.spool}/state.want"]
    assert len(order) > 2


async def test_a_flood_in_one_directory_keeps_no_other_waiting(desk: Desk) -> None:
    order: list[str] = []
    for number in range(2 * BATCH):
        desk.feed.changed(desk.watched(order.append, f"flood/{number}"))
    desk.feed.changed(desk.watched(order.append, "other/a"))
    await desk.go()
    assert order.index(f"{desk.spool}/other/a.want") == 1
    assert order[2] == f"{desk.spool}/flood/{2 * BATCH - 1}.want"  # nor does the newest wait for the oldest


async def test_many_changes_of_one_want_before_it_is_written_are_one_file(desk: Desk) -> None:
    job, file = desk.job()
    ticket = desk.ticket("a", job)
    inodes = set()
    for _ in range(3):
        for done in range(10, 40, 10):
            job.moved(file, done, State.DOWNLOADING, 0.0)
            desk.feed.changed(ticket)
        await desk.go()
        inodes.add(os.stat(desk.spool / "a.progress").st_ino)
    assert desk.read()["bytes_done"] == 30


async def test_a_want_that_is_gone_has_no_progress_file_and_counts_no_more(desk: Desk) -> None:
    job, file = desk.job()
    ticket = desk.ticket("a", job)
    desk.feed.changed(ticket)
    await desk.go()
    assert desk.counts == {State.DOWNLOADING: 1}
    ticket.gone = True
    desk.feed.gone(ticket)
    job.moved(file, 50, State.DOWNLOADING, 0.0)  # its job, which another still wants, goes on
    await desk.go()
    await desk.later(1)
    assert desk.names == []
    assert desk.counts == {}


async def test_wants_are_counted_by_the_state_that_was_written(desk: Desk) -> None:
    job, _ = desk.job()
    for name in ("a", "b"):
        desk.feed.changed(desk.ticket(name, job))
    waiting = desk.ticket("c")
    waiting.waiting = NotBefore(START)
    desk.feed.changed(waiting)
    await desk.go()
    assert desk.counts == {State.DOWNLOADING: 2, State.WAITING: 1}
    desk.feed.changed(waiting)
    job.ready(published(job.target))
    await desk.go()
    assert desk.counts == {State.READY: 2, State.WAITING: 1}
    assert desk.read("c")["waiting"]["for"] == "not_before"


async def test_the_end_of_a_want_is_timed_once(desk: Desk) -> None:
    job, _ = desk.job()
    ticket = desk.ticket("a", job)
    job.ready(published(job.target))
    await desk.go()
    assert desk.read()["finished_at"] == timestamp(START)
    await desk.later(60)
    desk.feed.changed(ticket)
    await desk.go()
    assert desk.read()["finished_at"] == timestamp(START)
    assert desk.read()["updated_at"] == timestamp(desk.clock.now())


async def test_the_fraction_never_falls_within_an_attempt(desk: Desk) -> None:
    job, file = desk.job()
    ticket = desk.ticket("a", job)
    job.moved(file, 50, State.DOWNLOADING, 0.0)
    await desk.go()
    assert desk.read()["progress"] == ticket.fraction == 0.5
    job.moved(file, 20, State.DOWNLOADING, 0.1)
    desk.feed.changed(ticket)
    await desk.go()
    assert (desk.read()["progress"], desk.read()["bytes_done"]) == (0.5, 20)
    ticket.resume()
    desk.feed.changed(ticket)
    await desk.go()
    assert desk.read()["progress"] == 0.2


# What an earlier agent left


async def written_before(desk: Desk, **change: Any) -> tuple[Ticket, int]:
    """A progress file of an agent that ran before, which said the same but for the change; and its inode."""
    job, _ = desk.job()
    ticket = desk.ticket("a", job)
    job.ready(published(job.target))
    desk.feed.changed(ticket)
    await desk.go()
    said = desk.read() | {"agent": {"pid": 1}, "created_at": "then", "updated_at": "then", "finished_at": "then"}
    (desk.spool / "a.progress").write_text(json.dumps(said | change))
    ticket.shown = None  # the next agent has not written it yet
    return ticket, os.stat(desk.spool / "a.progress").st_ino


async def test_one_that_says_the_same_is_not_written_again(desk: Desk) -> None:
    ticket, inode = await written_before(desk)
    desk.feed.changed(ticket)
    await desk.go()
    assert os.stat(desk.spool / "a.progress").st_ino == inode
    desk.feed.changed(ticket)  # now it is ours
    await desk.go()
    assert os.stat(desk.spool / "a.progress").st_ino != inode


@pytest.mark.parametrize("change", [{"state": "queued"}, {"attempt": 2}, {"more": 1}, {"labels": {}}])
async def test_one_that_says_something_else_is_written_again(desk: Desk, change: dict[str, Any]) -> None:
    ticket, _ = await written_before(desk, **change)
    desk.feed.changed(ticket)
    await desk.go()
    assert desk.read()["agent"]["pid"] == 4711


@pytest.mark.parametrize("content", ["", "[]", "{", '{"padding": "' + "x" * 100_000 + '"}'])
async def test_what_is_no_progress_file_is_written_over(desk: Desk, content: str) -> None:
    (desk.spool / "a.progress").write_text(content)
    desk.feed.changed(desk.ticket())
    await desk.go()
    assert desk.read()["want"] == "a.want"


# A disk that takes nothing


def block(path: Path) -> None:
    """Nothing can be renamed to it: there is a directory that is not empty."""
    (path / "in the way").mkdir(parents=True)


def unblock(path: Path) -> None:
    (path / "in the way").rmdir()
    path.rmdir()


async def test_one_that_cannot_be_written_is_said_once_and_tried_again(desk: Desk) -> None:
    block(desk.spool / "a.progress")
    ticket, other = desk.ticket("a"), desk.ticket("b")
    with logged("WARNING") as lines:
        for each in (ticket, other):
            desk.feed.changed(each)
        await desk.go()
        assert desk.read("b")["state"] == "queued"
        (line,) = lines
        assert line.startswith(f"WARNING cannot write the progress file of '{ticket.path}' (")
        assert (ticket.unwritable, other.unwritable) == ("Is a directory", None)
        assert desk.files.unwritable == {ticket: "Is a directory"}
        await desk.go()
        assert len(lines) == 1
    unblock(desk.spool / "a.progress")
    await desk.go()
    assert desk.read()["state"] == "queued"
    assert (ticket.unwritable, desk.files.unwritable) == (None, {})


async def test_one_that_is_gone_is_not_tried_again(desk: Desk) -> None:
    block(desk.spool / "a.progress")
    ticket = desk.ticket()
    desk.feed.changed(ticket)
    await desk.go()
    ticket.gone = True
    desk.feed.gone(ticket)
    await desk.go()
    assert desk.files.unwritable == {}


async def test_a_directory_that_went_away_is_no_failure(desk: Desk) -> None:
    ticket = desk.ticket("away/a")
    with logged("WARNING") as lines:
        desk.feed.changed(ticket)
        await desk.go()
    assert (lines, ticket.unwritable, desk.names) == ([], None, [])


async def test_a_directory_full_of_them_is_a_few_lines(desk: Desk) -> None:
    for number in range(UNWRITABLE_WARNINGS + 3):
        block(desk.spool / f"w{number}.progress")
        desk.feed.changed(desk.ticket(f"w{number}"))
    with logged("WARNING") as lines:
        await desk.go()
        assert len(lines) == UNWRITABLE_WARNINGS
        await desk.go()
        await desk.go()
    assert lines[UNWRITABLE_WARNINGS:] == ["WARNING cannot write 3 more progress files"]


async def test_a_want_of_many_models_is_shown_whole_and_leaves_others_their_turn(desk: Desk) -> None:
    job, file = desk.job()
    many = desk.ticket("many", *[job] * (3 * SLICE_MODELS + 1))
    desk.feed.changed(many)
    desk.feed.changed(desk.ticket("few"))
    await desk.go()
    assert desk.read("few")["state"] == "queued"
    assert len(desk.read("many")["models"]) == 3 * SLICE_MODELS + 1
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    job.verify()
    await desk.later(1.0)
    assert {model["state"] for model in desk.read("many")["models"]} == {"verifying"}


async def test_a_want_of_many_models_that_goes_has_no_progress_file(desk: Desk) -> None:
    job, _ = desk.job()
    many = desk.ticket("many", *[job] * (SLICE_MODELS + 1))
    desk.feed.changed(many)
    await desk.go()
    job.verify()
    many.gone = True
    desk.feed.gone(many)
    await desk.later(1.0)
    assert not (desk.spool / "many.progress").exists()
    assert desk.files.counts.total() == 0


# The end, and those who wait for it


async def test_at_the_end_all_that_is_left_is_written(desk: Desk) -> None:
    job, file = desk.job()
    other, _ = desk.job("other")
    for number in range(SPREAD + 5):
        desk.ticket(f"w{number}", job)
    desk.ticket("other", other)
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    other.verify()
    desk.feed.changed(desk.ticket("new"))
    await desk.files.drain()
    assert len(desk.names) == SPREAD + 7
    assert {desk.read(name)["state"] for name in ("w0", "other", "new")} == {"downloading", "verifying", "queued"}
    await desk.files.drain()  # nothing is left


async def test_intake_waits_while_too_many_states_are_to_be_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for number in range(5000):
        desk.feed.changed(Ticket(f"/nowhere/{number}.want", START))
    serving = asyncio.create_task(desk.files.serve())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(desk.feed.wait_for_capacity())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    await eventually(waiting.done, "there is capacity again")
    serving.cancel()


async def test_byte_counts_of_thousands_take_a_quarter_of_the_time(desk: Desk) -> None:
    """To look at a want takes a hundredth of a second of the agent's clock here."""
    taken = [0.0]

    class Slow(FakeClock):
        def monotonic(self) -> float:
            return super().monotonic() + taken[0]

    clock = Slow()
    job, file = desk.job()
    files = ProgressFiles(AgentInfo(1, "gpu-7", "0.1.0"), str(desk.spool), desk.feed, clock, lambda: INTERVAL_S)

    def look(_: str) -> None:
        taken[0] += 0.01

    for number in range(2 * BATCH):
        desk.watched(look, f"w{number}", job)
    job.moved(file, 1, State.DOWNLOADING, 0.0)
    serving = asyncio.create_task(files.serve())
    await settle()
    assert taken == [pytest.approx(BATCH * 0.01)]  # one batch, though two wait
    await clock.advance(BATCH * 0.01 / BYTES_SHARE - 0.1)
    files.retry_unwritable()
    await settle()
    assert taken == [pytest.approx(BATCH * 0.01)]
    await clock.advance(0.2)
    files.retry_unwritable()
    await settle()
    assert taken[0] > BATCH * 0.01
    serving.cancel()


async def test_only_wants_without_a_progress_file_hold_intake_back(desk: Desk) -> None:
    tickets = [desk.ticket(f"w{number}") for number in range(BACKLOG)]
    for ticket in tickets:
        ticket.shown = State.WAITING
        desk.feed.changed(ticket)
    desk.files._sort()
    await desk.feed.wait_for_capacity()
    for ticket in tickets:
        ticket.shown = None
        desk.feed.changed(ticket)
    desk.files._sort()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(desk.feed.wait_for_capacity(), 0)
    await desk.files.drain()
    await desk.feed.wait_for_capacity()
