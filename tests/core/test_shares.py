"""Who gets a lane, and who gives one back: on a clock that the test moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.retry import SETTLE_S, SLICE_S
from agent.core.shares import SMALL_AHEAD, Claim, Hold, HostShare, Shares, weight


class Table:
    """Shares, hosts and claims. `settle` does what lanes do: take what may be taken, give back what has to be."""

    def __init__(self, most: int = 64) -> None:
        self.shares = Shares(most)
        self.now = 0.0
        self.holds: list[Hold] = []

    def add(self, group: str, host: HostShare, *, priority: int = 5, small: bool = False) -> Claim:
        claim = Claim(group, priority, host, small)
        self.shares.offer(claim, self.now)
        return claim

    def fill(self) -> None:
        while (claim := self.shares.next(self.now)) is not None:
            self.holds.append(self.shares.begin(claim, self.now, bound=claim.small))
            if claim.small:
                self.shares.withdraw(claim)

    def settle(self) -> int:
        """Level with tick after tick until nothing moves. Returns how many lanes were taken back."""
        self.fill()
        taken = 0
        for _ in range(60):
            before = taken
            while (found := self.shares.take_back(self.now)) is not None:
                self.end(found[1])
                taken += 1
                self.fill()
            self.now += SETTLE_S
            if taken == before and _ > 1:
                return taken
        raise AssertionError("it goes round in circles")

    def end(self, hold: Hold) -> None:
        self.holds.remove(hold)
        self.shares.end(hold, self.now)

    @property
    def lanes(self) -> Counter[str]:
        return Counter(hold.claim.group for hold in self.holds)


def test_equal_downloads_of_one_host_have_equal_shares() -> None:
    table, host = Table(), HostShare(16, 16)
    for group in "abcd":
        table.add(group, host)
    table.settle()
    assert table.lanes == {"a": 4, "b": 4, "c": 4, "d": 4}


def test_a_model_of_many_files_has_no_more_than_a_model_of_one() -> None:
    table, host = Table(), HostShare(16, 16)
    for _ in range(8):
        table.add("sharded", host)
    table.add("single", host)
    table.settle()
    assert table.lanes == {"sharded": 8, "single": 8}


def test_a_newcomer_gets_its_first_lane_above_what_helps_there_and_without_taking_one() -> None:
    table, host = Table(), HostShare(2, 16)
    for group in "abc":
        table.add(group, host)
    assert table.settle() == 0
    assert table.lanes == {"a": 1, "b": 1, "c": 1}


def test_a_newcomer_takes_its_first_lane_from_the_one_with_most_where_a_limit_is_reached() -> None:
    table, host = Table(), HostShare(16, 16)
    table.add("crawls", host)
    table.settle()
    assert table.lanes["crawls"] == 16
    new = table.add("new", host)
    assert not table.shares.has_room(new)
    found = table.shares.take_back(table.now)
    assert found is not None and found[0] is new and found[1].claim.group == "crawls"


def test_a_surplus_is_taken_back_until_the_shares_are_level_and_no_further() -> None:
    table, host = Table(), HostShare(16, 16)
    table.add("first", host)
    table.settle()
    table.add("second", host)
    assert table.settle() == 8
    assert table.lanes == {"first": 8, "second": 8}
    assert table.settle() == 0


def test_what_does_not_need_its_share_leaves_it_to_the_others() -> None:
    table, host = Table(), HostShare(16, 16)
    table.add("large", host)
    small = table.add("small", host, small=True)
    table.settle()
    assert table.lanes == {"large": 15, "small": 1} and not small.waiting


def test_the_limits_hold_whatever_the_weights() -> None:
    table = Table(10)
    hosts = [HostShare(16, 4), HostShare(16, 8)]
    for number in range(12):
        table.add(f"model {number}", hosts[number % 2], priority=number % 10)
    table.settle()
    assert len(table.holds) == 10
    assert hosts[0].lanes <= 4 and hosts[1].lanes <= 8


def test_hosts_do_not_take_from_each_other_below_the_limit_of_all() -> None:
    table, crawling, fast = Table(), HostShare(16, 16), HostShare(2, 16)
    table.add("crawls", crawling)
    table.add("runs", fast)
    assert table.settle() == 0
    assert table.lanes == {"crawls": 16, "runs": 2}


@pytest.mark.parametrize("target", [2, 4, 8, 16])
def test_the_first_priority_has_at_least_four_times_the_lanes_of_the_last_which_has_one(target: int) -> None:
    table, host = Table(), HostShare(target, 16)
    table.add("last", host, priority=9)
    table.settle()
    table.add("first", host, priority=0)
    table.settle()
    assert table.lanes["last"] >= 1
    assert table.lanes["first"] >= 4 * table.lanes["last"]


def test_weights_fall_with_the_number_and_equal_steps_are_equal_ratios() -> None:
    weights = [weight(priority) for priority in range(10)]
    assert weights == sorted(weights, reverse=True) and weights[-1] == 1.0
    assert weight(-5) == weight(0) and weight(50) == weight(9)


def test_small_files_pass_the_large_ones_of_their_own_model() -> None:
    table, host = Table(), HostShare(4, 4)
    table.add("model", host)
    table.settle()
    small = table.add("model", host, small=True)
    found = table.shares.take_back(table.now)
    assert found is not None and found[0] is small


def test_small_files_go_ahead_of_their_share_by_a_few() -> None:
    table, host = Table(), HostShare(4, 16)
    table.add("large", host)
    table.settle()
    for _ in range(40):
        table.add("many", host, small=True)
    table.settle()
    assert table.lanes["many"] == SMALL_AHEAD and table.lanes["large"] >= 2


def test_small_files_alone_count_half() -> None:
    table, host = Table(), HostShare(2, 16)
    for _ in range(40):
        table.add("many", host, small=True)
    table.settle()
    assert table.lanes["many"] == 4


def test_small_files_without_end_do_not_stop_a_large_one_where_there_is_one_lane() -> None:
    table, host = Table(1), HostShare(16, 16)
    served: Counter[str] = Counter()
    table.add("large", host)
    for _ in range(500):
        table.add("many", host, small=True)
    for _ in range(100):
        table.settle()
        (hold,) = table.holds
        table.now += 1.0
        served[hold.claim.group] += 1
        table.end(hold)
    assert served["large"] > 20 and served["many"] > 20


def test_a_lane_whose_work_would_be_lost_is_never_taken_back() -> None:
    table, host = Table(2), HostShare(16, 16)
    claim = table.add("streams", host)
    for _ in range(2):
        table.holds.append(table.shares.begin(claim, 0.0, bound=True))
    table.add("new", host)
    assert table.shares.take_back(100.0) is None


@pytest.mark.parametrize("count", [2, 3, 5])
def test_where_there_are_fewer_lanes_than_models_they_take_turns_by_time(count: int) -> None:
    table, host = Table(1), HostShare(16, 16)
    for number in range(count):
        table.add(f"model {number}", host)
    time_of: Counter[str] = Counter()
    for _ in range(600):
        table.settle()
        time_of[table.holds[0].claim.group] += 1
        table.now += SLICE_S / 4
    assert max(time_of.values()) - min(time_of.values()) <= 8


def test_turns_are_as_long_as_the_weights() -> None:
    table, host = Table(1), HostShare(16, 16)
    table.add("first", host, priority=0)
    table.add("last", host, priority=9)
    time_of: Counter[str] = Counter()
    for _ in range(2000):
        table.settle()
        time_of[table.holds[0].claim.group] += 1
        table.now += 0.5
    assert time_of["first"] >= 4 * time_of["last"] > 0


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 9), st.booleans()), min_size=1, max_size=30
    ),
    st.integers(1, 20),
    st.lists(st.integers(1, 8), min_size=3, max_size=3),
)
def test_nobody_is_forgotten_and_no_limit_is_passed(
    claims: list[tuple[int, int, int, bool]], most: int, limits: list[int]
) -> None:
    table = Table(most)
    hosts = [HostShare(min(2, limit), limit) for limit in limits]
    for group, host, priority, small in claims:
        table.add(f"model {group}", hosts[host], priority=priority, small=small)
        table.settle()
        assert len(table.holds) == table.shares.lanes <= most
        assert all(h.lanes <= h.most for h in hosts)
    served: set[str] = set()
    for _ in range(400):
        table.settle()
        served |= set(table.lanes)
        table.now += SLICE_S
        for hold in [hold for hold in table.holds if hold.small]:
            table.end(hold)
    assert served == {f"model {group}" for group, *_ in claims}
    for hold in list(table.holds):
        table.end(hold)
    assert table.shares.lanes == 0 and all(host.lanes == 0 and host.load == 0 for host in hosts)
