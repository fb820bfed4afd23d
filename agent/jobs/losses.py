"""Published models that are removed while they are wanted: noticed where the kernel tells, and fetched again at once.

Stands between the board and the store: whatever is found, or published, in a look at the store is watched from then on.
A report is a hint: the board looks into the store before it acts. What is not reported the next rescan finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection
from typing import Protocol

from agent.clock import Clock
from agent.core.target import Target
from agent.jobs.board import Board, CarriesOut
from agent.jobs.run import Run
from agent.store.layout import Layout, Published

SETTLE_S = 0.25  # `rm -r` takes several calls, and a `mv` away may be followed by one back


class Watch(Protocol):
    """What is needed of `store.record_watch.RecordWatch`."""

    def watch(self, published: Published) -> bool:
        """Report it once it is removed."""
        ...

    def unwatch(self, directory: str) -> None:
        """Report it no more."""
        ...

    def ensure(self) -> None:
        """See that the watch is alive."""
        ...

    def take(self) -> set[str]:
        """The directories of the models that were reported."""
        ...


class Losses:
    """A `CarriesOut` and a `Shelf` for the board; `open_watch` makes the watch from the function that it is to call.

    `due` says which of the models that are there have to be planned again (`jobs.revisit`).
    """

    def __init__(
        self,
        runner: CarriesOut,
        layout: Layout,
        clock: Clock,
        open_watch: Callable[[Callable[[], None]], Watch],
        due: Callable[[Published, Target], bool] = lambda published, target: False,
    ) -> None:
        self._runner = runner
        self._due = due
        self._layout = layout
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self._watch = open_watch(self._ring)
        self._watched: set[str] = set()

    async def run(self, run: Run) -> Published:
        """See `CarriesOut`: what was published is watched."""
        published = await self._runner.run(run)
        await asyncio.to_thread(self._see, published)
        return published

    def published(self, target: Target) -> Published | None:
        """See `Shelf`: what is found is watched."""
        published = self._layout.published(target)
        if published:
            self._see(published)
        return published

    def ready(self, target: Target) -> Published | None:
        """As `published`, for a new want: None where the model has to be planned again first."""
        published = self.published(target)
        return None if published and self._due(published, target) else published

    def create(self) -> None:
        """See `Shelf`."""
        self._layout.create()

    def ensure(self, wanted: Collection[Target]) -> None:
        """See that the watch is alive, and forget what is not wanted any more. Touches the disk."""
        directories = {self._layout.directory(target.name) for target in wanted}
        for directory in self._watched - directories:
            self._watch.unwatch(directory)
        self._watched &= directories
        self._watch.ensure()

    async def serve(self, board: Board) -> None:
        """Have the board look for what was reported, until cancelled."""
        while True:
            await self._rung.wait()
            self._rung.clear()
            await self._clock.sleep(SETTLE_S)
            lost = self._watch.take()
            await board.recheck({os.path.relpath(directory, self._layout.root) for directory in lost})

    def _see(self, published: Published) -> None:
        if self._watch.watch(published):
            self._watched.add(published.directory)

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the agent has stopped
            self._loop.call_soon_threadsafe(self._rung.set)
