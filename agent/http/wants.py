"""The wants by path, with what lists and counts need of each: kept up to date by the publisher, read by handlers."""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.core.states import State
from agent.state.ticket import Ticket

AT_ONCE = 2000  # wants that a filter looks at in one turn of the loop: 5 ms
LABELS_KEPT = 1000  # label values that are counted: producers choose them
LABELS_SHOWN = 50


@dataclass(slots=True)
class Row:
    """One want: state and labels as they are counted, and a digest of what readers were told last."""

    ticket: Ticket
    state: State
    waiting: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    told: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which wants: in one of the `states`, with all of the `labels`, with `text` (case folded) in path or model."""

    states: frozenset[str] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    text: str = ""

    def matches(self, path: str, row: Row) -> bool:
        """Whether the want passes."""
        if self.states and row.state.value not in self.states:
            return False
        if self.labels and not self.labels <= set(row.labels):
            return False
        if not self.text or self.text in path.casefold():
            return True
        want = row.ticket.want
        return want is not None and any(self.text in model.reference.casefold() for model in want.models)


EVERY = Filter()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: its tickets, how many match in all, and where the next page begins after."""

    tickets: list[Ticket]
    total: int
    next: str | None


class Wants:
    """`counts` has wants by state, `waiting` by what they wait for. All calls come from the event loop."""

    def __init__(self, spool: str) -> None:
        self._prefix = f"{spool}/"
        self._rows: dict[str, Row] = {}
        self._paths: list[str] = []  # sorted
        self._odd: dict[str, str] = {}  # paths that are not shown as they are, by what is shown
        self._labels: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[State] = Counter()
        self.waiting: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def shown(self, path: str) -> str:
        """A path as it is shown: relative to the spool, with escapes where it holds what cannot be printed."""
        path = path.removeprefix(self._prefix)
        return path if path.isprintable() else ascii(path)[1:-1]

    def put(self, ticket: Ticket) -> Row:
        """Note the want as it is now."""
        row = self._rows.get(ticket.path)
        if row is None or row.ticket is not ticket:
            if row is not None:
                self.drop(row.ticket)
            row = self._rows[ticket.path] = Row(ticket, ticket.state)
            insort(self._paths, ticket.path)
            if not ticket.path.isprintable():
                self._odd[self.shown(ticket.path)] = ticket.path
        else:
            self._count(row, -1)
        row.state = ticket.state
        row.waiting = _waits_for(ticket) if row.state is State.WAITING else None
        row.labels = tuple(ticket.want.labels.items()) if ticket.want and ticket.want.labels else ()
        self._count(row, +1)
        return row

    def drop(self, ticket: Ticket) -> bool:
        """The want is gone. False where it was not known, or another one has its place by now."""
        row = self._rows.get(ticket.path)
        if row is None or row.ticket is not ticket:
            return False
        del self._rows[ticket.path]
        self._odd.pop(self.shown(ticket.path), None)
        self._count(row, -1)
        del self._paths[bisect_right(self._paths, ticket.path) - 1]
        return True

    def find(self, shown: str) -> Ticket | None:
        """The want at a path as `shown` gives it."""
        row = self._rows.get(self._path(shown))
        return row.ticket if row else None

    def _path(self, shown: str) -> str:
        return self._odd.get(shown, self._prefix + shown)

    def labels(self) -> dict[str, list[str]]:
        """The label values that most wants have, by key."""
        listed: dict[str, list[str]] = {}
        for key, value in sorted(label for label, _ in self._labels.most_common(LABELS_SHOWN)):
            listed.setdefault(key, []).append(value)
        return listed

    async def page(self, wanted: Filter, after: str, limit: int) -> Page:
        """Up to `limit` wants that pass, ordered by path, behind the path `after`; others have turns in between."""
        paths = self._paths.copy()
        found: list[Ticket] = []
        total, more = 0, False
        start = bisect_right(paths, self._path(after)) if after else 0
        if wanted == EVERY:
            some = [row.ticket for path in paths[start : start + limit] if (row := self._rows.get(path))]
            return Page(some, len(paths), self._next(some, start + limit < len(paths)))
        for at, path in enumerate(paths):
            if at % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            row = self._rows.get(path)
            if row is None or not wanted.matches(self.shown(path), row):
                continue
            total += 1
            if at >= start:
                more = more or len(found) >= limit
                if len(found) < limit:
                    found.append(row.ticket)
        return Page(found, total, self._next(found, more))

    def _next(self, found: Iterable[Ticket], more: bool) -> str | None:
        last = [ticket.path for ticket in found][-1:]
        return self.shown(last[0]) if more and last else None

    def _count(self, row: Row, by: int) -> None:
        self.counts[row.state] += by
        if row.waiting:
            self.waiting[row.waiting] += by
        for label in row.labels:
            if by < 0 or label in self._labels or len(self._labels) < LABELS_KEPT:
                self._labels[label] += by
                if self._labels[label] <= 0:
                    del self._labels[label]


def _waits_for(ticket: Ticket) -> str | None:
    """`waiting.for` of the want."""
    wait = ticket.waiting or next((model.waiting for _, model in ticket.models if model.waiting), None)
    return str(type(wait).__struct_config__.tag) if wait else None


def positive(counts: Mapping[State, int] | Mapping[str, int]) -> dict[str, int]:
    """The counts that are not zero, by name."""
    return {str(name): count for name, count in sorted(counts.items()) if count > 0}
