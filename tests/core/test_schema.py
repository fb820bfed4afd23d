"""Mappings from outside become structs, or a list of everything that is wrong with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agent.core.schema import build, nearest


class Thing(msgspec.Struct, frozen=True):
    name: str
    count: Annotated[int, Meta(ge=1)] = 1
    kind: Literal["big", "small"] = "big"
    flag: bool = False


def problems(values: dict[Any, Any], **options: Any) -> list[str]:
    built, found = build(Thing, values, "file.toml: [thing]", **options)
    assert (built is None) == bool(found)
    assert all(problem.startswith("file.toml: [thing]: ") for problem in found)
    return found


def test_good_values_become_the_struct() -> None:
    assert build(Thing, {"name": "a", "count": 3}, "x") == (Thing("a", 3), [])


def test_every_problem_is_told_at_once() -> None:
    found = problems({"count": 0, "kind": "huge", "falg": True, 7: 1})
    assert len(found) == 5
    assert any("count: Expected `int` >= 1, not '0'" in problem for problem in found)
    assert any("kind: expected one of big, small, not 'huge'" in problem for problem in found)
    assert any("unknown key 'falg', did you mean 'flag'?" in problem for problem in found)
    assert any("unknown key '7'; known are name, count, kind, flag" in problem for problem in found)
    assert any("'name' is required" in problem for problem in found)


def test_text_counts_as_numbers_and_flags_only_where_it_is_all_there_is() -> None:
    texts = {"name": "a", "count": "3", "flag": "true"}
    assert build(Thing, texts, "x", lax=True) == (Thing("a", 3, flag=True), [])
    assert len(problems(texts)) == 2


def test_a_further_check_may_name_a_problem() -> None:
    found = problems({"name": "a"}, check=lambda key, value: f"{key} is {value}" if value == "a" else None)
    assert found == ["file.toml: [thing]: name: name is a"]


def test_of_a_flood_of_unknown_keys_fifty_are_guessed_at() -> None:
    found = problems({f"k{n}": 1 for n in range(50_000)})
    assert len(found) == 50_001
    assert ["known are" in problem for problem in found[:51]] == [True] * 50 + [False]
    assert not any("known are" in problem for problem in found[51:])


def test_of_a_key_of_a_megabyte_only_the_beginning_is_compared_and_shown() -> None:
    assert len(problems({"x" * 1_000_000: 1})[0]) < 300


def test_the_nearest_word_is_offered_where_one_is_near() -> None:
    assert nearest("endpont", ["endpoint", "offline"]) == ", did you mean 'endpoint'?"
    assert nearest("team", ["name"]) == "; known are name"  # two letters of four in common
    assert nearest("zzz", ["endpoint", "offline"]) == "; known are endpoint, offline"
    assert nearest("zzz", []) == ""
