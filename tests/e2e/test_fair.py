"""Models of servers that crawl, and others of the same Hub beside them, in a whole agent."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess

CRAWLING = ("one", "two", "three")
MIB = 1024 * 1024
SIZES = {"small": 90_000, "large": 20 * MIB} | dict.fromkeys(CRAWLING, 48 * MIB)


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """One Hub for the tests of this module, with a repository for each model."""
    root: Path = tmp_path_factory.mktemp("repos")
    arguments = ["--no-standard"]
    for name, size in SIZES.items():
        (root / name).mkdir()
        (root / name / f"{name}-Q4_K_M.gguf").write_bytes(random.Random(name).randbytes(size))
        arguments += ["--repo", f"fair/{name}={root / name}"]
    with HubProcess(*arguments) as hub:
        yield hub


@pytest.mark.parametrize("rate", [2, 20_000, 500_000])
def test_three_models_that_crawl_hold_up_no_other_of_the_same_hub(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, rate: int
) -> None:
    for name in CRAWLING:
        hub.fault(f"cdn/*/fair/{name}/*", max_rate=rate)
    agent = make_agent(policy__allow="any")
    agent.start()
    for name in CRAWLING:
        agent.drop(name, f"fair/{name}")
    crawling = [f"fair/{name}/{name}-Q4_K_M.gguf" for name in CRAWLING]
    wait_until(lambda: all(hub.stats()["requests"].get(file, 0) for file in crawling), "all three have begun")
    for name in ("small", "large"):
        agent.drop(name, f"fair/{name}")
        agent.ready(name)
    assert [(agent.progress(name) or {}).get("state") for name in CRAWLING] == ["downloading"] * 3


def test_the_first_priority_is_ready_long_before_the_last_which_moves_all_the_while(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    hub.fault("cdn/*", max_rate=2_000_000)
    agent = make_agent(policy__allow="any")
    agent.start()
    agent.drop("last", {"model": "fair/one", "priority": 9})
    wait_until(lambda: (agent.progress("last") or {}).get("bytes_done"), "the last one moves")
    agent.drop("first", {"model": "fair/two", "priority": 0})
    wait_until(lambda: (agent.progress("first") or {}).get("bytes_done"), "the first one moves")
    before = agent.progress("last")["bytes_done"]  # type: ignore[index]
    agent.ready("first")
    last = agent.progress("last")
    assert last and last["state"] == "downloading" and before < last["bytes_done"]
    assert last["bytes_done"] - before < SIZES["two"] / 2
