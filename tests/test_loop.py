"""The event loop: who holds it is named, and its end waits for nothing that hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from loguru import logger

from agent.loop import Turns, run, threads_left, turns_of
from tests.harness import CHECKOUT


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{message}")
    yield lines
    logger.remove(sink)


def compute(seconds: float) -> None:
    """Use so much processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


async def hold_the_loop(seconds: float) -> None:
    await asyncio.sleep(0)
    compute(seconds)
    await asyncio.sleep(0)


def test_a_turn_that_takes_too_long_is_reported_with_its_culprit(said: list[str]) -> None:
    run(hold_the_loop(0.2), Turns(report_s=0.1))
    assert len(said) == 1
    assert said[0].startswith("the event loop was held for ")
    assert "compute" in said[0]


def test_short_turns_are_not_reported(said: list[str]) -> None:
    run(hold_the_loop(0.02), Turns(report_s=0.1))
    assert said == []


def test_waiting_holds_nothing(said: list[str]) -> None:
    async def wait() -> None:
        await asyncio.to_thread(compute, 0.15)
        await asyncio.sleep(0.15)

    run(wait(), Turns(report_s=0.1))
    assert said == []


def test_the_longest_turn_is_kept_until_it_is_taken() -> None:
    turns = Turns()
    run(hold_the_loop(0.05), turns)
    assert turns.take_longest() >= 0.05
    assert turns.take_longest() == 0.0


def test_nothing_is_logged_unless_the_variable_asks_for_it(said: list[str]) -> None:
    run(hold_the_loop(0.1), turns_of({}))
    run(hold_the_loop(0.1), turns_of({"WANTD_DEBUG_LOOP_MS": "yes"}))
    assert said == []
    run(hold_the_loop(0.1), turns_of({"WANTD_DEBUG_LOOP_MS": "50"}))
    assert len(said) == 1


def test_the_end_waits_for_no_thread_that_hangs() -> None:
    hang = threading.Event()

    async def begin() -> str:
        asyncio.get_running_loop().run_in_executor(None, hang.wait)
        return "done"

    try:
        assert run(begin(), Turns()) == "done"
        assert len(threads_left()) == 1
    finally:
        hang.set()


def test_the_end_waits_for_no_task_that_does_not_end() -> None:
    code = """
import asyncio, sys
from agent.loop import Turns, run

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue

async def main():
    asyncio.create_task(stubborn())
    await asyncio.sleep(0)

run(main(), Turns())
print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ended" in done.stdout, done.stderr


def test_what_the_coroutine_raises_comes_out() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(fail(), Turns())
