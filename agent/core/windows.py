"""Windows of time with a cap of their own on the rate: "at night as fast as it goes, on weekdays not at all".

A window is wall-clock time in its zone: `from` 22:00 `to` 06:00 on Monday begins on Monday evening and ends on Tuesday
morning, however long that night is. So where clocks are put forward, times that do not exist are left out, and where
they are put back, an hour that comes twice counts twice. Pure: the moment is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

AHEAD_DAYS = 8  # every window comes within a week

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as `weekday` counts
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z", re.ASCII)


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[transfer.window]]`. `days` are those that it begins on; `max_rate` in bytes per second, 0 pauses.

    `begins` and `ends` (`from`, `to`) are `HH:MM`; equal ones are a whole day. `zone` is one of the IANA data base,
    empty for that of the host.
    """

    begins: str = msgspec.field(name="from", default="00:00")
    ends: str = msgspec.field(name="to", default="00:00")
    days: Annotated[list[Day], Meta(min_length=1)] = msgspec.field(default_factory=lambda: list(DAYS))
    zone: str = ""
    max_rate: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Cap:
    """What holds at a moment: the cap in bytes per second (None: no window is open), and until when, in UTC."""

    max_rate: int | None
    until: datetime | None

    @property
    def paused(self) -> bool:
        """Whether nothing may be downloaded."""
        return self.max_rate == 0


def problem(window: Window) -> str | None:
    """What is wrong with a window that has the right types; None where nothing is."""
    for name, text in (("from", window.begins), ("to", window.ends)):
        if not _CLOCK.match(text):
            return f"'{name}': expected a time like \"22:00\", not {text!a}"
    if window.zone:
        try:
            ZoneInfo(window.zone)
        except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            return f"'zone': {window.zone!a} is not in the time zone data of this host"
    return None


def in_force(windows: Sequence[Window], now: datetime) -> Cap:
    """The cap at an aware time: that of the first window that is open. `until` is None where it never changes."""
    rate = _rate(windows, now)
    if not windows:
        return Cap(None, None)
    changes = sorted({at for window in windows for at in _edges(window, now) if at > now})
    return Cap(rate, next((at for at in changes if _rate(windows, at) != rate), None))


def _rate(windows: Sequence[Window], at: datetime) -> int | None:
    return next((window.max_rate for window in windows if _is_open(window, at)), None)


def _is_open(window: Window, at: datetime) -> bool:
    local = at.astimezone(_zone(window.zone))
    clock, begins, ends = local.time(), _time(window.begins), _time(window.ends)
    today, yesterday = DAYS[local.weekday()], DAYS[(local.weekday() - 1) % 7]
    if begins < ends:
        return today in window.days and begins <= clock < ends
    return (today in window.days and clock >= begins) or (yesterday in window.days and clock < ends)


def _edges(window: Window, now: datetime) -> Iterator[datetime]:
    """Every moment, in UTC, at which the window may open or close within the next days."""
    zone = _zone(window.zone)
    first = now.astimezone(zone).date() - timedelta(days=1)
    for number in range(AHEAD_DAYS + 2):
        day = first + timedelta(days=number)
        for clock in (_time(window.begins), _time(window.ends)):
            yield from _moments(day, clock, zone)


def _moments(day: date, clock: time, zone: tzinfo | None) -> list[datetime]:
    """When that time of day is: once, twice where clocks are put back, or at the jump where it is left out.

    Around either change of the clocks the jump itself is among them: a window may open or close there.
    """
    early, late = (_to_utc(datetime.combine(day, clock, None).replace(fold=fold), zone) for fold in (0, 1))
    if early == late:
        return [early]
    low, high = sorted((early - timedelta(hours=3), late + timedelta(hours=3)))
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return [early, late, high.replace(microsecond=0)]


def _to_utc(naive: datetime, zone: tzinfo | None) -> datetime:
    """A wall-clock time in UTC; without a zone by the rules of the host."""
    return (naive.replace(tzinfo=zone) if zone else naive).astimezone(UTC)


@lru_cache(64)
def _zone(name: str) -> tzinfo | None:
    return ZoneInfo(name) if name else None


def _time(text: str) -> time:
    return time.fromisoformat(text)
