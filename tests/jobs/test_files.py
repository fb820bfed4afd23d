"""One file of a job, where two jobs meet at it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.core.names import SafeName
from agent.core.progress import FileProgress
from agent.core.remote import SMALL_MAX, Fetched, FetchRequest, Listing, Locate, Location, OnBytes, Query
from agent.errors import WantdError
from agent.jobs.files import Files
from agent.jobs.lock_waits import LockWaits
from agent.jobs.run import Run
from agent.state.feed import Feed
from agent.state.job import Job
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Lock, Locks
from agent.store.publish import Stage
from agent.store.space import Space
from tests.store.builders import MODES, Model, make_layout, put, read, sha256

NAME = "m-Q4_K_M.gguf"


class NoSource:
    name = "hub"

    async def listing(self, query: Query) -> Listing:
        raise AssertionError(query)

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        raise AssertionError(name)


class Bringing:
    """A transfer that puts the bytes where they belong, and lets the test do something then."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.brought = 0
        self.at_work: list[str] = []  # lock files, seen while it was at it
        self.then = lambda: None

    async def fetch(self, request: FetchRequest, locate: Locate, on_bytes: OnBytes) -> Fetched:
        if os.path.exists(request.part_path):
            return Fetched(len(self.data), sha256(self.data), True, "partial")
        self.brought += 1
        self.at_work = os.listdir(f"{os.path.dirname(os.path.dirname(request.part_path))}/.locks")
        await asyncio.sleep(0)
        put(request.part_path, self.data)
        self.then()
        return Fetched(len(self.data), sha256(self.data), True, "hub")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(str(tmp_path / "models"))


def files(layout: Layout, transfer: Bringing, locks: Locks) -> Files:
    clock = SystemClock()
    waits = LockWaits(locks, lambda: 5, clock)
    return Files(NoSource(), transfer, layout, Inventory(layout), Space(layout.root, lambda: 0), waits, clock)


def run(model: Model, stage: Stage, lock: Lock) -> Run:
    job = Job(model.target, Feed())
    job.resolve()
    job.planned(model.plan)
    job.download()
    return Run(job, lock=lock, stage=stage)


def model_lock(layout: Layout, locks: Locks, model: Model) -> Lock:
    lock = locks.try_acquire(layout.model_lock(model.target.name))
    assert lock
    return lock


def empty_stage(layout: Layout, model: Model) -> Stage:
    stage = Stage(layout, model.plan, MODES)
    stage.begin()
    return stage


async def test_a_partial_that_another_job_published_and_removed_is_taken_from_the_store(layout: Layout) -> None:
    mine, theirs = Model("mine"), Model("theirs")
    transfer = Bringing(mine.files[NAME])
    part = layout.part(sha256(transfer.data))

    def publish() -> None:
        theirs.publish(layout)
        os.unlink(part)

    transfer.then = publish
    locks = Locks()
    with_files = files(layout, transfer, locks)
    stage = empty_stage(layout, mine)
    shown = FileProgress(SafeName(NAME), len(transfer.data), None)
    lock = model_lock(layout, locks, mine)
    path, fetched = await with_files.obtain(run(mine, stage, lock), mine.plan.files[0], shown)
    lock.release()
    assert path == f"{layout.root}/theirs/{NAME}"
    assert fetched.source == shown.source == "store"
    assert read(f"{stage.path}/{NAME}") == transfer.data
    assert transfer.brought == 1


@pytest.mark.parametrize("size", [SMALL_MAX, SMALL_MAX + 1])
async def test_only_a_large_file_has_a_lock_file_and_two_jobs_bring_neither_twice(layout: Layout, size: int) -> None:
    data = bytes(size)
    models = [Model(name, {NAME: data}) for name in ("one", "two")]
    transfer, locks = Bringing(data), Locks()
    with_files = files(layout, transfer, locks)

    async def bring(model: Model) -> None:
        lock = model_lock(layout, locks, model)
        stage = empty_stage(layout, model)
        shown = FileProgress(SafeName(NAME), size, None)
        await with_files.obtain(run(model, stage, lock), model.plan.files[0], shown)
        stage.publish(model.record, "https://hub.example")
        lock.release()

    await asyncio.gather(*(bring(model) for model in models))
    assert transfer.brought == 1
    assert (f".{sha256(data)}.lock" in transfer.at_work) is (size > SMALL_MAX)
    assert [name for name in os.listdir(layout.locks) if not name.startswith(".agent")] == []
    assert all(read(f"{layout.root}/{model.name}/{NAME}") == data for model in models)
