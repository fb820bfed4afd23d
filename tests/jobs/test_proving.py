"""Published files that were written to: hashed before they are trusted, and fetched again only where they are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.core.states import State
from tests.fakes import error, logged
from tests.jobs.workshop import Workshop
from tests.store.builders import assert_true_to_record, read

NAME = "m-Q4_K_M.gguf"
OTHER = "generation_config.json"


def overwrite(path: str, data: bytes, *, keep_mtime: bool = False) -> None:
    """In place, the same size; every other name of the file has the same bytes then."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns if keep_mtime else before.st_mtime_ns + 1))


def fetched(shop: Workshop) -> list[str]:
    return [request.label for request in shop.transfer.requests]


async def test_a_file_as_it_was_published_is_linked_unread(shop: Workshop) -> None:
    first = await shop.run(shop.job("first"))
    with logged() as lines:
        second = await shop.run(shop.job("second"))
    assert os.path.samefile(first.path, second.path)
    assert fetched(shop) == [f"first {NAME}"]
    assert second.record.files[0].source == "store"
    assert not [line for line in lines if "damaged" in line]
    third = await shop.run(shop.job("third"))
    assert os.path.samefile(first.path, third.path), "the link of the second is no reason to fetch"


@pytest.mark.parametrize("keep_mtime", [True, False])
async def test_a_damaged_file_is_never_linked(shop: Workshop, keep_mtime: bool) -> None:
    first = await shop.run(shop.job("first"))
    overwrite(first.path, b"ggUF", keep_mtime=keep_mtime)
    with logged("WARNING") as lines:
        second = await shop.run(shop.job("second"))
    assert_true_to_record(second)
    assert not os.path.samefile(first.path, second.path)
    assert fetched(shop) == [f"first {NAME}", f"second {NAME}"]
    assert second.record.files[0].source == "hub"
    (line,) = lines
    assert "damaged in the store" in line
    assert first.path in line
    with logged("WARNING") as lines:
        await shop.run(shop.job("third"))
    assert lines == [], "it is said, and hashed, once"


async def test_a_file_whose_times_changed_is_hashed_and_linked(shop: Workshop) -> None:
    first = await shop.run(shop.job("first"))
    os.utime(first.path)
    second = await shop.run(shop.job("second"))
    assert os.path.samefile(first.path, second.path)
    assert fetched(shop) == [f"first {NAME}"]


async def test_a_model_whose_times_changed_is_ready_without_a_source(shop: Workshop) -> None:
    job = shop.job()
    published = await shop.run(job)
    os.utime(published.path)
    assert shop.layout.published(job.target) is None
    shop.source.listings["org/qwen3"] = error()
    again = shop.job()
    assert await shop.run(again) == published
    assert again.progress.state is State.VERIFYING
    assert shop.layout.published(job.target) == published, "and it is from now on"


async def test_of_a_damaged_model_the_damaged_file_alone_is_fetched(shop: Workshop) -> None:
    shop.transfer.contents = {OTHER: b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}
    published = await shop.run(shop.job())
    kept = os.stat(f"{published.directory}/tokenizer.json").st_ino
    overwrite(f"{published.directory}/model.safetensors", b"WEIGHTS")
    shop.transfer.requests.clear()
    again = await shop.run(shop.job())
    assert fetched(shop) == ["qwen3 model.safetensors"]
    assert_true_to_record(again)
    assert os.stat(f"{published.directory}/tokenizer.json").st_ino == kept
    assert shop.layout.published(shop.job().target)


async def test_a_damaged_model_is_not_ready_while_no_source_answers(shop: Workshop) -> None:
    published = await shop.run(shop.job())
    overwrite(published.path, b"ggUF")
    shop.source.listings["org/qwen3"] = error()
    for _ in range(2):
        with pytest.raises(type(error())):
            await shop.run(shop.job())
    assert shop.layout.published(shop.job().target) is None


async def test_the_view_shows_the_right_bytes_after_the_repair(shop: Workshop, tmp_path: Path) -> None:
    published = await shop.run(shop.job())
    overwrite(published.path, b"ggUF")
    await shop.run(shop.job())
    (blob,) = (tmp_path / "hub").glob("models--org--qwen3/snapshots/*/*.gguf")
    assert blob.read_bytes() == read(published.path) == b"GGUF weights"
