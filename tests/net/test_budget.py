"""What servers say about how often they want to be asked is obeyed, and cannot be used to stop us."""

from __future__ import annotations

import threading
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.retry import RESUME_SPACING_S, SERVER_WAIT_MAX_S
from agent.net.budget import (
    MAX_HOSTS,
    HostBudgets,
    Quota,
    parse_quotas,
    parse_retry_after,
)

HOST = "hub.example:443"
NOW = 1_800_000_000.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budgets(clock: Clock) -> HostBudgets:
    return HostBudgets(clock, wall=lambda: NOW)


def test_a_host_that_says_nothing_is_asked_at_once(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 200, {"Content-Type": "text/plain"})
    assert [budgets.delay(HOST) for _ in range(100)] == [0.0] * 100


def test_a_spent_quota_is_waited_for_and_a_second_more(budgets: HostBudgets, clock: Clock) -> None:
    budgets.observe(HOST, 200, {"RateLimit": '"api";r=0;t=55'})
    assert budgets.delay(HOST) == 56.0
    clock.now += 56
    assert budgets.delay(HOST) == 0.0


def test_the_quota_counts_before_retry_after(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 429, {"RateLimit": '"api";r=0;t=5', "Retry-After": "30"})
    assert budgets.delay(HOST) == 6.0


def test_retry_after_of_a_refusal_is_obeyed_by_all_requests_to_that_host_and_no_other(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 429, {"retry-after": "30"})
    assert budgets.delay(HOST) == 30.0
    assert budgets.delay("cdn.example:443") == 0.0


def test_retry_after_of_a_success_says_nothing(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 200, {"Retry-After": "30"})
    assert budgets.delay(HOST) == 0.0


def test_retry_after_as_a_date_is_counted_on_the_servers_own_clock(budgets: HostBudgets) -> None:
    date, until = formatdate(NOW - 9000, usegmt=True), formatdate(NOW - 9000 + 40, usegmt=True)
    budgets.observe(HOST, 503, {"Date": date, "Retry-After": until})
    assert budgets.delay(HOST) == 40.0


def test_nobody_stops_us_for_longer_than_the_maximum(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 429, {"Retry-After": str(365 * 86400)})
    assert budgets.delay(HOST) == SERVER_WAIT_MAX_S
    budgets.observe("b:1", 200, {"RateLimit": f'"api";r=0;t={10**30}'})
    assert budgets.delay("b:1") == SERVER_WAIT_MAX_S


def test_a_refusal_without_a_word_is_waited_for_longer_each_time(budgets: HostBudgets, clock: Clock) -> None:
    waits = []
    for _ in range(4):
        budgets.observe(HOST, 429, {})
        waits.append(budgets.delay(HOST))
        clock.now += waits[-1]
    assert waits == [5.0, 10.0, 20.0, 40.0]


def test_a_503_without_a_word_is_no_limit(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 503, {})
    assert budgets.delay(HOST) == 0.0


def test_a_refusal_that_says_zero_is_no_leave_for_a_tight_loop(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 429, {"Retry-After": "0"})
    assert budgets.delay(HOST) >= 1.0


def test_an_answer_that_was_on_its_way_does_not_end_a_wait(budgets: HostBudgets) -> None:
    budgets.observe(HOST, 429, {"Retry-After": "30"})
    budgets.observe(HOST, 200, {"RateLimit": '"api";r=400;t=100'})
    assert budgets.delay(HOST) == 30.0


def test_the_last_requests_of_a_window_are_spread_over_it(budgets: HostBudgets, clock: Clock) -> None:
    budgets.observe(
        HOST, 200, {"RateLimit": '"api";r=20;t=100', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    )
    assert budgets.delay(HOST) == 0.0
    assert budgets.delay(HOST) == 5.0  # 20 requests in 100 s
    clock.now += 5
    assert budgets.delay(HOST) == 0.0
    clock.now += 100  # a new window
    assert [budgets.delay(HOST) for _ in range(10)] == [0.0] * 10


def test_a_full_quota_slows_nothing_down(budgets: HostBudgets) -> None:
    budgets.observe(
        HOST, 200, {"RateLimit": '"api";r=400;t=100', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    )
    assert [budgets.delay(HOST) for _ in range(10)] == [0.0] * 10


def test_those_who_waited_go_one_by_one_until_all_is_well(budgets: HostBudgets, clock: Clock) -> None:
    budgets.observe(HOST, 429, {"Retry-After": "30"})
    clock.now += 30
    assert budgets.delay(HOST) == 0.0
    assert budgets.delay(HOST) == pytest.approx(RESUME_SPACING_S)
    budgets.observe(HOST, 200, {})
    assert [budgets.delay(HOST) for _ in range(10)] == [0.0] * 10


def test_one_slot_goes_to_one_of_many_threads(clock: Clock, budgets: HostBudgets) -> None:
    budgets.observe(HOST, 200, {"RateLimit": '"api";r=1;t=100'})
    taken: list[float] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        taken.append(budgets.delay(HOST))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(0.0) == 1


def test_any_number_of_hosts_takes_bounded_memory(budgets: HostBudgets) -> None:
    for number in range(MAX_HOSTS * 2):
        budgets.observe(f"h{number}:443", 429, {"Retry-After": "60"})
    assert budgets.delay("h0:443") == 0.0
    assert budgets.delay(f"h{MAX_HOSTS * 2 - 1}:443") == 60.0


def test_the_hubs_headers_are_read() -> None:
    policy = '"fixed window";"api";q=500;w=300, "fixed window";"resolvers";q=3000;w=300'
    assert parse_quotas('"api";r=499;t=55', policy) == [Quota(499, 55.0, 500, "api")]
    assert parse_quotas('"api"; r=1; t=2, "resolvers";r=3;t=4', policy) == [
        Quota(1, 2.0, 500, "api"),
        Quota(3, 4.0, 3000, "resolvers"),
    ]


@pytest.mark.parametrize("text", ["", "x", '"api"', "r=1", "t=1", '"api";r=-1;t=5', "r=a;t=b", ";;,,==", "r=٣;t=٣"])
def test_headers_that_say_nothing_give_no_quota(text: str) -> None:
    assert parse_quotas(text) == []


_NASTY = st.one_of(
    st.text(),
    st.text(alphabet='";=,rtqw0123456789- GMTMonFri:'),
    st.from_regex(r'"[a-z]*";r=[0-9]{0,40};t=[0-9]{0,40}', fullmatch=True),
)


@given(_NASTY, _NASTY)
def test_no_header_breaks_the_parser_or_asks_for_too_much(limit: str, policy: str) -> None:
    for quota in parse_quotas(limit, policy):
        assert quota.remaining >= 0
        assert 0 <= quota.reset_s <= SERVER_WAIT_MAX_S
        assert quota.spacing_s >= 0


@given(_NASTY)
def test_no_retry_after_breaks_the_parser_or_asks_for_too_much(text: str) -> None:
    wait = parse_retry_after(text, NOW)
    assert wait is None or 0 <= wait <= SERVER_WAIT_MAX_S


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["RateLimit", "Date", "retry-after"]), _NASTY))
def test_no_answer_breaks_the_budget(status: int, headers: dict[str, str]) -> None:
    budgets = HostBudgets(Clock(), wall=lambda: NOW)
    budgets.observe(HOST, status, headers)
    assert 0 <= budgets.delay(HOST) <= SERVER_WAIT_MAX_S
