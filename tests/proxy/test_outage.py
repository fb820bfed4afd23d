"""A Hub that drops packets costs one timeout in all; with every source down a want says so, and is served at last."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.embedded_hub.repo import HubFile
from bench.ports import free_ports
from tests.harness import AgentProcess, wait_all_ready, wait_until
from tests.hub.balancer import BalancedModel
from tests.hub.process import HubProcess
from tests.proxy.places import (
    GGUF_FILE,
    GGUF_REPO,
    Balancer,
    BlackHole,
    balanced_gguf,
    files_of,
    qwen3,
    sha256,
    the_hubs,
    write_catalog,
)

MODELS, WANTS = 50, 1000
CONNECT_S = 8  # seconds; twice as much is more than all the work, so that a second timeout in a row is seen

StartAgent = Callable[..., AgentProcess]
MakeBalancer = Callable[..., Balancer]


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    with BlackHole() as hole:
        yield hole


def test_a_thousand_wants_wait_for_one_timeout_together(
    start_agent: StartAgent, make_balancer: MakeBalancer, black_hole: BlackHole, tmp_path: Path
) -> None:
    contents = {f"m{number:02d}": HubFile(os.urandom(50_000 + number)) for number in range(MODELS)}
    balancer = make_balancer(*(BalancedModel(name, {"model.gguf": file}) for name, file in contents.items()))
    entries = [
        {"id": name, "repo": f"org/{name}", "recommended_filename": f"{name}.gguf", "sha256": file.sha256}
        for name, file in contents.items()
    ]
    catalog = write_catalog(tmp_path, *entries)
    agent = start_agent(
        black_hole.url, proxy__url=balancer.url, catalog__path=catalog, hub__connect_timeout_s=CONNECT_S
    )
    wants = [f"team{number % 7}/w{number}" for number in range(WANTS)]
    for number, want in enumerate(wants):
        agent.drop(want, f"m{number % MODELS:02d}")
    wait_all_ready(agent, wants, deadline_s=2 * CONNECT_S)
    for name, file in contents.items():
        data = (agent.store / name / f"{name}.gguf").read_bytes()
        assert hashlib.sha256(data).hexdigest() == file.sha256
    alone = re.findall(r"source hub unreachable[^\n]*", agent.log())
    assert len(alone) == 1
    assert "no response in time" in alone[0]


def test_with_every_source_down_a_want_says_what_each_answered_and_when_it_tries_again(
    start_agent: StartAgent, make_balancer: MakeBalancer, tmp_path: Path
) -> None:
    repo = the_hubs(GGUF_REPO, gguf_size=6_000_000, many=1)
    wanted = files_of(repo)[GGUF_FILE]
    balancer = make_balancer(balanced_gguf(repo))
    balancer.stop()
    hub, cdn = free_ports(2)
    catalog = write_catalog(tmp_path, qwen3(sha256=wanted.sha256))
    agent = start_agent(f"http://127.0.0.1:{hub}", proxy__url=balancer.url, catalog__path=catalog)
    agent.drop("first", "qwen3")
    waiting = agent.wait("first", "waiting")["waiting"]
    assert waiting["for"] == "retry"
    assert datetime.fromisoformat(waiting["until"]) > datetime.fromtimestamp(time.time() - 60, UTC)
    because = waiting["because"]
    assert (because["code"], because["retryable"]) == ("hub_unreachable", True)
    assert re.search(r"hub: .*connection refused; (proxy|llmlb): .*connection refused", because["message"])
    wait_until(lambda: (agent.progress("first") or {}).get("attempt", 0) > 2, "it tries again and again")
    balancer.start()
    assert sha256(agent.ready("first")) == wanted.sha256

    balancer.stop()
    agent.drop("second", {"model": "qwen3", "revision": "refs/pr/7"})
    agent.wait("second", "waiting")
    (agent.spool / "second.want").unlink()
    agent.drop("third", {"model": "qwen3", "files": ["README.md"]})
    agent.wait("third", "waiting")
    with HubProcess("--port", str(hub), "--cdn-port", str(cdn), "--gguf-size", "6000000", "--many", "1"):
        agent.ready("third")


def test_a_hub_that_comes_back_is_used_again(
    start_agent: StartAgent, make_balancer: MakeBalancer, tmp_path: Path
) -> None:
    repo = the_hubs(GGUF_REPO, many=1)
    balancer = make_balancer(balanced_gguf(repo))
    hub, cdn = free_ports(2)
    catalog = write_catalog(tmp_path, qwen3(sha256=files_of(repo)[GGUF_FILE].sha256))
    agent = start_agent(f"http://127.0.0.1:{hub}", proxy__url=balancer.url, catalog__path=catalog)
    agent.drop("first", "qwen3")
    agent.ready("first")
    with HubProcess("--port", str(hub), "--cdn-port", str(cdn), "--many", "1"):
        names = (f"later{number}" for number in range(10_000))

        def served_by_the_hub() -> bool:
            name = next(names)
            agent.drop(name, {"model": "qwen3", "files": ["*Q8_0.gguf"], "exclude": [name]})
            answer = agent.wait(name, "ready", "waiting", "failed")
            (agent.spool / f"{name}.want").unlink()
            return "source hub reachable again" in agent.log() and answer["state"] == "ready"

        wait_until(served_by_the_hub, "the Hub serves")
    assert balancer.asked()
