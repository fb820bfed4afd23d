"""A selection fits no file, or too many. A rule says why; `choices` adds what can be asked for instead."""

from __future__ import annotations

from collections.abc import Iterable

from agent.core.names import show
from agent.errors import Code

CHOICES_SHOWN = 12


class NoMatch(Exception):
    """Raised by the rules: `why` is a clause with its values, `names` are the files that it is about."""

    def __init__(self, code: Code, why: str, names: Iterable[str] = ()) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.names = tuple(names)


def not_found(why: str) -> NoMatch:
    """No file fits."""
    return NoMatch(Code.FILE_NOT_FOUND, why)


def ambiguous(why: str, names: Iterable[str]) -> NoMatch:
    """Several fit, and nothing says which of them is meant."""
    return NoMatch(Code.AMBIGUOUS_FILE, why, sorted(names))


def forbidden(name: str) -> NoMatch:
    """The file can run code when it is loaded, and the choice is not whole without it."""
    return NoMatch(Code.FORBIDDEN_FORMAT, f"{show(name)} is in a format that can run code when it is loaded", [name])


def listed(names: Iterable[str]) -> str:
    """The first of some names, for a message."""
    known = list(names)
    more = f" and {len(known) - CHOICES_SHOWN} more" if len(known) > CHOICES_SHOWN else ""
    return ", ".join(show(name).strip("'") for name in known[:CHOICES_SHOWN]) + more
