"""Sizes and times as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.quantities import read_bytes, read_seconds
from agent.core.words import shorten


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("7", 7),
        (" 50 MB ", 50_000_000),
        ("50mb", 50_000_000),
        ("50M", 50_000_000),
        ("1.5GB", 1_500_000_000),
        ("64MiB", 64 * 2**20),
        ("10 MB/s", 10_000_000),
        ("2 TiB", 2 * 2**40),
        ("", None),
        ("MB", None),
        ("5 XB", None),
        ("-5MB", None),
        ("1e9", None),
        ("1.MB", None),
        ("٣MB", None),
        ("9" * 100, None),
    ],
)
def test_sizes(text: str, number: int | None) -> None:
    assert read_bytes(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("90", 90.0), ("90s", 90.0), ("250 ms", 0.25), ("2h", 7200.0), ("1.5 d", 129_600.0), ("7 days", 604_800.0),
     ("30 min", 1800.0), ("2w", 1_209_600.0), ("h", None), ("", None), ("5 MB", None), ("-1s", None)],
)  # fmt: skip
def test_times(text: str, number: float | None) -> None:
    assert read_seconds(text) == number


@given(st.text(max_size=50))
def test_any_text_is_a_number_or_none(text: str) -> None:
    assert (read_bytes(text) or 0) >= 0
    assert (read_seconds(text) or 0) >= 0


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [("abcdef", 6, "abcdef"), ("abcdef", 5, "ab…ef"), ("abcdef", 4, "ab…f"), ("abcdef", 2, "ab"), ("", 0, "")],
)
def test_a_name_is_cut_in_the_middle(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short
