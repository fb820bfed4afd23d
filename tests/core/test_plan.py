"""Which files a model is: the rules of SPEC section 4, each with the case that it is for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.catalog import Artifact
from agent.core.misses import CHOICES_SHOWN
from agent.core.names import RepoId, SafeName, StoreName
from agent.core.plan import Plan, make_plan, needed_listings, weight_index
from agent.core.remote import Listing, RemoteFile
from agent.core.target import Selection, Target
from agent.errors import Code, WantdError

REPO = RepoId("org/name")
COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"
SHA, OTHER_SHA = "ab" * 32, "cd" * 32


def listing(*names: str, repo: str = REPO, hashes: dict[str, str] | None = None) -> Listing:
    """A repository with files of 100 bytes each."""
    files = tuple(RemoteFile(SafeName(name), 100, (hashes or {}).get(name)) for name in names)
    return Listing("hub", RepoId(repo), COMMIT, files)


def asked(selection: Selection) -> Target:
    return Target(name=StoreName("x"), selection=selection, model="x", id=StoreName("x"))


def plan(there: Listing, index: object = None, formats: tuple[str, ...] = (), **selected: Any) -> Plan:
    """The plan for a selection out of what is there; `index` is the content of the safetensors index."""
    target = asked(Selection(REPO, **selected))
    wanted = weight_index(target.selection, there)
    data = json.dumps(index).encode() if wanted and index is not None else None
    return make_plan(target, {(REPO, target.selection.revision): there}, data, formats)


def names(made: Plan) -> list[str]:
    return [file.name for file in made.files]


def refused(there: Listing, index: object = None, formats: tuple[str, ...] = (), **selected: Any) -> WantdError:
    with pytest.raises(WantdError) as caught:
        plan(there, index, formats, **selected)
    assert not caught.value.retryable
    assert caught.value.hint
    return caught.value


# GGUF: which quant


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"], "m-Q4_K_M.gguf"),
        (["m-Q2_K.gguf", "m-Q8_0.gguf"], "m-Q8_0.gguf"),
        (["m-IQ2_XS.gguf"], "m-IQ2_XS.gguf"),
        (["m.gguf"], "m.gguf"),
        (["m.q4_k_m.gguf", "m.q8_0.gguf"], "m.q4_k_m.gguf"),
        (["Q4_K_M/m.gguf", "Q2_K/m.gguf"], "Q4_K_M/m.gguf"),
        (["README.md", "config.json", "m-F16.gguf"], "m-F16.gguf"),
    ],
)
def test_with_no_quant_asked_it_is_q4_k_m_then_q8_0_then_the_only_one(there: list[str], chosen: str) -> None:
    made = plan(listing(*there))
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
    there = listing("m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-IQ2_XS.gguf", "m.BF16.gguf", "m-Q2_K_L.gguf")
    assert names(plan(there, quant=quant)) == [chosen]


def test_more_than_one_answer_is_an_error_that_lists_the_choices() -> None:
    error = refused(listing("m-Q2_K.gguf", "m-Q3_K.gguf", "m-Q5_K.gguf"))
    assert error.code is Code.AMBIGUOUS_FILE
    assert all(name in error.hint for name in ("m-Q2_K.gguf", "m-Q3_K.gguf", "m-Q5_K.gguf", ":QUANT"))
    error = refused(listing("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "a-Q8_0.gguf"))
    assert error.code is Code.AMBIGUOUS_FILE and "2 files are Q4_K_M" in error.message
    error = refused(listing("m-Q4_K_S.gguf", "m-Q4_K_M.gguf"), quant="Q4_K")
    assert error.code is Code.AMBIGUOUS_FILE


def test_a_long_list_of_choices_is_cut() -> None:
    error = refused(listing(*(f"m{n}-Q2_K.gguf" for n in range(40))))
    assert error.hint.count(".gguf") == CHOICES_SHOWN and "and 28 more" in error.hint


def test_a_quant_that_is_not_there_is_told_with_those_that_are() -> None:
    error = refused(listing("m-Q2_K.gguf", "m-Q8_0.gguf"), quant="Q4_K_M")
    assert error.code is Code.FILE_NOT_FOUND
    assert "'Q4_K_M'" in error.message and "m-Q2_K.gguf, m-Q8_0.gguf" in error.hint


def test_what_is_no_weight_is_never_taken_for_one() -> None:
    there = listing(
        "imatrix.gguf", "m-imatrix-Q4_K_M.gguf", "mtp-m-Q4_K_M.gguf", "eagle3-m.gguf", "x/dflash-m.gguf", "m-Q2_K.gguf"
    )
    assert names(plan(there)) == ["m-Q2_K.gguf"]


def test_an_empty_repository_has_no_model() -> None:
    assert refused(listing("README.md")).code is Code.FILE_NOT_FOUND
    assert refused(listing(), quant="Q8_0").code is Code.FILE_NOT_FOUND


# GGUF: split sets

SET = [f"m-Q4_K_M-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]


def test_a_split_set_is_fetched_whole_and_opened_at_its_first_part() -> None:
    for made in (
        plan(listing(*SET, "m-Q8_0.gguf")),
        plan(listing(*SET), quant="q4_k_m"),
        plan(listing(*SET[::-1]), filename=SafeName(SET[0])),
        plan(listing(*SET), filename=SafeName(SET[1])),
        plan(listing(*SET), files=(SET[0],)),
    ):
        assert sorted(names(made)) == SET
        assert made.opens == SET[0]
        assert made.size == 300


@pytest.mark.parametrize("missing", range(3))
def test_a_split_set_that_is_not_whole_is_not_fetched_at_all(missing: int) -> None:
    there = ["README.md", *(name for at, name in enumerate(SET) if at != missing)]
    for selected in ({}, {"quant": "Q4_K_M"}, {"filename": SafeName(there[1])}, {"files": ("*.gguf",)}):
        error = refused(listing(*there), **selected)
        assert error.code is Code.FILE_NOT_FOUND
        assert SET[missing] in error.message


def test_a_set_that_claims_a_hundred_thousand_parts_is_refused_at_once() -> None:
    assert refused(listing("m-00001-of-99999.gguf")).code is Code.FILE_NOT_FOUND
    assert refused(listing("m-00001-of-00000.gguf")).code is Code.FILE_NOT_FOUND


# GGUF: the projector


@pytest.mark.parametrize(
    ("weights", "projectors", "chosen"),
    [
        ("m-Q4_K_M.gguf", ["mmproj-F16.gguf"], "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf", ["mmproj-F32.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        ("m-Q8_0.gguf", ["mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        ("m-TQ2_0.gguf", ["mmproj-F16.gguf", "mmproj-Q4_0.gguf"], "mmproj-Q4_0.gguf"),
        ("a/m-Q4_K_M.gguf", ["mmproj-Q4_0.gguf", "a/mmproj-F16.gguf"], "a/mmproj-F16.gguf"),
        ("a/b/m-Q4_K_M.gguf", ["a/mmproj-F16.gguf", "mmproj-Q4_0.gguf"], "a/mmproj-F16.gguf"),
        ("a/m-Q4_K_M.gguf", ["b/mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F32.gguf"),
        ("a/m-Q4_K_M.gguf", ["b/mmproj-F16.gguf", "ab/mmproj-F16.gguf"], None),
        ("m-Q4_K_M.gguf", ["sub/mmproj-F16.gguf"], None),
        ("m-Q4_K_M.gguf", ["m-mmproj-f16.GGUF"], "m-mmproj-f16.GGUF"),
    ],
)
def test_the_projector_is_of_the_deepest_shared_directory_then_of_the_nearest_width(
    weights: str, projectors: list[str], chosen: str | None
) -> None:
    made = plan(listing(weights, *projectors))
    assert names(made) == [weights, *([chosen] if chosen else [])]
    assert made.opens == weights
    assert names(plan(listing(weights, *projectors), filename=SafeName(weights))) == names(made)


# Safetensors

CONFIG = ["config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt"]
INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_single_safetensors_comes_with_config_and_tokenizer_and_no_second_copy() -> None:
    there = listing(
        *CONFIG, "model.safetensors", "pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors", "x/config.json"
    )
    made = plan(there)
    assert sorted(names(made)) == sorted([*CONFIG, "model.safetensors"])
    assert (made.format, made.opens) == ("safetensors", None)


def test_the_index_says_which_shards_and_all_of_them_come() -> None:
    there = listing(
        *CONFIG,
        *SHARDS,
        "model.safetensors.index.json",
        "model.safetensors",
        "extra.safetensors",
        "pytorch_model.bin.index.json",
        "original/consolidated.00.pth",
    )
    for selected in ({}, {"filename": SafeName("model.safetensors.index.json")}, {"filename": SafeName(SHARDS[1])}):
        made = plan(there, INDEX, **selected)
        assert sorted(names(made)) == sorted([*CONFIG, *SHARDS, "model.safetensors.index.json"])


def test_an_index_in_a_folder_names_shards_beside_it() -> None:
    there = listing("config.json", "t/x.safetensors.index.json", "t/x-1.safetensors")
    made = plan(there, {"weight_map": {"a": "x-1.safetensors"}}, filename=SafeName("t/x.safetensors.index.json"))
    assert sorted(names(made)) == ["config.json", "t/x-1.safetensors", "t/x.safetensors.index.json"]


def test_a_shard_that_the_index_names_and_the_repository_lacks_is_an_error() -> None:
    error = refused(listing("config.json", "model.safetensors.index.json", SHARDS[0]), INDEX)
    assert error.code is Code.FILE_NOT_FOUND and SHARDS[1] in error.message


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ([], Code.HUB_PROTOCOL),
        ({}, Code.HUB_PROTOCOL),
        ({"weight_map": {}}, Code.HUB_PROTOCOL),
        ({"weight_map": ["a"]}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": 1}}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": ["x"]}}, Code.HUB_PROTOCOL),
        ({"weight_map": {"a": "../../x.safetensors"}}, Code.FORBIDDEN_PATH),
        ({"weight_map": {"a": "/etc/passwd"}}, Code.FORBIDDEN_PATH),
        ({"weight_map": {"a": "pytorch_model.bin"}}, Code.FORBIDDEN_FORMAT),
    ],
)
def test_a_lying_index_is_refused(index: object, code: Code) -> None:
    there = listing("config.json", "model.safetensors.index.json", "model-1.safetensors", "pytorch_model.bin")
    assert refused(there, index).code is code


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 3000, b"\xff", b'{"weight_map": null}'])
def test_an_index_that_is_no_json_is_the_hubs_fault(data: bytes) -> None:
    there = listing("config.json", "model.safetensors.index.json")
    target = asked(Selection(REPO))
    with pytest.raises(WantdError) as caught:
        make_plan(target, {(REPO, "main"): there}, data)
    assert caught.value.code is Code.HUB_PROTOCOL


def test_safetensors_with_no_index_and_no_plain_name() -> None:
    assert names(plan(listing("config.json", "weights.safetensors"))) == ["weights.safetensors", "config.json"]
    error = refused(listing("config.json", "a.safetensors", "b.safetensors"))
    assert error.code is Code.AMBIGUOUS_FILE
    assert "a.safetensors, b.safetensors" in error.hint


def test_a_repository_with_both_gives_its_native_form_unless_told_otherwise() -> None:
    both = listing("config.json", "model.safetensors", "gguf/m-Q4_K_M.gguf")
    assert plan(both).format == "safetensors"
    assert names(plan(both, quant="Q4_K_M")) == ["gguf/m-Q4_K_M.gguf"]
    assert plan(both, format="gguf").format == "gguf"
    assert plan(listing("config.json", "m-Q8_0.gguf", "x/model.safetensors")).format == "gguf"
    assert plan(listing("m-Q8_0.gguf", "model.safetensors"), format="safetensors").format == "safetensors"


# What can run code


@pytest.mark.parametrize("name", ["pytorch_model.bin", "m.pt", "m.pth", "m.ckpt", "m.pkl", "M.PT", "x/m.h5", "m.nemo"])
def test_weights_that_can_run_code_are_refused(name: str) -> None:
    error = refused(listing("config.json", name))
    assert error.code is Code.FORBIDDEN_FORMAT
    assert name in error.message and "policy.formats" in error.hint
    assert refused(listing("config.json", name), files=("*",)).code is Code.FORBIDDEN_FORMAT
    assert refused(listing("config.json", name), filename=SafeName(name)).code is Code.FORBIDDEN_FORMAT


@pytest.mark.parametrize("name", ["modeling_x.py", "run.sh", "x.so", "m.llamafile", "a/b.exe"])
def test_code_itself_is_refused_wherever_it_is_named(name: str) -> None:
    assert refused(listing("m.gguf", name), files=(name,)).code is Code.FORBIDDEN_FORMAT


def test_formats_that_the_policy_names_are_let_through() -> None:
    there = listing("config.json", "pytorch_model.bin", "training_args.bin", "x.py", "optimizer.pt")
    assert names(plan(there, formats=("bin",))) == ["pytorch_model.bin", "config.json"]
    assert names(plan(there, formats=("py",), files=("*.py",))) == ["x.py"]
    assert refused(there, formats=("pt",), files=("*.bin",)).code is Code.FORBIDDEN_FORMAT
    assert names(plan(listing("config.json", "m.pt"), formats=("pt",))) == ["m.pt", "config.json"]
    assert refused(listing("a.pt", "b.pt"), formats=("pt",)).code is Code.AMBIGUOUS_FILE


def test_sharded_weights_that_the_policy_allows_come_whole_with_their_index() -> None:
    shards = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    made = plan(listing("config.json", *shards, "pytorch_model.bin.index.json"), formats=("bin",))
    assert names(made) == [*shards, "pytorch_model.bin.index.json", "config.json"]
    assert made.format == "other"


def test_safetensors_come_before_allowed_formats() -> None:
    there = listing("config.json", "model.safetensors", "pytorch_model.bin")
    assert names(plan(there, formats=("bin",))) == ["model.safetensors", "config.json"]


def test_exclude_is_a_way_past_a_refused_file() -> None:
    there = listing("a.json", "m.bin", "m.gguf")
    assert names(plan(there, files=("*",), exclude=("*.bin",))) == ["a.json", "m.gguf"]


# What the want or the catalogue says


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (("*.json",), ["config.json", "x/config.json"]),
        (("x/*",), ["x/config.json", "x/y/z.txt"]),
        (("config.json",), ["config.json", "x/config.json"]),
        (("*/config.json",), ["x/config.json"]),
        (("m-Q[48]*.gguf",), ["m-Q4.gguf", "m-Q8.gguf"]),
        (("*.txt", "m-Q4.gguf"), ["m-Q4.gguf", "x/y/z.txt"]),
    ],
)
def test_files_patterns_fit_paths_or_without_a_slash_names(patterns: tuple[str, ...], chosen: list[str]) -> None:
    there = listing("config.json", "m-Q4.gguf", "m-Q8.gguf", "x/config.json", "x/y/z.txt")
    assert names(plan(there, files=patterns)) == chosen


def test_each_pattern_must_fit_something() -> None:
    error = refused(listing("m.gguf"), files=("*.gguf", "*.josn"))
    assert error.code is Code.FILE_NOT_FOUND and "'*.josn'" in error.message


def test_exclude_takes_away_and_may_not_take_all() -> None:
    there = listing("config.json", "model.safetensors", "tokenizer.json")
    assert names(plan(there, exclude=("tok*",))) == ["model.safetensors", "config.json"]
    assert refused(there, exclude=("*",)).code is Code.FILE_NOT_FOUND
    assert names(plan(listing("m-Q4_K_M.gguf", "mmproj-F16.gguf"), exclude=("mmproj*",))) == ["m-Q4_K_M.gguf"]


def test_the_catalogues_file_is_the_one_or_it_is_told_missing() -> None:
    there = listing("m-Q2_K.gguf", "m-Q4_K_M.gguf")
    assert names(plan(there, filename=SafeName("m-Q2_K.gguf"))) == ["m-Q2_K.gguf"]
    error = refused(there, filename=SafeName("m-Q9.gguf"))
    assert error.code is Code.FILE_NOT_FOUND and "m-Q9.gguf" in error.message and "m-Q2_K.gguf" in error.hint
    assert names(plan(listing("a.onnx", "b.onnx"), filename=SafeName("a.onnx"))) == ["a.onnx"]


def test_artifacts_come_from_their_own_repositories_and_revisions() -> None:
    selection = Selection(
        REPO,
        revision="v1",
        artifacts=(
            Artifact(SafeName("m.gguf")),
            Artifact(SafeName("mm.gguf"), RepoId("other/mm")),
            Artifact(SafeName("t.json"), RepoId("other/t"), "v7"),
        ),
    )
    pairs = needed_listings(selection)
    assert pairs == [(REPO, "v1"), ("other/mm", "main"), ("other/t", "v7")]
    listings = {
        pair: listing(name, repo=pair[0]) for pair, name in zip(pairs, ["m.gguf", "mm.gguf", "t.json"], strict=True)
    }
    made = make_plan(asked(selection), listings, None)
    assert [(file.repo, file.name) for file in made.files] == [
        (REPO, "m.gguf"),
        ("other/mm", "mm.gguf"),
        ("other/t", "t.json"),
    ]


def test_an_artifact_that_is_not_there_is_told() -> None:
    error = refused(listing("m.gguf"), artifacts=(Artifact(SafeName("n.gguf")),))
    assert error.code is Code.FILE_NOT_FOUND and "n.gguf" in error.message


def test_an_artifact_of_a_split_set_brings_the_set() -> None:
    assert names(plan(listing(*SET), artifacts=(Artifact(SafeName(SET[0])),))) == SET


def test_two_artifacts_of_one_name_from_two_places_are_refused() -> None:
    selection = Selection(
        REPO, artifacts=(Artifact(SafeName("m.gguf")), Artifact(SafeName("m.gguf"), RepoId("evil/x")))
    )
    listings = {(REPO, "main"): listing("m.gguf"), (RepoId("evil/x"), "main"): listing("m.gguf", repo="evil/x")}
    with pytest.raises(WantdError) as caught:
        make_plan(asked(selection), listings, None)
    assert caught.value.code is Code.FORBIDDEN_PATH


def test_names_that_collide_are_refused() -> None:
    error = refused(listing("a.json", "A.json"), files=("*",))
    assert error.code is Code.FORBIDDEN_PATH


# Hashes


def test_the_catalogues_hash_is_binding() -> None:
    chosen = plan(listing("m.gguf"), filename=SafeName("m.gguf"), sha256=SHA).files[0]
    assert chosen.sha256 == SHA
    same = listing("m.gguf", hashes={"m.gguf": SHA})
    assert plan(same, sha256=SHA).files[0].sha256 == SHA
    error = refused(listing("m.gguf", hashes={"m.gguf": OTHER_SHA}), filename=SafeName("m.gguf"), sha256=SHA)
    assert error.code is Code.CHECKSUM_MISMATCH
    assert SHA in error.message and OTHER_SHA in error.message


def test_the_hash_binds_the_recommended_file_and_no_other() -> None:
    made = plan(listing("m-Q4_K_M.gguf", "mmproj-F16.gguf"), filename=SafeName("m-Q4_K_M.gguf"), sha256=SHA)
    assert [file.sha256 for file in made.files] == [SHA, None]


def test_each_artifacts_hash_is_binding_also_when_a_set_names_every_part() -> None:
    artifacts = tuple(Artifact(SafeName(name), sha256=f"{at:064x}") for at, name in enumerate(SET))
    made = plan(listing(*SET), artifacts=artifacts)
    assert {file.name: file.sha256 for file in made.files} == {name: f"{at:064x}" for at, name in enumerate(SET)}
    error = refused(
        listing("m.gguf", hashes={"m.gguf": OTHER_SHA}), artifacts=(Artifact(SafeName("m.gguf"), sha256=SHA),)
    )
    assert error.code is Code.CHECKSUM_MISMATCH


def test_unknown_sizes_add_nothing() -> None:
    there = listing("m.gguf")
    unknown = replace(there, files=(replace(there.files[0], size=None),))
    assert plan(unknown).size == 0


PARTS = st.sampled_from(
    ["m", "Q4_K_M", "q8_0", "-", ".", "/", "mmproj", "-00001-of-00002", ".gguf", ".safetensors", ".bin", "config.json"]
)
REPOSITORIES = st.lists(
    st.lists(PARTS, min_size=1, max_size=5)
    .map("".join)
    .filter(lambda name: all(part not in ("", ".", "..") for part in name.split("/"))),
    max_size=6,
    unique_by=str.lower,
)


@settings(max_examples=200)
@given(
    REPOSITORIES,
    st.fixed_dictionaries(
        {},
        optional={
            "quant": st.sampled_from(["Q4_K_M", "(", "Q8_0"]),
            "files": st.lists(PARTS, max_size=2).map(tuple),
            "exclude": st.lists(PARTS, max_size=2).map(tuple),
            "sha256": st.just(SHA),
        },
    ),
    st.lists(st.sampled_from(["bin", "pt"])).map(tuple),
)
def test_every_repository_gives_a_plan_out_of_its_own_files_or_a_clear_error(
    there: list[str], selected: dict[str, Any], formats: tuple[str, ...]
) -> None:
    try:
        made = plan(listing(*there), {"weight_map": {"a": "m.safetensors"}}, formats, **selected)
    except WantdError as error:
        assert error.code in {
            Code.FILE_NOT_FOUND,
            Code.AMBIGUOUS_FILE,
            Code.FORBIDDEN_FORMAT,
            Code.FORBIDDEN_PATH,
            Code.HUB_PROTOCOL,
        }
        return
    assert made.files and set(names(made)) <= set(there)
    assert len(set(names(made))) == len(made.files)
    assert "bin" in formats or not any(name.endswith(".bin") for name in names(made))
    assert made.opens is None or made.opens in names(made)
