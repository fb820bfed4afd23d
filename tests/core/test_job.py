"""The table of states: what may follow what, and what a want of many models shows."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.states import FINAL, LEGAL, State, combined, move

STATES = st.sampled_from(list(State))


def test_the_table_knows_every_state() -> None:
    assert set(LEGAL) == set(State)
    assert {State.READY, State.FAILED} == FINAL


@given(STATES, st.lists(STATES, max_size=30))
def test_a_walk_of_random_moves_keeps_to_the_table(start: State, wishes: list[State]) -> None:
    walked = [start]
    for wish in wishes:
        try:
            walked.append(move(walked[-1], wish))
        except ValueError as error:
            assert wish.value in str(error) and walked[-1].value in str(error)
    assert all(new is old or new in LEGAL[old] for old, new in pairwise(walked))
    for old, new in pairwise(walked):
        if old in FINAL and new is not old:
            assert new is State.QUEUED  # a new attempt is the only way out of an end


@pytest.mark.parametrize("state", list(State))
def test_staying_is_always_legal(state: State) -> None:
    assert move(state, state) is state


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
def test_whatever_moves_may_fail_and_can_end_well(state: State) -> None:
    assert move(state, State.FAILED) is State.FAILED
    reached, frontier = {state}, [state]
    while frontier:
        for follower in LEGAL[frontier.pop()] - reached:
            reached.add(follower)
            frontier.append(follower)
    assert State.READY in reached


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (State.READY, State.DOWNLOADING),
        (State.READY, State.FAILED),
        (State.FAILED, State.READY),
        (State.QUEUED, State.DOWNLOADING),
        (State.QUEUED, State.VERIFYING),
        (State.DOWNLOADING, State.QUEUED),
        (State.DOWNLOADING, State.RESOLVING),
    ],
)
def test_moves_that_no_job_makes_are_refused(old: State, new: State) -> None:
    with pytest.raises(ValueError, match=f"from {old} to {new}"):
        move(old, new)


@given(st.lists(STATES, min_size=1))
def test_many_models_are_final_only_when_each_one_is(states: list[State]) -> None:
    shown = combined(states)
    assert shown in states
    assert (shown in FINAL) == all(state in FINAL for state in states)
    assert (shown is State.READY) == all(state is State.READY for state in states)


def test_the_state_that_moves_most_is_shown() -> None:
    assert combined([State.READY, State.QUEUED, State.DOWNLOADING, State.FAILED]) is State.DOWNLOADING
    assert combined([State.WAITING, State.RESOLVING]) is State.RESOLVING
    assert combined([State.READY, State.FAILED]) is State.FAILED
