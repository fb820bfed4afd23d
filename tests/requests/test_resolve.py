"""Models looked up: near misses and errors within what one batch may cost."""

from __future__ import annotations

import orjson

from agent.core.catalog import parse_catalog
from agent.core.limits import ERRORS_IN_FULL, NEAR_COMPARISONS
from agent.core.target import Target
from agent.core.want import WantedModel
from agent.errors import Code, WantdError
from agent.requests.resolve import Resolver


def resolver(known: int = 1) -> Resolver:
    entries = [{"id": f"qwen{number}", "repo": f"org/qwen{number}"} for number in range(known)]
    return Resolver(parse_catalog(orjson.dumps(entries)), "catalog", "config.toml")


def errors(found: list[Target | WantdError]) -> list[WantdError]:
    return [one for one in found if isinstance(one, WantdError)]


def test_what_is_known_has_its_target_wherever_it_stands() -> None:
    found = resolver().resolve([WantedModel("no-such")] * (2 * ERRORS_IN_FULL) + [WantedModel("qwen0")])
    assert isinstance(found[-1], Target)
    assert len(errors(found)) == 2 * ERRORS_IN_FULL


def test_the_first_errors_name_their_model_and_the_others_are_one_object() -> None:
    found = errors(resolver().resolve([WantedModel(f"no-such-{number}") for number in range(3 * ERRORS_IN_FULL)]))
    assert {error.code for error in found} == {Code.MODEL_NOT_SUPPORTED}
    assert [error.model for error in found[:3]] == ["no-such-0", "no-such-1", "no-such-2"]
    assert len({id(error) for error in found}) == ERRORS_IN_FULL + 1
    assert found[-1].message
    assert found[-1].hint


def test_each_kind_of_error_keeps_its_code() -> None:
    models = [WantedModel(name) for number in range(ERRORS_IN_FULL) for name in (f"no-such-{number}", f"../{number}")]
    found = errors(resolver().resolve(models))
    assert [error.code for error in found[:2]] == [error.code for error in found[-2:]]


def test_near_misses_are_looked_for_as_long_as_the_comparisons_last() -> None:
    known = NEAR_COMPARISONS // 4
    found = errors(resolver(known).resolve([WantedModel(f"qwen{known + number}") for number in range(5)]))
    meant = ["did you mean" in error.hint for error in found]
    assert meant == [True, True, False, False, False]
