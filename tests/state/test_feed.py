"""The feed: every reader sees every change of state, whatever the other readers do."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from agent.core.states import State
from agent.state.feed import BACKLOG, Change, Feed
from agent.state.job import Job
from tests.fakes import eventually, published, settle, target


def test_each_subject_is_there_once_with_the_greatest_change_in_the_order_of_changes() -> None:
    feed = Feed()
    reader = feed.subscribe()
    feed.changed("a", Change.BYTES)
    feed.changed("b")
    feed.changed("c")
    feed.changed("b", Change.BYTES)  # says nothing that the state would not
    feed.changed("a")
    feed.gone("b")
    feed.changed("c")
    assert list(reader.take().items()) == [("a", Change.STATE), ("b", Change.GONE), ("c", Change.STATE)]
    assert reader.take() == {}


def test_nothing_undoes_that_a_subject_is_gone() -> None:
    feed = Feed()
    reader = feed.subscribe()
    feed.gone("a")
    feed.changed("a")
    feed.changed("a", Change.BYTES)
    assert reader.take() == {"a": Change.GONE}


def test_a_reader_gets_what_changes_after_it_came_and_before_it_went() -> None:
    feed = Feed()
    feed.changed("before")
    reader = feed.subscribe()
    feed.changed("while")
    reader.close()
    reader.close()
    feed.changed("after")
    assert reader.take() == {"while": Change.STATE}


def test_a_full_mailbox_is_emptied_and_says_so() -> None:
    feed = Feed()
    reader = feed.subscribe(limit=3)
    for subject in "abc":
        feed.changed(subject)
    feed.changed("a", Change.BYTES)
    feed.changed("b")
    assert not reader.overflowed
    assert list(reader.take()) == ["a", "c", "b"]
    for subject in "abcd":
        feed.changed(subject)
    assert reader.overflowed
    assert reader.take() == {"d": Change.STATE}


async def test_a_wait_ends_with_a_change_with_its_time_and_when_woken() -> None:
    feed = Feed()
    reader = feed.subscribe()
    await reader.wait(0.001)  # its time is over
    waiting = asyncio.create_task(reader.wait())
    await settle()
    assert not waiting.done()
    feed.changed("a", Change.BYTES)
    await waiting
    await reader.wait()  # what was not taken is still there
    reader.take()
    waiting = asyncio.create_task(reader.wait())
    await settle()
    assert not waiting.done()
    reader.wake()
    await waiting


async def test_intake_waits_for_the_reader_that_is_too_far_behind_and_for_no_other() -> None:
    feed = Feed()
    slow, other = feed.subscribe(), feed.subscribe()
    await feed.wait_for_capacity()
    slow.backlog = BACKLOG - 1
    await asyncio.wait_for(feed.wait_for_capacity(), 5)
    slow.backlog = BACKLOG
    assert slow.backlog == BACKLOG
    waiting = asyncio.create_task(feed.wait_for_capacity())
    other.backlog = 0
    await settle()
    assert not waiting.done()
    slow.backlog = BACKLOG - 1
    await waiting
    slow.backlog = BACKLOG
    waiting = asyncio.create_task(feed.wait_for_capacity())
    await settle()
    slow.close()
    await waiting


async def test_of_1000_readers_one_is_stuck_and_one_throws_and_no_other_waits_or_misses_a_state() -> None:
    """The readers below learn of each job's last state; the publisher runs none of their code."""
    feed = Feed()
    jobs = [Job(target(f"m{number}"), feed) for number in range(20)]
    stuck = asyncio.Event()
    seen: list[dict[Job, State]] = [{} for _ in range(1000)]

    async def read(number: int) -> None:
        mailbox = feed.subscribe()
        while len([state for state in seen[number].values() if state is State.READY]) < len(jobs):
            await mailbox.wait()
            for subject, change in mailbox.take().items():
                if number == 1:
                    raise RuntimeError("a broken reader")
                if isinstance(subject, Job) and change >= Change.STATE:
                    seen[number][subject] = subject.progress.state
            if number == 0:
                await stuck.wait()

    readers = [asyncio.create_task(read(number)) for number in range(1000)]
    await settle()
    for job in jobs:
        job.resolve()
    await settle()
    for job in jobs:
        job.download()
        job.ready(published(job.target))
    await eventually(lambda: sum(reader.done() for reader in readers) == 999, "all but the stuck one have it all")
    assert not readers[0].done()
    assert isinstance(readers[1].exception(), RuntimeError)
    assert all(set(states.values()) == {State.READY} for states in seen[2:])
    await asyncio.wait_for(feed.wait_for_capacity(), 5)  # no want waits for them
    stuck.set()
    await readers[0]  # what it missed it finds now: the newest state of each
    assert seen[0] == dict.fromkeys(jobs, State.READY)


CHANGES = st.sampled_from(list(Change))


@given(st.lists(st.one_of(st.tuples(st.sampled_from("abcd"), CHANGES), st.just(None)), max_size=60))
def test_no_reader_at_any_pace_misses_a_state(history: list[tuple[str, Change] | None]) -> None:
    """None is the moment at which the slow reader looks; the quick one looks after each change."""
    feed = Feed()
    quick, slow = feed.subscribe(), feed.subscribe()
    said: dict[str, Change] = {}
    for event in history:
        if event is None:
            assert slow.take() == said
            said = {}
            continue
        subject, change = event
        feed.changed(subject, change)
        assert quick.take() == {subject: change}
        said[subject] = max(change, said.get(subject, change))
    assert slow.take() == said


def test_of_two_changes_the_one_that_tells_more_is_the_greater() -> None:
    assert sorted(Change) == [Change.BYTES, Change.STATE, Change.GONE]
    assert len(set(Change)) == 3
