"""What counts as published: a record that asks for the same, and every file there with its size."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.names import StoreName
from agent.errors import Code, WantdError
from agent.store.layout import RECORD, Layout, flat, read_record
from tests.store.builders import COMMIT, Model, assert_whole, put

QWEN = Model(files={"m.gguf": b"weights", "a/b.json": b"{}"})


def change_record(directory: str, change: Callable[[dict[str, object]], object]) -> None:
    with open(f"{directory}/{RECORD}", encoding="utf-8") as file:
        value = json.load(file)
    change(value)
    put(f"{directory}/{RECORD}", json.dumps(value).encode())


def test_a_published_model_says_what_to_open(layout: Layout) -> None:
    QWEN.publish(layout)
    published = assert_whole(layout, QWEN)
    assert published.path == f"{layout.root}/qwen3/m.gguf"
    assert published.directory == f"{layout.root}/qwen3"
    assert published.size == 9
    tensors = Model("st", {"model.safetensors": b"x"})
    tensors.publish(layout)
    assert assert_whole(layout, tensors).path == f"{layout.root}/st"


@pytest.mark.parametrize(
    "spoil", ["gone", "longer", "shorter", "record gone", "record cut", "record empty", "a folder"]
)
def test_what_is_not_whole_is_not_published(spoil: str, layout: Layout) -> None:
    directory = QWEN.publish(layout).directory
    record = f"{directory}/{RECORD}"
    path = f"{directory}/a/b.json"
    if spoil == "gone":
        os.unlink(path)
    elif spoil == "longer":
        put(path, b"{}.")
    elif spoil == "shorter":
        put(path, b"")
    elif spoil == "record gone":
        os.unlink(record)
    elif spoil == "record cut":
        os.truncate(record, os.path.getsize(record) // 2)
    elif spoil == "record empty":
        put(record, b"")
    else:
        os.rename(path, path + ".away")
        os.mkdir(path)
    assert layout.published(QWEN.target) is None


def test_what_was_published_for_another_selection_is_not_what_is_asked_for(layout: Layout) -> None:
    QWEN.publish(layout)
    for other in (
        Model(repo="other/name"),
        Model(revision="v2"),
        Model(more={"quant": "Q8_0"}),
        Model(more={"files": ("*.gguf",)}),
        Model(more={"exclude": ("*.md",)}),
        Model(more={"sha256": "ab" * 32}),
    ):
        assert layout.published(other.target) is None
    assert layout.published(Model("other").target) is None


def test_one_directory_serves_every_spelling_of_what_lies_in_it(layout: Layout) -> None:
    Model(repo="Org/Name", revision=COMMIT[:12]).publish(layout)
    assert layout.published(Model(repo="org/name", revision=COMMIT).target)
    assert layout.published(Model(repo="ORG/name", revision=COMMIT[:12]).target)
    assert layout.published(Model(repo="org/name", revision="f" * 40).target) is None
    assert layout.published(Model(repo="org/name", revision="main").target) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"selection":' + b'{"a":' * 100_000,
        b'{"schema": "1"}',
    ],
)
def test_a_record_that_cannot_be_trusted_is_none_and_no_error(data: bytes, layout: Layout) -> None:
    directory = f"{layout.root}/qwen3"
    put(f"{directory}/{RECORD}", data)
    assert read_record(directory) is None
    assert layout.published(QWEN.target) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "a/../../x", "sub/.wantd.json"])
def test_a_record_cannot_name_what_lies_outside(name: str, layout: Layout) -> None:
    directory = QWEN.publish(layout).directory

    def rename(value: dict[str, object]) -> None:
        files = value["files"]
        assert isinstance(files, list)
        files[0]["name"] = name

    change_record(directory, rename)
    assert read_record(directory) is None
    change_record(directory, lambda value: value.update(files=[], opens=name or "/"))
    assert read_record(directory) is None


def test_the_record_holds_what_the_contract_says(layout: Layout) -> None:
    record = read_record(QWEN.publish(layout).directory)
    assert record == QWEN.record
    assert record is not None
    assert (record.commit, record.source, record.selection["repo"]) == (COMMIT, "hub", "org/name")
    assert [(file.name, file.size, len(file.sha256)) for file in record.files] == [
        ("m.gguf", 7, 64),
        ("a/b.json", 2, 64),
    ]


def test_records_are_found_in_nested_directories_and_not_through_links(layout: Layout, tmp_path: Path) -> None:
    for name in ("qwen", "qwen/qwen2.5", "a/b/c"):
        Model(name).publish(layout)
    Model("outside").publish(layout)
    os.rename(f"{layout.root}/outside", tmp_path / "outside")
    os.symlink(tmp_path / "outside", f"{layout.root}/link")
    put(f"{layout.root}/.hidden/{RECORD}", b"{}")
    found = sorted(os.path.relpath(directory, layout.root) for directory, _ in layout.record_places())
    assert found == ["a/b/c", "qwen", "qwen/qwen2.5"]


def test_names_of_locks_and_stages_fit_one_path_component() -> None:
    assert flat(StoreName("qwen/qwen2.5")) == "qwen--qwen2.5"
    long = [StoreName("a/" * 100 + end) for end in "bc"]
    assert all(len(flat(name)) <= 200 and "/" not in flat(name) for name in long)
    assert flat(long[0]) != flat(long[1])


def test_two_stages_of_one_model_are_two_places(layout: Layout) -> None:
    name = StoreName("qwen3")
    assert layout.stage(name) != layout.stage(name)


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    put(f"{tmp_path}/file", b"")
    with pytest.raises(WantdError) as caught:
        Layout(f"{tmp_path}/file/models").create()
    assert caught.value.code is Code.STORE_UNWRITABLE
    assert "store.dir" in caught.value.hint
