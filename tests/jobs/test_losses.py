"""Losses: what is found or published is watched, what is reported is looked for, what is unwanted is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

from agent.core.target import Target
from agent.jobs.board import Board
from agent.jobs.losses import SETTLE_S, Losses
from agent.jobs.run import Run
from agent.store.layout import Layout, Published
from tests.fakes import FakeClock, settle


class FakeWatch:
    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring = ring
        self.watched: list[str] = []
        self.lost: set[str] = set()
        self.ensured = 0

    def watch(self, published: Published) -> bool:
        self.watched.append(published.directory)
        return True

    def unwatch(self, directory: str) -> None:
        self.watched.remove(directory)

    def ensure(self) -> None:
        self.ensured += 1

    def take(self) -> set[str]:
        lost, self.lost = self.lost, set()
        return lost


class FakeBoard:
    def __init__(self) -> None:
        self.rechecked: list[Collection[str] | None] = []

    async def recheck(self, names: Collection[str] | None = None) -> None:
        self.rechecked.append(names)


class FakeRunner:
    def __init__(self, published: Published) -> None:
        self._published = published

    async def run(self, run: Run) -> Published:
        return self._published


async def test_what_was_published_is_watched_and_looked_for_when_it_is_reported(tmp_path: Path) -> None:
    layout, clock, board = Layout(str(tmp_path)), FakeClock(), FakeBoard()
    published = cast(Published, type("P", (), {"directory": f"{tmp_path}/org/qwen3"})())
    watches: list[FakeWatch] = []

    def open_watch(ring: Callable[[], None]) -> FakeWatch:
        watches.append(FakeWatch(ring))
        return watches[0]

    losses = Losses(FakeRunner(published), layout, clock, open_watch)
    (watch,) = watches
    assert await losses.run(cast(Run, None)) is published
    assert watch.watched == [published.directory]
    serving = asyncio.create_task(losses.serve(cast(Board, board)))
    watch.lost = {published.directory}
    await asyncio.to_thread(watch.ring)
    await settle()
    assert board.rechecked == [], "not in the middle of a removal"
    await clock.advance(SETTLE_S)
    assert board.rechecked == [{"org/qwen3"}]
    serving.cancel()


async def test_what_nothing_wants_any_more_is_forgotten(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    published = cast(Published, type("P", (), {"directory": f"{tmp_path}/qwen3"})())
    watches: list[FakeWatch] = []

    def open_watch(ring: Callable[[], None]) -> FakeWatch:
        watches.append(FakeWatch(ring))
        return watches[0]

    losses = Losses(FakeRunner(published), layout, FakeClock(), open_watch)
    await losses.run(cast(Run, None))
    wanted = cast(Target, type("T", (), {"name": "qwen3"})())
    losses.ensure([wanted])
    assert watches[0].watched == [published.directory]
    losses.ensure([])
    assert watches[0].watched == []
    assert watches[0].ensured == 2
