"""The event loop of the agent: how long each of its turns takes, who holds it, and an end that waits for no thread.

A turn is what the loop does between two looks at its selector: while one lasts no socket is read, no timer fires and no
want is taken in. Turns are measured at the selector, which asyncio lets its user choose. Two clock readings a turn are
cheap enough to be always on; finding the culprit costs a thread that looks a hundred times a second, and is for tests
and for debugging: `WANTD_DEBUG_LOOP_MS=50` logs each turn that takes more than 50 ms, and where it was spent.

What counts is the processor time of the loop's own thread. On a machine with more work than processors a turn lasts
longer than that by the clock, and nobody holds the loop. Nor does the garbage collector count, up to `COLLECTION_S`: it
stops all threads wherever it runs, and takes some 50 ms for each million objects, which are wants, not a mistake.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Coroutine, Mapping
from types import FrameType
from typing import Any, TypeVar

from loguru import logger

T = TypeVar("T")

VARIABLE = "WANTD_DEBUG_LOOP_MS"
SAMPLE_S = 0.01  # between two looks of the watch at the loop's thread
COLLECTION_S = 0.25  # of one turn, in which the garbage collector may be at work
FRAMES = 12  # of a stack, the innermost
END_S = 0.5  # what was cancelled has this long to end when the loop is closed


class Turns:
    """How long the loop's turns take, in seconds of its thread's processor time. `longest_s` is since `take_longest`.

    With `report_s`, turns longer than that are logged with their culprits; `watch` has to run then.
    """

    def __init__(self, report_s: float | None = None) -> None:
        self.longest_s = 0.0
        self._report_s = report_s
        self._began = 0.0  # thread time of the turn under way; 0.0 while the loop sleeps
        self._collecting = 0.0
        self._collected_s = 0.0  # by the garbage collector, in this turn
        self._stacks: Counter[str] = Counter()
        self._thread = 0  # its identifier, once it is watched

    def take_longest(self) -> float:
        """The longest turn since the last call."""
        longest, self.longest_s = self.longest_s, 0.0
        return longest

    def begin(self) -> None:
        """The selector has returned. From the loop's thread."""
        self._began = time.thread_time()

    def end(self) -> None:
        """The selector is about to be asked. From the loop's thread."""
        began, self._began = self._began, 0.0
        if not began:
            return
        took = time.thread_time() - began
        self.longest_s = max(self.longest_s, took)
        if self._report_s is not None:
            if took - min(self._collected_s, COLLECTION_S) > self._report_s:
                self._report(took)
            self._stacks.clear()
            self._collected_s = 0.0

    def watch(self) -> None:
        """Look, from a thread of its own, what the loop's thread is doing. Call it in the loop's thread."""
        if not self._report_s:
            return
        self._thread = threading.get_ident()
        gc.callbacks.append(self._on_collection)
        threading.Thread(target=self._sample, args=(self._report_s,), name="loop watch", daemon=True).start()

    def _on_collection(self, phase: str, info: Mapping[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected_s += time.thread_time() - self._collecting

    def _sample(self, report_s: float) -> None:
        clock = time.pthread_getcpuclockid(self._thread)
        while True:
            time.sleep(SAMPLE_S)
            began = self._began
            if began and time.clock_gettime(clock) - began > report_s / 2:
                frame = sys._current_frames().get(self._thread)
                if frame and self._began == began:  # still the same turn
                    self._stacks[_stack(frame)] += 1

    def _report(self, took: float) -> None:
        collected = f", {self._collected_s * 1000:.0f} ms of it collecting garbage" if self._collected_s > 0.001 else ""
        stacks = "\n".join(f"  {count} times in: {stack}" for stack, count in self._stacks.most_common(3))
        logger.warning(
            "the event loop was held for {:.0f} ms{}\n{}",
            took * 1000,
            collected,
            stacks or "  nothing was seen: one call, or many short ones, that kept the interpreter to itself",
        )


def _stack(frame: FrameType) -> str:
    """Where a thread is, outermost first."""
    summary = traceback.extract_stack(frame, limit=FRAMES)
    return " > ".join(f"{entry.filename.rpartition('/')[2]}:{entry.lineno} {entry.name}" for entry in summary)


class _Selector(selectors.DefaultSelector):
    """The system's selector, which tells when a turn begins and ends."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns.end()
        try:
            return super().select(timeout)
        finally:
            self._turns.begin()


def turns_of(environ: Mapping[str, str]) -> Turns:
    """With reports where the variable asks for them; anything but a number of milliseconds asks for none."""
    text = environ.get(VARIABLE, "")
    return Turns(int(text) / 1000 if text.isdecimal() else None)


def run(main: Coroutine[Any, Any, T], turns: Turns) -> T:
    """Run a coroutine on a loop of its own, as `asyncio.run` does, but wait for nothing that does not end.

    Threads of the loop's executor are left alone: one may hang in a look-up of a name, or on a disk that is gone.
    """
    loop = asyncio.SelectorEventLoop(_Selector(turns))
    asyncio.set_event_loop(loop)
    turns.watch()
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            loop.run_until_complete(_end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=END_S)


def threads_left() -> list[threading.Thread]:
    """Threads that the interpreter would wait for at its end."""
    return [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.daemon and thread.is_alive()
    ]
