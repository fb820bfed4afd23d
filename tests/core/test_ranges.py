"""The granules of a file: none is lost, none handed out twice, and the front comes first."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core.ranges import GRANULE_MAX, GRANULE_MIN, SPAN_MAX, Grid, granule_for, span_bytes


@given(st.integers(0, 2**50))
def test_granules_are_powers_of_two_within_their_bounds(size: int) -> None:
    granule = granule_for(size)
    assert GRANULE_MIN <= granule <= GRANULE_MAX and granule & (granule - 1) == 0


@given(st.integers(0, 2**45), st.integers(1, 64), st.none() | st.floats(0, 1e10))
def test_a_request_never_asks_for_more_than_half_of_its_share(untaken: int, lanes: int, rate: float | None) -> None:
    assert 1 <= span_bytes(untaken, lanes, rate) <= max(1, min(SPAN_MAX, untaken // (2 * lanes)))


def test_fast_lanes_ask_for_more_and_everybody_for_less_towards_the_end() -> None:
    slow, fast = span_bytes(2**40, 4, 1e6), span_bytes(2**40, 4, 1e7)
    assert slow < fast <= SPAN_MAX
    assert span_bytes(2**20, 4, 1e7) < fast


@pytest.mark.parametrize(("size", "granule"), [(-1, 10), (10, 0)])
def test_there_is_no_grid_without_granules(size: int, granule: int) -> None:
    with pytest.raises(ValueError, match="no grid"):
        Grid(size, granule)


def test_an_empty_file_is_complete() -> None:
    assert Grid(0, 10).complete and Grid(0, 10).take(10) is None


class Model(RuleBasedStateMachine):
    """A grid beside three plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = Grid(1234, 100)
        self.missing, self.taken, self.there = set(range(13)), set[int](), set[int]()

    @rule(most=st.integers(1, 600))
    def take(self, most: int) -> None:
        span = self.grid.take(most)
        if not self.missing:
            assert span is None
            return
        assert span is not None
        first, last = span
        assert first == min(self.missing), "from the front"
        assert last - first <= max(1, most // 100)
        got = set(range(first, last))
        assert got <= self.missing
        self.missing -= got
        self.taken |= got

    @rule()
    def take_all(self) -> None:
        assert (self.grid.take_all() is None) == (not self.missing)
        self.taken |= self.missing
        self.missing = set()

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.taken)))
        assert self.grid.mark(index) and not self.grid.mark(index)
        self.taken.discard(index)
        self.there.add(index)

    @rule(first=st.integers(0, 13), length=st.integers(0, 13))
    def give_back(self, first: int, length: int) -> None:
        span = set(range(first, min(first + length, 13)))
        self.grid.give_back(first, min(first + length, 13))
        self.missing |= self.taken & span
        self.taken -= span

    @rule(index=st.integers(0, 12))
    def lose(self, index: int) -> None:
        self.grid.lose(index)
        self.taken.discard(index)
        self.there.discard(index)
        self.missing.add(index)

    @invariant()
    def counts_are_right(self) -> None:
        def size(index: int) -> int:
            return self.grid.end(index) - self.grid.start(index)

        assert self.grid.there_bytes == sum(map(size, self.there))
        assert sum(map(size, self.missing)) <= self.grid.untaken_bytes <= len(self.missing) * 100
        front = next((index for index in range(13) if index not in self.there), 13)
        assert self.grid.front == front and self.grid.complete == (front == 13)
        assert all(self.grid.is_there(index) == (index in self.there) for index in range(13))


TestModel = Model.TestCase
