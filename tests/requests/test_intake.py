"""Intake: what a want's file says now is what is done, whatever was done before. No process, no spool, no time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import orjson
import pytest

from agent.config import Transfer
from agent.core.catalog import Catalog, parse_catalog
from agent.core.limits import SLICE_MODELS
from agent.core.states import State
from agent.core.target import Target
from agent.core.waits import ForRetry, NotBefore
from agent.core.want import parse_want
from agent.errors import Code, WantdError
from agent.jobs.board import Board
from agent.requests.intake import APPOINTMENT_MAX_S, STORE_LOOK_S, Intake
from agent.requests.lookout import Look
from agent.requests.read import Seen
from agent.spool.files import Stamp
from agent.state.feed import BACKLOG, Change, Feed
from agent.state.job import Job
from agent.state.ticket import Ticket
from tests.fakes import START, FakeClock, FakeDisk, FakeRunner, FakeStore, Inline, error, logged, settle


def catalog(**repos: str) -> Catalog:
    return parse_catalog(orjson.dumps([{"id": name, "repo": repo} for name, repo in repos.items()]))


class FakeLookout:
    """Gives looks that the test puts in, and remembers what it is told."""

    def __init__(self) -> None:
        self.looks: asyncio.Queue[Look] = asyncio.Queue()
        self.again: list[str] = []
        self.settled_paths: list[str] = []
        self.put_back_paths: list[tuple[str, bool]] = []
        self.closed = False

    async def next(self) -> Look:
        return await self.looks.get()

    def look_again(self, path: str) -> None:
        self.again.append(path)

    def settled(self, path: str) -> None:
        self.settled_paths.append(path)

    def put_back(self, paths: list[tuple[str, bool]]) -> None:
        self.put_back_paths += paths

    def close(self) -> None:
        self.closed = True


class Spool:
    """An intake with everything that it works with in the test's hands, and the files that it reads."""

    def __init__(self) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.files: dict[str, tuple[Stamp, bytes]] = {}
        self.busy: set[str] = set()
        self.unreadable: set[str] = set()
        self.reads: list[tuple[str, bool]] = []
        self.number = 0
        self.tickets: dict[str, Ticket] = {}
        self.jobs: dict[Target, Job] = {}
        self.lookout = FakeLookout()
        self.runner = FakeRunner()
        self.store = FakeStore()
        self.clock = FakeClock()
        self.feed = Feed()
        self.changes = self.feed.subscribe()
        self.catalog = catalog(qwen3="org/qwen3", mistral="org/mistral", phi="org/phi")
        self.asked = 0  # how often
        self.policy: str | list[str] = "catalog"
        config = Transfer(retry_min_s=2.0)
        self.board = Board(
            self.jobs, self.runner, self.store, FakeDisk(), self.clock, self.feed, lambda: config, lambda: 0.0
        )
        self.intake = Intake(
            self.tickets,
            self.lookout,
            self.board,
            self.clock,
            self.feed,
            self.store.published,
            self.give_catalog,
            lambda: self.policy,
            lambda paths: [self.read(path, closed) for path, closed in paths],
        )

    def give_catalog(self) -> Catalog:
        self.asked += 1
        return self.catalog

    def read(self, path: str, closed: bool) -> Seen:
        self.reads.append((path, closed))
        if path in self.busy:
            return Seen(path, still=True)
        if path not in self.files:
            return Seen(path)
        stamp, data = self.files[path]
        if path in self.unreadable:
            return Seen(path, stamp, error=WantdError(Code.WANT_UNREADABLE, "cannot read", "mend it"))
        seen = Seen(path, stamp, digest=data)
        try:
            seen.want = parse_want(path.rpartition("/")[2], data)
        except WantdError as error:
            seen.error = error
        return seen

    def put(self, content: object = "", name: str = "a") -> str:
        """A want's file is written, with a stamp of its own."""
        self.number += 1
        data = content.encode() if isinstance(content, str) else orjson.dumps(content)
        path = f"/spool/{name}.want"
        self.files[path] = Stamp(b"%d" % self.number), data
        return path

    async def write(self, content: object = "", name: str = "a") -> Ticket:
        """The same, and intake takes it in."""
        path = self.put(content, name)
        await self.look(path)
        return self.tickets[path]

    async def look(self, *paths: str) -> None:
        await self.intake.take_in([(path, True) for path in paths])
        await settle()

    async def remove(self, name: str = "a") -> None:
        del self.files[f"/spool/{name}.want"]
        await self.look(f"/spool/{name}.want")

    def job(self, name: str) -> Job:
        return next(job for target, job in self.jobs.items() if target.name == name)

    @property
    def told(self) -> dict[str, Change]:
        """Tickets that the feed told of since the last call."""
        return {subject.path: change for subject, change in self.changes.take().items() if isinstance(subject, Ticket)}


@pytest.fixture
async def spool() -> Spool:
    return Spool()


# A new want


async def test_a_want_begins_the_job_of_its_model(spool: Spool) -> None:
    ticket = await spool.write({"model": "Qwen3", "priority": 2, "labels": {"team": "x"}})
    job = spool.job("qwen3")
    assert ticket.models == [("Qwen3", job.progress)]
    assert job.wanted_by == {ticket: 2}
    assert (ticket.created_at, ticket.started_at, ticket.error, ticket.waiting) == (START, START, None, None)
    assert spool.runner.active == ["qwen3"]
    assert spool.told == {ticket.path: Change.STATE}
    assert spool.lookout.settled_paths == [ticket.path]


async def test_what_the_store_has_is_ready_at_once(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    spool.store.publish(spool.job("qwen3").target)
    other = await spool.write("qwen3@main", "b")
    assert other.state is State.QUEUED  # that run is under way and will say so itself
    await spool.runner.finish("qwen3")
    assert (ticket.state, other.state) == (State.READY, State.READY)
    late = await spool.write("QWEN3", "c")
    assert late.state is State.READY
    assert len(spool.runner.runs) == 1


async def test_many_wants_for_one_model_are_one_job_and_one_look_at_the_store(spool: Spool) -> None:
    paths = [spool.put("qwen3", f"w{number}") for number in range(100)]
    await spool.look(*paths)
    assert len(spool.runner.runs) == 1
    assert len(spool.store.looked) == 1
    assert len(spool.job("qwen3").wanted_by) == 100


async def test_one_that_was_just_seen_in_the_store_is_not_looked_for_again_within_a_second(spool: Spool) -> None:
    await spool.write("qwen3")
    target = spool.job("qwen3").target
    await spool.write("qwen3", "b")  # it was not there before: it is looked for each time
    assert spool.store.looked == [target] * 2
    spool.store.publish(target)
    await spool.runner.finish("qwen3")
    await spool.write("qwen3", "c")
    assert spool.store.looked == [target] * 3
    spool.store.models.clear()
    await spool.clock.advance(STORE_LOOK_S - 0.01)
    ticket = await spool.write("qwen3", "d")
    assert (spool.store.looked, ticket.state) == ([target] * 3, State.READY)
    await spool.clock.advance(0.01)
    await spool.write("qwen3", "e")
    assert (spool.store.looked, ticket.state) == ([target] * 4, State.QUEUED)


async def test_a_manifest_has_a_part_for_each_model_and_an_unknown_one_fails_alone(spool: Spool) -> None:
    with logged() as lines:
        ticket = await spool.write({"models": ["qwen3", "qwen4", {"model": "mistral"}], "priority": 1})
    assert [line for line in lines if line.startswith("WARNING") and "'qwen4' is not in the catalog" in line]
    assert [name for name, _ in ticket.models] == ["qwen3", "qwen4", "mistral"]
    unknown = ticket.models[1][1]
    assert unknown.error is not None
    assert unknown.error.code is Code.MODEL_NOT_SUPPORTED
    assert "qwen3" in unknown.error.hint
    assert ticket.state is State.QUEUED
    assert spool.job("mistral").priority == 1
    await spool.runner.finish("qwen3")
    await spool.runner.finish("mistral")
    assert ticket.state is State.FAILED


async def test_a_model_named_twice_is_shown_twice_and_wanted_once(spool: Spool) -> None:
    ticket = await spool.write(["qwen3", "QWEN3"])
    job = spool.job("qwen3")
    assert ticket.models == [("qwen3", job.progress), ("QWEN3", job.progress)]
    await spool.remove()
    assert spool.jobs == {}
    assert spool.runner.active == []


async def test_one_that_cannot_be_read_fails_with_the_reason_and_is_logged(spool: Spool) -> None:
    with logged() as lines:
        ticket = await spool.write('{"modle": "qwen3"}')
    assert ticket.error is not None
    assert ticket.error.code is Code.WANT_INVALID
    assert ticket.state is State.FAILED
    assert ticket.started_at is None
    assert spool.jobs == {}
    assert spool.told == {ticket.path: Change.STATE}
    assert len(lines) == 1
    assert "'/spool/a.want'" in lines[0]
    ticket = await spool.write("qwen3")
    assert (ticket.error, ticket.state) == (None, State.QUEUED)


async def test_one_that_is_still_being_written_is_looked_at_again_and_not_acted_on(spool: Spool) -> None:
    path = spool.put("qwen3")
    spool.busy.add(path)
    await spool.look(path)
    assert (spool.lookout.again, spool.lookout.settled_paths, spool.tickets) == ([path], [], {})
    spool.busy.clear()
    await spool.look(path)
    ticket = spool.tickets[path]
    spool.busy.add(path)  # rewritten in place: the old request holds until the new one is whole
    await spool.look(path)
    assert spool.tickets == {path: ticket}
    assert spool.runner.active == ["qwen3"]


async def test_one_that_is_still_being_written_keeps_no_other_waiting(spool: Spool) -> None:
    busy, whole = spool.put("qwen3"), spool.put("mistral", "b")
    spool.busy.add(busy)
    await spool.look(busy, whole)
    assert list(spool.tickets) == [whole]
    assert spool.runner.active == ["mistral"]


async def test_paths_are_read_with_what_is_known_of_their_writer(spool: Spool) -> None:
    await spool.intake.take_in([("/spool/a.want", True), ("/spool/b.want", False)])
    assert spool.reads == [("/spool/a.want", True), ("/spool/b.want", False)]


# The same want once more


async def test_the_same_stamp_says_nothing_new(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    spool.changes.take()
    await spool.look(ticket.path)
    assert spool.changes.take() == {}
    assert ticket.attempt == 1
    assert len(spool.runner.runs) == 1


async def test_touching_one_that_moves_changes_nothing_but_its_stamp(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    spool.changes.take()
    assert await spool.write("qwen3") is ticket
    assert ticket.stamp == spool.files[ticket.path][0]
    assert spool.changes.take() == {}
    assert len(spool.runner.runs) == 1


async def test_touching_one_that_waits_tries_at_once(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    await spool.runner.fail("qwen3", error(Code.STALLED))
    assert isinstance(spool.job("qwen3").progress.waiting, ForRetry)
    await spool.write("qwen3")
    assert spool.runner.active == ["qwen3"]
    assert (ticket.attempt, ticket.attempts, ticket.started_at) == (1, 3, START)


async def test_touching_one_that_failed_is_a_new_attempt_of_the_same_request(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    await spool.runner.fail("qwen3", error(Code.GATED))
    assert ticket.state is State.FAILED
    ticket.finished_at, ticket.fraction = START, 0.5
    await spool.clock.advance(60)
    spool.changes.take()
    assert await spool.write("qwen3") is ticket
    assert ticket.state is State.QUEUED
    assert (ticket.attempts, ticket.created_at, ticket.fraction, ticket.finished_at) == (2, START, 0.0, None)
    assert ticket.started_at == START + timedelta(seconds=60)
    assert spool.runner.active == ["qwen3"]
    assert spool.told == {ticket.path: Change.STATE}
    await spool.write("qwen3")
    assert ticket.attempts == 2


async def test_attempts_count_on_from_those_of_the_model(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    for seconds in (2, 2):
        await spool.runner.fail("qwen3", error(Code.STALLED))
        await spool.clock.advance(seconds)
    await spool.runner.fail("qwen3", error(Code.GATED))
    assert ticket.attempts == 3
    await spool.write("qwen3")
    assert ticket.attempts == 4


async def test_touching_a_failed_one_that_shares_its_job_tries_again_for_all(spool: Spool) -> None:
    ticket, other = await spool.write("qwen3"), await spool.write("qwen3", "b")
    await spool.runner.fail("qwen3", error(Code.GATED))
    await spool.write("qwen3")
    assert spool.runner.active == ["qwen3"]
    assert (ticket.state, other.state) == (State.QUEUED, State.QUEUED)


async def test_touching_a_ready_one_leaves_it_alone(spool: Spool) -> None:
    ticket = await spool.write("qwen3")
    await spool.runner.finish("qwen3")
    await spool.write("qwen3")
    assert (ticket.state, ticket.attempts, len(spool.runner.runs)) == (State.READY, 1, 1)


async def test_touching_one_with_an_error_in_it_leaves_the_error(spool: Spool) -> None:
    ticket = await spool.write("{")
    why = ticket.error
    spool.changes.take()
    await spool.write("{")
    assert why is not None
    assert (ticket.error, ticket.state, spool.changes.take()) == (why, State.FAILED, {})


async def test_one_that_can_be_read_again_is_a_new_request(spool: Spool) -> None:
    path = spool.put("qwen3")
    spool.unreadable.add(path)
    await spool.look(path)
    ticket = spool.tickets[path]
    assert (ticket.state, ticket.digest) == (State.FAILED, None)
    await spool.write("qwen3")
    assert ticket.error is not None
    assert ticket.error.code is Code.WANT_UNREADABLE  # no digest: each change is a new look
    spool.unreadable.clear()
    await spool.write("qwen3")
    assert (ticket.state, spool.runner.active) == (State.QUEUED, ["qwen3"])


async def test_other_content_is_another_request(spool: Spool) -> None:
    ticket = await spool.write({"model": "qwen3", "priority": 1})
    await spool.clock.advance(5)
    await spool.runner.fail("qwen3", error(Code.STALLED))
    await spool.write("mistral")
    assert (ticket.attempts, ticket.created_at) == (1, START + timedelta(seconds=5))
    assert [name for name, _ in ticket.models] == ["mistral"]
    assert [target.name for target in spool.jobs] == ["mistral"]
    assert spool.runner.active == ["mistral"]
    assert list(spool.clock.appointments) == []


async def test_another_priority_for_the_same_model_does_not_stop_it(spool: Spool) -> None:
    other = await spool.write("qwen3", "b")
    ticket = await spool.write({"model": "qwen3", "priority": 9})
    await spool.write({"model": "qwen3", "priority": 0})
    assert spool.job("qwen3").wanted_by == {other: 5, ticket: 0}
    assert len(spool.runner.runs) == 1


# Gone


async def test_a_removed_want_ends_what_nothing_else_needs(spool: Spool) -> None:
    ticket, other = await spool.write("qwen3"), await spool.write(["mistral", "phi"], "b")
    await spool.write("mistral", "c")
    spool.changes.take()
    await spool.remove("b")
    assert sorted(spool.runner.active) == ["mistral", "qwen3"]
    assert (other.gone, ticket.gone) == (True, False)
    assert spool.told == {other.path: Change.GONE}
    assert list(spool.tickets) == ["/spool/a.want", "/spool/c.want"]
    await spool.look(other.path)  # an event that comes late
    assert spool.told == {}


async def test_one_that_was_removed_or_rewritten_while_it_was_looked_up_is_not_begun(spool: Spool) -> None:
    for happens in ("removed", "rewritten"):
        path, other = spool.put("qwen3"), spool.put("mistral", "b")

        def meanwhile(_: Target, path: str = path, happens: str = happens) -> None:
            if happens == "removed":
                spool.tickets.pop(path, None)
            else:
                spool.tickets[path].want = parse_want("a.want", b"phi")

        spool.store.on_look = meanwhile
        await spool.look(path, other)
        assert spool.runner.active == ["mistral"]  # the other one is
        await spool.remove("b")
        spool.store.on_look = lambda _: None
        spool.tickets.clear()


# Later


async def test_a_want_for_later_waits_until_then_and_begins(spool: Spool) -> None:
    when = START + timedelta(hours=2)
    ticket = await spool.write({"model": "qwen3", "not_before": when.isoformat()})
    assert (ticket.state, ticket.waiting, ticket.models) == (State.WAITING, NotBefore(when), [])
    assert spool.told == {ticket.path: Change.STATE}
    await spool.clock.advance(7199)
    assert spool.runner.active == []
    await spool.clock.advance(1)
    assert (ticket.state, ticket.waiting, ticket.started_at) == (State.QUEUED, None, when)
    assert spool.runner.active == ["qwen3"]
    assert spool.told == {ticket.path: Change.STATE}


async def test_a_time_that_is_past_waits_for_nothing(spool: Spool) -> None:
    ticket = await spool.write({"model": "qwen3", "not_before": START.isoformat()})
    assert ticket.waiting is None
    assert spool.runner.active == ["qwen3"]


async def test_a_far_time_is_looked_at_again_after_a_month(spool: Spool) -> None:
    when = START + timedelta(days=45)
    ticket = await spool.write({"model": "qwen3", "not_before": when.isoformat()})
    await spool.clock.advance(APPOINTMENT_MAX_S)
    assert ticket.waiting == NotBefore(when)
    assert spool.runner.active == []
    await spool.clock.advance(15 * 86400)
    assert spool.runner.active == ["qwen3"]


async def test_an_appointment_ends_with_its_want(spool: Spool) -> None:
    content = {"model": "qwen3", "not_before": (START + timedelta(hours=1)).isoformat()}
    await spool.write(content)
    await spool.remove()
    assert spool.clock.appointments == {}
    await spool.write(content)
    ((_, begin),) = spool.clock.appointments.values()
    await spool.write("mistral")
    assert spool.clock.appointments == {}
    await begin()  # it was on its way already
    assert spool.runner.active == ["mistral"]
    await spool.remove()
    await begin()
    assert spool.runner.active == []


async def test_touching_one_that_waits_for_its_time_changes_nothing(spool: Spool) -> None:
    content = {"model": "qwen3", "not_before": (START + timedelta(hours=1)).isoformat()}
    ticket = await spool.write(content)
    await spool.write(content)
    assert ticket.state is State.WAITING
    await spool.clock.advance(3600)
    assert spool.runner.active == ["qwen3"]


# Another catalog, another policy


async def test_a_changed_catalog_begins_again_what_it_makes_different_and_nothing_else(spool: Spool) -> None:
    same, moved = await spool.write("qwen3"), await spool.write("mistral", "b")
    gone, new = await spool.write("phi", "c"), await spool.write("llama", "d")
    await spool.runner.finish("mistral")
    moved.fraction, moved.finished_at = 1.0, START
    spool.catalog = catalog(qwen3="org/qwen3", mistral="org/mistral-v2", llama="org/llama")
    spool.changes.take()
    await spool.intake.reresolve()
    await settle()
    assert sorted(spool.told) == [moved.path, gone.path, new.path]
    assert (same.state, moved.state, gone.state, new.state) == (State.QUEUED, State.QUEUED, State.FAILED, State.QUEUED)
    assert (moved.fraction, moved.finished_at) == (0.0, None)
    assert sorted(spool.runner.active) == ["llama", "mistral", "qwen3"]
    assert [run.job.target.name for run in spool.runner.runs].count("qwen3") == 1
    assert spool.job("mistral").target.selection.repo == "org/mistral-v2"
    assert gone.models[0][1].error is not None


async def test_nothing_is_looked_up_again_where_neither_has_changed(spool: Spool) -> None:
    ticket = await spool.write("llama")
    await spool.intake.reresolve()
    before, asked = ticket.parts, spool.asked
    await spool.intake.reresolve()
    assert ticket.parts == before
    assert spool.asked == asked + 1  # no want is looked up
    spool.policy = ["org/*"]  # asked for under another rule, with the same outcome
    spool.changes.take()
    await spool.intake.reresolve()
    assert spool.told == {}


@pytest.mark.parametrize("policy", ["any", ["org/*"]])
async def test_a_changed_policy_takes_effect_both_ways(spool: Spool, policy: str | list[str]) -> None:
    ticket = await spool.write("org/other")
    assert ticket.state is State.FAILED
    spool.policy = policy
    await spool.intake.reresolve()
    await settle()
    assert (ticket.state, spool.runner.active) == (State.QUEUED, ["org/other"])
    spool.policy = "catalog"
    await spool.intake.reresolve()
    await settle()
    assert (ticket.state, spool.runner.active) == (State.FAILED, [])


async def test_wants_that_wait_for_their_time_or_cannot_be_read_are_left_to_it(spool: Spool) -> None:
    later = await spool.write({"model": "llama", "not_before": (START + timedelta(hours=1)).isoformat()})
    broken = await spool.write("{", "b")
    spool.catalog = catalog(llama="org/llama")
    spool.changes.take()
    await spool.intake.reresolve()
    assert spool.told == {}
    await spool.clock.advance(3600)
    assert later.state is State.QUEUED
    assert broken.state is State.FAILED


@pytest.mark.parametrize("happens", ["removed", "rewritten"])
async def test_one_that_changes_while_all_are_looked_up_again_is_left_to_that(spool: Spool, happens: str) -> None:
    count = SLICE_MODELS + 1
    await spool.look(*[spool.put("llama", f"w{number}") for number in range(count)])
    victim = spool.tickets["/spool/w1.want"]
    spool.catalog = catalog(llama="org/llama", mistral="org/mistral")

    def meanwhile(_: Target) -> None:
        if happens == "removed":
            victim.gone = True
        else:
            victim.want = parse_want("w1.want", b"mistral")

    spool.store.on_look = meanwhile
    await spool.intake.reresolve()
    await settle()
    assert victim.state is State.FAILED
    states = [ticket.state for ticket in spool.tickets.values()]
    assert states.count(State.QUEUED) == count - 1
    assert spool.runner.active == ["llama"]


# Serving


async def test_it_serves_what_the_lookout_gives_and_closes_it_at_the_end(spool: Spool) -> None:
    serving = asyncio.create_task(spool.intake.serve())
    spool.lookout.looks.put_nowait(Look([(spool.put("qwen3"), True)]))
    await settle()
    assert spool.runner.active == ["qwen3"]
    spool.changes.take()
    spool.lookout.looks.put_nowait(Look([], ["/spool/a.want", "/spool/unknown.want"]))
    await settle()
    assert spool.told == {"/spool/a.want": Change.STATE}
    assert len(spool.reads) == 1
    assert not spool.lookout.closed
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert spool.lookout.closed


async def test_no_more_is_taken_in_while_a_reader_is_too_far_behind(spool: Spool) -> None:
    spool.changes.backlog = BACKLOG
    serving = asyncio.create_task(spool.intake.serve())
    spool.lookout.looks.put_nowait(Look([(spool.put("qwen3"), True)]))
    await settle()
    assert spool.reads == []
    spool.changes.backlog = 0
    await settle()
    assert spool.runner.active == ["qwen3"]
    serving.cancel()


# Wants of many models


def many(spool: Spool) -> list[str]:
    """More names than are dealt with in one go, of which the last three are known."""
    return [*(f"no-such-{number}" for number in range(2 * SLICE_MODELS)), "qwen3", "mistral", "phi"]


async def test_a_want_of_many_models_is_queued_at_once_and_begun_in_its_turn(spool: Spool) -> None:
    ticket = await spool.write({"models": many(spool)})
    assert (ticket.state, ticket.parts) == (State.QUEUED, ())
    await spool.intake.bulk.work()
    assert len(ticket.parts) == 2 * SLICE_MODELS + 3
    assert len(spool.jobs) == 3
    assert [isinstance(part, WantdError) for part in ticket.parts[-4:]] == [True, False, False, False]


async def test_one_of_many_models_that_goes_before_or_after_it_was_begun_leaves_no_job(spool: Spool) -> None:
    await spool.write({"models": many(spool)})
    await spool.remove()
    await spool.intake.bulk.work()
    assert spool.jobs == {}
    await spool.write({"models": many(spool)})
    await spool.intake.bulk.work()
    assert len(spool.jobs) == 3
    await spool.remove()
    await spool.intake.bulk.work()
    assert spool.jobs == {}
    assert spool.tickets == {}


async def test_one_of_many_models_that_is_written_again_is_what_it_was_last(spool: Spool) -> None:
    await spool.write({"models": many(spool)})
    await spool.intake.bulk.work()
    await spool.write({"models": [*many(spool), "no-such"][::-1]})
    ticket = await spool.write("mistral")
    await spool.intake.bulk.work()
    assert [job.target.id for job in spool.jobs.values()] == ["mistral"]
    assert next(iter(spool.jobs.values())).wanted_by == {ticket: 5}


async def test_another_catalog_begins_one_of_many_models_again_where_it_differs(spool: Spool) -> None:
    ticket = await spool.write({"models": many(spool)})
    await spool.intake.bulk.work()
    before = ticket.parts
    spool.catalog = catalog(qwen3="org/qwen3", mistral="org/mistral", phi="org/phi", more="org/more")
    await spool.intake.reresolve()
    await spool.intake.bulk.work()
    assert ticket.parts is before
    spool.catalog = catalog(qwen3="org/qwen3", mistral="org/mistral")
    await spool.intake.reresolve()
    await spool.intake.bulk.work()
    assert sorted(job.target.id for job in spool.jobs.values()) == ["mistral", "qwen3"]
    assert isinstance(ticket.parts[-1], WantdError)
