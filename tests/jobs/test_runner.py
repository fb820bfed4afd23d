"""One run: the order of its steps, what it holds meanwhile, and that nothing of it is left however it ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent.config import Policy, Transfer
from agent.core.remote import FetchRequest
from agent.core.states import State
from agent.core.target import Target
from agent.core.waits import ForDisk, ForLock, ForSlot
from agent.errors import Code, WantdError
from agent.jobs.board import Board
from agent.jobs.run import NotNow, Run
from agent.jobs.runner import FILES_AT_ONCE, LOGGED_FILES
from agent.state.feed import Change
from agent.state.job import Job
from agent.state.news import ModelNews
from agent.store.layout import read_record
from agent.store.locks import Locks
from tests.fakes import COMMIT, START, error, logged, settle, ticket
from tests.jobs.workshop import SAFETENSORS, Workshop
from tests.store.builders import Model, assert_true_to_record, put, sha256, tree

NAME = "m-Q4_K_M.gguf"


def leftovers(shop: Workshop) -> list[str]:
    """What is in the store beside published models."""
    return sorted(os.listdir(shop.layout.partial) + os.listdir(shop.layout.locks))


async def test_a_model_is_published_whole_and_nothing_else_is_left(shop: Workshop) -> None:
    job = shop.job()
    published = await shop.run(job)
    assert_true_to_record(published)
    assert published.path == f"{shop.layout.root}/qwen3/{NAME}"
    assert tree(shop.layout.root) == [f"qwen3/{name}" for name in (".wantd.json", NAME, "manifest.json", "model.gguf")]
    assert leftovers(shop) == []
    assert shop.locks.held == set()
    assert shop.space.free() == 10**8
    assert job.progress.state is State.VERIFYING  # it is the board that calls it ready


async def test_the_record_says_all_that_is_known_of_the_model(shop: Workshop) -> None:
    published = await shop.run(shop.job())
    record = read_record(published.directory)
    assert record == published.record
    assert (record.schema, record.model, record.repo, record.revision) == (1, "qwen3", "org/qwen3", "main")
    assert (record.commit, record.format, record.opens) == (COMMIT, "gguf", NAME)
    assert (record.source, record.verified, record.agent) == ("hub", True, "wantd on gpu-7")
    assert record.published_at == START.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    (file,) = record.files
    data = shop.transfer.contents[NAME]
    assert (file.name, file.size, file.sha256, file.source) == (NAME, len(data), sha256(data), "hub")


async def test_its_states_follow_each_other(shop: Workshop) -> None:
    job, states = shop.job(), []
    shop.transfer.meanwhile = lambda _: states.append(job.progress.state)
    shop.transfer.steps[NAME] = [(4, False), (12, True), (4, False), (12, True)]
    shop.source.meanwhile = lambda _: states.append(job.progress.state)
    changes = shop.feed.subscribe()
    await shop.run(job)
    assert states == [State.RESOLVING, State.DOWNLOADING]
    assert changes.take() == {job: Change.STATE, ModelNews("qwen3", "published", "hub"): Change.STATE}
    assert job.progress.state is State.VERIFYING
    assert [(file.name, file.size, file.state) for file in job.progress.files] == [(NAME, 12, State.READY)]
    assert (job.progress.bytes_done, job.progress.bytes_total) == (12, 12)


async def test_the_lock_and_the_stage_are_the_runs_while_it_works(shop: Workshop) -> None:
    run = Run(shop.job())
    seen: list[tuple[bool, bool, list[str]]] = []

    def meanwhile(_: FetchRequest) -> None:
        locked = Locks().try_acquire(shop.layout.model_lock(run.job.target.name)) is None
        stages = [name for name in os.listdir(shop.layout.partial) if name.startswith("stage-qwen3~")]
        seen.append((run.lock is not None and locked, run.stage is not None, stages))

    shop.transfer.meanwhile = meanwhile
    await shop.runner.run(run)
    ((locked, staged, stages),) = seen
    assert locked
    assert staged
    assert len(stages) == 1
    assert run.lock is None


async def test_what_the_last_holder_of_the_lock_published_is_not_fetched_again(shop: Workshop) -> None:
    job = shop.job()
    path = shop.layout.model_lock(job.target.name)
    others = Locks().try_acquire(path)
    assert others is not None
    running = asyncio.create_task(shop.run(job))
    await settle()
    assert isinstance(job.progress.waiting, ForLock)
    theirs = Model("qwen3", repo="org/qwen3", source="another")
    theirs.publish(shop.layout)
    others.release()
    await shop.clock.advance(1)
    published = await running
    assert published.record.source == "another"
    assert shop.transfer.requests == []


async def test_who_waits_for_a_lock_does_not_hold_a_slot(shop: Workshop) -> None:
    shop.places = 1
    job, other = shop.job(), shop.job("other")
    held = Locks().try_acquire(shop.layout.model_lock(job.target.name))
    assert held is not None
    running = asyncio.create_task(shop.run(job))
    await settle()
    await shop.run(other)
    held.release()
    await shop.clock.advance(1)
    await running


async def test_who_waits_for_a_slot_says_so_and_goes_on_when_there_is_one(shop: Workshop) -> None:
    shop.places = 1
    shop.transfer.hold = asyncio.Event()
    first = asyncio.create_task(shop.run(shop.job()))
    await settle()
    job = shop.job("other")
    second = asyncio.create_task(shop.run(job))
    await settle()
    assert job.progress.waiting == ForSlot()
    assert len(shop.transfer.requests) == 1
    shop.transfer.hold.set()
    await first
    await second
    assert job.progress.state is State.VERIFYING


async def test_too_little_room_ends_the_run_before_a_byte_comes(shop: Workshop) -> None:
    shop.disk.free_bytes = 11
    with pytest.raises(NotNow) as caught:
        await shop.run(shop.job())
    assert caught.value.wait == ForDisk(12, 11)
    assert shop.transfer.requests == []
    assert leftovers(shop) == []
    assert shop.locks.held == set()
    shop.disk.free_bytes = 12
    await shop.run(shop.job())
    assert shop.space.free() == 12  # nothing is reserved any more


async def test_a_model_that_is_larger_than_the_disk_fails_for_good(shop: Workshop) -> None:
    shop.disk.total_bytes = 11
    with pytest.raises(WantdError) as caught:
        await shop.run(shop.job())
    assert caught.value.code is Code.INSUFFICIENT_SPACE
    assert not caught.value.retryable


async def test_room_is_reserved_for_what_is_not_there_yet_and_given_back(tmp_path: Path) -> None:
    contents = {"generation_config.json": b"{}", "model.safetensors": bytes(3 * 4096), "tokenizer.json": bytes(5000)}
    shop = Workshop(tmp_path, contents)
    put(shop.layout.part(sha256(contents["tokenizer.json"])), contents["tokenizer.json"])  # 8192 bytes are allocated
    Model("theirs", {"generation_config.json": contents["generation_config.json"]}).publish(shop.layout)
    shop.disk.free_bytes = 3 * 4096 - 1
    with pytest.raises(NotNow) as caught:
        await shop.run(shop.job())
    assert caught.value.wait == ForDisk(3 * 4096, 3 * 4096 - 1)
    shop.disk.free_bytes = 10**6
    free: list[int] = []
    shop.transfer.meanwhile = lambda _: free.append(shop.space.free())
    await shop.run(shop.job())
    assert min(free) == 10**6 - 3 * 4096
    assert shop.space.free() == 10**6


@pytest.mark.parametrize("why", [error(Code.STALLED), error(Code.CHECKSUM_MISMATCH), ZeroDivisionError()])
async def test_a_run_that_fails_leaves_no_lock_no_stage_and_no_reservation(shop: Workshop, why: Exception) -> None:
    shop.transfer.fails[NAME] = why
    run = Run(shop.job())
    with pytest.raises((WantdError, ExceptionGroup)):
        await shop.runner.run(run)
    assert leftovers(shop) == []
    assert shop.locks.held == set()
    assert run.lock is None
    assert tree(shop.layout.root) == []
    shop.transfer.fails.clear()
    await shop.run(shop.job())


async def test_a_cancelled_run_leaves_no_lock_no_stage_and_its_partials(shop: Workshop) -> None:
    shop.transfer.hold = asyncio.Event()
    part = shop.layout.part(sha256(shop.transfer.contents[NAME]))
    shop.transfer.meanwhile = lambda request: put(request.part_path, b"half") and None  # type: ignore[func-returns-value]
    job = shop.job()
    running = asyncio.create_task(shop.run(job))
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert leftovers(shop) == [os.path.basename(part)]
    assert shop.locks.held == set()
    assert job.partial_keys == {sha256(shop.transfer.contents[NAME])}


async def test_of_errors_that_come_together_the_definite_one_is_told(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, SAFETENSORS)
    shop.transfer.hold = asyncio.Event()
    shop.transfer.fails = {
        "generation_config.json": error(Code.STALLED),
        "model.safetensors": error(Code.CHECKSUM_MISMATCH),
        "tokenizer.json": error(Code.HUB_UNREACHABLE),
    }
    running = asyncio.create_task(shop.run(shop.job()))
    await settle()
    shop.transfer.hold.set()
    with pytest.raises(WantdError) as caught:
        await running
    assert caught.value.code is Code.CHECKSUM_MISMATCH
    assert caught.value.file == "model.safetensors"


async def test_a_definite_error_counts_more_than_a_wait(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, SAFETENSORS)
    shop.transfer.hold = asyncio.Event()
    shop.transfer.fails = {"generation_config.json": NotNow(ForSlot()), "model.safetensors": error(Code.FORBIDDEN_PATH)}
    running = asyncio.create_task(shop.run(shop.job()))
    await settle()
    shop.transfer.hold.set()
    with pytest.raises(WantdError) as caught:
        await running
    assert caught.value.code is Code.FORBIDDEN_PATH


async def test_files_come_side_by_side_but_not_all_at_once(tmp_path: Path) -> None:
    contents = {f"{number}.json": b"%d" % number for number in range(2 * FILES_AT_ONCE)}
    shop = Workshop(tmp_path, {"model.safetensors": b"weights", **contents})
    shop.transfer.hold = asyncio.Event()
    running = asyncio.create_task(shop.run(shop.job()))
    await settle()
    await settle()
    assert len(shop.transfer.requests) == FILES_AT_ONCE
    shop.transfer.hold.set()
    published = await running
    assert [file.name for file in published.record.files] == list(dict.fromkeys(["model.safetensors", *contents]))
    assert_true_to_record(published)


async def test_a_model_from_several_sources_names_them_all_and_not_what_was_here_already(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, SAFETENSORS)
    Model("theirs", {"generation_config.json": SAFETENSORS["generation_config.json"]}).publish(shop.layout)
    shop.source.locations = {0: "mirror"}
    with logged() as lines:
        published = await shop.run(shop.job())
    assert published.record.source == "hub+mirror"
    sources = {file.name: file.source for file in published.record.files}
    assert sorted(sources.values()) == ["hub", "mirror", "store"]
    assert sources["generation_config.json"] == "store"
    assert "INFO qwen3: store served 'generation_config.json'" in lines


async def test_a_model_that_was_here_in_all_its_parts_is_from_the_store(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, SAFETENSORS)
    Model("theirs", dict(SAFETENSORS)).publish(shop.layout)
    published = await shop.run(shop.job())
    assert published.record.source == "store"
    assert shop.transfer.requests == []


async def test_the_log_names_some_files_of_each_source(tmp_path: Path) -> None:
    contents = {f"{number:02}.json": b"%d" % number for number in range(LOGGED_FILES + 2)}
    shop = Workshop(tmp_path, {"model.safetensors": b"weights", **contents})
    with logged() as lines:
        await shop.run(shop.job())
    (line,) = [line for line in lines if " served " in line]
    assert line.count(".") == LOGGED_FILES
    assert line.endswith(" and 3 more")


async def test_one_unverified_file_makes_the_model_unverified(shop: Workshop) -> None:
    shop.policy = Policy(unverified="accept")
    shop.lists(hashed=False)
    shop.transfer.verified = False
    published = await shop.run(shop.job())
    assert published.record.verified is False


async def test_the_board_and_the_runner_together(shop: Workshop) -> None:
    """A fault, a pause, and the model is ready: the two parts with nothing but fakes around them."""
    jobs: dict[Target, Job] = {}
    config = Transfer()
    board = Board(jobs, shop.runner, shop.layout, shop.space, shop.clock, shop.feed, lambda: config, lambda: 0.0)
    shop.transfer.fails[NAME] = error(Code.STALLED)
    shop.lists()
    job = board.subscribe(ticket(), shop.job().target, 5, None)
    await settle()
    assert (job.progress.state, job.progress.attempt) == (State.WAITING, 2)
    shop.transfer.fails.clear()
    await shop.clock.advance(1)
    await settle()
    assert job.progress.state is State.READY
    assert job.progress.path == f"{shop.layout.root}/qwen3/{NAME}"
