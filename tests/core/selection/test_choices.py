"""Where a selection fails, the error lists what can be asked for instead, and each of that works when it is pasted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.catalog import parse_catalog
from agent.core.names import RepoId, SafeName, check_collisions
from agent.core.remote import Listing, RemoteFile
from agent.core.selection.code import CodePolicy
from agent.core.selection.no_match import CHOICES_SHOWN
from agent.core.target import make_target
from agent.core.want import parse_want
from agent.errors import Code, WantdError
from tests.core.selection.build import COMMIT, index, listing, names, plan_of, refused

CATALOG = parse_catalog(
    json.dumps(
        [
            {"id": "cat:8b", "repo": "org/one", "recommended_filename": "m-Q2_K.gguf", "quantization": "Q2_K"},
            {"id": "two", "repo": "org/two", "revision": "v1", "exclude": ["*Q8_0*"]},
        ]
    ).encode()
)

REPOS = {"cat": "org/one", "two": "org/two"}


def error_of(want: str, there: Listing, formats: tuple[str, ...] = ()) -> WantdError | None:
    """What a want ends with, written as a line or as JSON; None where it has a plan."""
    (model,) = parse_want("x.want", want.encode()).models
    target = make_target(CATALOG, ["catalog", "other/*"], model)
    contents: dict[str, object] = {file.name: {} for file in there.files}
    for name in contents:
        if ".index." in name:  # one that tells the truth
            beside = [
                other.rpartition("/")[2] for other in contents if other.rpartition("/")[0] == name.rpartition("/")[0]
            ]
            contents[name] = index(*(other for other in beside if other.endswith(".safetensors")))
    try:
        assert names(plan_of(target, there, contents, CodePolicy(frozenset(formats))))
    except WantdError as error:
        return error
    return None


def offered(hint: str) -> list[str]:
    text = hint.partition("ask for one of these: ")[2].removesuffix(" and more")
    wants = re.findall(r"\{.*?\}(?=, |\Z)", text)
    for want in wants:
        text = text.replace(want, "")
    return [part.strip() for part in text.split(",") if part.strip()] + wants


@pytest.mark.parametrize(
    ("want", "there", "choices"),
    [
        (
            "cat:8b:Q9_X",
            ["m-Q2_K.gguf", "m-Q8_0.gguf"],
            ["cat:8b", "cat:8b:Q2_K", "cat:8b:Q8_0", '{"model": "cat:8b", "snapshot": "all"}'],
        ),
        (
            "two:Q2_K",  # what the catalog excludes is not offered
            ["m-Q4_0.gguf", "m-Q8_0.gguf"],
            ["two", "two:Q4_0", '{"model": "two", "snapshot": "all"}'],
        ),
        (
            "cat:8b@v2",
            ["m-Q4_0.gguf", "m.gguf"],
            [
                "cat:8b:Q4_0@v2",
                '{"model": "cat:8b@v2", "files": ["m.gguf"]}',
                '{"model": "cat:8b@v2", "snapshot": "all"}',
            ],
        ),
        (
            "other/name:Q8_0",
            ["config.json", "model.safetensors"],
            ["other/name", '{"model": "other/name", "snapshot": "all"}'],
        ),
        (
            '{"model": "other/name", "files": ["confg.json"]}',
            ["config.json", "model.safetensors"],
            [
                "other/name",
                '{"model": "other/name", "files": ["config.json"]}',
                '{"model": "other/name", "snapshot": "all"}',
            ],
        ),
        (
            "other/name",
            ["config.json", "a.safetensors", "b.safetensors", "x/y.json"],
            [
                '{"model": "other/name", "files": ["a.safetensors", "*.json"], "exclude": ["*/*"]}',
                '{"model": "other/name", "files": ["b.safetensors", "*.json"], "exclude": ["*/*"]}',
                '{"model": "other/name", "snapshot": "all"}',
            ],
        ),
        (
            "other/name",
            ["onnx/a.onnx", "onnx/a.onnx.data", "onnx/a.onnx_data", "onnx/a.onnxer", "t.model"],
            [
                '{"model": "other/name", "files": ["onnx/a.onnx", "onnx/a.onnx_data", "onnx/a.onnx.data", "*.model"]}',
                '{"model": "other/name", "snapshot": "all"}',
            ],
        ),
        (
            "other/name",
            ["a [1].tflite", "x.tflite"],
            [
                '{"model": "other/name", "files": ["a [[]1].tflite"]}',
                '{"model": "other/name", "files": ["x.tflite"]}',
                '{"model": "other/name", "snapshot": "all"}',
            ],
        ),
        ("other/name", ["m.bin"], []),
        ("other/name", [], []),
    ],
)
def test_the_choices_are_what_there_is(want: str, there: list[str], choices: list[str]) -> None:
    error = error_of(want, listing(*there, repo=REPOS.get(want[:3], "other/name")))
    assert error is not None
    assert offered(error.hint) == choices
    for choice in choices:
        assert error_of(choice, listing(*there, repo=REPOS.get(want[:3], "other/name"))) is None


def test_the_hint_says_first_what_to_do() -> None:
    assert refused(["m-Q2_K.gguf", "m-Q3_K.gguf"]).hint.startswith(
        "add :QUANT to the reference, or name one with 'files'; ask for one of these: org/name:Q2_K, org/name:Q3_K, {"
    )
    assert refused(["a.safetensors", "b.safetensors"]).hint.startswith("name one with 'files'; ask for one of these: {")
    assert refused(["README.md"]).hint.startswith(
        "check the quant, the file names and the catalog entry; ask for one of these: {"
    )
    assert refused(["m.bin"]).hint == "leave it out with 'exclude', or allow it with policy.formats = [\"bin\"]"
    error = refused(["README.md"])
    assert error.message == "no match in org/name at 1a2b3c4d5e6f: it has neither GGUF nor safetensors files"
    error = refused(["m-Q2_K.gguf", "m-Q3_K.gguf"])
    assert error.message.startswith("it is not clear which file of org/name is meant: none of its 2 GGUF files is ")


def test_a_long_list_of_choices_is_cut() -> None:
    many = [f"m-Q{at}_K.gguf" for at in range(CHOICES_SHOWN + 1)]
    error = refused(many)
    assert len(offered(error.hint)) == CHOICES_SHOWN
    assert error.hint.endswith(" and more")
    assert error.message.endswith(" and 1 more")
    error = refused(many[: CHOICES_SHOWN - 1])
    assert len(offered(error.hint)) == CHOICES_SHOWN and not error.hint.endswith("more")
    assert not error.message.endswith("more")


def test_a_choice_that_would_fail_is_not_offered() -> None:
    there = ["m-Q2_K-00001-of-00002.gguf", "m-Q3_K.gguf", "m-Q5_K.gguf"]
    assert offered(refused(there).hint)[:2] == ["org/name:Q3_K", "org/name:Q5_K"]
    there = ["config.json", "model.safetensors", "pytorch_model.bin"]
    error = refused(there, {"config.json": {}}, files=("*.bin",))
    assert error.code is Code.FORBIDDEN_FORMAT
    assert offered(error.hint) == ["org/name", '{"model": "org/name", "snapshot": "all"}']


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        (["model.safetensors"], True),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], True),
        (["model-00000-of-00001.safetensors", "model-00001-of-00001.safetensors"], True),
        (["model-00001-of-00002.safetensors"], False),
        (["other.safetensors"], True),
        (["pytorch_model.bin"], False),
        ([], False),
    ],
)
def test_an_index_is_not_read_for_a_choice_and_weights_that_cannot_be_whole_are_none(
    weights: list[str], whole: bool
) -> None:
    there = ["config.json", "model.safetensors.index.json", *weights]
    assert ("org/name" in offered(refused(there, files=("zzz",)).hint)) is whole


def test_a_misspelled_pattern_brings_the_names_that_look_like_it() -> None:
    there = ["tokenizer.json", "tokenizer.model", "weights.safetensors", *(f"data-{at}.csv" for at in range(30))]
    hint = refused(there, files=("tokeniser.json", "wieghts.safetensors")).hint
    assert '{"model": "org/name", "files": ["tokenizer.json"]}' in hint
    assert '{"model": "org/name", "files": ["weights.safetensors"]}' in hint
    assert "csv" not in hint


PARTS = st.sampled_from(
    ["m", "Q4_K_M", "q8_0", "-", ".", "/", "mmproj", "-00001-of-00002", "-00002-of-00002", ".gguf", ".safetensors",
     ".bin",
     ".onnx", "config.json", "model", ".fp16", "[x]", "adapter_config.json", "model.safetensors.index.json", ".py", "ü"]
)  # fmt: skip
REPOSITORIES = st.lists(
    st.lists(PARTS, min_size=1, max_size=5)
    .map("".join)
    .filter(lambda name: all(part not in ("", ".", "..") for part in name.split("/"))),
    max_size=7,
    unique_by=str.lower,
)


@given(
    REPOSITORIES,
    st.sampled_from(["", ":Q4_K_M", ":fp16", ":X"]),
    st.fixed_dictionaries({}, optional={"files": st.lists(PARTS, min_size=1, max_size=2), "exclude": st.lists(PARTS)}),
)
@example(["m-Q4_K_M-00001-of-00002.gguf"], "", {})
@example(["config.json", "model/m.safetensors", "model/m.onnx"], ":X", {})
@example(["modelm.safetensors", "m.safetensors", "m/x.bin"], "", {"exclude": ["config.json"]})
def test_whatever_a_repository_holds_each_choice_of_its_errors_works(
    there: list[str], quant: str, more: dict[str, Any]
) -> None:
    try:
        check_collisions(there)  # such a listing is refused before there is a plan
        tree = Listing("hub", RepoId("other/name"), COMMIT, tuple(RemoteFile(SafeName(name), 5) for name in there))
        error = error_of(json.dumps({"model": f"other/name{quant}", **more}), tree)
    except WantdError:
        return
    if error is None or error.code not in (Code.FILE_NOT_FOUND, Code.AMBIGUOUS_FILE, Code.FORBIDDEN_FORMAT):
        return
    plain = not any(name.endswith((".bin", ".py")) for name in there)
    if there and plain and error.code is not Code.FORBIDDEN_FORMAT:
        assert offered(error.hint), error.hint
    for choice in offered(error.hint):
        assert error_of(choice, tree) is None, choice
