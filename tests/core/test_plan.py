"""A plan: the catalog's artifacts and hashes, exclusions, what has to be read first, and its cost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.catalog import Artifact
from agent.core.names import RepoId, SafeName
from agent.core.plan import Plan, Unread, make_plan, needed_listings, query
from agent.core.remote import Listing, RemoteFile
from agent.core.selection.code import CodePolicy
from agent.core.selection.tree import READ_MAX_BYTES, READ_MAX_FILES, READ_MAX_TOTAL_BYTES, Contents
from agent.core.target import Selection
from agent.errors import Code, WantdError
from tests.core.selection.build import COMMIT, REPO, asked, index, listing, names, plan, refused

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
SET = [f"m-Q4_K_M-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]


def artifact(name: str, *more: Any, **fields: Any) -> Artifact:
    return Artifact(SafeName(name), *more, **fields)


def planned(selection: Selection, listings: dict[Any, Listing]) -> Plan:
    step = make_plan(asked(selection), listings, Contents())
    assert isinstance(step, Plan)
    return step


# Artifacts


def test_artifacts_come_from_their_own_repositories_and_revisions() -> None:
    selection = Selection(
        REPO,
        revision="v1",
        artifacts=(
            artifact("m.gguf"),
            artifact("mm.gguf", RepoId("other/mm")),
            artifact("t.json", RepoId("other/t"), "v7"),
            artifact("n.gguf", None, "v2"),
        ),
    )
    pairs = needed_listings(selection)
    assert pairs == [(REPO, "v1"), ("other/mm", "main"), ("other/t", "v7"), (REPO, "v2")]
    there = ["m.gguf", "mm.gguf", "t.json", "n.gguf"]
    listings = {pair: listing(name, repo=pair[0]) for pair, name in zip(pairs, there, strict=True)}
    made = planned(selection, listings)
    assert [(file.repo, file.name) for file in made.files] == [
        (REPO, "m.gguf"),
        ("other/mm", "mm.gguf"),
        ("other/t", "t.json"),
        (REPO, "n.gguf"),
    ]
    assert needed_listings(replace(selection, snapshot="all")) == [(REPO, "v1")]


def test_an_artifact_that_is_not_there_is_told_with_what_is() -> None:
    error = refused(["m.gguf"], artifacts=(artifact("n.gguf"),))
    assert error.code is Code.FILE_NOT_FOUND
    assert error.message.endswith("the catalog names 'n.gguf', which is not there")
    assert '"snapshot": "all"' in error.hint


def test_what_the_catalog_says_for_other_repositories_is_not_offered_instead() -> None:
    there = Selection(REPO, artifacts=(artifact("m.gguf", RepoId("other/x")),))
    target = replace(asked(replace(there, artifacts=(), quant="Q4_0")), plain=there)
    with pytest.raises(WantdError) as caught:
        make_plan(target, {(REPO, "main"): listing("m-Q8_0.gguf")}, Contents())
    assert "these: org/name:Q8_0, " in caught.value.hint


def test_an_artifact_of_a_split_set_brings_the_set_once() -> None:
    for artifacts in ((artifact(SET[0]),), tuple(artifact(name) for name in SET), (artifact(SET[2]), artifact(SET[0]))):
        assert sorted(names(plan([*SET, "x.json"], artifacts=artifacts))) == SET


def test_artifacts_may_be_excluded_and_narrowed() -> None:
    artifacts = (artifact("a.gguf"), artifact("b.json"))
    assert names(plan(["a.gguf", "b.json"], artifacts=artifacts, exclude=("*.json",))) == ["a.gguf"]
    assert names(plan(["a.gguf", "b.json", "c"], artifacts=artifacts, files=("c",))) == ["c"]
    error = refused(["a.gguf", "b.json"], artifacts=artifacts, exclude=("*",))
    assert error.message.endswith("nothing is left after 'exclude'")
    assert refused(["a.bin"], artifacts=(artifact("a.bin"),)).code is Code.FORBIDDEN_FORMAT


def test_two_artifacts_of_one_name_from_two_places_are_refused() -> None:
    selection = Selection(REPO, artifacts=(artifact("m.gguf"), artifact("m.gguf", RepoId("evil/x"))))
    listings = {(REPO, "main"): listing("m.gguf"), (RepoId("evil/x"), "main"): listing("m.gguf", repo="evil/x")}
    with pytest.raises(WantdError) as caught:
        make_plan(asked(selection), listings, Contents())
    assert caught.value.code is Code.FORBIDDEN_PATH


def test_names_that_collide_are_refused() -> None:
    assert refused(["a.json", "A.json"], files=("*",)).code is Code.FORBIDDEN_PATH


def test_sources_are_asked_with_the_names_that_a_balancer_needs() -> None:
    other = RepoId("other/x")
    selection = Selection(REPO, "v1", filename=SafeName("m.gguf"), quant="Q8_0", sha256=SHA)
    target = asked(selection)
    asking = query(target, REPO, "v1")
    assert (asking.repo, asking.revision, asking.model) == (REPO, "v1", "org/name")
    assert (asking.names, asking.quant, asking.bound) == (("m.gguf",), "Q8_0", True)
    assert query(target, other, "v1").names == () and not query(target, other, "v1").bound
    assert not query(asked(Selection(REPO)), REPO, "v1").bound
    parts = asked(Selection(REPO, artifacts=(artifact("a"), artifact("b", other, sha256=SHA))))
    assert query(parts, REPO, "main").names == ("a",) and query(parts, other, "main").names == ("b",)
    assert query(parts, REPO, "main").bound


# Exclusions


def test_what_is_excluded_is_not_there_to_be_chosen() -> None:
    config = {"config.json": {}}
    assert names(plan(["config.json", "a.safetensors", "b.safetensors"], config, exclude=("b*",)))[0] == "a.safetensors"
    assert names(plan(["m-Q4_K_M.gguf", "m-Q8_0.gguf"], exclude=("*Q4*",))) == ["m-Q8_0.gguf"]
    assert names(plan(["m-Q4_K_M.gguf", "mmproj-F16.gguf"], exclude=("mmproj*",))) == ["m-Q4_K_M.gguf"]
    there = ["config.json", "model.safetensors", "tokenizer.json"]
    assert names(plan(there, config, exclude=("tok*",))) == ["model.safetensors", "config.json"]


def test_weights_may_be_excluded_for_the_rest_of_a_model() -> None:
    there = ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "x.py", "y.py"]
    made = plan(there, {"config.json": {}, "tokenizer_config.json": {}}, exclude=("*.safetensors", "x*"))
    assert names(made) == ["config.json", "tokenizer.json"]
    assert made.skipped == ("y.py",)
    assert made.format == "other"


def test_not_everything_may_be_excluded() -> None:
    error = refused(["config.json", "model.safetensors"], {"config.json": {}}, exclude=("*",))
    assert error.code is Code.FILE_NOT_FOUND and error.message.endswith("nothing is left after 'exclude'")
    assert error.hint.endswith('ask for one of these: org/name, {"model": "org/name", "snapshot": "all"}')
    error = refused(["README.md", "x.bin"], exclude=("x*",))
    assert error.message.endswith("it has neither GGUF nor safetensors files")


# Hashes


def test_the_catalogs_hash_is_binding() -> None:
    chosen = plan(["m.gguf"], filename=SafeName("m.gguf"), sha256=SHA).files[0]
    assert chosen.sha256 == SHA
    same = listing("m.gguf", hashes={"m.gguf": SHA})
    assert plan(same, sha256=SHA).files[0].sha256 == SHA
    error = refused(listing("m.gguf", hashes={"m.gguf": OTHER_SHA}), filename=SafeName("m.gguf"), sha256=SHA)
    assert error.code is Code.CHECKSUM_MISMATCH
    assert SHA in error.message and OTHER_SHA in error.message and error.file == "m.gguf"


def test_the_hash_binds_the_recommended_file_or_the_only_one_and_no_other() -> None:
    there = ["m-Q4_K_M.gguf", "mmproj-F16.gguf"]
    made = plan(there, filename=SafeName("m-Q4_K_M.gguf"), sha256=SHA)
    assert [file.sha256 for file in made.files] == [SHA, None]
    assert [file.sha256 for file in plan(there, sha256=SHA).files] == [None, None]
    assert [file.sha256 for file in plan(["m.gguf"], sha256=SHA).files] == [SHA]


def test_each_artifacts_hash_is_binding_also_when_a_set_names_every_part() -> None:
    artifacts = tuple(artifact(name, sha256=f"{at:064x}") for at, name in enumerate(SET))
    made = plan(SET, artifacts=artifacts)
    assert {file.name: file.sha256 for file in made.files} == {name: f"{at:064x}" for at, name in enumerate(SET)}
    there = listing("m.gguf", hashes={"m.gguf": OTHER_SHA})
    assert refused(there, artifacts=(artifact("m.gguf", sha256=SHA),)).code is Code.CHECKSUM_MISMATCH


def test_a_snapshot_of_all_files_is_bound_by_what_the_catalog_knows_of_that_revision() -> None:
    artifacts = (
        artifact("a", sha256=SHA),
        artifact("b", None, "v2", sha256=SHA),
        artifact("c", RepoId("other/x"), sha256=SHA),
        artifact("d"),
        artifact("e", None, "main", sha256=SHA),
    )
    made = plan(["a", "b", "c", "d", "e", "f"], artifacts=artifacts, snapshot="all")
    assert {file.name for file in made.files if file.sha256 == SHA} == {"a", "e"}
    made = plan(["a", "f"], filename=SafeName("f"), sha256=SHA, snapshot="all")
    assert [file.sha256 for file in made.files] == [None, SHA]


def test_a_file_comes_with_the_size_and_hash_that_its_source_lists() -> None:
    file = RemoteFile(SafeName("m.gguf"), 7, None, "c" * 40)
    made = plan(Listing("hub", REPO, COMMIT, (file,))).files[0]
    assert (made.repo, made.commit, made.size, made.sha256, made.git_sha1) == (REPO, COMMIT, 7, None, "c" * 40)
    assert plan(listing("m.gguf", size=None)).size == 0
    assert plan(["m-Q4_K_M.gguf", "README.md"]).size == 200


def test_a_gguf_is_what_opens_unless_safetensors_are_there_as_well() -> None:
    assert plan(["b.gguf", "a.gguf", "c.json"], files=("*",)).opens == "a.gguf"
    made = plan(["b.gguf", "m.safetensors"], files=("*",))
    assert (made.opens, made.format) == (None, "safetensors")
    made = plan(["b.json"], files=("*",))
    assert (made.opens, made.format) == (None, "other")


# Reading before the plan


def test_what_has_to_be_read_is_asked_for_in_as_few_steps_as_there_can_be() -> None:
    there = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00001.safetensors",
        "tokenizer_config.json",
        "a.py",
    ]
    contents, listings = Contents(), {(REPO, "main"): listing(*there)}
    step = make_plan(asked(Selection(REPO)), listings, contents)
    assert isinstance(step, Unread)
    assert {file.name for file in step.files} == {there[1], "config.json", "tokenizer_config.json"}
    for name, value in (("config.json", {}), ("tokenizer_config.json", {}), (there[1], index(there[2]))):
        contents.add(name, json.dumps(value).encode())
    assert isinstance(make_plan(asked(Selection(REPO)), listings, contents), Plan)


@pytest.mark.parametrize(
    "selected",
    [
        {"files": ("*.json",)},
        {"snapshot": "all"},
        {"filename": SafeName("x.gguf")},
        {"quant": "Q4_0"},
        {"format": "gguf"},
    ],
)
def test_nothing_is_read_where_the_names_are_enough(selected: dict[str, Any]) -> None:
    there = listing(
        "config.json", "model.safetensors", "modules.json", "model_index.json", "x.gguf", "y-Q4_0.gguf", "z-Q4_K_M.gguf"
    )
    assert isinstance(make_plan(asked(Selection(REPO, **selected)), {(REPO, "main"): there}, Contents()), Plan)


def to_read(sizes: dict[str, int | None], contents: Contents | None = None) -> Unread | str:
    """What is to be read of a pipeline's components, each with an index of that size, or the error's message."""
    files = [RemoteFile(SafeName("model_index.json"), 1)]
    for component, size in sizes.items():
        files += [
            RemoteFile(SafeName(f"{component}/model.safetensors.index.json"), size),
            RemoteFile(SafeName(f"{component}/model-00001-of-00001.safetensors"), 1),
        ]
    contents = contents or Contents()
    contents.add("model_index.json", json.dumps({name: ["transformers", "X"] for name in sizes}).encode())
    try:
        step = make_plan(asked(Selection(REPO)), {(REPO, "main"): Listing("hub", REPO, COMMIT, tuple(files))}, contents)
    except WantdError as error:
        assert error.code is Code.HUB_PROTOCOL and error.file
        return error.message
    assert isinstance(step, Unread)
    return step


def test_an_index_of_a_size_that_none_has_is_not_read() -> None:
    assert isinstance(to_read({"a": READ_MAX_BYTES}), Unread)
    assert isinstance(to_read({"a": None}), Unread)
    assert "more than an index or a configuration ever has" in str(to_read({"a": READ_MAX_BYTES + 1}))


def test_no_more_is_read_than_a_plan_may_cost() -> None:
    assert isinstance(to_read({f"c{at}": 1 for at in range(READ_MAX_FILES - 1)}), Unread)
    assert f"one of more than {READ_MAX_FILES} files" in str(to_read({f"c{at}": 1 for at in range(READ_MAX_FILES)}))
    half, read = READ_MAX_TOTAL_BYTES // 2, Contents()
    own = len(json.dumps({name: ["transformers", "X"] for name in "ab"}))
    assert isinstance(to_read({"a": half, "b": half - own}), Unread)
    assert f"one of {2 * half + 1} bytes" in str(to_read({"a": half, "b": half - own + 1}))
    shards = json.dumps(index("model-00001-of-00001.safetensors")).encode()
    read.add("b/model.safetensors.index.json", shards.ljust(half))
    assert f"one of {2 * half + 1} bytes" in str(to_read({"a": half - own + 1, "b": half}, read))


# Cost


@pytest.mark.timeout(30)  # a second; where each pattern is held against each name it takes more than this
@pytest.mark.parametrize(
    "patterns",
    [
        [f"*-{at:04d}?-of-*.safetensors" for at in range(200)],
        [f"part-{at:03d}/*" for at in range(200)],
        [f"model-{at:05d}-of-50000.safetensors" for at in range(200)],
        [f"*.safetensors{'*' * at}" for at in range(200)],
    ],
    ids=["middle", "folder", "literal", "all"],
)
def test_50_000_files_and_400_patterns_do_not_cost_what_every_pair_of_them_would(patterns: list[str]) -> None:
    many = listing(*(f"part-{at // 250:03d}/model-{at:05d}-of-50000.safetensors" for at in range(50_000)))
    selection = Selection(REPO, files=tuple(patterns), exclude=tuple(f"nothing-{at}*" for at in range(200)))
    assert isinstance(make_plan(asked(selection), {(REPO, "main"): many}, Contents()), Plan)


REPOSITORIES = st.lists(
    st.lists(
        st.sampled_from(
            ["m", "Q4_K_M", "q8_0", "-", ".", "/", "mmproj", "-00001-of-00002", ".gguf", ".safetensors", ".bin",
             "config.json",
             "model", "modules.json", "model_index.json", "model.safetensors.index.json", "adapter_config.json", ".py"]
        ),
        min_size=1,
        max_size=5,
    )
    .map("".join)
    .filter(lambda name: all(part not in ("", ".", "..") for part in name.split("/"))),
    max_size=6,
    unique_by=str.lower,
)  # fmt: skip
CONTENT = st.sampled_from(
    [None, [], {}, {"weight_map": {"a": "m.safetensors"}}, {"m": ["diffusers", "M"]}, {"auto_map": {"a": "b.C"}},
     [{"path": "", "type": "sentence_transformers.models.Transformer"}], [{"path": "m", "type": "x.Router"}]]
)  # fmt: skip


@given(
    REPOSITORIES,
    st.fixed_dictionaries(
        {},
        optional={
            "quant": st.sampled_from(["Q4_K_M", "(", "Q8_0"]),
            "files": st.lists(st.sampled_from(["*", "m*", "*.bin", "config.json", "["]), max_size=2).map(tuple),
            "exclude": st.lists(st.sampled_from(["*.bin", "m", "*.json", "*"]), max_size=2).map(tuple),
            "sha256": st.just(SHA),
            "snapshot": st.just("all"),
        },
    ),
    st.sets(st.sampled_from(["bin", "py"])),
    st.lists(CONTENT, min_size=8, max_size=8),
)
def test_every_repository_gives_a_plan_out_of_its_own_files_or_a_clear_error(
    there: list[str], selected: dict[str, Any], formats: set[str], values: list[object]
) -> None:
    contents = {name: values[at % len(values)] for at, name in enumerate(there)}
    try:
        made = plan(listing(*there), contents, tuple(formats), **selected)
    except WantdError as error:
        assert error.code in {
            Code.FILE_NOT_FOUND,
            Code.AMBIGUOUS_FILE,
            Code.FORBIDDEN_FORMAT,
            Code.FORBIDDEN_PATH,
            Code.HUB_PROTOCOL,
        }
        return
    assert made.files and set(names(made)) | set(made.skipped) <= set(there)
    assert len(set(names(made)) | set(made.skipped)) == len(made.files) + len(made.skipped)
    for ending in {"bin", "py"} - formats:
        assert not any(name.endswith(f".{ending}") for name in names(made))
    assert made.opens is None or made.opens in names(made)


def test_the_policy_lets_no_code_through_unless_it_is_asked_to() -> None:
    assert CodePolicy() == CodePolicy(frozenset(), "warn")


# What a want binds


def test_what_a_want_binds_must_be_there_and_is_what_is_verified() -> None:
    selection = Selection(REPO, hashes=(("m-Q4_K_M.gguf", SHA),))
    there = Listing("hub", REPO, COMMIT, (RemoteFile(SafeName("m-Q4_K_M.gguf"), 7),))
    assert planned(selection, {(REPO, "main"): there}).files[0].sha256 == SHA
    other = Listing("hub", REPO, COMMIT, (RemoteFile(SafeName("m-Q4_K_M.gguf"), 7, OTHER_SHA),))
    with pytest.raises(WantdError) as caught:
        planned(selection, {(REPO, "main"): other})
    assert caught.value.code is Code.CHECKSUM_MISMATCH
    assert SHA in caught.value.message
    assert OTHER_SHA in caught.value.message
    with pytest.raises(WantdError) as caught:
        planned(replace(selection, hashes=(("n.gguf", SHA),)), {(REPO, "main"): there})
    assert caught.value.code is Code.FILE_NOT_FOUND
