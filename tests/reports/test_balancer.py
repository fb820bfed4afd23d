"""The load balancer is told what moves, else what ended last; news at once, the rest now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent.core.progress import FileProgress
from agent.core.retry import BALANCER_AGAIN_S
from agent.core.states import State
from agent.core.waits import ForSlot
from agent.core.words import timestamp
from agent.errors import Code
from agent.reports.balancer import BalancerReports
from agent.state.feed import Feed
from agent.state.job import Job
from tests.fakes import FakeClock, error, logged, published, target, ticket

IDLE = {"state": "idle", "model": None, "file": None, "bytes_done": 0, "bytes_total": None, "error": None}


class Balancer:
    """A load balancer that takes reports, or refuses them with an error."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.clock = FakeClock()
        self.sent: list[dict[str, Any]] = []
        self.refuses = False
        self.reports = BalancerReports(lambda: self.jobs, "gpu-7", "0.1.0", self.clock, self.send)

    async def send(self, document: Mapping[str, Any]) -> bool:
        if self.refuses:
            raise error(Code.PROXY_UNREACHABLE)
        self.sent.append(dict(document))
        return True

    async def told(self) -> list[dict[str, Any]]:
        """What is sent now, but for who sends it and when."""
        self.sent.clear()
        await self.reports.tell()
        return [{key: value for key, value in sent.items() if key in IDLE} for sent in self.sent]

    def job(self, name: str = "qwen3", *, moves: bool = True, priority: int = 5) -> tuple[Job, FileProgress]:
        job = Job(target(name), Feed())
        job.add(ticket(name), priority)
        file = FileProgress("m.gguf", 100)
        if moves:
            job.resolve()
            job.progress.begin([file], 100)
            job.download()
        self.jobs.append(job)
        return job, file


@pytest.fixture
def balancer() -> Balancer:
    return Balancer()


async def test_it_is_told_who_speaks_and_when(balancer: Balancer) -> None:
    assert await balancer.told() == [IDLE]
    assert balancer.sent == [
        IDLE | {"host": "gpu-7", "agent": "wantd 0.1.0", "updated_at": timestamp(balancer.clock.now())}
    ]


async def test_the_same_is_told_again_only_after_a_while(balancer: Balancer) -> None:
    await balancer.told()
    await balancer.clock.advance(BALANCER_AGAIN_S - 0.1)
    assert await balancer.told() == []
    await balancer.clock.advance(0.1)
    assert await balancer.told() == [IDLE]
    assert await balancer.told() == []


async def test_what_moves_is_running_with_its_file_and_bytes(balancer: Balancer) -> None:
    job, file = balancer.job()
    running = IDLE | {"state": "running", "model": "qwen3", "bytes_total": 100}
    assert await balancer.told() == [running]
    job.moved(file, 40, State.DOWNLOADING, 0.0)
    assert await balancer.told() == [running | {"file": "m.gguf", "bytes_done": 40}]
    job.moved(file, 100, State.VERIFYING, 0.0)
    assert await balancer.told() == [running | {"file": "m.gguf", "bytes_done": 100}]


async def test_of_many_that_move_the_one_that_downloads_and_is_wanted_most_is_told(balancer: Balancer) -> None:
    resolving, _ = balancer.job("resolving", moves=False, priority=0)
    resolving.resolve()
    verifying, _ = balancer.job("verifying", priority=1)
    verifying.verify()
    assert (await balancer.told())[0]["model"] == "verifying"
    balancer.job("low", priority=9)
    balancer.job("high", priority=2)
    assert (await balancer.told())[0]["model"] == "high"


@pytest.mark.parametrize("ends", ["success", "failed"])
async def test_an_end_is_told_until_the_next_one(balancer: Balancer, ends: str) -> None:
    job, _ = balancer.job()
    await balancer.told()
    why = error(Code.GATED)
    if ends == "success":
        job.ready(published(job.target, 100))
    else:
        job.fail(why)
    (said,) = await balancer.told()
    assert (said["state"], said["model"], said["file"]) == (ends, "qwen3", None)
    assert said["error"] == (why.to_json() if ends == "failed" else None)
    other, _ = balancer.job("other")
    assert (await balancer.told())[0]["state"] == "running"
    other.fail(error(Code.GATED))
    assert (await balancer.told())[0]["model"] == "other"
    assert await balancer.told() == []
    balancer.jobs.clear()
    assert await balancer.told() == [IDLE]


async def test_what_was_in_the_store_already_is_no_news(balancer: Balancer) -> None:
    job, _ = balancer.job(moves=False)
    job.ready(published(job.target))
    assert await balancer.told() == [IDLE]


async def test_what_waits_is_neither_running_nor_an_end(balancer: Balancer) -> None:
    job, _ = balancer.job()
    job.wait(ForSlot())
    assert await balancer.told() == [IDLE]


async def test_one_that_ended_fails_again_after_a_new_attempt(balancer: Balancer) -> None:
    job, _ = balancer.job()
    job.fail(error(Code.GATED))
    await balancer.told()
    other, _ = balancer.job("other")
    other.fail(error(Code.STALLED))
    assert (await balancer.told())[0]["model"] == "other"
    job.again()
    await balancer.told()
    job.fail(error(Code.GATED))
    assert (await balancer.told())[0]["model"] == "qwen3"


async def test_a_balancer_that_refuses_is_a_line_once_and_told_again_with_the_next_news(balancer: Balancer) -> None:
    balancer.refuses = True
    with logged("WARNING") as lines:
        await balancer.told()
        job, file = balancer.job()
        await balancer.told()
    assert lines == ["WARNING the load balancer did not accept a report: it is proxy_unreachable"]
    balancer.refuses = False
    job.moved(file, 10, State.DOWNLOADING, 0.0)
    assert len(await balancer.told()) == 1
    balancer.refuses = True
    job.moved(file, 20, State.DOWNLOADING, 0.0)
    with logged("WARNING") as lines:
        await balancer.told()
    assert len(lines) == 1  # it had taken one in between
