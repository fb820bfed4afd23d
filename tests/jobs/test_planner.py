"""Plans: made from what a source lists and the policy in force; what cannot be verified is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from agent.config import Policy
from agent.core.catalog import Artifact
from agent.core.names import RepoId, SafeName
from agent.core.plan import Plan
from agent.core.remote import RemoteFile
from agent.core.selection.tree import READ_MAX_BYTES
from agent.core.states import State
from agent.errors import Code, WantdError
from agent.jobs.planner import Planner
from agent.jobs.run import Run
from agent.state.job import Job
from tests.fakes import COMMIT, error
from tests.jobs.workshop import SAFETENSORS, Workshop
from tests.store.builders import sha256

INDEX = "model.safetensors.index.json"
DECIDING = ["config.json", INDEX]  # what says which files there are, and whether code of the repository is needed
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SHARDED = {
    "config.json": b"{}",
    INDEX: orjson.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}),
    SHARDS[0]: b"one",
    SHARDS[1]: b"two",
}


async def plan(shop: Workshop, job: Job) -> Plan:
    job.resolve()
    return await Planner(shop.source, shop.files, lambda: shop.policy).plan(Run(job))


async def refused(shop: Workshop, job: Job) -> WantdError:
    with pytest.raises(WantdError) as caught:
        await plan(shop, job)
    return caught.value


async def test_a_plan_has_the_files_at_the_commit_and_the_job_says_who_listed_them(shop: Workshop) -> None:
    job = shop.job()
    made = await plan(shop, job)
    assert [file.name for file in made.files] == ["m-Q4_K_M.gguf"]
    assert (made.commit, made.opens) == (COMMIT, "m-Q4_K_M.gguf")
    assert (job.progress.source, job.progress.commit) == ("hub", COMMIT)
    assert job.progress.state is State.RESOLVING
    assert shop.transfer.requests == []
    assert [(query.repo, query.revision) for query in shop.source.asked] == [("org/qwen3", "main")]


async def test_every_repository_that_the_catalog_names_is_asked_once(shop: Workshop) -> None:
    weights, projector = SafeName("m-Q4_K_M.gguf"), SafeName("mmproj.gguf")
    shop.transfer.contents["mmproj.gguf"] = b"projector"
    shop.lists("other")
    job = shop.job(artifacts=(Artifact(weights), Artifact(projector, repo=RepoId("org/other"))))
    made = await plan(shop, job)
    assert [(file.name, file.repo) for file in made.files] == [(weights, "org/qwen3"), (projector, "org/other")]
    assert [query.repo for query in shop.source.asked] == ["org/qwen3", "org/other"]
    assert job.progress.repo == "org/qwen3"


async def test_an_index_is_fetched_and_read_before_the_choice(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, SHARDED)
    job = shop.job()
    made = await plan(shop, job)
    assert sorted(file.name for file in made.files) == sorted(SHARDED)
    assert sorted(request.label for request in shop.transfer.requests) == [f"qwen3 {name}" for name in DECIDING]
    assert job.progress.bytes_done == 0
    assert job.progress.state is State.RESOLVING
    assert job.partial_keys == {sha256(SHARDED[name]) for name in DECIDING}


@pytest.mark.parametrize(
    ("size", "passes"), [(None, True), (READ_MAX_BYTES, True), (READ_MAX_BYTES + 1, False)], ids=str
)
async def test_an_index_of_an_impossible_size_is_not_fetched(tmp_path: Path, size: int | None, passes: bool) -> None:
    shop = Workshop(tmp_path, SHARDED)
    files = [shop.remote(name) for name in SHARDED]
    shop.source.lists("org/qwen3", *(replace(file, size=size) if file.name == INDEX else file for file in files))
    if passes:
        assert len((await plan(shop, shop.job())).files) == len(SHARDED)
        return
    why = await refused(shop, shop.job())
    assert why.code is Code.HUB_PROTOCOL
    assert str(size) in why.message
    assert shop.transfer.requests == []


@pytest.mark.parametrize("contents", [SAFETENSORS, SHARDED])
async def test_a_file_without_a_hash_is_refused_before_a_byte_of_it_comes(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    shop = Workshop(tmp_path, contents)
    shop.lists(hashed=False)
    why = await refused(shop, shop.job())
    name = INDEX if INDEX in contents else "model.safetensors"
    assert (why.code, why.file) == (Code.HUB_PROTOCOL, f"'{name}'")
    assert f"hub provides no hash for '{name}'" in why.message
    assert shop.transfer.requests == []
    shop.policy = Policy(unverified="accept")
    assert len((await plan(shop, shop.job())).files) == len(contents)


async def test_a_git_hash_is_a_hash(shop: Workshop) -> None:
    shop.source.lists("org/qwen3", RemoteFile(SafeName("m-Q4_K_M.gguf"), 12, None, "ab" * 20))
    assert len((await plan(shop, shop.job())).files) == 1


async def test_the_formats_of_the_policy_in_force_count(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert (await refused(shop, shop.job())).code is Code.FORBIDDEN_FORMAT
    shop.policy = Policy(formats=["bin"])
    assert len((await plan(shop, shop.job())).files) == 2


async def test_what_a_source_answers_is_raised_as_it_is(shop: Workshop) -> None:
    for code in (Code.GATED, Code.HUB_UNREACHABLE):
        why = error(code)
        shop.source.listings["org/qwen3"] = why
        assert await refused(shop, shop.job()) is why


async def test_what_a_fallback_lacks_settles_nothing_while_the_hub_could_not_be_asked(shop: Workshop) -> None:
    because = error(Code.HUB_UNREACHABLE, retry_after_s=30)
    shop.lists(source="mirror", because=because)
    why = await refused(shop, shop.job(quant="Q9_X"))
    assert (why.code, why.retryable, why.retry_after_s) == (Code.HUB_UNREACHABLE, True, 30)
    assert why.message.startswith("it is hub_unreachable; mirror: ")
    assert "Q9_X" in why.message


async def test_what_the_hub_lacks_is_definite(shop: Workshop) -> None:
    why = await refused(shop, shop.job(quant="Q9_X"))
    assert why.code is Code.FILE_NOT_FOUND
    assert not why.retryable


async def test_a_passing_fault_with_a_fallbacks_plan_is_told_as_it_is(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, SHARDED)
    shop.lists(source="mirror", because=error(Code.HUB_UNREACHABLE))
    shop.transfer.fails[INDEX] = error(Code.STALLED)
    assert (await refused(shop, shop.job())).code is Code.STALLED


@pytest.mark.parametrize("code", [Code.MODEL_NOT_FOUND, Code.UNAUTHORIZED, Code.GATED])
async def test_a_name_that_no_source_has_is_told_with_the_nearest_known_ones(shop: Workshop, code: Code) -> None:
    problem = WantdError(code, "it is not there", "check the name")
    shop.source.listings["org/qwen3"] = problem
    planner = Planner(shop.source, shop.files, lambda: shop.policy, lambda name: f"did you mean {name}-8b? ")
    for _ in range(2):  # a source may raise the error that it keeps
        with pytest.raises(WantdError) as caught:
            job = shop.job()
            job.resolve()
            await planner.plan(Run(job))
        hint = "check the name" if code is Code.GATED else "did you mean qwen3-8b? check the name"
        assert caught.value.hint == hint
