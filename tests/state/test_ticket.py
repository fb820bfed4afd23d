"""A ticket: a new request, a new attempt and the same attempt again each keep what they should."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.core.progress import ModelProgress
from agent.core.states import State
from agent.core.waits import NotBefore
from agent.core.want import Want, WantedModel
from agent.errors import Code
from agent.state.ticket import Ticket
from tests.fakes import START, error, ticket

LATER = START + timedelta(hours=1)
WANT = Want((WantedModel("qwen3"), WantedModel("other")))


class Model:
    """A job, as a ticket sees it."""

    def __init__(self, attempt: int = 1) -> None:
        self.progress = ModelProgress(attempt=attempt)


def tried() -> Ticket:
    """A want that was tried, with everything set."""
    tried = ticket()
    tried.want, tried.error, tried.waiting = WANT, error(), NotBefore(LATER)
    tried.parts = (Model(4), Model(2))
    tried.fraction, tried.attempt, tried.started_at, tried.finished_at = 0.5, 3, START, START
    return tried


def test_a_want_that_was_just_seen_is_queued() -> None:
    new = ticket()
    assert (new.path, new.state, new.attempts, new.created_at) == ("/spool/a.want", State.QUEUED, 1, START)
    assert (new.stamp, new.digest, new.shown, new.unwritable, new.gone) == (None, None, None, None, False)


def test_another_request_under_the_same_name_starts_with_nothing() -> None:
    again = tried()
    again.reset(LATER)
    assert (again.want, again.models, again.error, again.waiting) == (None, [], None, None)
    assert (again.fraction, again.attempt, again.created_at) == (0.0, 1, LATER)
    assert (again.started_at, again.finished_at) == (None, None)


def test_a_new_attempt_keeps_the_want_and_its_age_and_counts_on() -> None:
    again = tried()
    assert again.attempts == 4
    again.retry(LATER)
    assert (again.want, again.created_at, again.attempt) == (WANT, START, 5)
    assert (again.models, again.error, again.waiting, again.fraction) == ([], None, None, 0.0)


def test_the_same_attempt_goes_on_from_the_start() -> None:
    again = tried()
    again.resume()
    assert (again.finished_at, again.fraction, again.waiting) == (None, 0.0, None)
    assert (again.want, again.attempt, again.started_at) == (WANT, 3, START)


def test_its_state_is_its_own_error_then_its_own_wait_then_that_of_its_models() -> None:
    want = tried()
    assert want.state is State.FAILED
    want.error = None
    assert want.state is State.WAITING
    want.waiting = None
    assert want.state is State.QUEUED
    want.models[0][1].go(State.RESOLVING)
    assert want.state is State.RESOLVING
    want.parts = [error(Code.GATED)]
    assert want.state is State.FAILED


@pytest.mark.parametrize(
    "want",
    [
        Want((WantedModel("qwen3"),)),
        Want((WantedModel("qwen3", revision="v1"),)),
        Want((WantedModel("qwen3"),), priority=0),
        Want((WantedModel("qwen3"),), labels={"team": "x"}),
        WANT,
        None,
    ],
)
def test_a_want_comes_back_as_it_was_read(want: Want | None) -> None:
    new = ticket()
    new.want = want
    assert new.want == want


def test_each_model_is_shown_under_its_reference_with_its_error_or_its_progress() -> None:
    new, model = ticket(), Model()
    new.want, new.parts = WANT, [model, error(Code.GATED)]
    (first, progress), (second, failed) = new.models
    assert (first, second) == ("qwen3", "other")
    assert progress is model.progress
    assert failed.error is not None
    assert failed.error.code is Code.GATED
    new.want = Want((WantedModel("qwen3"),))
    new.parts = [model]
    assert (new.parts, new.models) == ((model,), [("qwen3", model.progress)])
    new.parts = []
    assert new.models == []
