"""`wantd freeze`: what one host prints brings the same bytes to another, or is refused there with both hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import AgentProcess
from tests.hub.process import HubProcess

WEIGHTS = {"m-Q4_K_M.gguf": b"GGUF" + b"w" * 5000, "README.md": b"# a model\n"}


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".wantd.json", "manifest.json", "model.gguf")
    }


def freeze(agent: AgentProcess, *models: str) -> str:
    done = agent.wantd("freeze", *models)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_frozen_host_is_the_same_on_another(make_agent: Callable[..., AgentProcess], hub: HubProcess) -> None:
    hub.commit("freeze/one", WEIGHTS)
    first = make_agent("first", policy__allow="any")
    with first:
        for name, model in (("a", "qwen3"), ("b", "freeze/one"), ("c", "gemma3")):
            first.drop(name, model)
        paths = {name: Path(first.ready(name)) for name in "abc"}
    manifest = freeze(first)
    assert {entry["model"] for entry in json.loads(manifest)["models"]} == {"qwen3", "freeze/one", "gemma3"}
    hub.commit("freeze/one", {**WEIGHTS, "m-Q4_K_M.gguf": b"GGUF another version"})  # main moves on
    second = make_agent("second", policy__allow="any")
    with second:
        second.drop("host", manifest)
        answer = second.wait("host")
    assert answer["state"] == "ready", answer["error"]
    there = {model["model"]: Path(model["path"]) for model in answer["models"]}
    for name, model in (("a", "qwen3"), ("b", "freeze/one"), ("c", "gemma3")):
        assert hashes(there[model].parent) == hashes(paths[name].parent)
    assert freeze(second) == manifest


def test_a_tag_that_moved_is_refused_with_both_hashes(make_agent: Callable[..., AgentProcess], hub: HubProcess) -> None:
    hub.commit("freeze/tag", WEIGHTS)
    with make_agent("first", policy__allow="any") as first:
        first.drop("a", "freeze/tag")
        first.ready("a")
        (entry,) = json.loads(freeze(first, "freeze/tag"))["models"]
    changed = b"GGUF" + b"x" * 5000
    hub.commit("freeze/tag", {**WEIGHTS, "m-Q4_K_M.gguf": changed})
    entry["revision"] = "main"
    with make_agent("second", policy__allow="any") as second:
        second.drop("a", json.dumps(entry))
        error = second.failed("a")
        assert error["code"] == "checksum_mismatch"
        assert entry["sha256"]["m-Q4_K_M.gguf"] in error["message"]
        assert hashlib.sha256(changed).hexdigest() in error["message"]
        # A plain file, of which the Hub tells no SHA-256: its bytes are what is compared.
        entry["sha256"] = {"README.md": "0" * 64}
        second.drop("b", json.dumps(entry))
        error = second.failed("b")
        assert error["code"] == "checksum_mismatch"
        assert "0" * 64 in error["message"]
        assert hashlib.sha256(WEIGHTS["README.md"]).hexdigest() in error["message"]
        assert not list(second.store.glob("freeze/**/*.gguf"))


@pytest.mark.parametrize("models", [["nowhere"], ["qwen3", "nowhere"]])
def test_what_is_not_there_cannot_be_frozen(make_agent: Callable[..., AgentProcess], models: list[str]) -> None:
    agent = make_agent()
    with agent:
        agent.drop("qwen3")
        agent.ready("qwen3")
    done = agent.wantd("freeze", *models)
    assert done.returncode == 1
    assert "nowhere: not in the store" in done.stderr
    assert ('"qwen3"' in done.stdout) == ("qwen3" in models)
