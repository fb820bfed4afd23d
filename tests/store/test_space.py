"""Room is reserved before it is used, and summed over everything in flight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.words import size
from agent.errors import Code, WantdError
from agent.store.space import Shortage, Space

# Others use the same disk while these tests run: amounts are shares of what is free, far from any edge.


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(str(tmp_path), lambda: 0)


def test_reservations_of_several_jobs_are_summed(space: Space) -> None:
    most = space.free() * 6 // 10
    assert space.reserve("first", most) is None
    shortage = space.reserve("second", most)
    assert isinstance(shortage, Shortage)
    assert shortage.need_bytes == most
    assert 0 < shortage.free_bytes < most
    space.release("first")
    assert space.reserve("second", most) is None


def test_the_same_job_again_changes_its_reservation(space: Space) -> None:
    most = space.free() * 6 // 10
    for key in (("job", 1), ("job", 1)):  # equal, not the same
        assert space.reserve(key, most) is None
    assert space.reserve(("job", 1), 0) is None
    assert space.reserve("other", most) is None


def test_what_has_been_preallocated_is_not_counted_twice(space: Space) -> None:
    free = space.free()
    space.reserve("job", free // 2)
    assert space.free() < free * 6 // 10
    space.started("job", free // 2 + 7)  # from now on statvfs counts it
    assert space.free() > free * 9 // 10
    space.started("nobody", 10)
    space.release("nobody")


def test_the_reserve_stays_free_whatever_happens(tmp_path: Path, space: Space) -> None:
    free = space.free()
    careful = Space(str(tmp_path), lambda: free // 2)
    assert careful.free() < free * 6 // 10
    assert isinstance(careful.reserve("job", free * 8 // 10), Shortage)
    assert Space(str(tmp_path), lambda: 2**62).free() == 0


def test_what_can_never_fit_fails_at_once_and_what_can_waits(tmp_path: Path, space: Space) -> None:
    disk = os.statvfs(tmp_path)
    total = disk.f_frsize * disk.f_blocks
    with pytest.raises(WantdError) as caught:
        space.reserve("job", total + 1)
    assert caught.value.code is Code.INSUFFICIENT_SPACE
    assert not caught.value.retryable
    assert (
        caught.value.message == f"{size(total + 1)} needed, and the file system of {tmp_path} has {size(total)} in all"
    )
    with pytest.raises(WantdError):
        Space(str(tmp_path), lambda: total).reserve("job", 1)
    assert isinstance(space.reserve("job", total), Shortage)


def test_a_job_that_needs_nothing_never_waits(tmp_path: Path) -> None:
    assert Space(str(tmp_path), lambda: 0).reserve("job", 0) is None
