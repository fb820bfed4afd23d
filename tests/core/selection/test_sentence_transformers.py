"""`modules.json`: each module's folder with its configuration and its weights."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import Code
from tests.core.selection.build import names, plan, refused

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
NORMALIZE = {"path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}
MODEL = ["modules.json", "config.json", "model.safetensors", "1_Pooling/config.json"]


def contents(*modules: object, **more: object) -> dict[str, object]:
    return {"modules.json": list(modules), "config.json": {}, **more}


def test_every_modules_configuration_and_weights_come() -> None:
    there = [
        *MODEL,
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "2_Dense/pytorch_model.bin",
        "4_Other/config.json",
    ]
    made = plan(there, contents(TRANSFORMER, POOLING, DENSE, NORMALIZE))
    assert names(made) == [
        "model.safetensors",
        "2_Dense/model.safetensors",
        "modules.json",
        "config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
    ]
    assert made.format == "safetensors"


def test_a_module_may_be_sharded_and_two_may_share_a_folder() -> None:
    shards = [f"0_T/model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    there = ["modules.json", "0_T/config.json", "0_T/model.safetensors.index.json", *shards]
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    first = {"path": "0_T", "type": "sentence_transformers.models.Transformer"}
    more = {"0_T/model.safetensors.index.json": index, "0_T/config.json": {}}
    made = plan(there, contents(first, {**NORMALIZE, "path": "/0_T/"}, first, **more))
    assert sorted(names(made)) == sorted(there)


def test_a_model_without_its_weights_is_an_error() -> None:
    error = refused(["modules.json", "config.json", "x/y.safetensors"], contents(TRANSFORMER))
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith("its module 'Transformer' has no weights")
    folder = {"path": "0_T", "type": "sentence_transformers.models.CLIPModel"}
    error = refused(["modules.json", "0_T/config.json", "x.safetensors"], contents(folder, **{"0_T/config.json": {}}))
    assert error.message.endswith("its module '0_T' has no weights")


def test_a_dense_layer_in_a_refused_format_is_refused_and_comes_where_it_is_allowed() -> None:
    there = [*MODEL, "2_Dense/config.json", "2_Dense/pytorch_model.bin"]
    assert refused(there, contents(TRANSFORMER, POOLING, DENSE)).code is Code.FORBIDDEN_FORMAT
    assert "2_Dense/pytorch_model.bin" in names(plan(there, contents(TRANSFORMER, POOLING, DENSE), ("bin",)))


def test_a_variant_comes_for_the_modules_that_have_it() -> None:
    there = [*MODEL, "model.fp16.safetensors", "2_Dense/model.safetensors"]
    made = plan(there, contents(TRANSFORMER, DENSE), quant="FP16")
    assert names(made)[:2] == ["model.fp16.safetensors", "2_Dense/model.safetensors"]
    error = refused(there, contents(TRANSFORMER, DENSE), quant="BF16")
    assert error.message.endswith("no module has weights of the variant 'BF16'")


@pytest.mark.parametrize(
    ("kind", "config"), [("Router", "router_config.json"), ("Asym", "config.json")], ids=["router", "asym"]
)
@pytest.mark.parametrize("folder", ["", "0_R"])
def test_a_router_brings_the_modules_below_it(kind: str, config: str, folder: str) -> None:
    prefix = f"{folder}/" if folder else ""
    below = {"q_0_StaticEmbedding": "sentence_transformers.models.StaticEmbedding", "d_0_Pooling": POOLING["type"]}
    there = [
        "modules.json",
        f"{prefix}{config}",
        f"{prefix}q_0_StaticEmbedding/model.safetensors",
        f"{prefix}q_0_StaticEmbedding/tokenizer.json",
        f"{prefix}d_0_Pooling/config.json",
        f"{prefix}other/model.safetensors",
        f"{prefix}pytorch_model.bin",
    ]
    router = {"path": folder, "type": f"sentence_transformers.models.{kind}"}
    made = plan(there, {"modules.json": [router], f"{prefix}{config}": {"types": below}})
    assert sorted(names(made)) == sorted(there[:-2])


@pytest.mark.parametrize("types", [None, [], {}, {"x": 1}, "x"])
def test_a_router_that_names_nothing_brings_nothing(types: object) -> None:
    there = ["modules.json", "router_config.json", "x/model.safetensors", "m.safetensors"]
    router = {"path": "", "type": "sentence_transformers.models.Router"}
    made = plan(there, {"modules.json": [router], "router_config.json": {"types": types}})
    assert names(made) == ["modules.json", "router_config.json"]
    assert names(plan(["modules.json", "x.safetensors"], {"modules.json": [router]})) == ["modules.json"]


@pytest.mark.parametrize(
    "value", [{}, None, "x", [1], [{}], [{"path": ""}], [{"type": "x"}], [{"path": 1, "type": "x"}], [None], b"[{"]
)
def test_a_list_of_modules_that_is_none_is_the_hubs_fault(value: object) -> None:
    error = refused(MODEL, {"modules.json": value, "config.json": {}})
    assert error.code is Code.HUB_PROTOCOL
    assert error.file == "modules.json"


@pytest.mark.parametrize(
    ("kind", "files", "code"),
    [
        ("custom_st.Transformer", ["custom_st.py"], "custom_st.py"),
        ("code.own.Pooling", ["code/own.py"], "code/own.py"),
        ("org/other--custom.Pooling", [], "org/other"),
        ("another_library.models.Pooling", [], None),
        ("sentence_transformers.models.Pooling", ["sentence_transformers/models.py"], None),
    ],
)
def test_a_module_of_the_repositorys_own_code_is_told(kind: str, files: list[str], code: str | None) -> None:
    more = {"1_Pooling/config.json": {}, "tokenizer_config.json": {}}
    made = plan(
        [*MODEL, *files, "1_Pooling/model.safetensors"],
        contents(TRANSFORMER, {"path": "1_Pooling", "type": kind}, **more),
    )
    assert (made.warning is not None) == (code is not None)
    assert (code or "") in (made.warning or "")


def test_code_that_the_configuration_of_a_module_names_is_told() -> None:
    own: dict[str, Any] = {"path": "0_T", "type": "sentence_transformers.models.Transformer"}
    there = [
        "modules.json",
        "0_T/config.json",
        "0_T/model.safetensors",
        "0_T/modeling_own.py",
        "0_T/tokenizer_config.json",
    ]
    auto_map = {"auto_map": {"AutoModel": "modeling_own.Model"}}
    made = plan(there, {"modules.json": [own], "0_T/config.json": auto_map, "0_T/tokenizer_config.json": []})
    assert made.skipped == ("0_T/modeling_own.py",)
    assert "which is not fetched: 0_T/modeling_own.py" in (made.warning or "")


def test_ten_thousand_modules_cost_no_more_than_their_files() -> None:
    many = [{"path": f"m{at}", "type": "sentence_transformers.models.Normalize"} for at in range(10_000)]
    assert names(plan(MODEL, contents(TRANSFORMER, *many))) == ["model.safetensors", "modules.json", "config.json"]
