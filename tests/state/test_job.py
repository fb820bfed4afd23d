"""A job: each way in which it moves is published once, with what holds in that state and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.core.progress import FileProgress
from agent.core.remote import Listing
from agent.core.states import State
from agent.core.waits import ForDisk, ForSlot
from agent.errors import Code
from agent.jobs.runner import shown
from agent.state.feed import Change, Feed, Subscription
from agent.state.job import DEFAULT_PRIORITY, LOGGED_WANTS, Job
from tests.fakes import COMMIT, error, published, target, ticket
from tests.store.builders import Model


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def changes(feed: Feed) -> Subscription:
    return feed.subscribe()


@pytest.fixture
def job(feed: Feed, changes: Subscription) -> Job:
    return Job(target(), feed)


def loading(job: Job, *sizes: int | None) -> list[FileProgress]:
    """The job downloads files of these sizes."""
    job.resolve()
    files = [FileProgress(f"f{number}", size) for number, size in enumerate(sizes)]
    job.progress.begin(files, sum(size or 0 for size in sizes))
    job.download()
    return files


def test_its_priority_is_the_best_of_its_wants(job: Job) -> None:
    a, b = ticket("a"), ticket("b")
    assert job.priority == DEFAULT_PRIORITY
    job.add(a, 7)
    job.add(b, 3)
    assert job.priority == 3
    job.add(b, 9)  # asked for once more, less urgently: the new word counts
    assert (job.priority, job.wanted_by) == (7, {a: 7, b: 9})
    assert job.remove(a)
    assert not job.remove(a)
    assert job.priority == 9
    assert job.remove(b)
    assert job.priority == DEFAULT_PRIORITY


def test_each_move_is_a_change_of_state(job: Job, changes: Subscription) -> None:
    moves = [
        (job.resolve, State.RESOLVING),
        (lambda: job.wait(ForSlot()), State.WAITING),
        (job.download, State.DOWNLOADING),
        (job.verify, State.VERIFYING),
        (lambda: job.ready(published(job.target)), State.READY),
        (job.again, State.QUEUED),
        (lambda: job.fail(error()), State.FAILED),
    ]
    for move, state in moves:
        move()
        assert job.progress.state is state
        assert changes.take() == {job: Change.STATE}


def test_to_wait_for_the_same_is_no_change_and_for_something_else_is_one(job: Job, changes: Subscription) -> None:
    job.wait(ForSlot())
    changes.take()
    job.wait(ForSlot())
    assert changes.take() == {}
    job.wait(ForDisk(2, 1))
    assert changes.take() == {job: Change.STATE}
    assert job.progress.waiting == ForDisk(2, 1)
    job.resolve()
    assert job.progress.waiting is None
    changes.take()
    job.wait(ForSlot())
    assert changes.take() == {job: Change.STATE}
    assert job.progress.waiting == ForSlot()


def test_an_error_holds_until_it_moves_on(job: Job) -> None:
    why = error(Code.GATED)
    job.fail(why)
    assert job.progress.error is why
    job.again()
    assert job.progress.error is None


@pytest.mark.parametrize(("revision", "commit"), [(COMMIT, COMMIT), ("main", None)])
def test_a_listing_says_who_answered_and_which_commit_it_is(job: Job, revision: str, commit: str | None) -> None:
    job.listed(Listing("mirror", job.target.selection.repo, revision, (), error()))
    progress = job.progress
    assert (progress.repo, progress.revision, progress.source) == ("org/qwen3", "main", "mirror")
    assert (progress.commit, progress.source_why) == (commit, "it is hub_unreachable")
    job.listed(Listing("hub", job.target.selection.repo, revision, ()))
    assert progress.source_why is None


def test_a_plan_shows_each_file_and_the_sum_where_every_size_is_known(feed: Feed) -> None:
    model = Model(files={"a.gguf": b"12345", "b.json": b"12"})
    job = Job(model.target, feed)
    job.planned(model.plan, shown(model.plan))
    assert [(file.name, file.size, file.sha256) for file in job.progress.files] == [
        (file.name, file.size, file.sha256) for file in model.plan.files
    ]
    assert job.progress.bytes_total == 7
    unsized = replace(model.plan.files[0], size=None)
    plan = replace(model.plan, files=(unsized, model.plan.files[1]))
    job.planned(plan, shown(plan))
    assert job.progress.bytes_total is None
    assert [file.size for file in job.progress.files] == [None, 2]


def test_bytes_are_a_small_change_and_a_tenth_is_one_of_state(job: Job, changes: Subscription) -> None:
    (file,) = loading(job, 100)
    changes.take()
    job.moved(file, 9, State.DOWNLOADING, 1.0)
    assert changes.take() == {job: Change.BYTES}
    job.moved(file, 10, State.DOWNLOADING, 1.1)
    assert changes.take() == {job: Change.STATE}
    job.moved(file, 11, State.DOWNLOADING, 1.2)
    assert changes.take() == {job: Change.BYTES}
    job.moved(file, 5, State.DOWNLOADING, 1.3)  # bad ranges were dropped
    assert changes.take() == {job: Change.BYTES}
    assert job.progress.bytes_done == 5


def test_it_verifies_when_the_last_file_does_and_downloads_if_one_starts_over(job: Job, changes: Subscription) -> None:
    one, two = loading(job, 10, 10)
    job.moved(one, 10, State.VERIFYING, 1.0)
    assert job.progress.state is State.DOWNLOADING
    job.moved(two, 10, State.VERIFYING, 1.1)
    assert job.progress.state is State.VERIFYING
    changes.take()
    job.moved(two, 4, State.DOWNLOADING, 1.2)
    assert job.progress.state is State.DOWNLOADING
    assert changes.take() == {job: Change.STATE}
    job.moved(two, 10, State.VERIFYING, 1.3)
    job.moved(one, 10, State.READY, 1.4)
    job.moved(two, 10, State.READY, 1.5)  # the last one: the model is not ready before it is published
    assert job.progress.state is State.VERIFYING


def test_a_file_of_a_job_that_waits_for_a_lock_moves_without_it(job: Job) -> None:
    (file,) = loading(job, 10)
    job.wait(ForSlot())
    job.moved(file, 5, State.DOWNLOADING, 1.0)
    assert (job.progress.state, job.progress.bytes_done) == (State.WAITING, 5)


@pytest.mark.parametrize(("commit", "shown"), [(COMMIT, COMMIT), ("main", None)])
def test_a_ready_job_shows_what_is_in_the_store(job: Job, commit: str, shown: str | None) -> None:
    job.ready(published(job.target, 7, source="hub+mirror", commit=commit))
    progress = job.progress
    assert (progress.repo, progress.revision, progress.commit) == ("org/qwen3", "main", shown)
    assert (progress.path, progress.source) == ("/models/qwen3/m.gguf", "store")
    assert (progress.bytes_done, progress.bytes_total, progress.verified) == (7, 7, True)
    (file,) = progress.files
    assert (file.name, file.size, file.source, file.state) == ("m.gguf", 7, "hub+mirror", State.READY)


def test_a_job_that_was_downloaded_says_from_where(job: Job) -> None:
    loading(job, 7)
    job.ready(published(job.target, 7, source="mirror"))
    assert job.progress.source == "mirror"


def test_a_new_attempt_begins_with_nothing(job: Job) -> None:
    job.ready(published(job.target, 7))
    job.again()
    progress = job.progress
    assert (progress.state, progress.attempt, progress.path) == (State.QUEUED, 2, None)
    assert (progress.files, progress.bytes_done, progress.bytes_total) == ([], 0, None)


def test_the_log_names_some_of_its_wants(job: Job) -> None:
    for number in range(LOGGED_WANTS + 5):
        job.add(ticket(f"w{number}"), 5)
    seen: list[dict[str, object]] = []
    number = job.log.add(lambda message: seen.append(message.record["extra"]), level="INFO")
    job.log.info("hello")
    job.log.remove(number)
    assert seen == [{"model": "qwen3", "want": [f"/spool/w{n}.want" for n in range(LOGGED_WANTS)]}]
