"""The agent as a Hub: the Hub's own client, another wantd, llama.cpp's requests, ranges, what is not for strangers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.http.hub.published import _repositories
from agent.store.inventory import Entry
from agent.store.layout import RECORD, Record, RecordFile
from tests.harness import AgentProcess, clean_environment
from tests.http.conftest import Face

REPO, FILE = "bartowski/Qwen_Qwen3-0.6B-GGUF", "Qwen_Qwen3-0.6B-Q4_K_M.gguf"


@pytest.fixture
def served(face: Face) -> Face:
    """With one published model."""
    face.agent.drop("qwen3")
    face.agent.ready("qwen3")
    return face


def path_of(served: Face) -> Path:
    return served.agent.store / "qwen3" / FILE


def test_the_hubs_own_client_gets_the_file(served: Face, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("hf")
    environ = clean_environment(HF_ENDPOINT=served.url, HF_HOME=str(tmp_path / "home"), HF_HUB_DISABLE_TELEMETRY="1")
    target = tmp_path / "here"
    command = [str(program), "download", REPO, FILE, "--local-dir", str(target)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (target / FILE).read_bytes() == path_of(served).read_bytes()


def test_another_wantd_gets_it_and_proves_it(served: Face, make_agent: Callable[..., AgentProcess]) -> None:
    second = make_agent("second", adopt__caches="none")
    second.set(HF_ENDPOINT=served.url)
    second.start()
    second.drop("qwen3")
    assert Path(second.ready("qwen3")).read_bytes() == path_of(served).read_bytes()
    ours, theirs = (json.loads((agent.store / "qwen3" / RECORD).read_bytes()) for agent in (second, served.agent))
    assert (ours["commit"], ours["files"]) == (theirs["commit"], theirs["files"])


def test_what_llama_cpp_asks(served: Face) -> None:
    (branch,) = served.get(f"/api/models/{REPO}/refs")["branches"]
    (entry,) = served.get(f"/api/models/{REPO}/tree/{branch['targetCommit']}?recursive=true")
    data = path_of(served).read_bytes()
    assert (branch["name"], entry["path"], entry["size"]) == ("main", FILE, len(data))
    assert entry["lfs"]["oid"] == hashlib.sha256(data).hexdigest()
    assert "xetHash" not in entry
    head = served.ask(f"/{REPO}/resolve/main/{FILE}", "HEAD")
    assert (head.status, head.body, head.headers["x-linked-size"]) == (200, b"", str(len(data)))
    assert head.headers["x-repo-commit"] == branch["targetCommit"]
    assert head.headers["etag"] == head.headers["x-linked-etag"] == f'"{entry["lfs"]["oid"]}"'


def test_ranges_are_exact_or_refused(served: Face) -> None:
    data, path = path_of(served).read_bytes(), f"/{REPO}/resolve/main/{FILE}"
    for asked, start, stop in (
        ("0-0", 0, 1),
        ("5-99", 5, 100),
        ("100-", 100, len(data)),
        ("-7", len(data) - 7, len(data)),
    ):
        found = served.ask(path, Range=f"bytes={asked}")
        assert (found.status, found.body) == (206, data[start:stop])
        assert found.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(data)}"
    for asked in (f"{len(data)}-", "99999999999999-"):
        assert served.ask(path, Range=f"bytes={asked}").status == 416
    for asked in ("9-5", "a-b", "1-2,4-5"):
        assert served.ask(path, Range=f"bytes={asked}").body == data


@pytest.mark.parametrize(
    "path",
    [
        *("org/none/resolve/main/x", "../resolve/main/x", f"{REPO}/resolve/other/{FILE}", f"{REPO}/resolve/main/none"),
        *(f"{REPO}/resolve/main/../{RECORD}", f"{REPO}/resolve/main/{RECORD}", f"{REPO}/resolve/main/{FILE}%00"),
        *(f"{REPO}/resolve/main/..%2f..%2f..%2fagent.log", f"{REPO}/resolve/main/%2fetc%2fpasswd"),
    ],
)
def test_what_is_not_published_is_not_served(served: Face, path: str) -> None:
    answer = served.ask(f"/{path}")
    assert answer.status in (400, 401, 404)
    assert b"published_at" not in answer.body


def test_a_file_that_was_removed_is_not_served(served: Face) -> None:
    os.truncate(path_of(served), 5)
    assert served.ask(f"/{REPO}/resolve/main/{FILE}").headers["x-error-code"] == "EntryNotFound"


def entry(
    repo: str, restricted: bool | None, commit: str = "a" * 40, revision: str = "main", at: str = "2026"
) -> Entry:
    files = [RecordFile("x", 1, "b" * 64, "hub")]
    return Entry(
        "/d", 1, 1, Record(1, "m", repo, revision, commit, "gguf", None, {}, "hub", files, at, restricted=restricted)
    )


def test_gated_models_and_unknown_ones_are_not_for_strangers() -> None:
    entries = [entry("org/public", False), entry("org/gated", True), entry("org/old", None)]
    assert set(_repositories(entries, False)) == {"org/public"}
    assert set(_repositories(entries, True)) == {"org/public", "org/gated", "org/old"}


def test_a_branch_is_what_was_published_last() -> None:
    entries = [entry("org/a", False, "2" * 40, at="2026-02"), entry("Org/A", False, "1" * 40, at="2026-01")]
    (repo,) = _repositories(entries, False).values()
    assert repo.find("main") == "2" * 40
    assert repo.find("1" * 40) == "1" * 40
    assert repo.find("1" * 7) is None
