"""GGUF: which quant, split sets whole or not at all, and the projector that belongs to the weights."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.names import SafeName
from agent.core.selection.gguf import is_weights, quant_of, with_quant
from agent.errors import Code
from tests.core.selection.build import listing, names, plan, refused


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"], "m-Q4_K_M.gguf"),
        (["m-Q2_K.gguf", "m-Q8_0.gguf"], "m-Q8_0.gguf"),
        (["m-IQ2_XS.gguf"], "m-IQ2_XS.gguf"),
        (["m.gguf"], "m.gguf"),
        (["m.q4_k_m.gguf", "m.q8_0.gguf"], "m.q4_k_m.gguf"),
        (["Q4_K_M/m.gguf", "Q2_K/m.gguf"], "Q4_K_M/m.gguf"),
        (["m-Q4_K_M.GGUF", "m-Q8_0.GGUF"], "m-Q4_K_M.GGUF"),
    ],
)
def test_with_no_quant_asked_it_is_q4_k_m_then_q8_0_then_the_only_one(there: list[str], chosen: str) -> None:
    made = plan(there)
    assert names(made) == [chosen]
    assert (made.format, made.opens, made.size) == ("gguf", chosen, 100)


@pytest.mark.parametrize(
    ("quant", "chosen"),
    [
        ("Q2_K", "m-Q2_K.gguf"),
        ("q8_0", "m-Q8_0.gguf"),
        ("Q4_K", "m-Q4_K_M.gguf"),
        ("IQ2", "m-IQ2_XS.gguf"),
        ("bf16", "m.BF16.gguf"),
    ],
)
def test_an_asked_quant_is_found_without_regard_to_case(quant: str, chosen: str) -> None:
    there = ["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-IQ2_XS.gguf", "m.BF16.gguf", "m-Q2_K_L.gguf"]
    assert names(plan(there, quant=quant)) == [chosen]


@pytest.mark.parametrize(
    ("there", "quant", "found"),
    [
        (["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"], "Q4_K_M", ["m-Q4_K_M.gguf"]),
        (["m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf"], "UD-Q4_K_M", ["m-UD-Q4_K_M.gguf"]),
        (["m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf"], "Q4_K_XL", ["m-UD-Q4_K_XL.gguf"]),
        (["Q4_K_M-x.gguf", "a/Q4_K_M/x.gguf"], "Q4_K_M", ["Q4_K_M-x.gguf", "a/Q4_K_M/x.gguf"]),
        (["mQ4_K_M.gguf", "m-Q4_K_M.gguf"], "Q4_K_M", ["m-Q4_K_M.gguf"]),
        (["m-Q4_K_Mx.gguf", "m-Q4_K_M.gguf"], "Q4_K_M", ["m-Q4_K_M.gguf"]),
        (["m-Q4_K_Mx.gguf"], "Q4_K_M", ["m-Q4_K_Mx.gguf"]),
        (["mQ4_K_M.gguf"], "Q4_K_M", []),
        (["m-Q4+.gguf", "m-Q444.gguf"], "Q4+", ["m-Q4+.gguf"]),
    ],
)
def test_a_quant_is_a_whole_word_where_some_name_has_it_so(there: list[str], quant: str, found: list[str]) -> None:
    assert with_quant(there, quant) == found


@pytest.mark.parametrize(
    ("name", "others", "quant"),
    [
        ("m-Q4_K_M.gguf", ["m-Q8_0.gguf"], "Q4_K_M"),
        ("m-UD-Q4_K_XL.gguf", [], "UD-Q4_K_XL"),
        ("Q8_0/m.gguf", ["Q4_0/m.gguf"], "Q8_0"),
        ("m-BF16/m-BF16.gguf", [], "BF16"),
        ("m.f16.gguf", [], "f16"),
        ("m-fp32.gguf", [], "fp32"),
        ("m-MXFP4_MOE.gguf", [], "MXFP4_MOE"),
        ("m-TQ1_0.gguf", [], "TQ1_0"),
        ("m-Q4_K_M.gguf", ["n-Q4_K_M.gguf"], None),
        ("m.gguf", [], None),
        ("m-Q4_0-Q8_0.gguf", ["m-Q8_0.gguf"], "Q4_0"),
    ],
)
def test_the_quant_of_a_name_picks_that_name_and_no_other(name: str, others: list[str], quant: str | None) -> None:
    assert quant_of(name, [name, *others]) == quant


def test_a_quant_that_no_file_has_is_an_error() -> None:
    error = refused(["m-Q2_K.gguf", "m-Q8_0.gguf"], quant="Q4_K_M")
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith("no file is 'Q4_K_M'")
    assert refused(["m-Q4_K_S.gguf", "m-Q4_K_M.gguf"], quant="Q4_K").code is Code.AMBIGUOUS_FILE
    assert refused(["README.md", "m-mmproj.gguf"], format="gguf").code is Code.FILE_NOT_FOUND


def test_several_that_fit_are_an_error_that_names_them() -> None:
    error = refused(["m-Q5_K.gguf", "m-Q3_K.gguf", "m-Q2_K.gguf"])
    assert error.code is Code.AMBIGUOUS_FILE
    assert error.message.endswith("none of its 3 GGUF files is Q4_K_M or Q8_0: m-Q2_K.gguf, m-Q3_K.gguf, m-Q5_K.gguf")
    assert refused(["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "a-Q8_0.gguf"]).message.endswith(
        "2 files are Q4_K_M: a-Q4_K_M.gguf, b-Q4_K_M.gguf"
    )


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("m.gguf", True), ("a/M.GGUF", True), ("m-q8.gguf.part", False), ("m.safetensors", False),
        ("imatrix.gguf", False), ("m-imatrix-Q4_K_M.gguf", False), ("mmproj-F16.gguf", False), ("m-MMPROJ.gguf", False),
        ("mtp-m.gguf", False), ("x/eagle3-m.gguf", False), ("dflash-m.gguf", False), ("m-mtp-1.gguf", True),
    ],
)  # fmt: skip
def test_what_is_no_model_is_never_taken_for_one(name: str, weights: bool) -> None:
    assert is_weights(name) is weights


SET = [f"m-Q4_K_M-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("there", "selected"),
    [
        ([*SET, "m-Q8_0.gguf"], {}),
        (SET[::-1], {}),
        (SET, {"quant": "q4_k_m"}),
        (SET[::-1], {"filename": SafeName(SET[0])}),
        (SET, {"filename": SafeName(SET[1])}),
        (SET, {"files": (SET[0],)}),
        ([name.upper() for name in SET], {}),
    ],
)
def test_a_split_set_comes_whole_and_opens_at_its_first_part(there: list[str], selected: dict[str, Any]) -> None:
    made = plan(there, **selected)
    assert names(made) == sorted(name for name in there if "Q8_0" not in name)
    assert made.opens == names(made)[0]
    assert made.size == 300


@pytest.mark.parametrize("missing", range(3))
@pytest.mark.parametrize("selected", [{}, {"quant": "Q4_K_M"}, {"files": ("*.gguf",)}, {"exclude": ("nothing",)}])
def test_a_split_set_that_is_not_whole_does_not_come_at_all(missing: int, selected: dict[str, Any]) -> None:
    there = [name for at, name in enumerate(SET) if at != missing]
    error = refused(["README.md", *there], **selected)
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith(f"1 of the 3 parts of a split set are missing, '{SET[missing]}' first")


def test_a_set_is_not_whole_without_its_excluded_part() -> None:
    error = refused(SET, quant="Q4_K_M", exclude=("*-00002-of-*",), files=())
    assert error.code is Code.FILE_NOT_FOUND


def test_a_set_that_claims_more_parts_than_there_are_files_is_refused_at_once() -> None:
    for name, count in (("m-00001-of-99999.gguf", 99999), ("m-00001-of-00000.gguf", 0)):
        assert f"has {count} parts, and there are 1 files" in refused([name]).message
    assert names(plan(["m-00001-of-00001.gguf"])) == ["m-00001-of-00001.gguf"]


@pytest.mark.parametrize(
    ("weights", "projectors", "chosen"),
    [
        ("m-Q4_K_M.gguf", ["mmproj-F16.gguf"], "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf", ["mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        ("m-Q8_0.gguf", ["mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        ("m-Q8_0.gguf", ["mmproj-a.gguf", "mmproj-Q2_K.gguf"], "mmproj-Q2_K.gguf"),
        ("m.gguf", ["mmproj-F32.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        ("m-F32.gguf", ["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-F32.gguf"),
        ("m-TQ2_0.gguf", ["mmproj-F16.gguf", "mmproj-Q4_0.gguf"], "mmproj-Q4_0.gguf"),
        ("a/m-Q4_K_M.gguf", ["mmproj-Q4_0.gguf", "a/mmproj-F16.gguf"], "a/mmproj-F16.gguf"),
        ("a/b/m-Q4_K_M.gguf", ["a/mmproj-F16.gguf", "mmproj-Q4_0.gguf"], "a/mmproj-F16.gguf"),
        ("a/m-Q4_K_M.gguf", ["b/mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F32.gguf"),
        ("a/m-Q4_K_M.gguf", ["b/mmproj-F16.gguf", "ab/mmproj-F16.gguf"], None),
        ("m-Q4_K_M.gguf", ["sub/mmproj-F16.gguf"], None),
        ("m-Q4_K_M.gguf", ["m-mmproj-f16.GGUF"], "m-mmproj-f16.GGUF"),
        ("m-Q4_K_M.gguf", ["mmproj-F16.bin"], None),
    ],
)
def test_the_projector_is_of_the_deepest_shared_directory_then_of_the_nearest_width(
    weights: str, projectors: list[str], chosen: str | None
) -> None:
    made = plan([weights, *projectors])
    assert names(made) == [weights, *([chosen] if chosen else [])]
    assert made.opens == weights
    assert names(plan([weights, *projectors], filename=SafeName(weights))) == names(made)


def test_gguf_is_chosen_where_the_repository_has_no_other_form_or_it_is_asked_for() -> None:
    both = ["config.json", "model.safetensors", "gguf/m-Q4_K_M.gguf"]
    assert plan(both, {"config.json": {}}).format == "safetensors"
    assert names(plan(both, quant="Q4_K_M")) == ["gguf/m-Q4_K_M.gguf", "config.json"]
    assert plan(both, format="gguf").opens == "gguf/m-Q4_K_M.gguf"
    assert plan(["config.json", "m-Q8_0.gguf", "x/model.safetensors"]).format == "gguf"
    assert plan(["m-Q8_0.gguf", "model.safetensors"]).format == "gguf"
    assert plan(["params.json", "m-Q8_0.gguf", "consolidated.safetensors"]).format == "safetensors"
    assert plan(["m-Q8_0.gguf", "model.safetensors"], format="safetensors").format == "safetensors"
    modules = ["modules.json", "m-Q8_0.gguf"]
    assert plan(modules).format == "gguf"
    assert plan(["model_index.json", "m-Q8_0.gguf"]).format == "gguf"


def test_what_goes_with_a_gguf_is_no_code() -> None:
    made = plan(["m.gguf", "README.md", "config.json", "convert.py", "LICENSE", "a/config.json"], formats=("py",))
    assert names(made) == ["m.gguf", "README.md", "config.json", "LICENSE"]
    assert made.skipped == ()
    assert plan(["m.gguf", "config.json"], {"config.json": {"auto_map": {"A": "x.A"}}}).warning is None


def test_a_quant_is_a_variant_only_where_no_gguf_has_it() -> None:
    there = ["config.json", "model.safetensors", "model.fp16.safetensors", "m-F16.gguf", "m-Q8_0.gguf"]
    config = {"config.json": {}}
    assert names(plan(there, config, quant="F16"))[0] == "m-F16.gguf"
    assert names(plan(there, config, quant="FP16"))[0] == "model.fp16.safetensors"
    assert refused(there, config, quant="Q4_0").message.endswith("no file is 'Q4_0'")
    assert plan(listing("m.gguf", size=None)).size == 0
