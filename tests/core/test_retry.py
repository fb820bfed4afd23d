"""How long to wait: spread, growing, within bounds, and never less than a server asked for."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from agent.core.retry import Backoff
from agent.errors import Code, WantdError

PASSING = WantdError(Code.HUB_UNREACHABLE, "no answer", "wait")
FINAL = WantdError(Code.GATED, "no access", "ask for it")
CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10**9), CHANCE)
def test_every_delay_is_within_its_bounds(attempt: int, chance: float) -> None:
    delay = Backoff(1, 300).delay(attempt, PASSING, chance)
    assert delay is not None and 1 <= delay <= 300


def test_the_ceiling_doubles_up_to_five_minutes() -> None:
    ceilings = [Backoff(1, 300).delay(attempt, PASSING, 1.0) for attempt in range(1, 11)]
    assert ceilings == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_the_first_try_again_is_after_one_to_two_seconds_and_none_after_more_than_five_minutes() -> None:
    assert [Backoff().delay(1, PASSING, chance) for chance in (0.0, 0.5, 1.0)] == [1.0, 1.5, 2.0]
    assert Backoff().delay(50, PASSING, 1.0) == 300.0


def test_no_failure_yet_counts_as_the_first() -> None:
    assert Backoff(1, 300).delay(0, PASSING, 1.0) == 2.0


def test_equal_bounds_leave_nothing_to_chance() -> None:
    assert Backoff(5, 5).delay(3, PASSING, 0.9) == 5.0


def test_those_whom_a_server_sent_away_come_back_over_the_shortest_wait() -> None:
    asked = WantdError(Code.RATE_LIMITED, "later", "wait", retry_after_s=10.0)
    assert Backoff(4, 300).delay(1, asked, 0.5) == 12.0


@given(st.integers(1, 50), st.floats(0, 1e5), CHANCE)
def test_what_a_server_asked_for_is_kept_and_spread(attempt: int, asked: float, chance: float) -> None:
    error = WantdError(Code.RATE_LIMITED, "later", "wait", retry_after_s=asked)
    delay = Backoff(1, 300).delay(attempt, error, chance)
    assert delay is not None and asked <= delay <= asked + 1


@given(st.integers(1, 50), CHANCE)
def test_what_time_does_not_mend_is_given_up(attempt: int, chance: float) -> None:
    assert Backoff(1, 300).delay(attempt, FINAL, chance) is None


def test_enough_failures_are_enough() -> None:
    backoff = Backoff(1, 300, attempts=3)
    assert backoff.delay(2, PASSING, 0.0) is not None
    assert backoff.delay(3, PASSING, 0.0) is None
