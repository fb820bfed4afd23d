"""Folders beside a model that its code opens without an index, and those that are copies or a collection."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.selection.parts import FOLDERS_MAX
from tests.core.selection.build import index, names, plan

TOP = ["config.json", "model.safetensors"]
OWN = {"config.json": {"model_type": "speech"}}


def chosen(*folder: str, **contents: Any) -> set[str]:
    """What of the folder's files comes with the model at the top."""
    made = names(plan([*TOP, *folder], OWN | contents))
    assert set(TOP) <= set(made)
    assert len(made) == len(set(made))
    return set(made) - set(TOP)


@pytest.mark.parametrize(
    ("config", "comes"),
    [({"model_type": "codec"}, True), ({"model_type": "speech"}, False), ({}, False), ([], False)],
)
def test_a_folder_with_a_model_of_another_type_is_a_part_and_one_of_the_same_or_none_a_copy(
    config: object, comes: bool
) -> None:
    folder = ("tok/config.json", "tok/model.safetensors", "tok/preprocessor_config.json")
    found = chosen(*folder, **{"tok/config.json": config})
    assert found == (set(folder) if comes else set())


def test_a_part_in_shards_comes_whole_and_one_that_is_not_whole_does_not() -> None:
    shards = [f"tok/model-0000{at}-of-00002.safetensors" for at in (1, 2)]
    folder = ("tok/config.json", "tok/model.safetensors.index.json", *shards)
    contents = {
        "tok/config.json": {"model_type": "codec"},
        "tok/model.safetensors.index.json": index(*(name.removeprefix("tok/") for name in shards)),
    }
    assert chosen(*folder, **contents) == set(folder)
    assert chosen(*folder[:-1], **contents) == set()


def test_adapters_in_folders_come_and_checkpoints_do_not() -> None:
    adapter = ("vision-lora/adapter_config.json", "vision-lora/adapter_model.safetensors")
    assert chosen(*adapter, "checkpoint-5/adapter_config.json", "checkpoint-5/adapter_model.safetensors") == set(
        adapter
    )
    assert chosen("lora/adapter_config.json", "lora/adapter_model.bin") == set()


def test_many_folders_are_a_collection_and_none_of_them_is_read() -> None:
    def folders(count: int) -> list[str]:
        return [f"a{at}/{name}" for at in range(count) for name in ("adapter_config.json", "adapter_model.safetensors")]

    assert chosen(*folders(FOLDERS_MAX)) == set(folders(FOLDERS_MAX))
    assert chosen(*folders(FOLDERS_MAX + 1)) == set()


@pytest.mark.parametrize("folder", ["onnx", "original", "MLX", "a/b"])
def test_copies_for_others_and_deeper_folders_are_not_read(folder: str) -> None:
    assert chosen(f"{folder}/config.json", f"{folder}/model.safetensors") == set()
