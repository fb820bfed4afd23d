"""Who goes next when there is room for few."""

from __future__ import annotations

import asyncio

from agent.jobs.slots import AGING_S, Slots


class Line:
    """People who want a place, and the order in which they got one."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self.waited: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.leave: dict[str, asyncio.Event] = {}

    async def enter(self, name: str, priority: int) -> None:
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, priority))
        await asyncio.sleep(0)

    async def _stay(self, name: str, priority: int) -> None:
        async with self.slots.place(lambda: priority, lambda: self.waited.append(name)):
            self.order.append(name)
            await self.leave[name].wait()

    async def go(self, name: str) -> None:
        self.leave[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)


async def test_the_best_priority_goes_first_and_equals_in_turn() -> None:
    line = Line(Slots(lambda: 1, lambda: 0.0))
    await line.enter("first", 9)
    await line.enter("low", 9)
    await line.enter("high", 0)
    await line.enter("also low", 9)
    assert line.waited == ["low", "high", "also low"]
    for name in ("first", "high", "low", "also low"):
        assert line.order[-1] == name
        await line.go(name)


async def test_who_waits_long_overtakes_who_comes_later_with_a_better_priority() -> None:
    now = [0.0]
    line = Line(Slots(lambda: 1, lambda: now[0]))
    await line.enter("holder", 5)
    await line.enter("old and low", 9)
    now[0] = 10 * AGING_S
    await line.enter("new and high", 0)
    await line.go("holder")
    assert line.order == ["holder", "old and low"]


async def test_a_place_comes_back_when_its_holder_or_a_waiter_is_cancelled() -> None:
    line = Line(Slots(lambda: 1, lambda: 0.0))
    for name in ("holder", "waiter", "next"):
        await line.enter(name, 5)
    for name in ("waiter", "holder"):
        line.tasks[name].cancel()
        await asyncio.gather(line.tasks[name], return_exceptions=True)
    await asyncio.sleep(0)
    assert line.order == ["holder", "next"]
    await line.go("next")


async def test_more_places_let_waiters_in_at_once() -> None:
    places = [1]
    slots = Slots(lambda: places[0], lambda: 0.0)
    line = Line(slots)
    for name in ("one", "two", "three"):
        await line.enter(name, 5)
    places[0] = 3
    slots.hand_out()
    await asyncio.sleep(0)
    assert line.order == ["one", "two", "three"]
    for name in line.order:
        line.leave[name].set()
    await asyncio.gather(*line.tasks.values())


async def test_directories_have_their_turn_however_many_wait_in_one() -> None:
    slots, order = Slots(lambda: 1, lambda: 0.0), []

    async def stay(path: str) -> None:
        async with slots.place(lambda: 5, path=path):
            order.append(path)
            await asyncio.sleep(0)

    paths = [f"/spool/flood/{number}.want" for number in range(20)] + ["/spool/other/x.want"]
    await asyncio.gather(*(stay(path) for path in paths))
    assert order.index("/spool/other/x.want") <= 2
    assert [path for path in order if "flood" in path] == paths[:20]


async def test_a_better_priority_counts_once_it_is_reconsidered() -> None:
    priorities = {"one": 5, "two": 5}
    slots, order = Slots(lambda: 1, lambda: 0.0), []

    async def stay(name: str) -> None:
        async with slots.place(lambda: priorities[name]):
            order.append(name)

    async with slots.place(lambda: 5):
        tasks = [asyncio.create_task(stay(name)) for name in priorities]
        await asyncio.sleep(0)
        priorities["two"] = 0
        slots.reconsider()
    await asyncio.gather(*tasks)
    assert order == ["two", "one"]


async def test_a_place_is_free_while_nobody_waits() -> None:
    slots = Slots(lambda: 1, lambda: 0.0)
    assert slots.is_free
    async with slots.place(lambda: 5):
        assert not slots.is_free
    assert slots.is_free
