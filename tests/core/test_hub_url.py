"""A model's address as people paste it is the same as its reference."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.catalog import Catalog, parse_catalog
from agent.core.hub_url import Pasted, from_url
from agent.core.target import Target, make_target
from agent.core.want import WantedModel, parse_want
from agent.errors import Code, WantdError

COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"
FILE = Pasted("org/name@main", ("m.gguf",), ("*/m.gguf",))


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("https://huggingface.co/org/name", "org/name"),
        ("http://huggingface.co/org/name/", "org/name"),
        ("HTTPS://HuggingFace.co/Org/Name", "Org/Name"),
        ("https://www.huggingface.co/org/name?library=transformers#usage", "org/name"),
        ("https://hf.co/org/name:Q4_K_M", "org/name:Q4_K_M"),
        ("https://huggingface.co:443/org/name", "org/name"),
        ("https://huggingface.co/org/name.git", "org/name"),
        ("https://huggingface.co/gpt2", "gpt2"),
        ("https://huggingface.co/gpt2/tree/main", "gpt2@main"),
        ("https://huggingface.co/org/tree", "org/tree"),
        ("https://huggingface.co/org/name/tree/main", "org/name@main"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F7", "org/name@refs/pr/7"),
        ("https://huggingface.co/org/name/tree/refs/pr/7", "org/name@refs/pr/7"),
        ("https://huggingface.co/org/name/tree/refs/convert/gguf", "org/name@refs/convert/gguf"),
        (f"https://huggingface.co/org/name/commit/{COMMIT}", f"org/name@{COMMIT}"),
        ("https://huggingface.co/org/name/commits/v1.0", "org/name@v1.0"),
        ("https://huggingface.co/org/name/commits/v1.0/README.md", "org/name@v1.0"),
        ("https://huggingface.co/org/name/blob/main", "org/name@main"),
        ("huggingface.co/org/name", "org/name"),
        ("hf.co/org/name:q4_k_m@v2", "org/name:q4_k_m@v2"),
        ("HF.CO/org/name", "org/name"),
        ("hf://org/name", "org/name"),
        ("HF://org/name:Q8_0@main", "org/name:Q8_0@main"),
        ("hf://org/name@refs/pr/7", "org/name@refs/pr/7"),
        ("hf://gpt2@v1", "gpt2@v1"),
        ("  https://huggingface.co/org/name \n", "org/name"),
        ("org/name", "org/name"),
        ("org/name:Q4_K_M@main", "org/name:Q4_K_M@main"),
        ("qwen3", "qwen3"),
        ("hf.co", "hf.co"),
        ("example.com/org/name", "example.com/org/name"),
        ("", ""),
    ],
)
def test_the_address_of_a_model_is_its_reference(text: str, reference: str) -> None:
    assert from_url(text) == Pasted(reference)


@pytest.mark.parametrize(
    ("text", "pasted"),
    [
        ("https://huggingface.co/org/name/blob/main/m.gguf", FILE),
        ("https://huggingface.co/org/name/resolve/main/m.gguf?download=true", FILE),
        ("https://huggingface.co/org/name/raw/main/m.gguf#L1", FILE),
        ("hf.co/org/name/resolve/main/m.gguf", FILE),
        ("hf://org/name@main/m.gguf", FILE),
        ("hf://org/name/m.gguf", Pasted("org/name", ("m.gguf",), ("*/m.gguf",))),
        ("hf://gpt2@main/m.gguf", Pasted("gpt2@main", ("m.gguf",), ("*/m.gguf",))),
        ("hf://org/name@refs/pr/7/Q4/m.gguf", Pasted("org/name@refs/pr/7", ("Q4/m.gguf",))),
        ("https://hf.co/org/name/blob/v1/Q4/m%20%5B1%5D.gguf", Pasted("org/name@v1", ("Q4/m [[]1].gguf",))),
        ("https://hf.co/org/name/blob/refs/pr/7/a/b", Pasted("org/name@refs/pr/7", ("a/b",))),
        ("https://hf.co/org/name/tree/main/Q4_K_M", Pasted("org/name@main", ("Q4_K_M/*",))),
        ("https://hf.co/org/name/tree/main/a/b/", Pasted("org/name@main", ("a/b/*",))),
        ("https://hf.co/gpt2/resolve/main/onnx/m.onnx", Pasted("gpt2@main", ("onnx/m.onnx",))),
    ],
)
def test_a_file_or_folder_in_the_address_selects_files(text: str, pasted: Pasted) -> None:
    assert from_url(text) == pasted


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://example.com/org/name", "'example.com' is not the Hub"),
        ("https://huggingface.co.evil.example/org/name", "is not the Hub"),
        ("https://huggingface.co:8443/org/name", "is not the Hub"),
        ("ftp://huggingface.co/org/name", "is not the Hub"),
        ("ollama://library/qwen3", "is not the Hub"),
        ("https:///org/name", "is not the Hub"),
        ("https://user:secret@huggingface.co/org/name", "it holds a user's name or password"),
        ("https://huggingface.co", "it names no repository"),
        ("https://huggingface.co/", "it names no repository"),
        ("hf://", "it names no repository"),
        ("https://huggingface.co/datasets/org/name", "it is one of the Hub's 'datasets'"),
        ("https://huggingface.co/Spaces/org/name", "it is one of the Hub's 'Spaces'"),
        ("hf://datasets/org/name/x.parquet", "it is one of the Hub's 'datasets'"),
        ("https://huggingface.co/models?search=qwen", "it is one of the Hub's 'models'"),
        ("https://huggingface.co/org/name/discussions/3", "'discussions/3' is neither a tree nor a file of it"),
        ("https://huggingface.co/org/name/tree", "'tree' is neither a tree nor a file of it"),
        ("https://huggingface.co/org/name/edit/main/README.md", "is neither a tree nor a file of it"),
    ],
)
def test_an_address_of_something_else_is_told_so(text: str, why: str) -> None:
    with pytest.raises(WantdError) as caught:
        from_url(text)
    error = caught.value
    assert error.code is Code.WANT_INVALID
    assert error.message.endswith(why) or why in error.message
    assert "https://huggingface.co/org/name" in error.hint


def test_no_password_and_no_signature_gets_into_an_error() -> None:
    for text in ("https://user:secret@hf.co/org/name?x=secret", "https://cdn.example/x?Signature=secret#secret"):
        with pytest.raises(WantdError) as caught:
            from_url(text)
        error = caught.value
        assert "secret" not in f"{error.message} {error.hint} {error.model}"


@given(
    st.sampled_from(["https://huggingface.co/", "hf.co/", "hf://", "https://", ""]),
    st.lists(
        st.sampled_from(
            ["org", "name", "tree", "blob", "main", "refs", "pr", "..", "a@b", "%2F", "%00", ":", "?x", "#", ""]
        )
    ),
)
@example("hf://", ["@"])
@example("https://huggingface.co/", ["%2F"])
def test_any_address_is_a_target_inside_the_store_or_want_invalid(start: str, parts: list[str]) -> None:
    try:
        target = make_target(Catalog(), "any", WantedModel(start + "/".join(parts)))
    except WantdError as error:
        assert error.code in (Code.WANT_INVALID, Code.FORBIDDEN_PATH)
        assert (error.message + error.hint).isascii()
        return
    assert ".." not in target.name.split("/")


# As a want's model

CATALOG = parse_catalog(b'[{"id": "qwen3", "repo": "Org/Qwen3-GGUF", "recommended_filename": "m-Q4_K_M.gguf"}]')


def target(want: bytes, policy: str = "catalog") -> Target:
    (model,) = parse_want("x.want", want).models
    return make_target(CATALOG, policy, model)


@pytest.mark.parametrize(
    "want",
    [
        b"https://huggingface.co/org/qwen3-gguf",
        b"https://huggingface.co/org/qwen3-gguf/tree/main  # the small one",
        b'{"model": "hf.co/org/qwen3-gguf"}',
        b'["hf://Org/Qwen3-GGUF"]',
        b'{"models": [{"model": "https://hf.co/Org/Qwen3-GGUF"}]}',
    ],
)
def test_an_address_is_looked_up_in_the_catalog_in_every_form_of_a_want(want: bytes) -> None:
    assert target(want) == target(b"qwen3")


def test_the_parts_of_an_address_are_those_of_a_want() -> None:
    assert target(b"hf.co/Org/Qwen3-GGUF:Q8_0") == target(b"qwen3:Q8_0")
    at = f"https://hf.co/Org/Qwen3-GGUF/tree/{COMMIT}".encode()
    assert target(at) == target(f"qwen3@{COMMIT}".encode())
    file = target(b"https://hf.co/Org/Qwen3-GGUF/blob/main/Q4/m.gguf")
    assert file == target(b'{"model": "qwen3", "files": ["Q4/m.gguf"]}')
    assert file.selection.files == ("Q4/m.gguf",) and file.selection.filename is None
    both = target(b'{"model": "hf.co/Org/Qwen3-GGUF/blob/main/Q4/m.gguf", "files": ["*.json"], "exclude": ["x"]}')
    assert (both.selection.files, both.selection.exclude) == (("Q4/m.gguf", "*.json"), ("x",))
    assert target(b"https://hf.co/Org/Qwen3-GGUF/blob/main/m.gguf").selection.exclude == ("*/m.gguf",)


def test_an_address_that_the_policy_does_not_allow_is_refused_as_its_repository() -> None:
    with pytest.raises(WantdError) as caught:
        target(b"https://huggingface.co/Org/Qwen4-GGUF?token=secret")
    assert caught.value.code is Code.MODEL_NOT_SUPPORTED
    assert "'Org/Qwen4-GGUF'" in caught.value.message
    assert target(b"https://huggingface.co/Org/Qwen4-GGUF", "any").name == "org/qwen4-gguf"
    with pytest.raises(WantdError) as caught:
        target(b'{"model": "https://hf.co/Org/Qwen3-GGUF/tree/v1", "revision": "v2"}')
    assert caught.value.code is Code.WANT_INVALID and "contradicts" in caught.value.message


def test_a_catalog_id_that_looks_like_an_address_is_taken_whole() -> None:
    known = parse_catalog(b'[{"id": "hf.co/x/y", "repo": "a/b"}]')
    assert make_target(known, "catalog", WantedModel("HF.co/x/y")).selection.repo == "a/b"
