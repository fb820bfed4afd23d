"""Which cap holds: asked again when the window ends, the clock jumps or the configuration changes. On a fake clock."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from agent.config import Config, Policy, Transfer
from agent.core.want import Want, WantedModel
from agent.core.windows import Window
from agent.jobs.windows import Windows
from agent.state.feed import Feed
from agent.state.job import Job
from tests.fakes import FakeClock, target, ticket

NIGHT = msgspec.convert({"from": "22:00", "to": "06:00", "zone": "UTC", "max_rate": 0}, Window)
SLOW = msgspec.convert({"from": "08:00", "to": "18:00", "zone": "UTC", "max_rate": 1_000_000}, Window)


def at(clock: FakeClock, text: str) -> None:
    clock.wall_is(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_a_cap_takes_the_place_of_max_rate_and_a_pause_does_not() -> None:
    clock = FakeClock()
    config = Config(transfer=Transfer(max_rate=7, window=[NIGHT, SLOW]))
    windows = Windows(lambda: config, clock)
    for moment, rate in (("2026-01-05T12:00", 1_000_000), ("2026-01-05T20:00", 7), ("2026-01-05T23:00", 7)):
        at(clock, moment)
        assert windows.transfer().max_rate == rate
    at(clock, "2026-01-05T12:00")  # a clock that jumps back
    assert windows.transfer().max_rate == 1_000_000
    config = Config(transfer=Transfer(max_rate=9))
    assert windows.transfer().max_rate == 9


def test_a_pause_holds_what_is_not_urgent_or_may_not_be() -> None:
    clock = FakeClock()
    job = Job(target(), Feed())
    config = Config(transfer=Transfer(window=[NIGHT]))
    windows = Windows(lambda: config, clock)
    at(clock, "2026-01-05T21:59")
    assert windows.holds(job) is None
    at(clock, "2026-01-05T22:00")
    held = windows.holds(job)
    assert held is not None
    assert held.until == datetime(2026, 1, 6, 6, tzinfo=UTC)
    urgent = ticket()
    urgent.want = Want((WantedModel("qwen3"),), urgent=True)
    job.add(urgent, 5)
    assert windows.holds(job) == held
    config = Config(transfer=Transfer(window=[NIGHT]), policy=Policy(urgent=True))
    assert windows.holds(job) is None
    at(clock, "2027-01-05T12:00")  # a clock that jumps ahead
    assert windows.holds(Job(target(), Feed())) is None
