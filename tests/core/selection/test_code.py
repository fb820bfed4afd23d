"""What can run code: refused formats, files left out, and models that need code to load."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.names import SafeName
from agent.core.remote import RemoteFile
from agent.core.selection.code import CODE_FORMATS, extension, leave_out_code, module_file, refused
from agent.core.selection.no_match import NoMatch
from agent.errors import Code
from tests.core.selection import build
from tests.core.selection.build import names, plan


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.bin", "bin"), ("x/a.B.PT", "pt"), ("bin", ""), ("x.d/py", ""), (".py", "py"), ("a.", ""), ("", "")],
)
def test_the_extension_is_that_of_the_files_own_name(name: str, ending: str) -> None:
    assert extension(name) == ending


def test_every_format_that_can_run_code_is_refused_unless_it_is_named() -> None:
    for ending in CODE_FORMATS:
        assert refused(f"x/a.{ending.upper()}", ())
        assert not refused(f"x/a.{ending}", {ending})
    assert not refused("a.safetensors", ())
    assert {"bin", "pt", "pth", "ckpt", "pkl", "py", "so", "sh", "h5", "nemo", "llamafile"} <= CODE_FORMATS


def files(*there: str) -> list[RemoteFile]:
    return [RemoteFile(SafeName(name), 1) for name in there]


@pytest.mark.parametrize("whole", ["a.safetensors", "a.gguf", "a.onnx", "a.tflite", "a.task", "a.litertlm", "a.npz"])
def test_code_is_left_out_of_what_is_whole_without_it(whole: str) -> None:
    kept, out = leave_out_code(files(whole, "config.json", "m.bin", "x.py"), ())
    assert [file.name for file in kept] == [whole, "config.json"]
    assert [file.name for file in out] == ["m.bin", "x.py"]


@pytest.mark.parametrize(
    ("there", "formats"),
    [(["config.json", "m.bin"], ()), (["m.bin", "x.py"], ("py",)), (["m.pt", "model.md", "x.py", "a.bin"], ("py",))],
)
def test_weights_are_not_left_out_of_what_would_be_none_without_them(
    there: list[str], formats: tuple[str, ...]
) -> None:
    with pytest.raises(NoMatch) as caught:
        leave_out_code(files(*there), formats)
    assert caught.value.code is Code.FORBIDDEN_FORMAT


def test_code_alone_may_be_left_out_and_allowed_weights_make_it_whole() -> None:
    assert [len(part) for part in leave_out_code(files("README.md", "x.py"), ())] == [1, 1]
    assert [len(part) for part in leave_out_code(files("m.bin", "m.pt"), ("bin",))] == [1, 1]


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("modeling.Model", "modeling.py"),
        ("0_T/modeling.Model", "0_T/modeling.py"),
        ("a.b.C", "a/b.py"),
        ("v1.5/m.C", "v1.5/m.py"),
    ],
)
def test_a_reference_to_a_class_names_its_file(reference: str, file: str) -> None:
    assert module_file(reference) == file


MODEL = ["config.json", "model.safetensors"]


def made(auto_map: object, *more: str, formats: tuple[str, ...] = (), **contents: Any) -> build.Plan:
    value = {"config.json": {"auto_map": auto_map}, "tokenizer_config.json": {}, **contents}
    return plan([*MODEL, *more], value, formats)


def test_a_model_that_names_its_own_code_says_so_and_the_code_is_left_out() -> None:
    plan = made({"AutoModel": "modeling.M", "AutoConfig": "configuration.C", "A": "modeling.N"}, "modeling.py")
    assert names(plan) == ["model.safetensors", "config.json"]
    assert plan.skipped == ("modeling.py",)
    assert plan.warning == (
        "The model needs code of its repository to load, which is not fetched: modeling.py, configuration.py; "
        'allow it with policy.formats = ["py"].'
    )


def test_where_code_is_allowed_it_comes_and_the_warning_asks_for_trust() -> None:
    plan = made({"AutoModel": "modeling.M"}, "modeling.py", "utils.py", "train.py", formats=("py",))
    assert names(plan) == ["model.safetensors", "config.json", "modeling.py", "utils.py"]
    assert plan.skipped == ()
    assert plan.warning == (
        "The model loads with code of its repository: modeling.py; use it only if you trust org/name."
    )


def test_code_of_other_repositories_is_told_as_well() -> None:
    plan = made({"AutoModel": "other/repo--modeling.M", "AutoConfig": "other/repo--configuration.C"})
    assert plan.warning == "The model needs code of other repositories to load, which is not fetched: other/repo."
    both = made({"AutoModel": "other/repo--modeling.M", "AutoConfig": "own.C"}, "own.py").warning or ""
    assert "not fetched: own.py; " in both and both.endswith("not fetched: other/repo.")


@pytest.mark.parametrize("auto_map", [None, {}, [], "x", {"a": None}, {"a": [None, 1]}, {"a": {"b": "c.D"}}])
def test_an_auto_map_that_names_nothing_is_no_code(auto_map: object) -> None:
    assert made(auto_map).warning is None


def test_a_tokenizers_code_counts_where_the_repository_has_code() -> None:
    there = ["tokenizer_config.json", "processor_config.json", "preprocessor_config.json"]
    contents = {name: {"auto_map": {"x": [f"{name[:3]}.C", None]}} for name in there}
    plan = made({}, *there, "tokenization.py", **contents)
    assert "not fetched: tok.py, pro.py, pre.py" in (plan.warning or "")
    assert made({}, *there, "train.py").warning is None
    assert made({}, *there).warning is None


@pytest.mark.parametrize("content", [b"", b"{", [], {"auto_map": 1}])
def test_a_configuration_that_cannot_be_read_names_no_code(content: object) -> None:
    assert plan(MODEL, {"config.json": content}).warning is None


def refused_for_code(auto_map: object, *more: str, formats: tuple[str, ...] = ()) -> Any:
    contents = {"config.json": {"auto_map": auto_map}}
    return build.refused([*MODEL, *more], contents, formats=formats, code="require")


def test_where_the_policy_requires_code_a_model_without_its_code_fails() -> None:
    error = refused_for_code({"AutoModel": "modeling.M"}, "modeling.py")
    assert error.code is Code.FORBIDDEN_FORMAT
    assert error.message == "org/name needs code of its repository to load, which is not fetched: modeling.py"
    assert 'policy.formats = ["py"]' in error.hint and 'policy.code = "warn"' in error.hint
    assert error.file == "modeling.py"
    assert refused_for_code({"AutoModel": "modeling.M"}, formats=("py",)).file == "modeling.py"
    other = refused_for_code({"AutoModel": "other/repo--modeling.M"}, formats=("py",))
    assert other.message == "org/name needs code of other/repo to load, which is not fetched"
    assert "policy.formats" not in other.hint and other.file is None


def test_where_the_policy_requires_code_a_model_with_its_code_or_without_need_of_it_comes() -> None:
    contents = {"config.json": {"auto_map": {"AutoModel": "modeling.M"}}}
    whole = plan([*MODEL, "modeling.py"], contents, ("py",), code="require")
    assert names(whole) == ["model.safetensors", "config.json", "modeling.py"]
    assert names(plan(MODEL, {"config.json": {}}, code="require")) == ["model.safetensors", "config.json"]
