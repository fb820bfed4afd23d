"""Remembers when models were last wanted: what is no longer wanted goes least recently used first."""

from __future__ import annotations

import asyncio

from agent.clock import Clock
from agent.core.states import State
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.store.layout import Layout
from agent.store.room.uses import mark


class Uses:
    """Marks a model when it becomes ready, and when no want names it any more."""

    def __init__(self, feed: Feed, layout: Layout, clock: Clock) -> None:
        self._changes = feed.subscribe()
        self._layout = layout
        self._clock = clock

    async def serve(self) -> None:
        """Run until cancelled."""
        while True:
            await self._changes.wait()
            directories = [
                self._layout.directory(subject.target.name)
                for subject, change in self._changes.take().items()
                if isinstance(subject, Job) and change is not Change.BYTES and subject.progress.state is State.READY
            ]
            if directories:
                await asyncio.to_thread(_mark_all, directories, self._clock.now().timestamp())


def _mark_all(directories: list[str], now: float) -> None:
    for directory in directories:
        mark(directory, now)
