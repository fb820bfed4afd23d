"""Short work on the disk, off the event loop, with everything that waits at a moment in one batch.

A hop to a thread and back costs more than opening, linking or locking a file does: two wake-ups, and a fight over
the interpreter with the thread that was just woken. A repository of 2,000 small files takes six steps for each file,
with dozens of files on their way at once, so that most hops can be shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

_Work = Callable[[], Any]
_Outcome = tuple[Any, BaseException | None]


class Batches:
    """For one event loop, and for work that may wait for each other: the files of one job."""

    def __init__(self) -> None:
        self._waiting: list[tuple[_Work, asyncio.Future[Any]]] = []
        self._busy = False

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """The result of `work`, carried out in a thread after what came before it.

        It is carried out even where the task that waits for it is cancelled; cancelling the future drops the result.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._start, loop)  # not at once: others are about to come in this turn of the loop
        return future

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting, []
        running = loop.run_in_executor(None, _carry_out, [work for work, _ in batch])
        running.add_done_callback(lambda done: self._deliver(loop, [future for _, future in batch], done))

    def _deliver(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: list[asyncio.Future[Any]],
        done: asyncio.Future[list[_Outcome]],
    ) -> None:
        if done.cancelled():
            for future in futures:
                future.cancel()
        else:
            for future, (result, error) in zip(futures, done.result(), strict=True):
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        if self._waiting:
            self._start(loop)
        else:
            self._busy = False


def _carry_out(works: list[_Work]) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for work in works:
        try:
            outcomes.append((work(), None))
        except Exception as error:  # noqa: BLE001  it is raised where the result is waited for
            outcomes.append((None, error))
    return outcomes


async def finish_before_cancel(work: Awaitable[T], on_cancel: Callable[[], object] = lambda: None) -> T:
    """Let work on the disk end before a cancellation goes on: half a publication is worse than a late stop.

    `on_cancel` may tell long work to end early.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        on_cancel()
        await asyncio.wait([task])
        raise
