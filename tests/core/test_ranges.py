"""The granules of a file: none is lost, none handed out twice, and the front comes first."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core.ranges import Grid, granule_for, span_bytes

KIB, MIB, GIB = 1024, 1024**2, 1024**3
PLENTY = 1024 * GIB


@given(st.integers(0, 2**50))
def test_granules_are_powers_of_two_within_their_bounds(size: int) -> None:
    granule = granule_for(size)
    assert 256 * KIB <= granule <= 4 * MIB and granule & (granule - 1) == 0


@pytest.mark.parametrize(
    ("size", "granule"),
    [
        (0, 256 * KIB),
        (2 * GIB, 256 * KIB),
        (2 * GIB + 1, 512 * KIB),
        (4 * GIB, 512 * KIB),
        (4 * GIB + 1, MIB),
        (16 * GIB, 2 * MIB),
        (16 * GIB + 1, 4 * MIB),
        (400 * GIB, 4 * MIB),
    ],
)
def test_a_file_has_8192_granules_at_most_until_they_are_as_large_as_they_get(size: int, granule: int) -> None:
    assert granule_for(size) == granule


def test_where_a_source_has_slices_a_granule_is_one() -> None:
    assert granule_for(400 * GIB, 3 * MIB) == 3 * MIB


@given(st.integers(0, 2**45), st.integers(1, 64), st.none() | st.floats(0, 1e10))
def test_a_request_never_asks_for_more_than_half_of_its_share(untaken: int, lanes: int, rate: float | None) -> None:
    assert 1 <= span_bytes(untaken, lanes, rate) <= max(1, min(64 * MIB, untaken // (2 * lanes)))


@pytest.mark.parametrize(
    ("untaken", "lanes", "rate", "asked"),
    [
        (PLENTY, 4, None, 4 * MIB),  # nobody knows yet how fast the lane is
        (PLENTY, 4, 1e6, 2_000_000),  # two seconds' worth
        (PLENTY, 4, 1e9, 64 * MIB),
        (PLENTY, 4, 0.0, 1),
        (1000, 4, 1e6, 125),
        (1000, 1, None, 500),
        (1000, 0, None, 500),  # no lane yet: this one will be the first
        (1, 4, None, 1),
    ],
)
def test_a_request_lasts_two_seconds_and_less_towards_the_end(
    untaken: int, lanes: int, rate: float | None, asked: int
) -> None:
    assert span_bytes(untaken, lanes, rate) == asked


@pytest.mark.parametrize(("size", "granule"), [(-1, 10), (10, 0)])
def test_there_is_no_grid_without_granules(size: int, granule: int) -> None:
    with pytest.raises(ValueError, match="no grid"):
        Grid(size, granule)


def test_an_empty_file_is_complete() -> None:
    assert Grid(0, 10).complete and Grid(0, 10).take(10) is None


@pytest.mark.parametrize(("size", "granule", "ends"), [(3, 1, [1, 2, 3]), (30, 10, [10, 20, 30]), (31, 30, [30, 31])])
def test_granules_cover_the_file_and_the_last_may_be_shorter(size: int, granule: int, ends: list[int]) -> None:
    grid = Grid(size, granule)
    assert grid.count == len(ends)
    assert [grid.end(index) for index in range(grid.count)] == ends
    assert [grid.start(index) for index in range(grid.count)] == [0, *ends[:-1]]


class Model(RuleBasedStateMachine):
    """A grid beside three plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = Grid(1234, 100)
        self.sizes = [*[100] * 12, 34]
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
        run = next((index for index in range(first, 13) if index not in self.missing), 13)
        assert last == min(run, first + max(1, most // 100)), "as much as was asked for, up to what is not missing"
        got = set(range(first, last))
        self.missing -= got
        self.taken |= got

    @rule()
    def take_all(self) -> None:
        assert self.grid.take_all() == ((0, 13) if self.missing else None)
        self.taken |= self.missing
        self.missing = set()

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.taken)))
        assert self.grid.mark(index) and not self.grid.mark(index)
        self.taken.discard(index)
        self.there.add(index)

    @precondition(lambda self: self.missing)
    @rule(data=st.data())
    def find_on_disk(self, data: st.DataObject) -> None:
        """The journal vouches for a granule that nobody has asked for."""
        index = data.draw(st.sampled_from(sorted(self.missing)))
        assert self.grid.mark(index)
        self.missing.discard(index)
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
        there = sum(self.sizes[index] for index in self.there)
        assert self.grid.there_bytes == there
        assert self.grid.untaken_bytes == min(len(self.missing) * 100, 1234 - there)
        front = next((index for index in range(13) if index not in self.there), 13)
        assert self.grid.front == front and self.grid.complete == (front == 13)
        assert all(self.grid.is_there(index) == (index in self.there) for index in range(13))


TestModel = Model.TestCase
