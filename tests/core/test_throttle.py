"""When a host is taken to hold back, what is tried then, and for how long it is kept: on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

from agent.core.retry import COLLAPSE_S, REMEMBER_S, TRIAL_S
from agent.core.throttle import Throttle

MB = 1_000_000


class World:
    """A host that gives what `rate` says, by the number of connections and the time."""

    def __init__(self, rate: Callable[[int, float], float], most: int = 16) -> None:
        self.rate, self.most = rate, most
        self.throttle = Throttle()
        self.now = 0.0
        self.received = 0.0
        self.seen: list[int] = []

    @property
    def lanes(self) -> int:
        return min(self.throttle.ceiling or self.most, self.most)

    def run(self, seconds: float, *, used: bool = True, busy: bool = False) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.2
            self.received += self.rate(self.lanes, self.now) * 0.2
            if self.throttle.update(self.now, int(self.received), self.lanes, used=used, busy=busy):
                self.throttle.allow(self.most)
                self.seen.append(self.lanes)


def starves_above_four(lanes: int, now: float) -> float:
    return lanes * 10 * MB if now < 20 or lanes <= 4 else lanes * 0.1 * MB


def test_a_host_that_starves_more_than_four_connections_has_four_within_thirty_seconds_and_keeps_them() -> None:
    world = World(starves_above_four)
    world.run(20)
    assert not world.throttle.holds_back and world.seen == []
    world.run(30)
    assert world.seen == [8, 4] and world.throttle.holds_back
    world.run(600)
    assert world.lanes == 4


def test_what_helped_is_remembered_for_half_an_hour_and_then_tried_upwards() -> None:
    world = World(starves_above_four)
    world.run(50)
    world.run(REMEMBER_S - 60)
    assert world.seen == [8, 4]
    world.run(90)
    assert world.seen[2:] == [8, 4]
    assert world.throttle.holds_back


def test_a_host_that_serves_all_again_gets_all_again() -> None:
    world = World(lambda lanes, now: lanes * 10 * MB if not 20 < now < 60 or lanes <= 4 else lanes * 0.1 * MB)
    world.run(60)
    assert world.lanes == 4
    world.run(3 * REMEMBER_S)
    assert world.lanes == 16 and not world.throttle.holds_back


def test_a_host_that_is_just_slow_gets_its_connections_back() -> None:
    world = World(lambda lanes, now: lanes * (10 * MB if now < 20 else 0.1 * MB))
    world.run(20 + COLLAPSE_S + 5 * (TRIAL_S + 1) + 5)
    assert world.seen == [8, 4, 2, 1, 16]
    assert not world.throttle.holds_back
    world.run(300)
    assert len(world.seen) == 5


def test_the_best_of_the_tried_numbers_is_kept_even_where_it_is_far_from_the_best_rate() -> None:
    world = World(lambda lanes, now: lanes * (10 * MB if now < 20 or lanes <= 1 else 0.1 * MB))
    world.run(70)
    assert world.lanes == 1 and world.throttle.holds_back


def test_a_network_that_is_out_is_not_throttling() -> None:
    world = World(lambda lanes, now: lanes * 10 * MB if now < 20 else 0)
    world.run(120)
    assert world.seen == []


def test_short_falls_and_small_ones_change_nothing() -> None:
    world = World(lambda lanes, now: lanes * MB * (10 if now % 12 < 4 else 1))
    world.run(120)
    assert world.seen == []
    world = World(lambda lanes, now: lanes * MB * (10 if now < 20 else 3))
    world.run(120)
    assert world.seen == []


def test_a_rate_that_something_else_bounds_is_not_judged() -> None:
    world = World(starves_above_four)
    world.run(20)
    world.run(60, busy=True)
    world.run(60, used=False)
    assert world.seen == []
