"""Windows are wall-clock time: over midnight, over both changes of the clocks, and whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.windows import Window, _edges, _rate, in_force, problem

BERLIN = "Europe/Berlin"  # UTC+1, and UTC+2 from 2026-03-29 02:00 to 2026-10-25 03:00 local time
NIGHT = Window("22:00", "06:00", zone=BERLIN)
MB = 1_000_000


def window(**keys: object) -> Window:
    return msgspec.convert(keys, Window)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "paused", "until"),
    [
        ("2026-01-05T20:59:59", False, "2026-01-05T21:00:00"),
        ("2026-01-05T21:00:00", True, "2026-01-06T05:00:00"),
        ("2026-01-05T23:30:00", True, "2026-01-06T05:00:00"),  # half past midnight
        ("2026-01-06T04:59:59", True, "2026-01-06T05:00:00"),
        ("2026-01-06T05:00:00", False, "2026-01-06T21:00:00"),
        ("2026-07-05T20:00:00", True, "2026-07-06T04:00:00"),  # summer time
        ("2026-03-28T21:00:00", True, "2026-03-29T04:00:00"),  # a night of seven hours
        ("2026-10-24T20:00:00", True, "2026-10-25T05:00:00"),  # and one of nine
    ],
)
def test_a_window_over_midnight(moment: str, paused: bool, until: str) -> None:
    cap = in_force([NIGHT], at(moment))
    assert (cap.paused, cap.until) == (paused, at(until))


def test_a_window_belongs_to_the_day_that_it_begins_on() -> None:
    friday = window(days=["fri"], **{"from": "22:00", "to": "06:00"}, zone="UTC")
    assert not in_force([friday], at("2026-01-09T05:00:00")).paused  # Friday morning: Thursday's window
    assert in_force([friday], at("2026-01-09T22:00:00")).paused
    assert in_force([friday], at("2026-01-10T05:59:59")).paused  # Saturday morning
    assert not in_force([friday], at("2026-01-10T22:00:00")).paused


def test_a_time_that_does_not_exist_is_left_out_and_one_that_comes_twice_counts_twice() -> None:
    early = window(**{"from": "02:15", "to": "02:45"}, zone=BERLIN)
    spring = [at("2026-03-29T00:00:00") + timedelta(minutes=number) for number in range(180)]
    autumn = [at("2026-10-25T00:00:00") + timedelta(minutes=number) for number in range(180)]
    assert not any(in_force([early], moment).paused for moment in spring)
    assert sum(in_force([early], moment).paused for moment in autumn) == 60


def test_a_window_that_would_end_in_the_lost_hour_ends_where_it_is_lost() -> None:
    lost = window(**{"from": "01:00", "to": "02:30"}, zone=BERLIN)
    assert in_force([lost], at("2026-03-29T00:30:00")).until == at("2026-03-29T01:00:00")


def test_the_first_window_that_is_open_decides_and_the_rest_is_free() -> None:
    slow = window(**{"from": "08:00", "to": "18:00"}, zone="UTC", max_rate=5 * MB)
    noon = window(**{"from": "12:00", "to": "13:00"}, zone="UTC", max_rate=50 * MB)
    assert in_force([noon, slow], at("2026-01-05T12:30:00")).max_rate == 50 * MB
    assert in_force([slow, noon], at("2026-01-05T12:30:00")).max_rate == 5 * MB
    assert in_force([noon, slow], at("2026-01-05T11:30:00")).until == at("2026-01-05T12:00:00")
    assert in_force([noon, slow], at("2026-01-05T19:00:00")).max_rate is None
    assert in_force([], at("2026-01-05T19:00:00")).until is None
    assert in_force([window(zone="UTC", max_rate=MB)], at("2026-01-05T19:00:00")).until is None  # all week


CLOCKS = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59))
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
WINDOWS = st.builds(
    lambda begins, ends, days, zone, rate: window(**{"from": begins, "to": ends}, days=days, zone=zone, max_rate=rate),
    CLOCKS,
    CLOCKS,
    st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, unique=True),
    ZONES,
    st.sampled_from([0, MB]),
)
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))


@settings(deadline=None)
@given(st.lists(WINDOWS, min_size=1, max_size=3), MOMENTS, st.floats(0, 1))
def test_nothing_changes_before_until_and_something_does_then(
    windows: list[Window], moment: datetime, share: float
) -> None:
    cap = in_force(windows, moment)
    if cap.until is None:
        return
    between = moment + (cap.until - moment) * share
    if between < cap.until - timedelta(seconds=1):
        assert in_force(windows, between).max_rate == cap.max_rate
    assert in_force(windows, cap.until).max_rate != cap.max_rate


@settings(deadline=None)
@given(WINDOWS, MOMENTS)
def test_every_change_is_at_an_edge(wanted: Window, moment: datetime) -> None:
    edges = sorted(set(_edges(wanted, moment)))
    for before, after in pairwise(edges):
        inside = {_rate([wanted], before + (after - before) * part) for part in (0.0, 0.3, 0.9)}
        assert len(inside) == 1 or after - before <= timedelta(seconds=2), (before, after)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"from": "9:00"}, "'from'"),
        ({"to": "24:00"}, "'to'"),
        ({"zone": "Mars/Base"}, "Mars/Base"),
        ({"zone": "../etc/passwd"}, "zone"),
        ({"zone": "/etc/passwd"}, "zone"),
        ({}, None),
        ({"zone": BERLIN}, None),
    ],
)
def test_what_is_wrong_is_told(keys: dict[str, str], said: str | None) -> None:
    found = problem(window(**keys))
    assert (said is None) == (found is None)
    assert said is None or said in (found or "")
