"""A ticket: a new request, a new attempt and the same attempt again each keep what they should."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.core.states import State
from agent.core.waits import NotBefore
from agent.core.want import Want, WantedModel
from agent.errors import Code
from agent.state.feed import Feed
from agent.state.job import Job
from agent.state.ticket import Part, Ticket
from tests.fakes import START, error, target, ticket

LATER = START + timedelta(hours=1)
WANT = Want((WantedModel("qwen3"),))
TWO = Want((WantedModel("qwen3"), WantedModel("Mistral")))


def job(attempt: int = 1, state: State = State.QUEUED) -> Job:
    """A job on its so many-th attempt."""
    made = Job(target(), Feed())
    made.progress.attempt = attempt
    if state is not State.QUEUED:
        made.progress.go(state)
    return made


def tried() -> Ticket:
    """A want of two models that was tried, with everything set."""
    tried = ticket()
    tried.want, tried.error, tried.waiting = TWO, error(), NotBefore(LATER)
    tried.parts = [job(4), job(2)]
    tried.fraction, tried.attempt, tried.started_at, tried.finished_at = 0.5, 3, START, START
    return tried


def test_a_want_that_was_just_seen_is_queued() -> None:
    new = ticket()
    assert (new.path, new.state, new.attempts, new.created_at) == ("/spool/a.want", State.QUEUED, 1, START)
    assert (new.stamp, new.digest, new.shown, new.unwritable, new.gone) == (None, None, None, None, False)


def test_another_request_under_the_same_name_starts_with_nothing() -> None:
    again = tried()
    again.reset(LATER)
    assert (again.want, again.parts, again.models, again.error, again.waiting) == (None, (), [], None, None)
    assert (again.fraction, again.attempt, again.created_at) == (0.0, 1, LATER)
    assert (again.started_at, again.finished_at) == (None, None)


def test_a_new_attempt_keeps_the_want_and_its_age_and_counts_on() -> None:
    again = tried()
    assert again.attempts == 4
    again.retry(LATER)
    assert (again.want, again.created_at, again.attempt) == (TWO, START, 5)
    assert (again.parts, again.error, again.waiting, again.fraction) == ((), None, None, 0.0)


def test_the_same_attempt_goes_on_from_the_start() -> None:
    again = tried()
    again.resume()
    assert (again.finished_at, again.fraction, again.waiting) == (None, 0.0, None)
    assert (again.want, again.attempt, again.started_at) == (TWO, 3, START)


@pytest.mark.parametrize("parts", [[job()], [error()], [job(), error()], [job(), job()]])
def test_its_models_are_the_references_as_it_spells_them_each_with_how_it_goes(parts: list[Part]) -> None:
    want = ticket()
    want.want = Want(TWO.models[: len(parts)])
    assert want.models == []  # not looked up yet
    want.parts = parts
    assert want.parts == tuple(parts)
    for (name, progress), model, part in zip(want.models, TWO.models, parts, strict=False):
        assert name == model.reference
        if isinstance(part, Job):
            assert progress is part.progress
        else:
            assert (progress.state, progress.error) == (State.FAILED, part)
    want.want = None
    assert want.models == []


@pytest.mark.parametrize(
    "want",
    [
        None,
        WANT,
        TWO,
        Want((WantedModel("qwen3", revision="v1"),)),
        Want((WantedModel("qwen3"),), priority=1),
        Want((WantedModel("qwen3"),), labels={"team": "x"}),
        Want((WantedModel("qwen3"),), not_before=LATER),
    ],
)
def test_a_want_comes_back_as_it_was(want: Want | None) -> None:
    kept = ticket()
    kept.want = want
    assert kept.want == want


def test_its_state_is_its_own_error_then_its_own_wait_then_that_of_its_models() -> None:
    want = tried()
    assert want.state is State.FAILED
    want.error = None
    assert want.state is State.WAITING
    want.waiting = None
    assert want.state is State.QUEUED
    want.parts = [error(), job(state=State.RESOLVING)]
    assert want.state is State.RESOLVING
    want.parts = [error(Code.GATED)]
    assert want.state is State.FAILED
    want.parts = [error(Code.GATED), job(state=State.READY)]
    assert want.state is State.FAILED
    want.parts = []
    assert want.state is State.QUEUED
    assert want.attempts == 3
