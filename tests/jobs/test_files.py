"""One file of a job: from the store or the transfer, also where two jobs meet at it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.core.names import SafeName
from agent.core.plan import PlanFile
from agent.core.progress import FileProgress
from agent.core.remote import SMALL_MAX, Fetched, FetchRequest, Listing, Locate, Location, OnBytes, Query
from agent.core.states import State
from agent.core.waits import ForLock
from agent.core.words import timestamp
from agent.errors import Code, WantdError
from agent.jobs.files import Files, partial_key
from agent.jobs.lock_waits import LockWaits
from agent.jobs.proving import Proving
from agent.jobs.run import Run
from agent.jobs.runner import shown
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Lock, Locks
from agent.store.publish import Stage
from agent.store.space import Space
from tests.fakes import error, logged, settle, ticket
from tests.jobs.workshop import Workshop
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

    def throttled_by(self, group: str) -> str | None:
        return None

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
    inventory, space = Inventory(layout), Space(layout.root, lambda: 0)
    return Files(NoSource(), transfer, layout, inventory, space, waits, clock, Proving(layout, inventory))


def run(model: Model, stage: Stage, lock: Lock) -> Run:
    job = Job(model.target, Feed())
    job.resolve()
    job.planned(model.plan, shown(model.plan))
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


# One file, with nothing but fakes around it


def staged(shop: Workshop, job: Job | None = None) -> tuple[Run, PlanFile, FileProgress]:
    """A run that downloads the GGUF file of its model, with that file."""
    job = job or shop.job()
    model = Model(job.target.name, {NAME: shop.transfer.contents[NAME]}, repo=job.target.selection.repo)
    job.resolve()
    job.planned(model.plan, shown(model.plan))
    job.download()
    stage = Stage(shop.layout, model.plan, MODES)
    stage.begin()
    return Run(job, stage=stage), model.plan.files[0], job.progress.files[0]


async def test_the_transfer_is_told_all_that_is_known_of_the_file(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    run.job.add(ticket(), 2)
    path, fetched = await shop.files.obtain(run, file, shown)
    (request,) = shop.transfer.requests
    assert request == FetchRequest(
        label=f"qwen3 {NAME}",
        part_path=shop.layout.part(str(file.sha256)),
        journal_path=shop.layout.journal(str(file.sha256)),
        size=file.size,
        sha256=file.sha256,
        git_sha1=None,
        priority=2,
        group="qwen3",
    )
    assert path == request.part_path
    assert run.stage is not None
    assert read(f"{run.stage.path}/{NAME}") == shop.transfer.contents[NAME]
    assert (fetched.source, shown.source, shown.state, shown.sha256) == ("hub", "hub", State.READY, file.sha256)
    assert (shown.size, shown.bytes_done) == (file.size, file.size)
    assert run.job.partial_keys == {file.sha256}
    assert shop.source.located == [(NAME, None)]


async def test_a_host_that_holds_back_is_named_while_bytes_come(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    shop.transfer.throttled = "cdn.example:443"
    shop.transfer.steps[NAME] = [(5, False)]
    seen: list[str | None] = []
    shop.transfer.watch = lambda: seen.append(run.job.progress.throttled_by)
    await shop.files.obtain(run, file, shown)
    assert seen == ["cdn.example:443"]
    assert run.job.progress.to_json("qwen3")["throttled_by"] == "cdn.example:443"
    run.job.verify()
    assert "throttled_by" not in run.job.progress.to_json("qwen3")


async def test_its_bytes_are_the_jobs_and_verifying_is_seen(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    seen: list[tuple[int, State, State]] = []
    changes = shop.feed.subscribe()
    shop.transfer.steps[NAME] = [(5, False), (12, True)]
    shop.transfer.watch = lambda: seen.append((run.job.progress.bytes_done, shown.state, run.job.progress.state))
    await shop.files.obtain(run, file, shown)
    assert seen == [(5, State.DOWNLOADING, State.DOWNLOADING), (12, State.VERIFYING, State.VERIFYING)]
    assert changes.take() == {run.job: Change.STATE}


async def test_what_it_reserved_is_given_back_when_it_is_begun_and_only_once(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    shop.space.reserve(run.job, 100)
    free: list[int] = []
    shop.transfer.steps[NAME] = [(1, False), (5, False), (12, True)]
    shop.transfer.watch = lambda: free.append(shop.space.free())
    shop.transfer.meanwhile = lambda _: free.append(shop.space.free())
    await shop.files.obtain(run, file, shown)
    assert free == [10**8 - 100, *[10**8 - 88] * 3]


async def test_each_source_that_gave_some_of_it_is_named_in_order(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    shop.source.locations = {1: "mirror", 2: "mirror"}
    shop.transfer.moves = {2: error(Code.HUB_UNREACHABLE), 3: None}
    shop.transfer.steps[NAME] = [(2, False), (4, False), (8, False), (12, True)]
    with logged() as lines:
        _, fetched = await shop.files.obtain(run, file, shown)
    assert fetched.source == "hub+mirror"
    assert lines == [f"INFO qwen3: '{NAME}' continues from mirror at byte 4: it is hub_unreachable"]
    assert shown.source == "hub+mirror"
    assert run.job.progress.source == "mirror"


async def test_a_source_that_gave_none_of_it_is_not_named(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    shop.source.locations = {1: "mirror"}
    shop.transfer.moves = {0: None}
    with logged() as lines:
        _, fetched = await shop.files.obtain(run, file, shown)
    assert fetched.source == "mirror"
    assert lines == [f"INFO qwen3: '{NAME}' continues from mirror at byte 0: the other did not respond"]


async def test_a_published_file_is_linked_and_not_fetched(shop: Workshop) -> None:
    Model("theirs", {NAME: shop.transfer.contents[NAME]}).publish(shop.layout)
    shop.inventory.refresh()
    run, file, shown = staged(shop)
    path, fetched = await shop.files.obtain(run, file, shown)
    assert path == f"{shop.layout.root}/theirs/{NAME}"
    assert (fetched.source, fetched.verified, fetched.size) == ("store", True, file.size)
    assert shop.transfer.requests == []
    assert run.job.progress.bytes_done == file.size


@pytest.mark.parametrize("change", ["no hash", "another size"])
async def test_what_the_store_has_counts_only_where_hash_and_size_are_the_same(shop: Workshop, change: str) -> None:
    Model("theirs", {NAME: shop.transfer.contents[NAME]}).publish(shop.layout)
    shop.inventory.refresh()
    run, file, shown = staged(shop)
    file = replace(file, sha256=None) if change == "no hash" else replace(file, size=7)
    await shop.files.obtain(run, file, shown)
    assert len(shop.transfer.requests) == 1


async def test_a_file_of_unknown_size_is_taken_from_the_store_by_its_hash(shop: Workshop) -> None:
    Model("theirs", {NAME: shop.transfer.contents[NAME]}).publish(shop.layout)
    shop.inventory.refresh()
    run, file, shown = staged(shop)
    _, fetched = await shop.files.obtain(run, replace(file, size=None), shown)
    assert (fetched.source, fetched.size) == ("store", 12)


async def test_an_error_names_the_file_unless_it_does_already(shop: Workshop) -> None:
    for named in (None, "another"):
        run, file, shown = staged(shop)
        why = error(Code.STALLED)
        why.file = named
        shop.transfer.fails[NAME] = why
        with pytest.raises(WantdError) as caught:
            await shop.files.obtain(run, file, shown)
        assert caught.value.file == (named or NAME)
    assert shop.locks.held == set()


async def test_bytes_that_disappear_again_and_again_are_an_error_of_that_file(shop: Workshop) -> None:
    run, file, shown = staged(shop)
    shop.transfer.leaves = False
    with pytest.raises(WantdError) as caught:
        await shop.files.obtain(run, file, shown)
    assert (caught.value.code, caught.value.file, caught.value.retryable) == (Code.INTERNAL, NAME, True)
    assert len(shop.transfer.requests) == 2
    assert shop.locks.held == set()


async def test_who_waited_for_the_lock_of_a_file_looks_in_the_store_again(shop: Workshop) -> None:
    shop.transfer.contents[NAME] = bytes(SMALL_MAX + 1)
    run, file, shown = staged(shop)
    held = Locks().try_acquire(shop.layout.file_lock(str(file.sha256)))
    assert held is not None
    waiting = asyncio.create_task(shop.files.obtain(run, file, shown))
    await settle()
    assert isinstance(run.job.progress.waiting, ForLock)
    Model("theirs", {NAME: shop.transfer.contents[NAME]}).publish(shop.layout)
    held.release()
    await shop.clock.advance(1)
    _, fetched = await waiting
    assert fetched.source == "store"
    assert shop.transfer.requests == []
    assert run.job.progress.state is not State.WAITING


async def test_where_another_may_be_at_the_partial_the_job_has_one_of_its_own(shop: Workshop) -> None:
    shop.transfer.contents[NAME] = bytes(SMALL_MAX + 1)
    run, file, shown = staged(shop)
    path = shop.layout.file_lock(str(file.sha256))
    put(path, b'{"pid": 1, "host": "elsewhere", "heartbeat_at": "%s"}' % timestamp(datetime.now(UTC)).encode())
    await shop.files.obtain(run, file, shown)
    (request,) = shop.transfer.requests
    key = os.path.basename(request.part_path).removesuffix(".part")
    assert key.startswith(f"{file.sha256}~")
    assert len(key) == 64 + 1 + 8
    assert request.journal_path == shop.layout.journal(key)
    assert run.job.partial_keys == {key}


async def test_bytes_before_there_is_a_plan_count_for_nothing(shop: Workshop) -> None:
    run, file, _ = staged(shop)
    run.stage = None
    shown = FileProgress(file.name, file.size)
    changes = shop.feed.subscribe()
    path, _ = await shop.files.obtain(run, file, shown)
    assert read(path) == shop.transfer.contents[NAME]
    assert run.job.progress.bytes_done == 0
    assert shown.bytes_done == file.size
    assert changes.take() == {}


def test_a_partial_is_named_by_the_best_hash_there_is() -> None:
    file = Model().plan.files[0]
    assert partial_key(replace(file, git_sha1="cd" * 20)) == file.sha256
    assert partial_key(replace(file, sha256=None, git_sha1="cd" * 20)) == "cd" * 20
    unknown = [replace(file, sha256=None), replace(file, sha256=None, commit="0" * 40)]
    keys = {partial_key(one) for one in unknown}
    assert len(keys) == 2
    assert {(key[0], len(key)) for key in keys} == {("u", 41)}
