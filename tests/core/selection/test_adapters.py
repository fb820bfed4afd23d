"""Adapters come as they are, without what their training left behind."""

from __future__ import annotations

from agent.errors import Code
from tests.core.selection.build import names, plan, refused

ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]


def test_a_repository_of_adapters_comes_as_it_is_without_checkpoints() -> None:
    there = [*ADAPTER, "x/notes.csv", "logo.png", "my-checkpoint-1/a.txt", "checkpointing.md"]
    left = ["checkpoint-500/adapter_model.safetensors", "x/checkpoint-last/a.json"]
    made = plan([*there, *left, "training_args.bin", "x/y.py"])
    assert names(made) == there
    assert made.skipped == ("training_args.bin", "x/y.py")
    assert (made.format, made.opens) == ("safetensors", None)


def test_an_adapter_in_a_refused_format_is_refused() -> None:
    there = ["adapter_config.json", "adapter_model.bin"]
    assert refused(there).code is Code.FORBIDDEN_FORMAT
    assert refused(there, formats=("py",)).code is Code.FORBIDDEN_FORMAT
    assert names(plan(there, formats=("bin",))) == there


def test_a_whole_model_with_an_adapter_is_a_model_first() -> None:
    config = {"config.json": {}}
    made = plan([*ADAPTER, "config.json", "model.safetensors", "x.csv"], config)
    assert names(made) == ["model.safetensors", "adapter_model.safetensors", "adapter_config.json", "config.json"]
    index = {"weight_map": {"a": "m.safetensors"}}
    made = plan([*ADAPTER, "model.safetensors.index.json", "m.safetensors"], {"model.safetensors.index.json": index})
    assert names(made)[:3] == ["model.safetensors.index.json", "m.safetensors", "adapter_model.safetensors"]


def test_an_adapter_has_no_variants() -> None:
    assert refused(ADAPTER, quant="Q4_K_M").code is Code.FILE_NOT_FOUND


def test_without_its_configuration_it_is_weights_like_any_other() -> None:
    assert names(plan(["adapter_model.safetensors", "x.csv", "config.json"], {"config.json": {}})) == [
        "adapter_model.safetensors",
        "config.json",
    ]
