"""Numbers read as a person would say them."""

from __future__ import annotations

import pytest

from agent.core.words import duration, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (-2_500_000, "-2.5 MB"),
        (4_920_000_000, "4.9 GB"),
        (1_234_000_000_000, "1.23 TB"),
        (5_000_000_000_000_000, "5000.00 TB"),
    ],
)
def test_sizes(count: float | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (7384, "2 h 3 min"),
        (583_800, "6 d 18 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
