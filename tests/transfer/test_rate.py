"""The cap on the rate and the search for the number of connections, on a clock of their own."""

from __future__ import annotations

from agent.core.retry import HOLD_S, MEASURE_S
from agent.transfer.hosts import Hosts
from agent.transfer.rate import CONNECTIONS_FIRST, QUANTUM_MAX, QUANTUM_MIN, Bucket, Processors, Tuner

MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_cap_nothing_waits() -> None:
    assert Bucket(0, Clock()).grant() == (0, 0.0)


def test_grants_come_in_order_and_add_up_to_the_cap() -> None:
    bucket = Bucket(MIB, Clock())
    granted = waited = 0.0
    while waited < 10:
        size, wait = bucket.grant()
        assert wait >= waited
        granted, waited = granted + size, wait
    assert abs(granted - 10 * MIB) < QUANTUM_MAX


def test_time_that_nobody_used_is_not_saved_up() -> None:
    clock = Clock()
    bucket = Bucket(MIB, clock)
    clock.now = 100.0
    assert bucket.grant()[1] == 0.0
    assert bucket.grant()[1] > 0.0


def test_a_small_cap_is_granted_in_small_steps() -> None:
    assert Bucket(10, Clock()).grant()[0] == QUANTUM_MIN


def test_a_higher_cap_takes_effect_at_once() -> None:
    bucket = Bucket(1000, Clock())
    for _ in range(20):
        bucket.grant()
    bucket.set_rate(100 * MIB)
    assert bucket.grant()[1] < 0.1


def test_the_same_cap_again_gives_nobody_a_second_start() -> None:
    bucket = Bucket(1000, Clock())
    for _ in range(20):
        bucket.grant()
    bucket.set_rate(1000)
    assert bucket.grant()[1] > 1.0


def run(tuner: Tuner, seconds: float, rate_of: float, most: float, start: float = 0.0, received: int = 0) -> int:
    """Let time pass where each connection gives `rate_of` bytes per second, and all together at most `most`."""
    now = start
    while now < start + seconds:
        now += MEASURE_S
        received += int(min(tuner.target * rate_of, most) * MEASURE_S)
        tuner.update(now, received, True)
    return received


def test_connections_that_are_each_slow_are_doubled_up_to_the_limit() -> None:
    tuner = Tuner(16)
    run(tuner, 3.0, 40e6, 1e12)
    assert tuner.target == 16


def test_connections_that_bring_nothing_more_are_given_up_again() -> None:
    tuner = Tuner(64)
    run(tuner, HOLD_S / 2, 40e6, 300e6)
    assert tuner.target == 8


def test_the_limit_is_reached_within_a_second_where_connections_are_each_slow() -> None:
    tuner = Tuner(16)
    run(tuner, 1.0, 40e6, 1e12)
    assert tuner.target == 16


def test_one_hiccup_of_the_disk_does_not_end_a_try_that_helps() -> None:
    tuner = Tuner(16)
    received, now = 0, 0.0
    for factor in (1.0, 1.0, 1.2, 1.0, 0.6, 0.2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        now, received = now + MEASURE_S, received + int(tuner.target * 1e6 * factor)
        tuner.update(now, received, True)
    assert tuner.target == 16


def test_where_lanes_wait_for_the_processors_none_is_added() -> None:
    tuner = Tuner(16)
    for tick in range(100):
        tuner.update(tick * MEASURE_S, tick * 10**9, True, crowded=True)
    assert tuner.target == CONNECTIONS_FIRST
    run(tuner, 3.0, 40e6, 1e12, start=100 * MEASURE_S, received=99 * 10**9)
    assert tuner.target == 16


def test_lanes_are_crowded_where_each_takes_much_and_all_take_half_of_the_processors() -> None:
    now = used = 0.0
    processors = Processors(2, lambda: now, lambda: used)
    now, used = 1.0, 1.3
    assert processors.crowded(2)
    now, used = 2.0, 2.6
    assert not processors.crowded(16)  # 16 that take a twelfth each wait for something else
    now, used = 3.0, 3.5
    assert not processors.crowded(2)
    assert not Processors(64, lambda: now, lambda: used).crowded(2)


def test_a_host_that_one_connection_saturates_keeps_the_first_few() -> None:
    tuner = Tuner(16)
    run(tuner, HOLD_S / 2, 1e9, 1e9)
    assert tuner.target == CONNECTIONS_FIRST


def test_after_a_while_it_tries_again() -> None:
    tuner = Tuner(16)
    received = run(tuner, HOLD_S, 1e9, 1e9)
    run(tuner, HOLD_S, 1e9, 1e12, start=HOLD_S, received=received)
    assert tuner.target == 16


def test_lanes_that_are_not_all_in_use_say_nothing() -> None:
    tuner = Tuner(16)
    for tick in range(100):
        tuner.update(tick * MEASURE_S, tick * MIB, False)
    assert tuner.target == CONNECTIONS_FIRST


def test_the_same_limit_again_interrupts_no_measurement() -> None:
    alone, told = Tuner(16), Tuner(16)
    for tick in range(100):
        told.set_limit(16)
        for tuner in (alone, told):
            tuner.update(tick * MEASURE_S, tick * MIB, True)
        assert told.target == alone.target


def test_a_new_limit_holds_at_once() -> None:
    tuner = Tuner(16)
    run(tuner, 3.0, 40e6, 1e12)
    tuner.set_limit(2)
    assert tuner.target == 2
    tuner.set_limit(16)
    run(tuner, HOLD_S, 40e6, 1e12, start=100.0)
    assert tuner.target == 16


def test_each_host_has_a_number_of_connections_of_its_own() -> None:
    hosts = Hosts(16)
    slow, fast = hosts.get("slow:443"), hosts.get("fast:443")
    for tick in range(40):
        for host, most in ((slow, 1e12), (fast, 1e6)):
            host.share.load = host.share.target
            host.received += int(min(host.share.target * 1e6, most) * MEASURE_S)
        hosts.tick(tick * MEASURE_S, False, 0)
    assert (slow.share.target, fast.share.target) == (16, CONNECTIONS_FIRST)
    assert hosts.get("slow:443") is slow
    hosts.limit(4)
    assert (slow.share.target, slow.share.most, hosts.get("new:443").share.most) == (4, 4, 4)


def test_where_more_models_than_connections_were_at_work_the_next_try_goes_beyond_those() -> None:
    tuner = Tuner(16)
    received = 0
    for tick in range(40):
        received += int(max(tuner.target, 6) * 1e6 * MEASURE_S)
        tuner.update(tick * MEASURE_S, received, True, used=max(tuner.target, 6))
    assert tuner.target == 16
