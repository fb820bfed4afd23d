"""The numbered history of events, which every reader reads at its own pace.

    ids   | 7 | 8 | 9 | 10 | 11 | 12 |     one after another, without a gap
    alive | x |   | x |    |    | x  |     a byte count dies when something newer is known of the same want

A reader holds the id that it has read up to. What it finds behind it is every change that is still kept, and of each
want at most one byte count: the last. So a slow reader loses byte counts and never a change of state; a reader that
is further behind than the history reaches is told `reset`.

Ids begin at the microseconds of the start of the agent (below 2**53, so JavaScript can count them), and an agent makes
less than one event in a microsecond: an id of an earlier run is always before the first one of this run.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.core.progress import encode
from agent.core.words import timestamp

HISTORY_EVENTS = 50_000  # ids, most of which carry nothing any more: 0.4 MB
HISTORY_BYTES = 12 * 1024 * 1024  # of what they carry: 8,000 changes of plain wants
TRIM_SHARE = 0.1  # how much goes at once when the history is full: moving a list costs as much as it is long


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `body` is its JSON, the same for every reader."""

    id: int
    type: str
    body: bytes


class EventLog:
    """See the head of the module. `start` is the wall time at which the agent began."""

    def __init__(self, start: datetime, *, events: int = HISTORY_EVENTS, most_bytes: int = HISTORY_BYTES) -> None:
        self._first = int(start.timestamp() * 1e6)  # the id of `_events[0]`
        self._events: list[Event | None] = []
        self._counts: dict[Hashable, int] = {}  # ids of living byte counts
        self._bytes = 0
        self._most_events, self._most_bytes = events, most_bytes

    @property
    def last(self) -> int:
        """The id of the last event; that of a reader that begins now."""
        return self._first + len(self._events) - 1

    def change(self, kind: str, data: Any, now: datetime, key: Hashable = None) -> None:
        """Something that no reader may miss. Byte counts of `key` are out of date with it."""
        self._forget_count(key)
        self._append(kind, data, now)

    def count(self, kind: str, data: Any, now: datetime, key: Hashable) -> None:
        """Something that the next event of the same `key` replaces."""
        self._forget_count(key)
        self._counts[key] = self._append(kind, data, now)

    def skip(self) -> None:
        """Something happened that is not kept: a reader that goes on from before it is told `reset`."""
        self._first += len(self._events) + 1
        self._events, self._counts, self._bytes = [], {}, 0

    def read(self, since: int, most_bytes: int) -> tuple[list[Event], int] | None:
        """Events behind `since`, `most_bytes` of them or a little more, and the id that has been read up to.

        None where some of them are no longer kept, or `since` is of another run.
        """
        at = since + 1 - self._first
        if not 0 <= at <= len(self._events):
            return None
        found: list[Event] = []
        size = 0
        while at < len(self._events) and size < most_bytes:
            if event := self._events[at]:
                found.append(event)
                size += len(event.body)
            at += 1
        return found, self._first + at - 1

    def reset(self, now: datetime) -> Event:
        """For a reader that has missed something: read the status again."""
        return Event(self.last, "reset", _body(self.last, "reset", {}, now))

    def _append(self, kind: str, data: Any, now: datetime) -> int:
        number = self.last + 1
        event = Event(number, kind, _body(number, kind, data, now))
        self._events.append(event)
        self._bytes += len(event.body)
        if len(self._events) > self._most_events or self._bytes > self._most_bytes:
            self._trim()
        return number

    def _forget_count(self, key: Hashable) -> None:
        number = self._counts.pop(key, None)
        if number is not None and (event := self._events[number - self._first]):
            self._bytes -= len(event.body)
            self._events[number - self._first] = None

    def _trim(self) -> None:
        keep_events, keep_bytes = (int(most * (1 - TRIM_SHARE)) for most in (self._most_events, self._most_bytes))
        at = 0
        while at < len(self._events) - 1 and (len(self._events) - at > keep_events or self._bytes > keep_bytes):
            if event := self._events[at]:
                self._bytes -= len(event.body)
            at += 1
        del self._events[:at]
        self._first += at
        self._counts = {key: number for key, number in self._counts.items() if number >= self._first}


def _body(number: int, kind: str, data: Any, now: datetime) -> bytes:
    return encode({"id": number, "time": timestamp(now), "type": kind, "data": data})
