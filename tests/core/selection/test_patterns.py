"""Patterns of file names: as fnmatch has them, over many files at once."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.selection.patterns import exactly, is_literal, matching, numbered

THERE = ["config.json", "m-Q4.gguf", "m-Q8.gguf", "x/config.json", "x/y/z.txt"]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*.json"], ["config.json", "x/config.json"]),
        (["x/*"], ["x/config.json", "x/y/z.txt"]),
        (["config.json"], ["config.json", "x/config.json"]),
        (["*/config.json"], ["x/config.json"]),
        (["x/config.json"], ["x/config.json"]),
        (["m-Q[48]*.gguf"], ["m-Q4.gguf", "m-Q8.gguf"]),
        (["m-Q[!8].gguf"], ["m-Q4.gguf"]),
        (["?.txt"], ["x/y/z.txt"]),
        (["*.txt", "m-Q4.gguf"], ["m-Q4.gguf", "x/y/z.txt"]),
        (["x*"], ["x/config.json", "x/y/z.txt"]),
        (["z*"], ["x/y/z.txt"]),
        (["y/*"], []),
        ([], []),
    ],
)
def test_a_pattern_fits_a_path_or_without_a_slash_a_name(patterns: list[str], found: list[str]) -> None:
    hits, useless = matching(THERE, patterns)
    assert sorted(hits) == found
    assert useless == ([] if found or not patterns else patterns)


def test_the_patterns_that_fit_nothing_are_told_in_their_order() -> None:
    assert matching(THERE, ["b", "*.json", "*.b", "config.json", "a", "*.b", "c*c*o*"])[1] == [
        "b",
        "*.b",
        "a",
        "c*c*o*",
    ]
    assert matching(THERE, ["*", "*.json", "m*"])[1] == []


PATTERN = st.text(alphabet="ab/*?[]!-^.", max_size=8)
NAME = st.text(alphabet="ab/[]!-^.*?", min_size=1, max_size=8)


@given(st.lists(NAME, max_size=6, unique=True), st.lists(PATTERN, max_size=4))
@example(["a/b"], ["a*", "b"])
@example(["b/a"], ["[!b]"])
@example(["]"], ["[]]", "[]"])
def test_any_patterns_fit_as_fnmatch_says(names: list[str], patterns: list[str]) -> None:
    def fits(name: str, pattern: str) -> bool:
        own = name.rpartition("/")[2]
        return fnmatch.fnmatchcase(name, pattern) or ("/" not in pattern and fnmatch.fnmatchcase(own, pattern))

    found, useless = matching(names, patterns)
    assert found == {name for name in names if any(fits(name, pattern) for pattern in patterns)}
    assert set(useless) == {pattern for pattern in patterns if not any(fits(name, pattern) for name in names)}
    assert len(useless) == len(set(useless))


@given(NAME, st.lists(NAME, max_size=4))
def test_a_name_made_a_pattern_fits_that_path_alone(name: str, others: list[str]) -> None:
    found, _ = matching([name, *others], [exactly(name)])
    assert found == {name} | (
        {other for other in others if other.rpartition("/")[2] == name} if "/" not in name else set()
    )


def test_a_numbered_name_made_a_pattern_fits_its_whole_set() -> None:
    assert numbered("a-00001-of-00003.gguf") == "a-*-of-00003.gguf"
    assert numbered("x/model-00012-of-000163.fp16.safetensors") == "x/model-*-of-000163.fp16.safetensors"
    assert numbered("a*-1-of-3.gguf") == "a[*]-1-of-3.gguf"
    assert is_literal("a-b.c") and is_literal("a[b") and not is_literal("a[b]") and not is_literal("*")
    assert not is_literal("a?")
