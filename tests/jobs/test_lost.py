"""Downloads whose partials somebody removes: they start over, and nothing else does."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import cast

from agent.config import Transfer
from agent.core.states import State
from agent.core.target import Target
from agent.jobs.board import Board
from agent.jobs.run import Run
from agent.state.feed import Feed
from agent.state.job import Job
from agent.store.publish import Stage
from tests.fakes import FakeClock, FakeDisk, FakeRunner, FakeStore, Inline, logged, settle, target, ticket
from tests.jobs.workshop import Workshop
from tests.store.builders import assert_true_to_record


class FakeStage:
    is_lost = False


async def test_a_run_whose_stage_is_gone_starts_over_and_the_others_go_on() -> None:
    asyncio.get_running_loop().set_default_executor(Inline())
    jobs: dict[Target, Job] = {}
    runner = FakeRunner()
    board = Board(jobs, runner, FakeStore(), FakeDisk(), FakeClock(), Feed(), Transfer)
    stages = {}
    for name in ("lost", "kept", "planning"):
        board.subscribe(ticket(name), target(name), 5, None)
    await settle()
    for name in ("lost", "kept"):
        run = runner.latest(name)
        run.job.resolve()
        run.job.download()
        stages[name] = FakeStage()
        run.stage = cast(Stage, stages[name])
    stages["lost"].is_lost = True
    with logged("WARNING") as lines:
        await board.recover_lost()
    await settle()
    assert [run.job.target.name for run in runner.cancelled] == ["lost"]
    assert sorted(runner.active) == ["kept", "lost", "planning"]
    assert len(lines) == 1
    assert jobs[target("lost")].progress.state is State.WAITING
    await runner.finish("lost")
    assert jobs[target("lost")].progress.state is State.READY
    await board.stop()


async def test_a_stage_is_lost_only_while_it_is_filled(shop: Workshop) -> None:
    seen: list[bool] = []
    run_stage: list[Stage] = []
    run = Run(shop.job())

    def meanwhile(_: object) -> None:
        assert run.stage
        run_stage.append(run.stage)
        seen.append(run.stage.is_lost)

    shop.transfer.meanwhile = meanwhile
    await shop.runner.run(run)
    (stage,) = run_stage
    assert seen == [False]
    assert not stage.is_lost, "it was published"
    again = Stage(shop.layout, stage._plan, stage._modes)
    again.begin()
    shutil.rmtree(shop.layout.partial)
    assert again.is_lost
    again.drop()
    assert not again.is_lost


async def test_a_run_makes_the_store_that_somebody_has_removed(shop: Workshop) -> None:
    shutil.rmtree(shop.layout.root)
    assert_true_to_record(await shop.run(shop.job()))
    assert not shop.layout.create_again()
    os.rmdir(shop.layout.partial)
    assert shop.layout.create_again()
