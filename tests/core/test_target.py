"""One want, one directory: what differs from the catalog's choice gets a directory that says how."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.catalog import Catalog, parse_catalog
from agent.core.target import Target, make_target
from agent.core.want import WantedModel
from agent.errors import Code, WantdError

COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"
SHA = "ab" * 32
CATALOG = parse_catalog(
    json.dumps(
        [
            {
                "id": "qwen3",
                "repo": "bartowski/Qwen_Qwen3-0.6B-GGUF",
                "recommended_filename": "Qwen3-Q4_K_M.gguf",
                "quantization": "Q4_K_M",
                "sha256": SHA,
                "aliases": ["small"],
                "exclude": ["*.md"],
            },
            {"id": "pinned", "repo": "org/pinned", "revision": "v2"},
            {
                "id": "parts",
                "repo": "org/parts",
                "artifacts": [
                    {"url": f"https://h/org/parts/resolve/{COMMIT}/a.gguf", "sha256": SHA},
                    {"path": "mm.gguf", "repo": "other/mm", "sha256": SHA},
                ],
            },
        ]
    ).encode()
)


def target(reference: str, policy: Any = "any", catalog: Catalog = CATALOG, **narrowed: Any) -> Target:
    return make_target(catalog, policy, WantedModel(reference, **narrowed))


@pytest.mark.parametrize(
    ("reference", "narrowed", "directory"),
    [
        ("qwen3", {}, "qwen3"),
        ("Qwen3", {}, "qwen3"),
        ("small", {}, "qwen3"),
        ("bartowski/Qwen_Qwen3-0.6B-GGUF", {}, "qwen3"),
        ("qwen3:Q8_0", {}, "qwen3--q8_0"),
        ("qwen3:q8_0", {}, "qwen3--q8_0"),
        (f"qwen3@{COMMIT}", {}, "qwen3@1a2b3c4d5e6f"),
        ("qwen3", {"revision": COMMIT}, "qwen3@1a2b3c4d5e6f"),
        ("qwen3@v1.0", {}, "qwen3@v1.0"),
        (f"qwen3:Q8_0@{COMMIT}", {}, "qwen3@1a2b3c4d5e6f--q8_0"),
        ("Org/Name", {}, "org/name"),
        ("Org/Name:IQ2_XS", {}, "org/name--iq2_xs"),
        ("qwen3:Q4_K_M", {}, "qwen3"),
        ("qwen3:q4_k_m", {}, "qwen3"),
        ("qwen3@main", {}, "qwen3"),
        ("pinned@v2", {}, "pinned"),
        ("pinned", {"revision": "v2"}, "pinned"),
        ("pinned@main", {}, "pinned@main"),
        ("qwen3", {"snapshot": "all"}, "qwen3--all"),
        ("qwen3@v1", {"snapshot": "all"}, "qwen3@v1--all"),
        ("qwen3", {"snapshot": "load"}, "qwen3"),
        ("Org/Name:fp16", {}, "org/name--fp16"),
    ],
)
def test_the_directory_says_how_a_model_differs_from_the_plain_one(
    reference: str, narrowed: dict[str, Any], directory: str
) -> None:
    assert target(reference, **narrowed).name == directory


def test_a_selection_of_files_has_a_directory_of_its_own() -> None:
    some = target("qwen3", files=("*.gguf",))
    assert re.fullmatch(r"qwen3--sel-[0-9a-f]{8}", some.name)
    assert some == target("qwen3", files=("*.gguf",))
    others = {target("qwen3", files=("*.json",)).name, target("qwen3", exclude=("*.gguf",)).name, some.name, "qwen3"}
    assert len(others) == 4
    assert target("qwen3:Q8_0", files=("*",)).name.startswith("qwen3--q8_0--sel-")


def test_the_plain_model_is_what_the_catalog_says() -> None:
    plain = target("qwen3").selection
    assert (plain.repo, plain.revision, plain.quant) == ("bartowski/Qwen_Qwen3-0.6B-GGUF", "main", None)
    assert (plain.filename, plain.sha256, plain.exclude) == ("Qwen3-Q4_K_M.gguf", SHA, ("*.md",))
    assert target("qwen3:Q4_K_M@main").selection == plain


def test_another_quant_or_revision_lets_go_of_what_was_fixed_for_the_plain_one() -> None:
    quant = target("qwen3:Q8_0").selection
    assert (quant.quant, quant.filename, quant.sha256) == ("Q8_0", None, None)
    revision = target("qwen3@v1").selection
    assert (revision.revision, revision.filename, revision.sha256) == ("v1", "Qwen3-Q4_K_M.gguf", None)
    files = target("qwen3", files=("a", "b"), exclude=("c",)).selection
    assert (files.files, files.exclude, files.filename, files.sha256) == (("a", "b"), ("*.md", "c"), None, None)
    assert target("qwen3", exclude=("c",)).selection.filename == "Qwen3-Q4_K_M.gguf"


def test_another_quant_lets_go_of_the_files_that_the_catalog_selects_as_well() -> None:
    known = parse_catalog(b'[{"id": "x", "repo": "org/x", "files": ["*.gguf"], "exclude": ["*.md"]}]')
    selection = target("x:Q8_0", catalog=known).selection
    assert (selection.quant, selection.files, selection.exclude) == ("Q8_0", (), ("*.md",))


def test_a_snapshot_of_all_files_keeps_the_hashes_that_bind() -> None:
    everything = target("qwen3", snapshot="all", exclude=("*.bin",))
    assert re.fullmatch(r"qwen3--all--sel-[0-9a-f]{8}", everything.name)
    selection = everything.selection
    assert (selection.snapshot, selection.filename, selection.sha256) == ("all", "Qwen3-Q4_K_M.gguf", SHA)
    assert selection.exclude == ("*.md", "*.bin")
    assert everything != target("qwen3", exclude=("*.bin",))


def test_a_record_says_of_a_snapshot_only_where_it_is_of_all_files() -> None:
    assert "snapshot" not in target("qwen3").selection.to_json()  # records of 0.1.0 stay valid
    assert target("qwen3", snapshot="all").selection.to_json()["snapshot"] == "all"
    assert target("qwen3").selection.to_json()["repo"] == "bartowski/Qwen_Qwen3-0.6B-GGUF"


def test_a_target_knows_what_the_plain_reference_selects_and_how_to_spell_it() -> None:
    some = target("qwen3:Q8_0@v1", files=("*.gguf",))
    assert some.plain == target("qwen3@v1").selection
    assert (some.paste(), some.paste("Q2_K")) == ("qwen3@v1", "qwen3:Q2_K@v1")
    assert target("qwen3", revision="v1").paste() == "qwen3@v1"
    assert some.model == "qwen3:Q8_0@v1"


def test_a_pinned_revision_holds_for_artifacts_of_the_repository_and_not_for_others() -> None:
    own, other = target("parts@v3").selection.artifacts
    assert (own.revision, own.sha256) == (None, None)
    assert (other.repo, other.sha256) == ("other/mm", SHA)
    assert target("parts").selection.artifacts[0].revision == COMMIT


def test_one_model_in_two_spellings_is_one_target() -> None:
    assert target("qwen3:q8_0") == target("QWEN3:Q8_0") == target("small:Q8_0")
    assert hash(target("qwen3")) == hash(target("Small"))
    assert target("Qwen3").model == "Qwen3"


@pytest.mark.parametrize(
    ("reference", "narrowed", "code"),
    [
        ("nowhere", {"policy": "catalog"}, Code.MODEL_NOT_SUPPORTED),
        ("qwen3@a", {"revision": "b"}, Code.WANT_INVALID),
        ("qwen3", {"revision": "../x"}, Code.WANT_INVALID),
        ("qwen3", {"revision": ""}, Code.WANT_INVALID),
        ("qwen3", {"files": ("../*",)}, Code.FORBIDDEN_PATH),
        ("qwen3", {"files": ("/etc/*",)}, Code.FORBIDDEN_PATH),
        ("qwen3", {"exclude": ("a\0",)}, Code.FORBIDDEN_PATH),
        ("org/na--me", {}, Code.WANT_INVALID),
        ("qwen3:Q8_0", {"snapshot": "all"}, Code.WANT_INVALID),
        ("qwen3", {"snapshot": "all", "files": ("*.gguf",)}, Code.WANT_INVALID),
        ("hf.co/org/name/blob/main/a", {"snapshot": "all"}, Code.WANT_INVALID),
        ("https://example.com/org/name", {}, Code.WANT_INVALID),
        ("", {}, Code.WANT_INVALID),
    ],
)
def test_what_cannot_be_a_target_is_refused_before_any_network(
    reference: str, narrowed: dict[str, Any], code: Code
) -> None:
    with pytest.raises(WantdError) as caught:
        target(reference, **narrowed)
    assert caught.value.code is code


@settings(max_examples=200)
@given(
    st.text(alphabet="qwen3/:@.-_QZ\0é", max_size=40) | st.sampled_from(["qwen3", "pinned", "parts", "Org/Name"]),
    st.none() | st.text(max_size=12),
    st.lists(st.text(max_size=8), max_size=2).map(tuple),
    st.lists(st.text(max_size=8), max_size=2).map(tuple),
)
def test_every_want_has_a_target_inside_the_store_or_an_error(
    reference: str, revision: str | None, files: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    try:
        made = target(reference, revision=revision, files=files, exclude=exclude)
    except WantdError:
        return
    assert re.fullmatch(r"[a-z0-9\-_.@/]+", made.name)
    assert all(part and not part.startswith(".") and len(part) <= 255 for part in made.name.split("/"))
    assert (
        made.selection.to_json()
        == target(reference, revision=revision, files=files, exclude=exclude).selection.to_json()
    )


def test_a_directory_name_that_no_file_system_takes_is_refused() -> None:
    with pytest.raises(WantdError) as caught:
        target("o/" + "n" * 96 + ":" + "q" * 64 + "@" + "r" * 199)
    assert caught.value.code is Code.FORBIDDEN_PATH


NESTED = parse_catalog(json.dumps([{"id": "qwen3", "repo": "a/b"}, {"id": "team/x/y", "repo": "c/d"}]).encode())


@pytest.mark.parametrize(
    ("reference", "directory"),
    [
        ("qwen3", "qwen3"),
        ("a/b", "qwen3"),
        ("qwen3/model.gguf", "@/qwen3/model.gguf"),
        ("Qwen3/Vae:Q8_0", "@/qwen3/vae--q8_0"),
        (f"qwen3/vae@{COMMIT}", "@/qwen3/vae@1a2b3c4d5e6f"),
        ("team", "@/team"),
        ("team/x", "@/team/x"),
        ("team/other", "team/other"),
        ("qwen31/vae", "qwen31/vae"),
        ("other/qwen3", "other/qwen3"),
    ],
)
def test_no_repository_gets_a_directory_within_or_around_one_of_the_catalog(reference: str, directory: str) -> None:
    found = target(reference, catalog=NESTED)
    assert found.name == directory
    assert not found.id.startswith("@"), "a load balancer knows it by its own name"
