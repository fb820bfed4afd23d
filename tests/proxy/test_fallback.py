"""Where the Hub is down, in any phase, the balancer serves; bytes are kept, hashes right, and people see who did it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.embedded_hub.repo import HubFile, Repo
from tests.harness import AgentProcess, wait_until
from tests.hub.faults import Faults
from tests.hub.process import HubProcess
from tests.proxy.places import (
    DEAD,
    GGUF_FILE,
    GGUF_REPO,
    SHARDED_REPO,
    Balancer,
    balanced_gguf,
    balanced_shards,
    bytes_done,
    files_of,
    qwen3,
    sha256,
    shards,
    the_hubs,
    wait_for_bytes,
    write_catalog,
)

SIZE = 24_000_000
ARGUMENTS = ("--many", "1", "--gguf-size", str(SIZE))
KEPT = 8_000_000  # bytes that one source has given when the other has to go on
SLOW = 6_000_000  # bytes per second of one body, while a test looks on

StartAgent = Callable[..., AgentProcess]
MakeBalancer = Callable[..., Balancer]
MakeHub = Callable[..., HubProcess]


@pytest.fixture(scope="module")
def repo() -> Repo:
    return the_hubs(GGUF_REPO, gguf_size=SIZE, many=1)


@pytest.fixture(scope="module")
def wanted(repo: Repo) -> HubFile:
    return files_of(repo)[GGUF_FILE]


def record(agent: AgentProcess, model: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((agent.store / model / ".wantd.json").read_bytes())
    return value


def manifest(agent: AgentProcess, model: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((agent.store / model / "manifest.json").read_bytes())
    return value


@pytest.mark.parametrize(
    ("generations", "bound"),
    [(("api", "v0"), "digest"), (("v0",), "catalog"), (("v0",), "digest"), (("api",), "catalog")],
)
def test_with_the_hub_down_from_the_start_the_balancer_serves_a_gguf(
    start_agent: StartAgent,
    make_balancer: MakeBalancer,
    tmp_path: Path,
    repo: Repo,
    wanted: HubFile,
    generations: tuple[str, ...],
    bound: str,
) -> None:
    extra = {"model.gguf": {"digest": wanted.sha256}} if bound == "digest" else {}
    balancer = make_balancer(balanced_gguf(repo, extra=extra), generations=generations, old_shape=bound == "digest")
    catalog = write_catalog(tmp_path, qwen3(sha256=wanted.sha256) if bound == "catalog" else qwen3())
    agent = start_agent(DEAD, proxy__url=balancer.url, catalog__path=catalog)
    agent.drop("qwen3")
    path = agent.ready("qwen3")
    assert path == str(agent.store / "qwen3" / GGUF_FILE)
    assert sha256(path) == wanted.sha256
    assert (agent.store / "qwen3" / "model.gguf").samefile(path)
    answer = agent.progress("qwen3")
    assert answer
    model = answer["models"][0]
    assert (model["source"], model["verified"], model["commit"]) == ("llmlb", True, None)
    assert [file["source"] for file in model["files"]] == ["llmlb"]
    assert "connection refused" in model["source_why"]
    written = manifest(agent, "qwen3")
    assert written["verified"] is True
    assert {file["source"] for file in written["files"]} == {"llmlb"}
    assert f"qwen3: llmlb served '{GGUF_FILE}'" in agent.log()
    assert "asking llmlb for" in agent.log() or "asking proxy for" in agent.log()


@pytest.mark.parametrize(("generations", "digests"), [(("api", "v0"), True), (("v0",), False)])
def test_a_sharded_model_comes_from_the_balancer_too(
    start_agent: StartAgent,
    make_balancer: MakeBalancer,
    tmp_path: Path,
    generations: tuple[str, ...],
    digests: bool,
) -> None:
    files = files_of(the_hubs(SHARDED_REPO, many=1))
    balancer = make_balancer(balanced_shards(the_hubs(SHARDED_REPO, many=1), digests=digests), generations=generations)
    catalog = write_catalog(tmp_path, shards())
    policy = "refuse" if digests else "accept"
    agent = start_agent(DEAD, proxy__url=balancer.url, catalog__path=catalog, policy__unverified=policy)
    agent.drop("gpt-oss-20b")
    directory = Path(agent.ready("gpt-oss-20b"))
    fetched_names = {name for name in files if (directory / name).exists()}
    assert {name for name in files if name.startswith("model-")} < fetched_names
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} < fetched_names
    for name in fetched_names:
        assert sha256(directory / name) == files[name].sha256
    answer = agent.progress("gpt-oss-20b")
    assert answer
    assert answer["models"][0]["verified"] is digests
    assert manifest(agent, "gpt-oss-20b")["verified"] is digests
    assert record(agent, "gpt-oss-20b")["source"] == "llmlb"


def test_what_nobody_can_verify_is_refused_until_somebody_accepts_it(
    start_agent: StartAgent, make_balancer: MakeBalancer, tmp_path: Path, repo: Repo, wanted: HubFile
) -> None:
    balancer = make_balancer(balanced_gguf(repo))
    agent = start_agent(DEAD, proxy__url=balancer.url, catalog__path=write_catalog(tmp_path, qwen3()))
    agent.drop("qwen3")
    because = agent.wait("qwen3", "waiting")["waiting"]["because"]
    assert because["retryable"]
    assert f"llmlb provides no hash for '{GGUF_FILE}'" in because["message"]
    assert "connection refused" in because["message"]
    assert "policy.unverified" in because["hint"]
    assert not [path for path in balancer.asked() if "/files/" in path or "/blob/" in path]
    write_catalog(tmp_path, qwen3(sha256=wanted.sha256))  # the agent reads the catalog again
    assert sha256(agent.ready("qwen3")) == wanted.sha256


def test_when_the_hub_dies_in_mid_file_the_balancer_goes_on_from_its_bytes(
    start_agent: StartAgent, make_balancer: MakeBalancer, make_hub: MakeHub, tmp_path: Path, repo: Repo, wanted: HubFile
) -> None:
    hub = make_hub(*ARGUMENTS)
    hub.fault("cdn/*", max_rate=SLOW)
    balancer = make_balancer(balanced_gguf(repo))
    balancer.it.faults.set("llmlb/*/files/*", Faults(max_rate=20_000_000))
    balancer.it.faults.set("llmlb/*/blob/*", Faults(max_rate=20_000_000))
    agent = start_agent(
        hub.endpoint, proxy__url=balancer.url, catalog__path=write_catalog(tmp_path, qwen3()), transfer__connections=2
    )
    agent.drop("qwen3")
    kept = wait_for_bytes(agent, KEPT)
    hub.stop()
    least = wait_until(lambda: _lowest(agent, kept), "the balancer has ended the file")
    assert least >= kept
    assert sha256(agent.ready("qwen3")) == wanted.sha256
    [file] = record(agent, "qwen3")["files"]
    assert file["source"] == "hub+llmlb"
    assert record(agent, "qwen3")["verified"]
    assert "continues from llmlb at byte" in agent.log()


def _lowest(agent: AgentProcess, kept: int) -> int | None:
    """The lowest count seen while the file is on its way; None until it is ready."""
    lowest: dict[str, int] = _lowest.__dict__.setdefault(str(agent.root), {"bytes": kept})
    lowest["bytes"] = min(lowest["bytes"], bytes_done(agent))
    answer = agent.progress("qwen3")
    return lowest["bytes"] if answer and answer["state"] in ("ready", "failed") else None


@pytest.mark.parametrize("generations", [("api", "v0"), ("api",)], ids=["with a length", "without a length"])
def test_when_the_hub_comes_back_in_mid_file_it_goes_on_from_the_balancers_bytes(
    start_agent: StartAgent,
    make_balancer: MakeBalancer,
    make_hub: MakeHub,
    tmp_path: Path,
    repo: Repo,
    wanted: HubFile,
    generations: tuple[str, ...],
) -> None:
    hub = make_hub(*ARGUMENTS)
    hub.stop()
    balancer = make_balancer(balanced_gguf(repo), generations=generations)
    balancer.it.faults.set("llmlb/*/files/*", Faults(max_rate=SLOW // 2))
    balancer.it.faults.set("llmlb/*/blob/*", Faults(max_rate=SLOW // 2))
    catalog = write_catalog(tmp_path, qwen3(sha256=wanted.sha256))
    agent = start_agent(hub.endpoint, proxy__url=balancer.url, catalog__path=catalog)
    agent.drop("qwen3")
    wait_for_bytes(agent, KEPT)
    hub.start()
    kept = bytes_done(agent)
    balancer.stop()
    assert sha256(agent.ready("qwen3")) == wanted.sha256
    [file] = record(agent, "qwen3")["files"]
    assert file["source"] == "llmlb+hub"
    # Beside the missing bytes, what was on its way when a question about the length was cut off.
    assert hub.stats()["bytes_sent"][f"{GGUF_REPO}/{GGUF_FILE}"] < SIZE - kept + 5_000_000
    answer = agent.progress("qwen3")
    assert answer
    assert answer["models"][0]["source"] == "hub+llmlb"


def test_another_version_at_the_balancer_is_found_out_and_the_hub_is_waited_for(
    start_agent: StartAgent, make_balancer: MakeBalancer, make_hub: MakeHub, tmp_path: Path, repo: Repo, wanted: HubFile
) -> None:
    hub = make_hub(*ARGUMENTS)
    hub.fault("cdn/*", max_rate=SLOW)
    other = HubFile(bytes(SIZE - len(b"other")) + b"other")
    model = balanced_gguf(repo)
    model.files = {"model.gguf": HubFile(b"".join(other.chunks())[: wanted.size])}
    balancer = make_balancer(model)
    agent = start_agent(hub.endpoint, proxy__url=balancer.url, catalog__path=write_catalog(tmp_path, qwen3()))
    agent.drop("qwen3")
    wait_for_bytes(agent, 1_000_000)
    hub.stop()
    waiting = wait_until(lambda: _waits(agent, "SHA-256"), "it waits, and says what the balancer gave")
    assert waiting["because"]["retryable"]
    fetched = sum("/blob/" in path or "/files/" in path for path in balancer.asked())
    hub.start()
    assert sha256(agent.ready("qwen3")) == wanted.sha256
    assert sum("/blob/" in path or "/files/" in path for path in balancer.asked()) == fetched  # not again and again


def _waits(agent: AgentProcess, said: str) -> dict[str, Any] | None:
    answer = agent.progress("qwen3") or {}
    assert answer.get("state") != "failed", answer
    waiting: dict[str, Any] = answer.get("waiting") or {}
    return waiting if said in str(waiting.get("because")) else None


def test_an_answer_of_the_hub_does_not_fall_through(
    start_agent: StartAgent, make_balancer: MakeBalancer, hub: HubProcess, tmp_path: Path
) -> None:
    balancer = make_balancer(balanced_shards(the_hubs(SHARDED_REPO, many=1), digests=True))
    entries = [
        {"id": "gpt-oss-20b", "repo": "wantd/missing"},
        {"id": "gated", "repo": "wantd/gated"},
        {"id": "private", "repo": "wantd/private"},
    ]
    agent = start_agent(hub.endpoint, proxy__url=balancer.url, catalog__path=write_catalog(tmp_path, *entries))
    for entry in entries:
        agent.drop(entry["id"])
    assert agent.failed("gpt-oss-20b")["code"] == "unauthorized"
    assert agent.failed("gated")["code"] == "gated"
    assert agent.failed("private")["code"] == "unauthorized"
    assert not balancer.asked()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_fault_of_the_hub_falls_through(
    start_agent: StartAgent, make_balancer: MakeBalancer, hub: HubProcess, tmp_path: Path, status: int
) -> None:
    model = the_hubs(GGUF_REPO, gguf_size=6_000_000, many=40)
    balancer = make_balancer(balanced_gguf(model))
    hub.fault("hub/*", status=status, retry_after="30")
    catalog = write_catalog(tmp_path, qwen3(sha256=files_of(model)[GGUF_FILE].sha256))
    agent = start_agent(hub.endpoint, proxy__url=balancer.url, catalog__path=catalog)
    agent.drop("qwen3")
    assert sha256(agent.ready("qwen3")) == files_of(model)[GGUF_FILE].sha256
    assert record(agent, "qwen3")["source"] == "llmlb"
