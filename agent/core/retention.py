"""Which leftovers may go: an inventory and the time now in, what to remove out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leftover:
    """A partial (its key and all its files' paths) and when it last changed, in seconds since the epoch."""

    key: str
    paths: tuple[str, ...]
    changed_at: float


def expired(leftovers: Iterable[Leftover], wanted: Collection[str], now: float, keep_s: float) -> list[Leftover]:
    """Partials that no job wants and that nothing has touched for `keep_s` seconds.

    A time in the future (a clock that was set back) counts as now: nothing is removed for it.
    """
    return [left for left in leftovers if left.key not in wanted and now - left.changed_at > keep_s]
