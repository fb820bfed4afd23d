"""Files that a want or the catalog names, and snapshots of all of them."""

from __future__ import annotations

import pytest

from agent.core.names import SafeName
from agent.errors import Code
from tests.core.selection.build import index, names, plan, refused


def test_patterns_bring_what_they_fit_and_nothing_else() -> None:
    there = ["config.json", "model.safetensors", "pytorch_model.bin", "x/config.json", "README.md"]
    assert names(plan(there, files=("*.json",))) == ["config.json", "x/config.json"]
    assert names(plan(there, files=("README.md", "model*"))) == ["model.safetensors", "README.md"]
    assert plan(there, files=("model*",)).warning is None


def test_patterns_come_before_a_quant_and_bring_split_sets_whole() -> None:
    parts = [f"m-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for quant in (None, "Q4_K_M"):
        made = plan(["a.json", *parts, "m-Q4_K_M.gguf"], files=("*-00002-of-*", "a*"), quant=quant)
        assert sorted(names(made)) == ["a.json", *parts]


def test_each_pattern_must_fit_something_that_there_is() -> None:
    error = refused(["m.gguf"], files=("*.gguf", "*.josn"))
    assert error.code is Code.FILE_NOT_FOUND and error.message.endswith("no file matches '*.josn'")
    assert names(plan(["m.gguf", "a.json"], files=("*.gguf", "*.json"), exclude=("*.json",))) == ["m.gguf"]


def test_what_is_excluded_is_left_out_and_may_not_be_all() -> None:
    there = ["a.json", "m.bin", "m.gguf"]
    assert names(plan(there, files=("*",), exclude=("*.bin",))) == ["a.json", "m.gguf"]
    error = refused(there, files=("*.json",), exclude=("a*",))
    assert error.code is Code.FILE_NOT_FOUND and error.message.endswith("nothing is left after 'exclude'")


def test_code_that_a_wide_pattern_fits_is_left_out_and_told() -> None:
    made = plan(["a.json", "m.gguf", "x.py", "m.bin"], files=("*",))
    assert names(made) == ["a.json", "m.gguf"]
    assert made.skipped == ("x.py", "m.bin")
    assert plan(["a.json", "m.gguf", "x.py"], files=("*",), exclude=("*.py",)).skipped == ()


@pytest.mark.parametrize(
    "files", [("x.py",), ("*.py",), ("*", "*.py"), ("*", "x.*"), ("m.gguf", "x.py"), ("m.gguf", "*.bin")]
)
def test_code_that_a_pattern_asks_for_is_refused(files: tuple[str, ...]) -> None:
    error = refused(["m.gguf", "x.py", "m.bin", "a.json"], files=files)
    assert error.code is Code.FORBIDDEN_FORMAT
    assert names(plan(["m.gguf", "x.py"], files=("x.py",), formats=("py",))) == ["x.py"]


def test_the_catalogs_file_comes_alone_and_its_safetensors_with_companions() -> None:
    assert names(plan(["m-Q2_K.gguf", "m-Q4_K_M.gguf", "README.md"], filename=SafeName("m-Q2_K.gguf"))) == [
        "m-Q2_K.gguf"
    ]
    assert names(plan(["a.onnx", "b.onnx", "config.json"], filename=SafeName("a.onnx"))) == ["a.onnx"]
    there = ["a.safetensors", "b.safetensors", "config.json", "x.py"]
    contents = {"config.json": {"auto_map": {"AutoModel": "x.Model"}}}
    made = plan(there, contents, filename=SafeName("a.safetensors"))
    assert names(made) == ["a.safetensors", "config.json"]
    assert made.skipped == ("x.py",)
    assert "not fetched: x.py" in (made.warning or "")
    sharded = ["i.safetensors.index.json", "s.safetensors", "config.json"]
    made = plan(sharded, {sharded[0]: index("s.safetensors"), **contents}, filename=SafeName(sharded[0]))
    assert names(made) == sharded


def test_a_file_of_the_catalog_that_is_not_there_is_told() -> None:
    error = refused(["m-Q2_K.gguf", "m-Q4_K_M.gguf"], filename=SafeName("m-Q9.gguf"))
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith("the catalog names 'm-Q9.gguf', which is not there")
    assert refused(["a.bin", "m.gguf"], filename=SafeName("a.bin")).code is Code.FORBIDDEN_FORMAT


def test_a_snapshot_of_all_is_every_file_but_code() -> None:
    there = ["a.json", "m.gguf", "x/y.png", ".gitattributes", "x.py", "pytorch_model.bin", "n.safetensors"]
    made = plan(there, snapshot="all")
    assert names(made) == ["a.json", "m.gguf", "x/y.png", ".gitattributes", "n.safetensors"]
    assert made.skipped == ("x.py", "pytorch_model.bin")
    assert (made.format, made.opens) == ("safetensors", None)
    assert names(plan(there, snapshot="all", formats=("py", "bin"))) == there
    assert names(plan(there, snapshot="all", exclude=("*.gguf", "x*"))) == ["a.json", ".gitattributes", "n.safetensors"]
    assert plan(["m-Q2_K.gguf", "m-Q8_0.gguf", "a.json"], snapshot="all").opens == "m-Q2_K.gguf"
    assert refused([], snapshot="all").message.endswith("it has no files")
