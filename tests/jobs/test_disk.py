"""Short work on the disk in batches: everybody gets his own result, in order, and nobody's failure is another's."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.jobs.disk import Batches


async def test_everybody_gets_the_result_of_his_own_work_off_the_loop() -> None:
    batches = Batches()
    here = threading.get_ident()
    results = await asyncio.gather(*(batches.run(lambda n=n: (n, threading.get_ident())) for n in range(50)))
    assert [number for number, _ in results] == list(range(50))
    assert here not in {thread for _, thread in results}


async def test_what_fails_fails_for_whoever_asked_and_for_nobody_else() -> None:
    batches = Batches()
    good, bad, after = batches.run(lambda: 1), batches.run(lambda: 1 // 0), batches.run(lambda: 3)
    assert await good == 1
    with pytest.raises(ZeroDivisionError):
        await bad
    assert await after == 3


async def test_what_waits_together_shares_one_hop_and_goes_in_order() -> None:
    batches = Batches()
    gate, threads, order = threading.Event(), set(), []

    def step(number: int) -> None:
        threads.add(threading.get_ident())
        order.append(number)

    first = batches.run(gate.wait)
    await asyncio.sleep(0)  # it has begun; what comes now waits for it, together
    rest = [batches.run(lambda n=n: step(n)) for n in range(20)]
    gate.set()
    await asyncio.gather(first, *rest)
    assert order == list(range(20))
    assert len(threads) == 1


async def test_work_of_one_who_was_cancelled_is_done_and_its_result_dropped() -> None:
    batches = Batches()
    done = []
    given_up = batches.run(lambda: done.append("given up"))
    kept = batches.run(lambda: done.append("kept"))
    given_up.cancel()
    await kept
    assert done == ["given up", "kept"]


async def test_it_goes_on_after_it_was_idle() -> None:
    batches = Batches()
    assert await batches.run(lambda: 1) == 1
    assert await batches.run(lambda: 2) == 2
