"""The short form of the torture chamber: the brief cases of every family. `make torture` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.cases import Case
from tests.torture.families import FAMILIES

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
    assert case.run(tmp_path) == case.faults
