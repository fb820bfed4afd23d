"""Untyped mappings (JSON, TOML, environment) become frozen structs; every problem is told at once.

msgspec checks each value against its field's type; this module adds what people need from it: all problems of
a mapping in one go, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from agent.core.names import show

T = TypeVar("T", bound=msgspec.Struct)

WORD_MAX = 100  # a key of a megabyte has no nearest one, and comparing it costs a fifth of a second
GUESSES_MAX = 50  # a want of 80,000 unknown keys took 1.5 s of guessing


def nearest(word: str, known: list[str]) -> str:
    """`, did you mean 'x'?` for the nearest known word, or nothing."""
    close = difflib.get_close_matches(word[:WORD_MAX], known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}" if known else ""


def build(
    kind: type[T],
    values: Mapping[str, Any],
    where: str,
    *,
    lax: bool = False,
    check: Callable[[str, Any], str | None] | None = None,
    read: Callable[[Any, Any], Any] = lambda hint, value: value,
) -> tuple[T | None, list[str]]:
    """Convert `values` to the struct `kind`. `where` begins each problem, like `config.toml: [hub]`.

    `lax` also takes numbers and booleans written as text (environment variables). `check(key, value)` may name
    a further problem. `read(hint, value)` gives the value to convert, for fields that are also written in other ways.
    A field's `Meta(extra={"expected": …})` is what its problems say. Returns the struct, or None and all problems.
    """
    problems: list[str] = []
    good: dict[str, Any] = {}
    hints = _hints(kind)
    for key, value in values.items():
        if not isinstance(key, str) or key not in hints:
            guess = nearest(str(key), list(hints)) if len(problems) < GUESSES_MAX else ""
            problems.append(f"{where}: unknown key {show(str(key))}{guess}")
            continue
        try:
            good[key] = msgspec.convert(read(hints[key], value), hints[key], strict=not lax)
        except msgspec.ValidationError as error:
            expected = _expected(hints[key]) or str(error)
            problems.append(f"{where}: {key}: {expected}, not {show(str(value), 60)}")
            continue
        if check and (problem := check(key, good[key])):
            problems.append(f"{where}: {key}: {problem}")
    missing = [f.name for f in msgspec.structs.fields(kind) if f.required and f.name not in values]
    problems += [f"{where}: {name!r} is required" for name in missing]
    return (None, problems) if problems else (kind(**good), [])


@functools.cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _expected(hint: Any) -> str | None:
    """What a choice of words expects, or a field that says so; msgspec knows only the type."""
    if get_origin(hint) is Literal:
        return f"expected one of {', '.join(get_args(hint))}"
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.extra and "expected" in note.extra:
            return str(note.extra["expected"])
    return None
