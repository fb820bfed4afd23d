"""Safetensors, and .bin where it is allowed: one set of weights, whole, and no second copy of it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.names import SafeName
from agent.core.remote import RemoteFile
from agent.core.selection.tree import Contents, Tree
from agent.core.selection.weights import set_names, variants
from agent.errors import Code
from tests.core.selection.build import index, names, plan, refused

CONFIG = ["config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt"]
INDEX = "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
CONTENTS: dict[str, Any] = {INDEX: index(*SHARDS), "config.json": {}}


def weights(there: list[str], contents: dict[str, Any] | None = None, **selected: Any) -> list[str]:
    """The chosen weights and their index, out of files that lie beside a config.json."""
    made = plan(["config.json", *there], {"config.json": {}, **(contents or {})}, **selected)
    return [name for name in names(made) if name != "config.json"]


def tree(*there: str) -> Tree:
    return Tree([RemoteFile(SafeName(name), 1) for name in there], Contents())


def test_a_single_file_comes_with_config_and_tokenizer_and_no_second_copy() -> None:
    copies = ["pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "flax_model.msgpack", "x/config.json"]
    made = plan([*CONFIG, "model.safetensors", *copies], CONTENTS)
    assert sorted(names(made)) == sorted([*CONFIG, "model.safetensors"])
    assert (made.format, made.opens, made.skipped, made.warning) == ("safetensors", None, (), None)


@pytest.mark.parametrize("filename", [None, INDEX, *SHARDS])
def test_the_index_says_which_shards_and_all_of_them_come(filename: str | None) -> None:
    there = [*CONFIG, *SHARDS, INDEX, "model.safetensors", "extra.safetensors", "pytorch_model.bin.index.json"]
    made = plan([*there, "original/consolidated.00.pth"], CONTENTS, filename=SafeName(filename) if filename else None)
    assert names(made)[:3] == [INDEX, *SHARDS]
    assert sorted(names(made)) == sorted([*CONFIG, *SHARDS, INDEX])


def test_the_catalogs_single_file_comes_alone_also_where_there_are_shards() -> None:
    assert weights(["model.safetensors", *SHARDS, INDEX], CONTENTS, filename=SafeName("model.safetensors")) == [
        "model.safetensors"
    ]
    assert weights(["a.safetensors", "b.safetensors"], filename=SafeName("b.safetensors")) == ["b.safetensors"]


def test_an_index_in_a_folder_names_shards_beside_it() -> None:
    there = ["config.json", "t/x.safetensors.index.json", "t/x-1.safetensors", "t/tokenizer.json"]
    contents = {"t/x.safetensors.index.json": index("x-1.safetensors")}
    made = plan(there, contents, filename=SafeName("t/x.safetensors.index.json"))
    assert names(made) == ["t/x.safetensors.index.json", "t/x-1.safetensors", "config.json", "t/tokenizer.json"]


def test_a_shard_comes_once_however_many_tensors_it_has() -> None:
    many = {"weight_map": {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[1]}}
    assert weights([*SHARDS, INDEX], {INDEX: many}) == [INDEX, SHARDS[1], SHARDS[0]]


def test_a_shard_that_the_index_names_and_the_repository_lacks_is_an_error() -> None:
    error = refused(["config.json", INDEX, SHARDS[0]], CONTENTS)
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith(f"its index names '{SHARDS[1]}', which is not there")


def test_an_index_that_is_older_than_the_files_is_passed_over() -> None:
    assert weights([INDEX, SHARDS[0], "model.safetensors"], CONTENTS) == ["model.safetensors"]
    other = {INDEX: index("model-00001-of-00009.safetensors")}
    assert weights([INDEX, *SHARDS], other) == SHARDS


def test_an_excluded_shard_is_left_out_without_a_word() -> None:
    assert weights([INDEX, *SHARDS], CONTENTS, exclude=("*-00001-of-*",)) == [INDEX, SHARDS[1]]


def test_shards_without_an_index_come_where_all_are_there() -> None:
    assert weights(SHARDS[::-1]) == SHARDS
    assert weights(["w-00001-of-00001.safetensors"]) == ["w-00001-of-00001.safetensors"]
    three = "model-00003-of-00003.safetensors"
    for there in ([SHARDS[0]], [three], ["model-00001-of-00003.safetensors", three]):
        assert "not all of them are there" in refused(["config.json", *there], CONTENTS).message
    assert weights([*SHARDS, three]) == SHARDS
    assert weights([*SHARDS, "model-00003-of-00002.safetensors"]) == SHARDS
    assert "has 2 parts" in refused(["config.json", SHARDS[0], "model-00003-of-00002.safetensors"], CONTENTS).message


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([], Code.HUB_PROTOCOL),
        ({}, Code.HUB_PROTOCOL),
        (None, Code.HUB_PROTOCOL),
        ({"weight_map": {}}, Code.HUB_PROTOCOL),
        ({"weight_map": ["a"]}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": 1}}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": ["x"]}}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": SHARDS[0], "b": None}}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": "../../x.safetensors"}}, Code.FORBIDDEN_PATH),
        ({"weight_map": {"a": "/etc/passwd"}}, Code.FORBIDDEN_PATH),
        ({"weight_map": {"a": "pytorch_model.bin"}}, Code.FORBIDDEN_FORMAT),
        (b"", Code.HUB_PROTOCOL),
        (b"{", Code.HUB_PROTOCOL),
        (b"[" * 3000, Code.HUB_PROTOCOL),
        (b"\xff", Code.HUB_PROTOCOL),
    ],
)
def test_a_lying_index_is_refused(content: object, code: Code) -> None:
    there = ["config.json", INDEX, "model-1.safetensors", "pytorch_model.bin", SHARDS[0]]
    error = refused(there, {INDEX: content, "config.json": {}})
    assert error.code is code
    assert code is not Code.HUB_PROTOCOL or error.file == INDEX


def test_an_index_may_begin_with_a_byte_order_mark() -> None:
    data = b'\xef\xbb\xbf{"weight_map": {"a": "' + SHARDS[0].encode() + b'"}}'
    assert weights([INDEX, SHARDS[0]], {INDEX: data}) == [INDEX, SHARDS[0]]


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["weights.safetensors"], ["weights.safetensors"]),
        (["model.safetensors", "a.safetensors"], ["model.safetensors"]),
        (["diffusion_pytorch_model.safetensors", "a.safetensors"], ["diffusion_pytorch_model.safetensors"]),
        (["diffusion_pytorch_model.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["pytorch_model.safetensors", "a.safetensors"], ["pytorch_model.safetensors"]),
        (["model.v2.safetensors"], ["model.v2.safetensors"]),
        (["x.fp16.safetensors"], ["x.fp16.safetensors"]),
        (["a/model.safetensors"], ["a/model.safetensors"]),
        (["training_args.safetensors", "b.safetensors"], ["b.safetensors"]),
    ],
)
def test_the_names_that_loaders_look_for_come_before_others(there: list[str], chosen: list[str]) -> None:
    assert weights(there) == chosen


@pytest.mark.parametrize(
    "there",
    [
        ["a.safetensors", "b.safetensors"],
        ["model.fp16.safetensors", "model.bf16.safetensors"],
        ["x.fp16.safetensors", "x.safetensors"],
        ["a/model.safetensors", "b/model.safetensors"],
    ],
)
def test_sets_of_which_none_is_plain_are_ambiguous(there: list[str]) -> None:
    error = refused(["config.json", *there], CONTENTS)
    assert error.code is Code.AMBIGUOUS_FILE
    assert error.message.endswith(", ".join(sorted(there)))


def test_an_index_of_another_name_comes_before_files_without_one() -> None:
    index_name = "consolidated.safetensors.index.json"
    there = [index_name, "consolidated-00001-of-00001.safetensors", "extra.safetensors"]
    contents = {index_name: index("consolidated-00001-of-00001.safetensors")}
    assert weights(there, contents) == there[:2]


PLAIN = "model.safetensors"
VARIANT_SHARDS = ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"]
LEGACY_SHARDS = ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors"]


@pytest.mark.parametrize(
    "variant",
    [
        ["model.fp16.safetensors"],
        ["model.safetensors.index.fp16.json", *VARIANT_SHARDS],
        ["model.fp16.safetensors.index.json", *VARIANT_SHARDS],
        ["model.safetensors.fp16.index.json", *LEGACY_SHARDS],
        VARIANT_SHARDS,
        LEGACY_SHARDS,
    ],
    ids=lambda names: names[0],
)
@pytest.mark.parametrize("plain", [[PLAIN], [INDEX, *SHARDS]], ids=["single", "sharded"])
def test_each_spelling_of_a_variant_is_found_and_is_no_part_of_the_plain_set(
    variant: list[str], plain: list[str]
) -> None:
    contents = {INDEX: index(*SHARDS), variant[0]: index(*variant[1:])}
    there = [*plain, *variant]
    assert weights(there, contents) == plain
    assert weights(there, contents, quant="FP16") == variant
    assert weights(there[::-1], contents, quant="FP16") == variant
    assert refused(["config.json", *there], CONTENTS, quant="BF16").code is Code.FILE_NOT_FOUND
    assert variants(tree(*there), "") == ["fp16"]


def test_a_variant_that_is_the_only_set_comes_without_being_asked_for() -> None:
    assert weights(["model.fp16.safetensors"]) == ["model.fp16.safetensors"]
    assert weights(["model.fp16.safetensors"], quant="FP16") == ["model.fp16.safetensors"]


def test_the_other_index_of_a_variant_is_tried_where_one_is_not_whole() -> None:
    new, old = "model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"
    contents = {new: index("model.fp16-00001-of-00009.safetensors"), old: index(*VARIANT_SHARDS)}
    assert weights([new, old, *VARIANT_SHARDS], contents, quant="FP16") == [old, *VARIANT_SHARDS]


def test_whole_sets_are_told_for_choices() -> None:
    there = tree("a.safetensors", *SHARDS, "b-00001-of-00002.safetensors", "x/c.safetensors", "y.bin")
    assert set_names(there, "") == [["a.safetensors"], SHARDS]
    assert set_names(there, "x") == [["x/c.safetensors"]]
    assert set_names(there, "z") == []


# Formats that can run code


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl", "M.PT", "x/m.h5", "m.nemo"])
def test_weights_that_can_run_code_are_refused(name: str) -> None:
    for selected in ({}, {"files": ("*",)}, {"filename": SafeName(name)}, {"snapshot": "all"}):
        error = refused(["config.json", name], **selected)
        assert error.code is Code.FORBIDDEN_FORMAT
        assert error.message.startswith(f"'{name}' is in a format that can run code")
        assert f'policy.formats = ["{name.rpartition(".")[2].lower()}"]' in error.hint
        assert error.file == name


def test_weights_in_an_allowed_format_come_where_there_are_no_safetensors() -> None:
    there = ["pytorch_model.bin", "training_args.bin", "optimizer.pt", "rng_state_0.pth"]
    assert weights(there, formats=("bin",)) == ["pytorch_model.bin"]
    assert weights([*there, PLAIN], formats=("bin",)) == [PLAIN]
    assert weights(["m.pt"], formats=("pt",)) == ["m.pt"]
    assert weights(["m.pt", "m.ckpt"], formats=("ckpt",)) == ["m.ckpt"]
    assert weights(["pytorch_model.bin", "m.pt"], formats=("pt", "bin")) == ["pytorch_model.bin", "m.pt"]
    assert weights(["pytorch_model.bin", "model.bin"], formats=("bin",)) == ["pytorch_model.bin"]
    assert weights(["x/m.pth"], formats=("pth",)) == ["x/m.pth"]
    assert refused(["config.json", "a.pt", "b.pt"], formats=("pt",)).code is Code.AMBIGUOUS_FILE
    assert refused(["config.json", "a.pt"], formats=("bin",)).code is Code.FORBIDDEN_FORMAT
    assert plan(["config.json", "m.bin"], {"config.json": {}}, ("bin",)).format == "other"


def test_sharded_weights_that_the_policy_allows_come_whole_with_their_index() -> None:
    shards = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    bin_index = "pytorch_model.bin.index.json"
    assert weights([*shards, bin_index], {bin_index: index(*shards)}, formats=("bin",)) == [bin_index, *shards]


def test_what_a_training_left_behind_is_no_weights() -> None:
    there = ["training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "random_states_0.pkl"]
    assert weights([*there, PLAIN]) == [PLAIN]
    assert refused(["config.json", *there]).code is Code.FILE_NOT_FOUND
    assert refused(["config.json", *there], formats=("bin", "pt", "pth", "pkl")).code is Code.FILE_NOT_FOUND


def test_the_only_folder_with_weights_is_taken_and_its_companions_with_those_of_the_top() -> None:
    made = plan(["LICENSE", "a/model.safetensors", "a/config.json", "b/config.json", "b/x.bin"], {"a/config.json": {}})
    assert names(made) == ["a/model.safetensors", "LICENSE", "a/config.json"]
    assert refused(["a/model.safetensors", "config.json", "m.bin"]).code is Code.FORBIDDEN_FORMAT
