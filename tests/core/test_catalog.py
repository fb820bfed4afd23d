"""`supported_models.json`: both published forms are read, and one bad entry never takes the others with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.catalog import Artifact, Catalog, Entry, allowed, parse_catalog, resolve_reference
from agent.core.names import Reference, RepoId, SafeName, store_name
from agent.errors import Code, WantdError

SHA = "ab" * 32
QWEN = {"id": "qwen3", "repo": "bartowski/Qwen_Qwen3-0.6B-GGUF", "recommended_filename": "Qwen3-Q4_K_M.gguf"}


def catalog(*items: Any) -> Catalog:
    return parse_catalog(json.dumps(items).encode())


def only(**item: Any) -> Entry:
    """The one entry of a catalog with nothing wrong in it."""
    found = catalog({"id": "x", "repo": "org/name", **item})
    assert found.problems == []
    return found.entries["x"]


def problem(**item: Any) -> str:
    """What is reported for a bad entry; the good one beside it stays."""
    found = catalog(QWEN, {"id": "x", "repo": "org/name", **item})
    assert list(found.entries) == ["qwen3"]
    assert len(found.problems) == 1
    assert "entry 1" in found.problems[0]
    return found.problems[0]


def test_the_bare_list_of_llmlb_is_read() -> None:
    found = catalog(
        {
            **QWEN,
            "name": "Qwen3 0.6B",
            "description": "small",
            "size_bytes": 484220320,
            "required_memory_bytes": 726330480,
            "tags": ["gguf"],
            "capabilities": ["TextGeneration"],
            "quantization": "Q4_K_M",
            "parameter_count": "0.6B",
            "format": "GGUF",
            "engine": "llama_cpp",
            "platforms": [],
            "artifacts": [],
        }
    )
    assert found.problems == []
    assert found.entries["qwen3"] == Entry(
        id="qwen3",
        repo=RepoId("bartowski/Qwen_Qwen3-0.6B-GGUF"),
        filename=SafeName("Qwen3-Q4_K_M.gguf"),
        format="gguf",
        quantization="Q4_K_M",
        size_bytes=484220320,
        description="Qwen3 0.6B",
    )


def test_sizes_are_whole_numbers_of_bytes_that_a_disk_may_have() -> None:
    sizes = {0: 0, 7.5: 7, 2**60 - 2**10: 2**60 - 2**10, 2**60: None, -1: None}
    assert {size: only(size_bytes=size).size_bytes for size in sizes} == sizes


def test_a_part_of_an_id_is_near_it_also_where_it_is_a_small_part() -> None:
    known = catalog({"id": "a-small-model-of-many-languages-phi", "repo": "o/p"}, {"id": "z", "repo": "o/z"})
    assert known.near("phi") == ["a-small-model-of-many-languages-phi"]
    assert known.near("xyz") == ["z"]


def test_the_models_object_of_nodes_is_read() -> None:
    item = {
        "id": "org/x",
        "name": "X",
        "source": "hf_gguf",
        "repo_id": "org/x",
        "artifacts": [{"filename": "a.gguf", "size_bytes": 7, "sha256": SHA.upper()}, {"filename": "b.json"}],
        "status": "unknown keys of published catalogs are not ours to judge",
    }
    found = parse_catalog(json.dumps({"models": [item]}).encode())
    assert found.problems == []
    assert found.entries["org/x"].artifacts == (
        Artifact(SafeName("a.gguf"), sha256=SHA),
        Artifact(SafeName("b.json")),
    )


def test_what_wantd_adds_is_read() -> None:
    entry = only(revision="v1", sha256=SHA, files=["*.gguf"], exclude=["*.md"], aliases=["y"])
    assert (entry.revision, entry.sha256, entry.files, entry.exclude, entry.aliases) == (
        "v1",
        SHA,
        ("*.gguf",),
        ("*.md",),
        ("y",),
    )


@pytest.mark.parametrize(
    ("artifact", "expected"),
    [
        ({"name": "model.gguf", "path": "Q4/x.gguf"}, Artifact(SafeName("Q4/x.gguf"))),
        ({"name": "x.gguf"}, Artifact(SafeName("x.gguf"))),
        ({"filename": "x.gguf", "repo": "org/name"}, Artifact(SafeName("x.gguf"))),
        ({"path": "x.gguf", "repo": "other/repo"}, Artifact(SafeName("x.gguf"), RepoId("other/repo"))),
        (
            {"url": "https://huggingface.co/other/repo/resolve/main/Q4/x%20y.gguf?download=true"},
            Artifact(SafeName("Q4/x y.gguf"), RepoId("other/repo"), "main"),
        ),
        (
            {"url": "https://mirror.example/org/name/resolve/refs%2Fpr%2F1/x.gguf"},
            Artifact(SafeName("x.gguf"), None, "refs/pr/1"),
        ),
        ({"name": "x", "url": None, "path": None}, Artifact(SafeName("x"))),
        ({"name": "x", "priority": 10, "runtimes": ["llama_cpp"]}, Artifact(SafeName("x"))),
        ({"name": "x", "a key of a later form": 1}, Artifact(SafeName("x"))),
    ],
)
def test_each_form_of_an_artifact(artifact: dict[str, Any], expected: Artifact) -> None:
    assert only(artifacts=[artifact]).artifacts == (expected,)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"id": ""}, "length >= 1"),
        ({"id": "x" * 201}, "length <= 200"),
        ({"id": 7}, "id"),
        ({"id": "../x"}, "refused"),
        ({"id": "/etc"}, "refused"),
        ({"id": ".locks"}, "refused"),
        ({"id": "a//b"}, "refused"),
        ({"repo": None}, "names no repo"),
        ({"repo": "../../etc"}, "Hub allows"),
        ({"repo": "a/b/c"}, "Hub allows"),
        ({"repo": "https://evil.example/a"}, "Hub allows"),
        ({"recommended_filename": "../../x.gguf"}, "refused"),
        ({"recommended_filename": "/etc/passwd"}, "refused"),
        ({"recommended_filename": "sub/.wantd.json"}, "reserved"),
        ({"artifacts": [{"path": "a/../../b"}]}, "refused"),
        ({"artifacts": [{}]}, "names no file"),
        ({"artifacts": ["x.gguf"]}, "not an object"),
        ({"artifacts": "x.gguf"}, "artifacts"),
        ({"artifacts": [{"url": "https://evil.example/x.gguf"}]}, "resolve/REVISION"),
        ({"artifacts": [{"url": "file:///etc/passwd"}]}, "resolve/REVISION"),
        ({"artifacts": [{"url": "https://h/a/b/resolve/main/..%2F..%2Fx"}]}, "refused"),
        ({"artifacts": [{"url": "https://h/a/b/resolve/..%2Fmain/x"}]}, "resolve/REVISION"),
        ({"artifacts": [{"url": "https://h/a/b/c/d/resolve/main/x"}]}, "Hub allows"),
        ({"artifacts": [{"url": "http://[::1/a/b/resolve/main/x"}]}, "entry 1"),
        ({"artifacts": [{"name": "x", "sha256": "zz"}]}, "sha256"),
        ({"sha256": SHA[:-1]}, "sha256"),
        ({"sha256": SHA + "\n"}, "sha256"),
        ({"revision": "../main"}, "not a revision"),
        ({"source": "https://evil.example"}, "not the Hub"),
        ({"files": "*.gguf"}, "files"),
        ({"aliases": [""]}, "aliases"),
        ({"tags": {}}, "tags"),
        ({"size_bytes": "big"}, "size_bytes"),
    ],
)
def test_a_bad_entry_is_reported_and_the_others_stay(bad: dict[str, Any], why: str) -> None:
    reported = problem(**bad)
    assert why in reported
    assert reported.isascii()


@pytest.mark.parametrize(
    ("told", "shown"), [(0, 0), (7.9, 7), (2**59, 2**59), (2**60, None), (1e30, None), (-1, None), (None, None)]
)
def test_a_size_is_an_estimate_and_a_silly_one_is_none(told: float | None, shown: int | None) -> None:
    assert only(size_bytes=told).size_bytes == shown


def test_a_name_describes_an_entry_before_its_description_does() -> None:
    assert only(name="X", description="small").description == "X"
    assert only(description="small").description == "small"
    assert only().description == ""


def test_an_id_has_two_hundred_characters_at_most() -> None:
    assert list(catalog({"id": "x" * 200, "repo": "org/name"}).entries) == ["x" * 200]


@pytest.mark.parametrize("item", [None, 1, "qwen", [], [["id"]]])
def test_an_entry_that_is_no_object_is_reported(item: Any) -> None:
    found = catalog(QWEN, item)
    assert list(found.entries) == ["qwen3"] and "not an object" in found.problems[0]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"7", b"null", b"{}", b'{"models": {}}', b"[1]", b"\xff", b"[" * 5000, b" " * (16 * 2**20 + 1)]
)
def test_a_catalog_that_cannot_be_used_at_all_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_catalog(data)


def test_a_catalog_has_sixteen_mebibytes_at_most() -> None:
    assert parse_catalog(b"[]".ljust(16 * 2**20)).entries == {}
    with pytest.raises(ValueError, match="more than"):
        parse_catalog(b"[]".ljust(16 * 2**20 + 1))


def test_an_empty_catalog_is_one_and_a_byte_order_mark_is_fine() -> None:
    assert parse_catalog(b"[]").entries == {}
    assert parse_catalog(b"\xef\xbb\xbf" + json.dumps([QWEN]).encode()).entries.keys() == {"qwen3"}


@pytest.mark.parametrize("other", ["qwen3", "QWEN3", "Qwen3"])
def test_two_entries_never_share_a_directory_and_the_first_one_stays(other: str) -> None:
    found = catalog(QWEN, {"id": other, "repo": "evil/repo"}, {"id": "phi4", "repo": "o/p"})
    assert list(found.entries) == ["qwen3", "phi4"]
    assert found.entries["qwen3"].repo == QWEN["repo"]
    assert "same directory" in found.problems[0]


def test_ids_that_differ_but_fold_to_one_directory_are_told_apart() -> None:
    found = catalog({"id": "a:b", "repo": "o/a"}, {"id": "a_b", "repo": "o/b"})
    assert list(found.entries) == ["a:b"] and "same directory" in found.problems[0]


def find(known: Catalog, name: str) -> str | None:
    entry = known.find(Reference(name))
    return entry.id if entry else None


def test_look_ups_take_ids_aliases_and_repositories_without_regard_to_case() -> None:
    known = catalog({**QWEN, "aliases": ["qwen3-small", "other"]}, {"id": "other", "repo": "o/other"})
    assert [find(known, name) for name in ("qwen3", "QWEN3", "Qwen3-Small")] == ["qwen3"] * 3
    assert find(known, "Bartowski/QWEN_Qwen3-0.6b-gguf") == "qwen3"
    assert find(known, "other") == "other"  # an id comes before another entry's alias
    assert find(known, "qwen") is None


def test_a_repository_of_two_entries_names_neither_but_both_are_near() -> None:
    known = catalog({"id": "small", "repo": "o/r", "files": ["a"]}, {"id": "big", "repo": "O/R", "files": ["b"]})
    assert find(known, "o/r") is None
    assert set(known.near("o/r")) >= {"small", "big"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("qwen-3", "qwen3"),
        ("qwen", "qwen3"),
        ("Quen3", "qwen3"),
        ("lama3.3", "llama3.3"),
        ("meta/llama3.3", "llama3.3"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest_ids(typed: str, meant: str) -> None:
    known = catalog(QWEN, {"id": "llama3.3", "repo": "o/l"}, {"id": "phi4", "repo": "o/p"})
    with pytest.raises(WantdError) as caught:
        resolve_reference(known, "catalog", typed)
    assert caught.value.code is Code.MODEL_NOT_SUPPORTED
    assert not caught.value.retryable
    assert f"did you mean {meant}" in caught.value.hint
    assert f'run `wantd allow {typed}`, or set allow = ["catalog", "{typed}"] under [policy]' in caught.value.hint


def test_what_a_policy_of_patterns_refuses_is_told_as_such_with_the_line_and_the_file() -> None:
    known = catalog(QWEN)
    with pytest.raises(WantdError) as caught:
        resolve_reference(known, ["org/*"], "other/qwen3", "/etc/wantd/config.toml")
    assert caught.value.message == (
        "'other/qwen3' is not in the catalog of supported models, and policy.allow does not allow it"
    )
    assert 'allow = ["org/*", "other/qwen3"] under [policy] in /etc/wantd/config.toml' in caught.value.hint
    with pytest.raises(WantdError) as caught:
        resolve_reference(known, ["org/*"], "qwen3")
    assert caught.value.message == "'qwen3' is in the catalog, and policy.allow does not allow it"
    many = [f"org{number}/*" for number in range(100)]
    with pytest.raises(WantdError) as caught:
        resolve_reference(known, many, "other/qwen3")
    assert 'add "other/qwen3" to allow' in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "known", "offered"),
    [
        ("qwen", [f"qwen{n}" for n in range(5)], 3),  # no more than three
        ("qwen", ["a-small-model-called-qwen-of-somebody"], 1),  # what was typed is within it
        ("phi4-instruct-as-somebody-called-it", ["phi4"], 1),  # it is within what was typed
        ("organization/y", ["organisation/x"], 1),  # nearly the whole
        ("some-long-organisation/lama3.3", ["llama3.3"], 1),  # nearly the last part
        ("abcdxxxx", ["abcdyyyyyy"], 0),  # less than half
    ],
)
def test_what_is_near_enough_is_offered_and_nothing_else(typed: str, known: list[str], offered: int) -> None:
    found = catalog(*({"id": name, "repo": f"o/{at}"} for at, name in enumerate(known)))
    assert len(found.near(typed)) == offered


@pytest.mark.parametrize(
    ("policy", "model", "passes"),
    [
        ("catalog", "qwen3", True),
        ("catalog", "org/name", False),
        ("any", "org/name", True),
        ("Qwen/*", "qwen/QWEN2", True),
        (["Qwen/*"], "org/name", False),
        (["Qwen/*"], "qwen3", False),
        (["bartowski/*"], "qwen3", True),
        (["catalog", "Qwen/*"], "qwen3", True),
        (["Qwen/*", "any-model"], "any-model", True),
        ([], "qwen3", False),
    ],
)
def test_the_policy_decides_by_catalog_or_by_patterns(policy: Any, model: str, passes: bool) -> None:
    known = catalog(QWEN)
    reference = Reference(model)
    assert allowed(policy, reference, known.find(reference)) is passes


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "id",
    "repo",
    "repo_id",
    "source",
    "recommended_filename",
    "artifacts",
    "revision",
    "sha256",
    "files",
    "aliases",
    "size_bytes",
    "format",
]


@settings(max_examples=120)
@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8) | VALUES, max_size=4))
def test_hostile_entries_never_hide_a_good_one(items: list[Any]) -> None:
    found = parse_catalog(json.dumps([QWEN, *items], ensure_ascii=True).encode(errors="replace"))
    assert found.entries["qwen3"].repo == QWEN["repo"]
    assert len(found.entries) + len(found.problems) == 1 + len(items)
    for entry in found.entries.values():
        store_name(entry.id)
