"""Who gets the next free lane: the first in priority, the others in turn, and each in the end."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.remote import FetchRequest, Location
from agent.transfer.addresses import Addresses
from agent.transfer.lanes import Lanes
from agent.transfer.piece import RequestShape
from agent.transfer.rate import CONNECTIONS_FIRST
from tests.fakes import eventually
from tests.transfer.helpers import MIB, Bench, Make, content, sha256
from tests.transfer.server import Manner


class Part:
    """As much of a piece as lanes see."""

    def __init__(self, work: Work) -> None:
        self.download = work
        self.shape = work.shape
        self.index, self.last = 0, 0
        self.received = 0
        self.stopped = self.void = False


class Work:
    """As much of a download as lanes see, with endless work."""

    small = None
    location = object()
    closed = False
    has_work = True

    host = "host:80"

    def __init__(self, priority: int, shape: RequestShape = RequestShape.RANGE, group: str | None = None) -> None:
        self.shape = shape
        self.is_small = shape is RequestShape.SMALL
        self.request = SimpleNamespace(priority=priority, label=str(priority), group=group or str(id(self)))

    def take(self, lanes: int) -> Any:
        return Part(self)

    def slow_pieces(self, now: float) -> list[Any]:
        return []

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

    lanes = Lanes(SimpleNamespace(read_piece=read_piece), 1, 1, Addresses(), lambda: now)  # type: ignore[arg-type]
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
    assert max(b - a for a, b in itertools.pairwise(nines)) <= 20


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

    lanes = Lanes(SimpleNamespace(read_piece=read_piece), limit, limit, Addresses())  # type: ignore[arg-type]
    works = [Work(5, shape, "one model") for _ in range(20)]
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


def fetch_beside(one: Bench, name: str, data: bytes, **fields: Any) -> asyncio.Task[Any]:
    """Download another file of the server, as a model of its own."""
    one.server.files[f"/{name}"] = data
    part = str(one.directory / name)

    async def locate(_: object) -> Location:
        return one.place(f"/{name}")

    request = FetchRequest(name, part, f"{part}.json", len(data), sha256(data), **fields)
    return asyncio.ensure_future(one.engine.fetch(request, locate, lambda *_: None))


@pytest.mark.parametrize("rate", [2, 20_000, 500_000])
@pytest.mark.parametrize("size", [90_000, 20 * MIB])
async def test_models_that_crawl_hold_up_no_other_of_the_same_host(bench: Make, rate: int, size: int) -> None:
    one = bench(b"", connections=64, connections_per_host=8)
    crawling = {f"/crawls{number}" for number in range(3)}
    one.server.manner = lambda asked: Manner(rate=rate) if asked.path in crawling else Manner()
    held = [fetch_beside(one, path[1:], content(64 * MIB)) for path in crawling]
    await eventually(lambda: one.server.busy >= (8 if rate > 2 else 3), "they hold what they can get")
    await asyncio.wait_for(fetch_beside(one, "new", content(size, seed=7)), 20)
    assert one.server.most_open <= 8 + 3 + 1  # those that were taken back may still be closing
    assert not any(task.done() for task in held)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_a_connection_that_is_taken_back_keeps_what_it_brought_to_the_byte(bench: Make, tmp_path: Path) -> None:
    one = bench(content(2 * MIB), connections=64, connections_per_host=2)
    slow = [True]
    one.server.manner = lambda asked: Manner(rate=300_000 if slow[0] and asked.path == "/file" else 0)
    first = asyncio.ensure_future(one.fetch())
    await eventually(lambda: one.told and one.told[-1][0] > 200_000, "some has come")
    await fetch_beside(one, "new", content(4 * MIB, seed=7))
    slow[0] = False
    await first
    assert one.holds()
    again = [asked for asked in one.server.asked if asked.path == "/file"]
    begins = sorted(asked.range[0] for asked in again if asked.range)
    assert any(begin % (256 * 1024) for begin in begins), "no request went on within a granule"
    assert len(set(begins)) == len(begins), "a request began again where another had"
    assert [done for done, _ in one.told] == sorted(done for done, _ in one.told)


async def test_no_more_connections_than_the_limit_of_a_host_and_the_limit_of_all(bench: Make) -> None:
    one, other = bench(b"", connections=6, connections_per_host=4), bench(b"")
    for server in (one.server, other.server):
        server.manner = lambda _: Manner(rate=200_000)
    tasks = [fetch_beside(one, f"here{number}", content(8 * MIB)) for number in range(2)]
    await eventually(lambda: one.server.open == 4, "one host has all that it may have")
    data = content(8 * MIB)
    other.server.files["/there"] = data
    part = str(one.directory / "there")

    async def locate(_: object) -> Location:
        return other.place("/there")

    request = FetchRequest("there", part, f"{part}.json", len(data), sha256(data))
    tasks.append(asyncio.ensure_future(one.engine.fetch(request, locate, lambda *_: None)))
    await eventually(lambda: other.server.open == 2, "the other one has what is left")
    assert one.server.most_open == 4
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
