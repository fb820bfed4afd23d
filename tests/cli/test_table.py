"""What people see of `get`, `status` and `models`: golden screens, and what holds for a terminal of any size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.table import NARROW, Row, table
from tests.cli.golden import MIXED, SCREENS, TWENTY, progress, screens


@pytest.mark.parametrize(("name", "text"), list(screens()), ids=[name for name, _ in screens()])
def test_each_screen_is_as_it_was_looked_at(name: str, text: str) -> None:
    assert text == (SCREENS / f"{name}.txt").read_text(), "if it is meant: python -m tests.cli.golden, and look at it"


def test_no_screen_is_kept_that_nothing_makes() -> None:
    assert {path.stem for path in SCREENS.iterdir()} == {name for name, _ in screens()}


NAMES = st.sampled_from(["a", "qwen3", "org/name:Q4_K_M", "x" * 60, "y" * 300])
ROWS = st.builds(
    lambda name, state, fraction, rate, eta: Row(name, progress(state, fraction, rate_bytes_per_s=rate, eta_s=eta)),
    NAMES,
    st.sampled_from(["downloading", "verifying", "ready", "failed", "queued", "waiting", "of a later version"]),
    st.floats(0, 1),
    st.integers(0, 10**12),
    st.none() | st.floats(0, 10**7),
)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=40), st.integers(24, 200), st.integers(4, 60))
def test_no_line_is_too_long_and_there_are_not_too_many(rows: list[Row], width: int, height: int) -> None:
    lines = table(rows, width, height)
    assert all(len(line) < width for line in lines)
    assert len(lines) < height


@settings(deadline=None)
@given(st.integers(NARROW, 200), st.integers(24, 60))
def test_percent_and_time_left_are_there_from_60_columns_on(width: int, height: int) -> None:
    line = table(MIXED, width, height)[1]
    assert " 42% " in line
    assert "118.3 MB/s" in line
    assert "3 min 28 s left" in line


def test_columns_stay_where_they_are_whatever_the_state() -> None:
    lines = table(TWENTY[:6], 80, 24)
    assert len({line.index("%") for line in lines}) == 1


def test_both_ends_of_a_long_name_are_shown() -> None:
    line = table(MIXED, 60, 24)[1]
    assert line.startswith("bartowsk…F:Q4_K_M ")
