"""The view, from want to loading by name: what huggingface_hub and `hf` see of it without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import AgentProcess, wait_until
from tests.hub.official import official_environment, run_official
from tests.hub.process import HubProcess

QWEN = "Qwen/Qwen3-0.6B"
GGUF = "bartowski/Qwen_Qwen3-0.6B-GGUF"
RESCAN_S = 0.5

Reader = Callable[..., Any]


@pytest.fixture
def agent(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    started = make_agent(policy__allow="any", scheduler__rescan_s=RESCAN_S)
    started.start()
    return started


@pytest.fixture
def view(agent: AgentProcess) -> Path:
    return agent.root / "hub"


def offline(view: Path, home: Path) -> dict[str, str]:
    """The environment of a program that reads the view."""
    return official_environment("http://127.0.0.1:9", home) | {"HF_HUB_CACHE": str(view), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def read(view: Path, tmp_path: Path) -> Reader:
    """Runs code with huggingface_hub, whose cache is the view, and no network."""
    return lambda code, argument=None: run_official(offline(view, tmp_path), code, argument)


@pytest.fixture
def hf(view: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs `hf`; gives its standard output, and fails on any warning."""

    def run(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "hf"), *arguments]
        done = subprocess.run(
            command, env=offline(view, tmp_path), capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr.lower(), done.stderr
        return done.stdout

    return run


FILES = """
import os
path = hub.snapshot_download(argument[0], revision=argument[1])
result = sorted(os.path.relpath(f"{folder}/{name}", path) for folder, _, names in os.walk(path) for name in names)
"""


def published_files(directory: str | Path) -> list[str]:
    record = json.loads((Path(directory) / ".wantd.json").read_bytes())
    return sorted(file["name"] for file in record["files"])


def test_what_is_ready_loads_by_its_repositorys_name(
    agent: AgentProcess, read: Reader, hf: Callable[..., str], view: Path
) -> None:
    agent.drop("x", QWEN)
    directory = agent.ready("x")
    # No waiting: it is there as soon as the want is ready.
    assert read(FILES, [QWEN, "main"]) == published_files(directory)
    path = read(f"result = hub.hf_hub_download('{QWEN}', 'config.json')")
    assert read(f"result = hub.try_to_load_from_cache('{QWEN}', 'config.json')") == path
    assert os.path.samefile(path, f"{directory}/config.json")
    assert os.path.samefile(f"{Path(path).parent}/model.safetensors", f"{directory}/model.safetensors")
    assert QWEN in hf("cache", "ls", "-q")
    # The etags are the Hub's: a reader that goes online later fetches nothing again.
    record = json.loads((Path(directory) / ".wantd.json").read_bytes())
    blobs = os.listdir(view / "models--Qwen--Qwen3-0.6B" / "blobs")
    assert sorted({file["etag"] for file in record["files"]}) == sorted(blobs)
    assert {len(etag) for etag in blobs} == {40, 64}


def test_a_reader_that_goes_online_finds_nothing_to_fetch_but_what_the_selection_left_out(
    agent: AgentProcess, hub: HubProcess, view: Path, tmp_path: Path
) -> None:
    agent.drop("x", QWEN)
    names = published_files(agent.ready("x"))
    before = hub.stats()["bytes_sent"]
    online = official_environment(hub.endpoint, tmp_path) | {"HF_HUB_CACHE": str(view)}
    run_official(online, f"for name in argument: hub.hf_hub_download('{QWEN}', name)", names)
    assert hub.stats()["bytes_sent"] == before


def test_branches_tags_and_commits_are_found(agent: AgentProcess, read: Reader, view: Path) -> None:
    repo = "wantd/revisions"
    references = {"main": repo, "v1.0": f"{repo}@v1.0", "dev": f"{repo}@dev", "refs/pr/1": f"{repo}@refs/pr/1"}
    for number, reference in enumerate(references.values()):
        agent.drop(f"w{number}", reference)
    paths = [agent.ready(f"w{number}") for number in range(len(references))]
    for revision, path in zip(references, paths, strict=True):
        commit = json.loads((Path(path).parent / ".wantd.json").read_bytes())["commit"]
        assert read(FILES, [repo, revision]) == read(FILES, [repo, commit]) == published_files(Path(path).parent)
        assert (view / "models--wantd--revisions" / "refs" / revision).read_text() == commit


def test_two_quants_of_one_commit_add_up_and_one_goes_with_its_model(
    agent: AgentProcess, read: Reader, hf: Callable[..., str]
) -> None:
    names = {}
    for quant in ("Q4_K_M", "Q8_0"):
        agent.drop(quant, f"{GGUF}:{quant}")
        names[quant] = Path(agent.ready(quant))
    both = sorted({*published_files(names["Q4_K_M"].parent), *published_files(names["Q8_0"].parent)})
    assert read(FILES, [GGUF, "main"]) == both
    (agent.spool / "Q8_0.want").unlink()
    kept = published_files(names["Q4_K_M"].parent)
    shutil.rmtree(names["Q8_0"].parent)
    wait_until(lambda: read(FILES, [GGUF, "main"]) == kept, "the other one alone is left")
    assert GGUF in hf("cache", "ls", "-q")


def test_hf_cache_rm_harms_nothing_and_the_view_comes_back(
    agent: AgentProcess, read: Reader, hf: Callable[..., str], view: Path, hub: HubProcess
) -> None:
    agent.drop("x", QWEN)
    directory = Path(agent.ready("x"))
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    sent = hub.stats()["bytes_sent"]
    hf("cache", "rm", f"model/{QWEN}", "--yes")
    ref = view / "models--Qwen--Qwen3-0.6B" / "refs" / "main"
    wait_until(ref.exists, "the view is back")
    assert read(FILES, [QWEN, "main"]) == published_files(directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    shutil.rmtree(view)
    wait_until(ref.exists, "the view is back once more")
    assert QWEN in hf("cache", "ls", "-q")
    assert hub.stats()["bytes_sent"] == sent
    assert (agent.progress("x") or {})["state"] == "ready"


def test_it_goes_with_the_model_and_a_model_published_while_no_agent_ran_is_shown(
    agent: AgentProcess, read: Reader, view: Path
) -> None:
    want = agent.drop("x", QWEN)
    directory = Path(agent.ready("x"))
    agent.stop()
    shutil.rmtree(view)
    agent.start()
    wait_until((view / "models--Qwen--Qwen3-0.6B" / "refs" / "main").exists, "the view is made at the start")
    assert read(FILES, [QWEN, "main"]) == published_files(directory)
    want.unlink()
    wait_until(lambda: agent.progress("x") is None, "the want is forgotten")
    shutil.rmtree(directory)
    wait_until(lambda: os.listdir(view) == ["CACHEDIR.TAG"], "the view is empty")


def test_another_place_is_used_after_a_restart_and_the_old_one_cleared(
    agent: AgentProcess, view: Path, tmp_path: Path
) -> None:
    agent.drop("x", QWEN)
    agent.ready("x")
    agent.stop()
    agent.set(store__hub_cache=tmp_path / "elsewhere")
    agent.start()
    wait_until((tmp_path / "elsewhere/models--Qwen--Qwen3-0.6B/refs/main").exists, "the new view")
    wait_until(lambda: os.listdir(view) == ["CACHEDIR.TAG"], "the old view is cleared")
    agent.stop()
    agent.set(store__hub_cache="")
    agent.start()
    wait_until(lambda: os.listdir(tmp_path / "elsewhere") == ["CACHEDIR.TAG"], "it is cleared")


def test_on_another_file_system_models_are_ready_all_the_same_and_check_says_why_there_is_no_view(
    make_agent: Callable[..., AgentProcess],
) -> None:
    place = Path(f"/dev/shm/wantd-{os.getpid()}/hub")
    with make_agent(policy__allow="any", store__hub_cache=place) as agent:
        agent.drop("x", QWEN)
        agent.ready("x")
        assert agent.log().count("no view of the models") == 1
        check = agent.wantd("check", "--no-network")
    assert not place.exists()
    assert f"cannot create {place}: it is on another file system or mount than the store" in check.stdout
    assert "set store.hub_cache" in check.stdout


def test_check_says_where_the_view_is(agent: AgentProcess, view: Path) -> None:
    assert f"HF_HUB_CACHE={view} HF_HUB_OFFLINE=1" in agent.wantd("check", "--no-network").stdout
    agent.set(store__hub_cache="")
    assert "none: store.hub_cache is empty" in agent.wantd("check", "--no-network").stdout
