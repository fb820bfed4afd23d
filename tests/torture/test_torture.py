"""The short form of the torture chamber: the brief cases of every family. `make torture` runs all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.torture.cases import Case
from tests.torture.families import FAMILIES
from tests.torture.lives import STEPS, steps_of_a_whole_life

KILLS = 50

CASES = [
    pytest.param(
        case,
        id=f"{family.title}: {case.name}",
        marks=pytest.mark.skipif(case.lacks is not None, reason=case.lacks or ""),
    )
    for family in FAMILIES
    for case in family.cases(KILLS)
    if case.brief
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_what_was_promised_holds(case: Case, tmp_path: Path) -> None:
    case.run(tmp_path)


@pytest.mark.skipif(shutil.which("cc") is None, reason="the library that counts is built with a C compiler")
def test_the_walk_over_the_calls_of_a_life_reaches_their_end(tmp_path: Path) -> None:
    assert STEPS * 0.9 < steps_of_a_whole_life(tmp_path) <= STEPS
