"""The line of rates."""

from __future__ import annotations

from agent.http.rates import STEP_S, STEPS, Rates


def test_each_step_has_the_mean_of_what_was_noted_in_it() -> None:
    rates = Rates()
    for now, rate in ((0.0, 10), (1.0, 30), (2.5, 50)):
        rates.note(rate, now)
    assert rates.recent(4.0) == [20, 50]
    assert rates.recent(3.0) == [20], "a step that goes on is not told yet"


def test_where_nothing_moved_is_zero() -> None:
    rates = Rates()
    rates.note(10, 0.0)
    rates.note(30, 7.0)
    assert rates.recent(11.0) == [10, 0, 0, 30, 0]
    assert rates.recent(9.0 + STEPS * STEP_S) == []
    assert Rates().recent(100.0) == []


def test_five_minutes_are_kept() -> None:
    rates = Rates()
    for step in range(1000):
        rates.note(step, step * STEP_S)
    assert rates.recent(1000 * STEP_S) == list(range(1000 - STEPS, 1000))
