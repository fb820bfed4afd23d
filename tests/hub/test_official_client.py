"""The judge of the embedded Hub is huggingface_hub itself: it fetches everything, and raises its own errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.embedded_hub.repo import Repo
from tests.hub.access import TOKEN_GRANTED, TOKEN_PLAIN
from tests.hub.official import Official, on_disk
from tests.hub.process import HubProcess
from tests.hub.standard import PARTIAL

SNAPSHOTS = """
result = {}
for repo, revision, token in argument:
    try:
        result[f"{repo}@{revision}"] = hub.snapshot_download(repo, revision=revision, token=token)
    except Exception as error:
        result[f"{repo}@{revision}"] = f"{type(error).__name__}: {error}"
"""
ERRORS = """
result = []
for what, arguments in argument:
    try:
        getattr(hub, what)(**arguments)
        result.append("nothing")
    except Exception as error:
        result.append(type(error).__name__)
"""


def content(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    commit = repo.find(revision)
    assert commit is not None
    return {name: b"".join(file.chunks()) for name, file in repo.commits[commit].items()}


def test_snapshot_download_fetches_every_repository_file_for_file_equal(
    official: Official, expected: dict[str, Repo], hub_process: HubProcess
) -> None:
    repos = [name for name, repo in expected.items() if not repo.disabled and name != PARTIAL]
    paths = official(SNAPSHOTS, [[name, "main", TOKEN_GRANTED] for name in repos])
    for name in repos:
        wanted = content(expected[name])
        path = paths[f"{name}@main"]
        if wanted:
            assert os.path.isdir(path), path
            assert on_disk(path) == wanted, name
    # The token went to the Hub and nowhere else.
    assert hub_process.stats()["seen_tokens"]["cdn"] == []


def test_every_revision_is_what_was_committed_under_it(official: Official, expected: dict[str, Repo]) -> None:
    repo = expected["wantd/revisions"]
    names = ["main", "v1.0", "dev", "refs/pr/1", repo.refs["refs/tags/v1.0"]]
    paths = official(SNAPSHOTS, [[repo.id, name, False] for name in names])
    fetched = {name: on_disk(paths[f"{repo.id}@{name}"]) for name in names}
    assert fetched == {name: content(repo, name) for name in names}
    assert fetched["main"] != fetched["v1.0"] != fetched["dev"]


def test_hf_download_fetches_a_repository_with_plain_lfs_and_nested_files(
    official_env: Mapping[str, str], expected: dict[str, Repo], tmp_path: Path
) -> None:
    hf = str(Path(sys.executable).parent / "hf")
    command = [hf, "download", "openai/gpt-oss-20b", "--local-dir", str(tmp_path / "out")]
    done = subprocess.run(command, env=dict(official_env), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert on_disk(str(tmp_path / "out")) == content(expected["openai/gpt-oss-20b"])


def test_hf_download_says_what_is_missing(official_env: Mapping[str, str]) -> None:
    hf = str(Path(sys.executable).parent / "hf")
    command = [hf, "download", "no/such-model"]
    done = subprocess.run(command, env=dict(official_env), capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode != 0
    assert "not found" in (done.stderr + done.stdout).lower()


@pytest.mark.parametrize("what", ["hf_hub_download", "snapshot_download"])
def test_the_client_raises_its_own_errors(official: Official, what: str) -> None:
    file = {"filename": "README.md"} if what == "hf_hub_download" else {}
    missing = {"filename": "nope.txt"}
    cases = {
        "missing repo, anonymous": [what, {"repo_id": "no/such", "token": False, **file}],
        "missing repo, with token": [what, {"repo_id": "no/such", "token": TOKEN_PLAIN, **file}],
        "missing revision": [what, {"repo_id": "Qwen/Qwen3-0.6B", "revision": "nope", **file}],
        "missing file": ["hf_hub_download", {"repo_id": "Qwen/Qwen3-0.6B", **missing}],
        "missing shard": ["snapshot_download", {"repo_id": PARTIAL}],
        "gated, anonymous": [what, {"repo_id": "wantd/gated", "token": False, **file}],
        "gated, wrong token": [what, {"repo_id": "wantd/gated", "token": "hf_nobodys", **file}],
        "gated, token without access": [what, {"repo_id": "wantd/gated", "token": TOKEN_PLAIN, **file}],
        "gated, closed listing": [what, {"repo_id": "wantd/gated-closed", "token": TOKEN_PLAIN, **file}],
        "gated, closed listing, anonymous": [what, {"repo_id": "wantd/gated-closed", "token": False, **file}],
        "private, anonymous": [what, {"repo_id": "wantd/private", "token": False, **file}],
        "private, token without access": [what, {"repo_id": "wantd/private", "token": TOKEN_PLAIN, **file}],
        "bad token": [what, {"repo_id": "Qwen/Qwen3-0.6B", "token": "hf_nobodys", **file}],
        "disabled": ["model_info", {"repo_id": "wantd/disabled"}],
        "no mistake": ["hf_hub_download", {"repo_id": "wantd/gated", "token": TOKEN_GRANTED, "filename": "README.md"}],
    }
    answers = dict(zip(cases, official(ERRORS, list(cases.values())), strict=True))
    assert answers == {
        "missing repo, anonymous": "RepositoryNotFoundError",
        "missing repo, with token": "RepositoryNotFoundError",
        "missing revision": "RevisionNotFoundError",
        "missing file": "RemoteEntryNotFoundError",
        "missing shard": "RemoteEntryNotFoundError",
        "gated, anonymous": "GatedRepoError",
        "gated, wrong token": "GatedRepoError",
        "gated, token without access": "GatedRepoError",
        "gated, closed listing": "GatedRepoError",
        "gated, closed listing, anonymous": "RepositoryNotFoundError",
        "private, anonymous": "RepositoryNotFoundError",
        "private, token without access": "RepositoryNotFoundError",
        "bad token": "HfHubHTTPError",
        "disabled": "DisabledRepoError",
        "no mistake": "nothing",
    }


def test_the_clients_api_reads_metadata_trees_refs_and_paths(official: Official, expected: dict[str, Repo]) -> None:
    told = official(
        """
api = hub.HfApi()
info = api.model_info("Qwen/Qwen3-0.6B", files_metadata=True)
result = {
    "sha": info.sha, "gated": api.model_info("wantd/gated").gated,
    "hashes": {s.rfilename: s.lfs.sha256 if s.lfs else s.blob_id for s in info.siblings},
    "tree": [e.path for e in api.list_repo_tree("wantd/many", recursive=True)],
    "expanded": [e.path for e in api.list_repo_tree("wantd/many", recursive=True, expand=True)],
    "top": sorted(e.path for e in api.list_repo_tree("openai/gpt-oss-20b") if isinstance(e, hub.hf_api.RepoFolder)),
    "paths": [[p.path, p.size] for p in api.get_paths_info("openai/gpt-oss-20b", ["original", "config.json", "nope"])
              if hasattr(p, "size")],
    "branches": [b.name for b in api.list_repo_refs("wantd/revisions").branches],
    "tags": [t.name for t in api.list_repo_refs("wantd/revisions").tags],
    "exists": [api.repo_exists("wantd/many"), api.repo_exists("no/such"), api.file_exists("wantd/many", "nope")],
    "renamed": api.model_info("Qwen/Qwen2.5-7B-Chat-GGUF").id,
    "whoami": api.whoami(token=argument)["name"],
}
""",
        TOKEN_PLAIN,
    )
    qwen, many = expected["Qwen/Qwen3-0.6B"], expected["wantd/many"]
    files = qwen.commits[qwen.refs["main"]]
    assert told["sha"] == qwen.refs["main"]
    assert told["hashes"] == {name: file.etag for name, file in files.items()}
    names = sorted(many.commits[many.refs["main"]])
    folders = sorted({name.partition("/")[0] for name in names})
    assert told["tree"] == told["expanded"] == folders + names
    assert told["top"] == ["original"]
    assert told["paths"] == [["config.json", len(content(expected["openai/gpt-oss-20b"])["config.json"])]]
    assert sorted(told["branches"]) == ["dev", "main"]
    assert told["tags"] == ["v1.0"]
    assert told["exists"] == [True, False, False]
    assert told["renamed"] == "Qwen/Qwen2.5-7B-Instruct-GGUF"
    assert told["whoami"] == "embedded"
    assert told["gated"] == "manual"
