"""Trees of real repositories: which files each want is, that its loader finds all it opens, and opens every weight."""

from __future__ import annotations

import json
import re

import pytest

from agent.core.catalog import Catalog
from agent.core.plan import Plan
from agent.core.selection.code import CodePolicy
from agent.core.target import Target, make_target
from agent.core.want import parse_want
from agent.errors import WantdError
from tests.core.loaders import LOADERS, WEIGHTS, Disk
from tests.core.selection.build import names, plan_of
from tests.core.trees import Case, cases

CASES = cases()
CHOSEN = [case for case in CASES if case.chosen is not None]
REFUSED = [case for case in CASES if case.error is not None]


def target(want: object) -> Target:
    """The target of a want that is written as JSON, or as a line."""
    text = want if isinstance(want, str) else json.dumps(want)
    (model,) = parse_want("x.want", text.encode()).models
    return make_target(Catalog(), "any", model)


def made(case: Case, want: object | None = None) -> Plan:
    policy = CodePolicy(frozenset(case.formats), case.code)  # type: ignore[arg-type]
    return plan_of(target(want or case.want), case.listing, case.contents, policy)


def test_the_corpus_is_large_enough() -> None:
    assert len({case.repo for case in CASES}) >= 80
    assert len(CHOSEN) + len(REFUSED) == len(CASES)
    assert {case.loader for case in CHOSEN if case.loader} == set(LOADERS)


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_the_choice_is_the_expected_one(case: Case) -> None:
    plan = made(case)
    assert sorted(names(plan)) == sorted(case.chosen or ())
    assert sorted(plan.skipped) == sorted(case.skipped)
    assert (case.warning is None) == (plan.warning is None)
    assert (case.warning or "") in (plan.warning or "")
    listed = {file.name: file for file in case.listing.files}
    for file in plan.files:
        there = listed[file.name]
        assert (file.size, file.sha256, file.git_sha1) == (there.size, there.sha256, there.git_sha1)


@pytest.mark.parametrize("case", [case for case in CHOSEN if case.loader], ids=str)
def test_the_loader_finds_all_it_opens_and_every_weight_is_opened(case: Case) -> None:
    plan = made(case)
    chosen = frozenset(names(plan))
    disk = Disk(chosen, frozenset(file.name for file in case.listing.files), case.contents)
    opened = LOADERS[case.loader or ""](disk, plan.opens if case.loader == "llama.cpp" else case.variant)
    assert opened <= chosen
    assert {name for name in chosen if WEIGHTS.match(name)} <= opened


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_refused_says_what_to_ask_for_and_that_works(case: Case) -> None:
    with pytest.raises(WantdError) as caught:
        made(case)
    error = caught.value
    assert error.code.value == case.error
    for part in case.hint:
        assert part in f"{error.hint},"
    for choice in choices(error.hint):
        assert made(case, choice).files


def choices(hint: str) -> list[str]:
    """What a hint offers to paste: references, and the JSON of wants."""
    _, found, text = hint.partition("ask for one of these: ")
    text = text.removesuffix(" and more")
    wants = re.findall(r"\{[^{}]*\}", text)
    references = [part.strip() for part in re.sub(r"\{[^{}]*\}", "", text).split(",") if part.strip()]
    assert bool(found) == bool(wants + references)
    return wants + references
