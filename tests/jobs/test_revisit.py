"""Models that older rules chose: planned again once, at the same commit, and never lost for it."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from agent.core.retry import REVISIT_AGAIN_S
from agent.core.selection import RULES
from agent.core.states import State
from agent.core.target import Target
from agent.errors import Code
from agent.jobs.revisit import outdated
from agent.state.job import Job
from agent.store.layout import RECORD, Published, read_record
from tests.fakes import COMMIT, error, published, target
from tests.jobs.workshop import Workshop
from tests.store.builders import assert_true_to_record

OLD = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}
NEW = OLD | {"generation_config.json": b"{ }"}


def age(one: Published) -> Published:
    """The record as version 0.1.0 wrote it."""
    path = Path(one.directory, RECORD)
    value = msgspec.json.decode(path.read_bytes())
    del value["rules"]
    path.write_bytes(msgspec.json.encode(value))
    record = read_record(one.directory)
    assert record
    return Published(record, one.path, one.directory)


async def old_model(shop: Workshop, files: dict[str, bytes] = OLD) -> tuple[Job, Published]:
    """A model of these files that older rules chose; the repository has `NEW`. The job is that of the next want."""
    shop.transfer.contents = dict(files)
    shop.lists()
    old = age(await shop.run(shop.job()))
    shop.transfer.contents = dict(NEW)
    shop.lists()
    shop.source.asked.clear()
    shop.transfer.requests.clear()
    return shop.job(), old


def test_what_the_rules_did_not_choose_is_not_outdated() -> None:
    def is_outdated(wanted: Target, rules: int = 0, commit: str = COMMIT) -> bool:
        return outdated(msgspec.structs.replace(published(wanted, commit=commit).record, rules=rules), wanted)

    assert is_outdated(target())
    assert is_outdated(target(quant="Q8_0"))
    assert not is_outdated(target(), rules=RULES)
    assert not is_outdated(target(), commit="manifest-1")
    for chosen in ({"filename": "m.gguf"}, {"files": ("*.gguf",)}, {"snapshot": "all"}, {"artifacts": ("a",)}):
        assert not is_outdated(target(**chosen)), chosen


async def test_what_is_missing_is_fetched_and_what_is_there_is_not(shop: Workshop) -> None:
    job, old = await old_model(shop)
    assert shop.revisit.due(old, job.target)
    again = await shop.run(job)
    assert [request.label for request in shop.transfer.requests] == ["qwen3 generation_config.json"]
    assert [query.revision for query in shop.source.asked] == [COMMIT], "not what main has become since"
    assert {file.name for file in again.record.files} == set(NEW)
    assert again.record.revision == "main"
    assert again.record.rules == RULES
    assert_true_to_record(again)
    assert shop.layout.published(job.target) == again
    assert not shop.revisit.due(again, job.target)


@pytest.mark.parametrize("why", [error(), error(Code.REVISION_NOT_FOUND), error(Code.RATE_LIMITED)])
async def test_it_stays_ready_where_the_hub_does_not_answer(shop: Workshop, why: Exception) -> None:
    job, old = await old_model(shop)
    shop.source.listings["org/qwen3"] = why  # type: ignore[assignment]
    assert await shop.run(job) == old
    assert job.progress.state is State.RESOLVING
    assert not shop.revisit.due(old, job.target), "not asked again at once"
    await shop.clock.advance(REVISIT_AGAIN_S + 1)
    assert shop.revisit.due(old, job.target)


async def test_it_stays_ready_where_the_hub_hangs(shop: Workshop) -> None:
    job, old = await old_model(shop)

    class Hangs:
        name = "hub"

        async def listing(self, _: object) -> None:
            await asyncio.Event().wait()

    shop.revisit.planner.source = Hangs()  # type: ignore[assignment]
    assert await shop.run(job) == old


async def test_a_cache_or_a_mirror_decides_nothing(shop: Workshop) -> None:
    job, old = await old_model(shop)
    shop.lists(source="adopted:hub")
    assert await shop.run(job) == old
    assert shop.transfer.requests == []


async def test_a_model_that_lacks_nothing_gets_its_record_renewed(shop: Workshop) -> None:
    job, old = await old_model(shop, NEW)
    assert await shop.run(job) == old
    record = read_record(old.directory)
    assert record
    assert record.rules == RULES
    assert record == msgspec.structs.replace(old.record, rules=RULES)
    assert shop.transfer.requests == []
    assert os.stat(f"{old.directory}/{RECORD}").st_mode & 0o777 == 0o644


async def test_a_record_under_a_lease_is_left_alone(shop: Workshop) -> None:
    job, old = await old_model(shop, NEW)
    with open(f"{old.directory}/{RECORD}", "rb") as lease:
        fcntl.flock(lease, fcntl.LOCK_SH)
        await shop.run(job)
        assert os.path.samestat(os.fstat(lease.fileno()), os.stat(f"{old.directory}/{RECORD}"))
    assert not shop.revisit.due(old, job.target)


async def test_a_download_that_fails_leaves_the_old_one_in_force(shop: Workshop) -> None:
    job, old = await old_model(shop)
    shop.transfer.fails["generation_config.json"] = error()
    with pytest.raises(type(error())):
        await shop.run(job)
    assert shop.layout.published(job.target) == old
