"""Changes of which a person has found that they change nothing that can be promised: `known.toml`, with the reasons."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("known.toml")


@dataclass(frozen=True, slots=True)
class Known:
    """A change by its module and its lines before and after (see `Change.lines`), and why no test can notice it."""

    file: str
    was: str
    now: str
    why: str


def read_values(text: str) -> dict[str, str]:
    """The modules whose constants are left as they are, each with the reason. Raises ValueError as `read_known`."""
    return {entry["file"]: entry["why"] for entry in _entries(text, "values", {"file", "why"})}


def read_known(text: str) -> list[Known]:
    """The entries of the file. Raises ValueError for one that lacks a key, has another, or gives no reason."""
    return [Known(**entry) for entry in _entries(text, "known", {"file", "was", "now", "why"})]


def _entries(text: str, kind: str, keys: set[str]) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = tomllib.loads(text).get(kind, [])
    for entry in entries:
        if set(entry) != keys or not all(entry.values()):
            raise ValueError(f"an entry of {kind} needs {', '.join(sorted(keys))}: {entry}")
    return entries
