"""Who gets the next free lane: the first in priority, the others in turn, and each in the end."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.remote import FetchRequest, Location
from agent.core.retry import AGE_S
from agent.transfer.download import RequestShape
from agent.transfer.lanes import Lanes
from agent.transfer.rate import CONNECTIONS_FIRST
from tests.transfer.helpers import MIB, Make, content, sha256
from tests.transfer.server import Manner


class Part:
    """As much of a piece as lanes see."""

    def __init__(self, work: Work) -> None:
        self.download = work
        self.shape = work.shape
        self.received = 0
        self.stopped = False


class Work:
    """As much of a download as lanes see, with endless work."""

    small = None

    def __init__(self, priority: int, shape: RequestShape = RequestShape.RANGE) -> None:
        self.shape = shape
        self.request = SimpleNamespace(priority=priority, label=str(priority))

    def take(self, lanes: int, rate: float | None) -> Any:
        return Part(self)

    def settle(self, piece: Any, failure: Any) -> None:
        assert failure is None


def served(works: list[Work], seconds: int) -> list[Work]:
    """What one lane serves, one piece a second, on a clock that it moves itself."""
    order: list[Work] = []
    now = 1000.0
    over = threading.Event()

    def read_piece(lane: Any, piece: Any) -> None:
        nonlocal now
        now += 1.0
        order.append(piece.download)
        if len(order) == 1:
            for work in works[1:]:
                lanes.offer(work)  # type: ignore[arg-type]
        if len(order) >= seconds:
            over.set()
            lane.stop.wait()

    lanes = Lanes(SimpleNamespace(read_piece=read_piece), 1, lambda: now)  # type: ignore[arg-type]
    lanes.offer(works[0])  # type: ignore[arg-type]
    assert over.wait(20)
    for work in works:
        lanes.stop(work)  # type: ignore[arg-type]
    lanes.close(5)
    return order


def test_lower_numbers_go_first_and_higher_ones_do_not_starve() -> None:
    order = [work.request.priority for work in served([Work(9), Work(0)], 200)]
    assert order.count(0) > 3 * order.count(9)
    nines = [index for index, priority in enumerate(order) if priority == 9]
    assert max(b - a for a, b in itertools.pairwise(nines)) <= 9 * AGE_S + 2


def test_equals_take_turns() -> None:
    works = [Work(5), Work(5), Work(5)]
    order = served(works, 60)
    assert all(19 <= order.count(work) <= 21 for work in works)


@pytest.mark.parametrize(
    ("shape", "limit", "expected"),
    [
        (RequestShape.RANGE, 16, CONNECTIONS_FIRST),
        (RequestShape.SMALL, 16, 2 * CONNECTIONS_FIRST),
        (RequestShape.SMALL, 3, 3),
    ],
)
def test_two_lanes_with_small_files_count_as_one_but_not_for_the_limit(
    shape: RequestShape, limit: int, expected: int
) -> None:
    arrived: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def read_piece(lane: Any, piece: Any) -> None:
        arrived.put(piece.download)
        lane.stop.wait()

    lanes = Lanes(SimpleNamespace(read_piece=read_piece), limit)  # type: ignore[arg-type]
    works = [Work(5, shape) for _ in range(20)]
    for work in works:
        lanes.offer(work)  # type: ignore[arg-type]
    for _ in range(expected):
        arrived.get(timeout=20)
    with pytest.raises(queue.Empty):
        arrived.get(timeout=0.2)
    lanes.close(5)


async def test_an_urgent_file_overtakes_one_that_is_on_its_way(bench: Make) -> None:
    one = bench(content(12 * MIB), connections=1)
    one.server.files["/urgent"] = urgent = content(2 * MIB, seed=3)
    one.server.manner = lambda _: Manner(rate=8 * MIB)
    slow = asyncio.ensure_future(one.fetch(priority=9))
    while not one.told:
        await asyncio.sleep(0.01)
    part = str(one.directory / "urgent")

    async def locate(_: object) -> Location:
        return one.place("/urgent")

    request = FetchRequest("urgent", part, f"{part}.json", len(urgent), sha256(urgent), priority=0)
    await one.engine.fetch(request, locate, lambda *_: None)
    assert not slow.done()
    await slow
    assert one.holds()
