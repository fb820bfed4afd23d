"""Files of a run that another program of the host has: taken, passed over when wrong, ended when the run is."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.core.names import RepoId, SafeName
from agent.core.plan import PlanFile
from agent.core.states import State
from agent.host_files import HostFile
from agent.jobs.adoption import Adoption, adopted
from agent.store.adopt import CHUNK
from tests.fakes import COMMIT, eventually, logged
from tests.jobs.workshop import Workshop
from tests.store.builders import assert_true_to_record, put, sha256

NAME = "m-Q4_K_M.gguf"
BIG = bytes(range(256)) * (4 * CHUNK // 256) + b"the end"
CONTENTS = {NAME: BIG}


@dataclass
class Finding:
    """Caches that have what the test says."""

    files: list[HostFile] = field(default_factory=list)

    def find(
        self, repo: RepoId, name: SafeName, size: int | None, sha256: str | None, git_sha1: str | None
    ) -> list[HostFile]:
        return [file for file in self.files if file.size == size]

    def has(self, path: Path, data: bytes) -> Path:
        put(str(path), data)
        path.chmod(0o644)
        self.files.append(HostFile(str(path), str(path.parent), "ollama", len(data)))
        return path


@pytest.fixture
def caches() -> Finding:
    return Finding()


@pytest.fixture
async def shop(tmp_path: Path, caches: Finding) -> Workshop:
    shop = Workshop(tmp_path, CONTENTS)
    shop.files.adoption = Adoption(caches, shop.layout, lambda: None)
    return shop


async def test_it_is_taken_and_published_with_its_source(shop: Workshop, caches: Finding, tmp_path: Path) -> None:
    theirs = caches.has(tmp_path / "cache" / "x", BIG)
    job = shop.job()
    published = await shop.run(job)
    assert_true_to_record(published)
    assert published.record.source == "adopted:ollama"
    assert job.progress.files[0].source == "adopted:ollama"
    assert job.progress.files[0].state is State.READY
    assert shop.transfer.requests == []
    assert not os.path.samefile(published.path, theirs)
    assert os.listdir(shop.layout.partial) == []
    assert shop.space.free() == 10**8


async def test_a_wrong_one_is_said_once_and_the_file_is_downloaded(
    shop: Workshop, caches: Finding, tmp_path: Path
) -> None:
    theirs = caches.has(tmp_path / "cache" / "x", b"?" + BIG[1:])
    with logged("WARNING") as lines:
        published = await shop.run(shop.job())
        shop.lists("other")
        await shop.run(shop.job("other", files=(NAME,)))
    assert published.record.source == "hub"
    assert len([line for line in lines if str(theirs) in line]) == 1
    assert theirs.read_bytes() == b"?" + BIG[1:]
    assert os.listdir(shop.layout.partial) == []


async def test_the_next_one_that_may_have_it_is_tried(shop: Workshop, caches: Finding, tmp_path: Path) -> None:
    caches.has(tmp_path / "cache" / "x", b"?" + BIG[1:])
    caches.has(tmp_path / "cache" / "y", BIG)
    assert (await shop.run(shop.job())).record.source == "adopted:ollama"


async def test_a_link_never_takes_the_place_of_the_partial(shop: Workshop, caches: Finding, tmp_path: Path) -> None:
    theirs = caches.has(tmp_path / "cache" / "x", BIG)
    adoption = Adoption(caches, shop.layout, lambda: 0o644)
    file = PlanFile(SafeName(NAME), RepoId("org/qwen3"), COMMIT, len(BIG), sha256(BIG), None)
    taken = await adoption.take(file, "key", adoption.candidates(file, "key"), lambda *_: None, may_link=True)
    assert taken
    assert taken[0] == shop.layout.part(adopted("key"))
    assert os.path.samefile(taken[0], theirs)
    assert not os.path.lexists(shop.layout.part("key"))


async def test_a_linked_file_is_published_and_its_name_among_the_partials_goes(
    shop: Workshop, caches: Finding, tmp_path: Path
) -> None:
    theirs = caches.has(tmp_path / "cache" / "x", BIG)
    shop.files.adoption = Adoption(caches, shop.layout, lambda: 0o644)
    published = await shop.run(shop.job())
    assert os.path.samefile(published.path, theirs)
    assert os.listdir(shop.layout.partial) == []


async def test_the_journal_of_a_download_goes_before_its_partial(
    shop: Workshop, caches: Finding, tmp_path: Path
) -> None:
    caches.has(tmp_path / "cache" / "x", BIG)
    put(shop.layout.part(sha256(BIG)), b"half")
    put(shop.layout.journal(sha256(BIG)), b"{}")
    published = await shop.run(shop.job())
    assert_true_to_record(published)
    assert os.listdir(shop.layout.partial) == []


async def test_a_complete_partial_is_not_copied_again(shop: Workshop, caches: Finding, tmp_path: Path) -> None:
    caches.has(tmp_path / "cache" / "x", BIG)
    put(shop.layout.part(sha256(BIG)), BIG)
    await shop.run(shop.job())
    assert len(shop.transfer.requests) == 1


async def test_cancelling_ends_it_at_the_next_chunk_and_leaves_nothing(
    shop: Workshop, caches: Finding, tmp_path: Path
) -> None:
    caches.has(tmp_path / "cache" / "x", BIG)
    adoption = Adoption(caches, shop.layout, lambda: None)
    file = PlanFile(SafeName(NAME), RepoId("org/qwen3"), COMMIT, len(BIG), sha256(BIG), None)
    steps: list[int] = []
    going = threading.Event()

    def on_bytes(_: HostFile, done: int) -> None:
        steps.append(done)
        if not going.is_set():  # a second cancellation would not wait
            going.set()
            taking.cancel()

    taking = asyncio.ensure_future(
        adoption.take(file, "key", adoption.candidates(file, "key"), on_bytes, may_link=False)
    )
    await eventually(going.is_set, "the first chunk is here")
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert os.listdir(shop.layout.partial) in ([], ["key.part"])  # the last chunk may have been under way
    assert not os.path.lexists(shop.layout.part(adopted("key")))
