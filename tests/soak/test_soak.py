"""What the soak calls growth, and half a minute of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.__main__ import soak
from tests.soak.growth import MIB, Sample, ends, grown, sample


def life(*ends: Sample, count: int = 120) -> list[Sample]:
    """A life that goes evenly from one sample to the next."""
    parts = len(ends) - 1
    found = []
    for number in range(count):
        at = number * parts // count
        share = (number * parts % count) / count
        one, next_one = ends[at], ends[at + 1]
        found.append(Sample(*(int(a + (b - a) * share) for a, b in zip(_values(one), _values(next_one), strict=True))))
    return found


def _values(one: Sample) -> tuple[int, int, int]:
    return one.rss, one.threads, one.descriptors


CALM = Sample(80 * MIB, 20, 60)


@pytest.mark.parametrize(
    ("last", "word"),
    [
        (Sample(160 * MIB, 20, 60), "memory grew"),
        (Sample(300 * MIB, 20, 60), "more than 250"),
        (Sample(80 * MIB, 40, 60), "threads grew"),
        (Sample(80 * MIB, 20, 160), "descriptors grew"),
    ],
)
def test_what_grows_is_told(last: Sample, word: str) -> None:
    assert grown(life(CALM, CALM)) == []
    assert any(word in what for what in grown(life(CALM, last)))


def test_warming_up_and_a_moment_are_no_growth() -> None:
    warm = life(Sample(40 * MIB, 5, 20), CALM, CALM, CALM, CALM)
    assert grown(warm) == []
    warm[70] = Sample(200 * MIB, 60, 300)
    assert grown(warm) == []
    assert ends(warm[:1]) == (warm[0], warm[0])


def test_a_process_is_looked_at() -> None:
    here = sample(os.getpid())
    assert here.rss > MIB
    assert here.threads >= 1
    assert here.descriptors >= 3


@pytest.mark.timeout(300)
def test_half_a_minute_of_it(tmp_path: Path) -> None:
    assert soak(0.5, 7, tmp_path) == []
