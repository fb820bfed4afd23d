"""`model_index.json`: each component's folder with one set of weights, plain or of one variant."""

from __future__ import annotations

import pytest

from agent.errors import Code
from tests.core.selection.build import index, names, plan, refused

INDEX = "model_index.json"
PIPELINE = {
    "_class_name": "P",
    "_ignored": ["diffusers", "X"],
    "setting": True,
    "names": ["a", "b", "c"],
    "left_out": [None, None],
    "half": [None, "X"],
    "scheduler": ["diffusers", "Euler"],
    "unet": ["diffusers", "UNet"],
    "text": ["transformers", "T5"],
}
PARTS = ["scheduler/scheduler_config.json", "unet/config.json", "text/config.json"]
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text/model.safetensors"
UNET_16, TEXT_16 = "unet/diffusion_pytorch_model.fp16.safetensors", "text/model.fp16.safetensors"


def test_each_component_comes_with_one_set_and_nothing_else_does() -> None:
    others = ["whole.safetensors", "lora.safetensors", "unet2/model.safetensors", "_ignored/model.safetensors",
              "left_out/model.safetensors", "half/model.safetensors",
              "names/model.safetensors", "unet/model.onnx", "unet/x.msgpack"]  # fmt: skip
    made = plan([INDEX, "LICENSE", *PARTS, UNET, UNET_16, TEXT, TEXT_16, *others], {INDEX: PIPELINE})
    assert names(made) == [UNET, TEXT, INDEX, "LICENSE", *PARTS]
    assert (made.format, made.warning, made.skipped) == ("safetensors", None, ())


def test_the_variant_comes_where_a_component_has_it() -> None:
    made = plan([INDEX, *PARTS, UNET, UNET_16, TEXT], {INDEX: PIPELINE}, quant="FP16")
    assert names(made)[:2] == [UNET_16, TEXT]
    assert made.warning is None
    error = refused([INDEX, *PARTS, UNET, TEXT], {INDEX: PIPELINE}, quant="FP16")
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith("no component has weights of the variant 'FP16'")


def test_a_component_may_be_sharded() -> None:
    shards = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    unet_index = "unet/diffusion_pytorch_model.safetensors.index.json"
    there = [INDEX, *PARTS, unet_index, *(f"unet/{name}" for name in shards), TEXT]
    made = plan(there, {INDEX: PIPELINE, unet_index: index(*shards)})
    assert sorted(names(made)) == sorted(there)
    assert refused([*there[:-2], TEXT], {INDEX: PIPELINE, unet_index: index(*shards)}).code is Code.FILE_NOT_FOUND


def test_weights_that_are_there_as_a_variant_only_come_with_a_warning() -> None:
    made = plan([INDEX, *PARTS, UNET_16, TEXT], {INDEX: PIPELINE})
    assert names(made)[:2] == [UNET_16, TEXT]
    assert made.warning == "unet: all weights are of the variant 'fp16'; load them with variant='fp16'."
    assert (
        refused([INDEX, *PARTS, UNET_16, "unet/diffusion_pytorch_model.bf16.safetensors", TEXT], {INDEX: PIPELINE}).code
        is Code.AMBIGUOUS_FILE
    )


def test_a_component_without_a_folder_is_told() -> None:
    made = plan([INDEX, "unet/config.json", UNET], {INDEX: PIPELINE})
    assert names(made) == [UNET, INDEX, "unet/config.json"]
    assert "does not have: scheduler, text; " in (made.warning or "")


def test_a_component_in_a_refused_format_is_refused_unless_it_is_excluded_or_allowed() -> None:
    there = [INDEX, *PARTS, UNET, "text/pytorch_model.bin"]
    assert refused(there, {INDEX: PIPELINE}).code is Code.FORBIDDEN_FORMAT
    assert names(plan(there, {INDEX: PIPELINE}, exclude=("text/*",)))[0] == UNET
    assert names(plan(there, {INDEX: PIPELINE}, ("bin",)))[:2] == [UNET, "text/pytorch_model.bin"]


@pytest.mark.parametrize("value", [[], None, 1, b"{"])
def test_an_index_that_is_none_is_the_hubs_fault(value: object) -> None:
    error = refused([INDEX, UNET], {INDEX: value})
    assert error.code is Code.HUB_PROTOCOL and error.file == INDEX


def test_a_pipeline_without_any_weights_is_an_error() -> None:
    error = refused([INDEX, "scheduler/scheduler_config.json", "whole.safetensors"], {INDEX: PIPELINE})
    assert error.message.endswith("no component of its model_index.json has weights")


@pytest.mark.parametrize(
    ("index_value", "files", "told"),
    [
        ({"_class_name": ["own", "P"], "unet": ["diffusers", "U"]}, ["own.py"], "own.py"),
        ({"_class_name": ["own", "P"], "unet": ["diffusers", "U"]}, [], None),
        ({"_class_name": ["own"], "unet": ["diffusers", "U"]}, ["own.py"], None),
        ({"_class_name": "own", "unet": ["diffusers", "U"]}, ["own.py"], None),
        ({"_class_name": "P", "unet": ["modeling", "U"]}, ["unet/modeling.py"], "unet/modeling.py"),
        ({"_class_name": "P", "unet": ["modeling", "U"]}, ["modeling.py"], None),
    ],
)
def test_code_of_the_repository_is_told(index_value: object, files: list[str], told: str | None) -> None:
    made = plan([INDEX, "unet/config.json", UNET, *files], {INDEX: index_value})
    assert (made.warning is None) == (told is None)
    assert (told or "") in (made.warning or "")
    assert list(made.skipped) == files
