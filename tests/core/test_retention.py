"""Partials are kept for wants that may return, for a limited time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.retention import Leftover, expired

DAY = 86_400.0
KEEP = 7 * DAY
NOW = 1_800_000_000.0


def left(key: str, age: float) -> Leftover:
    return Leftover(key, (f"{key}.part", f"{key}.json"), NOW - age)


def test_what_nobody_has_wanted_for_the_whole_time_goes() -> None:
    old, new = left("old", KEEP + 1), left("new", KEEP - 1)
    assert expired([old, new], [], NOW, KEEP) == [old]


def test_it_stays_until_the_time_is_over() -> None:
    assert expired([left("a", KEEP)], [], NOW, KEEP) == []


def test_what_is_wanted_stays_however_old_it_is() -> None:
    assert expired([left("a", 1000 * DAY)], {"a"}, NOW, KEEP) == []


def test_a_clock_that_was_set_back_removes_nothing() -> None:
    assert expired([left("a", -1000 * DAY)], [], NOW, KEEP) == []


@given(
    st.lists(st.tuples(st.text(max_size=3), st.floats(-100 * DAY, 100 * DAY)), max_size=10),
    st.sets(st.text(max_size=3)),
)
def test_only_old_and_unwanted_ones_go(found: list[tuple[str, float]], wanted: set[str]) -> None:
    leftovers = [left(key, age) for key, age in found]
    gone = expired(leftovers, wanted, NOW, KEEP)
    for leftover in leftovers:
        assert (leftover in gone) == (leftover.key not in wanted and NOW - leftover.changed_at > KEEP)
