"""Changes of which a person has found that they change nothing that can be promised: `known.toml`, with the reasons."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("known.toml")
KEYS = {"file", "was", "now", "why"}


@dataclass(frozen=True, slots=True)
class Known:
    """A change by its module and its lines before and after (see `Change.lines`), and why no test can notice it."""

    file: str
    was: str
    now: str
    why: str


def read_known(text: str) -> list[Known]:
    """The entries of the file. Raises ValueError for one that lacks a key, has another, or gives no reason."""
    entries = tomllib.loads(text).get("known", [])
    for entry in entries:
        if set(entry) != KEYS or not all(isinstance(value, str) for value in entry.values()) or not entry["why"]:
            raise ValueError(f"an entry needs {', '.join(sorted(KEYS))}: {entry}")
    return [Known(**entry) for entry in entries]
