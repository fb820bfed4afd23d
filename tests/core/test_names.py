"""Untrusted text becomes a name that stays where it belongs, or an error that says why not."""

from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.names import (
    NAME_MAX_BYTES,
    PATH_MAX_BYTES,
    Reference,
    bare,
    check_collisions,
    is_commit,
    is_revision,
    is_whole_commit,
    parse_reference,
    repo_id,
    revision_suffix,
    safe_name,
    show,
    store_name,
)
from agent.errors import Code, WantdError

LONGEST = "/".join(["d" * 255, "d" * 255, "d" * 255, "d" * 250, "d" * 5])  # 1,024 bytes
COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"

# Text that is made to get out: separators, dots, controls, reserved words, beside anything at all.
HOSTILE = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "\0", "\n", ".wantd.json", ".locks", "é", "\ud800"])).map(
        "/".join
    ),
    st.text(alphabet="./\\ab\0", max_size=30),
)


@settings(max_examples=200)
@given(HOSTILE)
@example("../etc/passwd")
@example("a/../../b")
@example("a//b")
@example("/abs")
def test_a_safe_name_never_leaves_its_directory(text: str) -> None:
    try:
        name = safe_name(text)
    except WantdError as error:
        assert error.code is Code.FORBIDDEN_PATH
        return
    joined = posixpath.normpath(f"/store/model/{name}")
    assert joined == f"/store/model/{name}"
    assert not posixpath.basename(joined).startswith(".wantd")
    assert len(name.encode()) <= PATH_MAX_BYTES
    assert all(0 < len(part.encode()) <= NAME_MAX_BYTES for part in name.split("/"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "..",
        ".",
        "a/..",
        "a/../b",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\x7f",
        "\udc80",
        "x" * 256,
        "é" * 128,
        LONGEST + "d",
        ".wantd.json",
        ".WANTD.json",
        ".locks/x",
        ".partial/x",
    ],
)
def test_names_that_lead_out_or_are_ours_are_refused(text: str) -> None:
    with pytest.raises(WantdError) as caught:
        safe_name(text)
    assert caught.value.code is Code.FORBIDDEN_PATH
    assert not caught.value.retryable


def test_a_repository_cannot_bring_a_record_for_a_model_below_it() -> None:
    # `qwen` with a file `qwen2.5/.wantd.json` would publish `qwen/qwen2.5` with hashes that nobody checked.
    with pytest.raises(WantdError, match="reserved"):
        safe_name("qwen2.5/.wantd.json")


@pytest.mark.parametrize(
    ("text", "why"), [("", "it is empty"), ("/a", "it is absolute"), ("a/../b", "component"), ("a\\b", "backslash")]
)
def test_a_refusal_says_what_is_wrong_with_the_name(text: str, why: str) -> None:
    with pytest.raises(WantdError, match=why):
        safe_name(text)


@pytest.mark.parametrize(
    "text",
    ["model.gguf", "Q4/a b (1).gguf", ".gitattributes", "onnx/.cfg", "é" * 127, "x" * 255, "a.b..c", LONGEST],
)
def test_ordinary_names_pass_as_they_are(text: str) -> None:
    assert safe_name(text) == text


@settings(max_examples=200)
@given(st.one_of(st.text(), st.text(alphabet="aZ0:@/.-_ #\n", max_size=40)), st.sets(st.text(max_size=8), max_size=3))
@example("@0", {""})
def test_any_text_is_a_reference_or_want_invalid(text: str, known: set[str]) -> None:
    try:
        reference = parse_reference(text, known)
    except WantdError as error:
        assert error.code is Code.WANT_INVALID
        assert (error.message + error.hint).isascii()
        return
    assert reference.model
    assert str(reference).lower() == text.strip().lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("qwen3", Reference("qwen3")),
        ("  qwen3\t", Reference("qwen3")),
        ("Qwen/Qwen3-0.6B", Reference("Qwen/Qwen3-0.6B")),
        ("qwen3:Q8_0", Reference("qwen3", "Q8_0")),
        ("qwen3@v1.0", Reference("qwen3", None, "v1.0")),
        ("org/name:IQ2_XS@refs/pr/7", Reference("org/name", "IQ2_XS", "refs/pr/7")),
        (f"org/name@{COMMIT}", Reference("org/name", None, COMMIT)),
    ],
)
def test_each_form_of_a_reference(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


def test_a_text_that_is_no_reference_is_told_why() -> None:
    for text, why in (("", "it is empty"), ("x" * 513, "longer than 512 characters"), ("a\0", "control characters")):
        with pytest.raises(WantdError, match=why):
            parse_reference(text)
    assert parse_reference("x" * 512, ["x" * 512]) == Reference("x" * 512)


def test_a_catalog_id_that_holds_a_colon_is_taken_whole() -> None:
    known = {"qwen3:8b", "a@b"}
    assert parse_reference("Qwen3:8B", known) == Reference("Qwen3:8B")
    assert parse_reference("a@b", known) == Reference("a@b")
    assert parse_reference("qwen3:8b@main", known) == Reference("qwen3:8b", None, "main")
    assert parse_reference("qwen3:Q8_0", known) == Reference("qwen3", "Q8_0")
    assert parse_reference("Qwen3:8B:Q8_0@v1", known) == Reference("Qwen3:8B", "Q8_0", "v1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a/b/c",
        "../x",
        "a/../b",
        "-rf",
        ".hidden",
        "a..b",
        "name.git",
        "org/name.LOCK",
        "a b",
        "a:",
        "a:Q8/0",
        "a@",
        "a@..",
        "a@x//y",
        "a@/x",
        "a@x/",
        "a\0",
        "x" * 513,
        "モデル",
    ],
)
def test_what_is_no_reference_is_told_so(text: str) -> None:
    with pytest.raises(WantdError) as caught:
        parse_reference(text)
    assert caught.value.code is Code.WANT_INVALID
    assert "org/name" in caught.value.hint


@given(st.text())
def test_a_revision_never_holds_a_way_up(text: str) -> None:
    if is_revision(text):
        assert ".." not in text and "//" not in text and text[0] not in "/.-"


def test_repositories_are_named_as_the_hub_allows() -> None:
    assert repo_id("gpt2") == "gpt2"
    assert repo_id("Org/Name-1.0_x") == "Org/Name-1.0_x"
    for text in ("", "a/b/c", "a--b/c", "a..b", "x.git", "-a/b", "a b", "x" * 97, "org/"):
        with pytest.raises(WantdError):
            repo_id(text)


@settings(max_examples=200)
@given(HOSTILE)
def test_a_models_directory_lies_in_the_store_and_is_none_of_ours(text: str) -> None:
    try:
        name = store_name(text)
    except WantdError as error:
        assert error.code is Code.FORBIDDEN_PATH
        return
    assert re.fullmatch(r"[a-z0-9\-_./]+", name)
    assert posixpath.normpath(f"/store/{name}") == f"/store/{name}"
    assert not any(part.startswith(".") for part in name.split("/"))
    assert store_name(name) == name


@pytest.mark.parametrize(
    ("model", "directory"),
    [
        ("Qwen3", "qwen3"),
        ("Qwen/Qwen3-0.6B", "qwen/qwen3-0.6b"),
        ("qwen3:8b", "qwen3_8b"),
        ("a b+c", "a_b_c"),
        ("x.y-z_1", "x.y-z_1"),
    ],
)
def test_llmlbs_rule_names_the_directory(model: str, directory: str) -> None:
    assert store_name(model) == directory


@pytest.mark.parametrize(
    "model", ["", "/", "/a", "a/", "a//b", "..", "a/..", ".locks", ".partial/x", "a/.b", "x" * 256]
)
def test_no_model_id_names_the_store_itself_or_our_own_directories(model: str) -> None:
    with pytest.raises(WantdError) as caught:
        store_name(model)
    assert caught.value.code is Code.FORBIDDEN_PATH


def test_a_model_directory_has_a_name_of_255_characters_at_most() -> None:
    assert store_name("x" * 255) == "x" * 255


def test_a_commit_has_seven_to_forty_digits_and_a_whole_one_has_forty() -> None:
    for text, commit, whole in (
        (COMMIT, True, True),
        (COMMIT[:39], True, False),
        (COMMIT[:7], True, False),
        (COMMIT[:6], False, False),
        (COMMIT + "0", False, False),
        (COMMIT.upper(), False, False),
        ("g" * 40, False, False),
    ):
        assert (is_commit(text), is_whole_commit(text)) == (commit, whole), text


def test_a_commit_shows_with_twelve_digits_and_names_that_fold_together_stay_apart() -> None:
    assert revision_suffix(COMMIT) == "1a2b3c4d5e6f"
    assert revision_suffix("v1.0") == "v1.0"
    suffixes = {revision_suffix(text) for text in ("refs/pr/1", "refs_pr_1", "Refs/pr/1", "V1", "v1")}
    assert len(suffixes) == 5
    assert all(re.fullmatch(r"[a-z0-9\-_.]+", suffix) for suffix in suffixes)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a", "a"], "listed twice"),
        (["Model.gguf", "model.GGUF"], "collides"),
        (["a", "a/b"], "is a file, and a directory"),
        (["x/Y/z", "X/y"], "is a file, and a directory"),
    ],
)
def test_names_that_cannot_lie_side_by_side_are_refused(names: list[str], why: str) -> None:
    for order in (names, names[::-1]):
        with pytest.raises(WantdError, match=why) as caught:
            check_collisions(order)
        assert caught.value.code is Code.FORBIDDEN_PATH


def test_names_that_only_look_alike_lie_side_by_side() -> None:
    check_collisions(["a", "ab", "b/a", "b/c/a", "a.b"])


@given(st.text(), st.integers(min_value=10, max_value=200))
def test_shown_text_is_one_short_ascii_line(text: str, limit: int) -> None:
    shown = show(text, limit)
    assert shown.isascii() and shown.isprintable() and len(shown) <= limit


def test_text_is_shown_whole_up_to_the_limit_and_cut_to_it_beyond() -> None:
    assert show("x" * 118) == "'" + "x" * 118 + "'"
    assert show("x" * 119) == "'" + "x" * 115 + "...'"
    assert len(show("x" * 119)) == 120


def test_a_bare_name_has_no_quotes() -> None:
    assert bare("qwen3") == "qwen3"
    assert bare("a\nb") == "a\\nb"
