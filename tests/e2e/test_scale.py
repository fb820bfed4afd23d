"""Many wants at once, few milliseconds for what is in the store, and hardly any work when idle (issue 2, points 7, 8).

The times are printed (`pytest -s`); only counts and memory are asserted, since a loaded machine is no fault.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.harness import AgentProcess, wait_all_ready, wait_until
from tests.hub.process import HubProcess

RSS_MAX = 150_000_000


def test_a_model_in_the_store_is_ready_at_once_with_the_hub_switched_off(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    agent = make_agent()
    with agent:
        agent.drop("first", "qwen3")
        agent.ready("first")
    agent.set(HF_ENDPOINT="http://127.0.0.1:9")
    hub.reset()
    times = []
    with agent:
        agent.ready("first")
        for number in range(50):
            agent.drop(f"w{number}", "qwen3")
            began = time.monotonic()
            progress = agent.spool / f"w{number}.progress"
            while not progress.exists() or json.loads(progress.read_bytes())["state"] != "ready":
                time.sleep(0.0005)
            times.append(time.monotonic() - began)
    print(f"\nrename to ready, model in the store: median {statistics.median(times) * 1000:.1f} ms of {len(times)}")
    assert hub.stats()["recent"] == []


def test_ten_thousand_wants_at_once_are_all_served_in_flat_memory(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    names = [f"s{number:02d}" for number in range(100)]
    for name in names:
        hub.commit(f"scale/{name}", {f"{name}.gguf": name.encode() * 100})
    catalog = tmp_path / "catalog.json"
    catalog.write_text(
        json.dumps([{"id": name, "repo": f"scale/{name}", "recommended_filename": f"{name}.gguf"} for name in names])
    )
    agent = make_agent(catalog__path=catalog)
    tree = tmp_path / "tree"
    tree.mkdir()
    wants = [f"w{number:05d}" for number in range(10_000)]
    for number, want in enumerate(wants):
        (tree / f"{want}.want").write_text(names[number % 100])
    with agent:
        agent.drop("seed", names)  # all of them into the store first
        agent.ready("seed")
        hub.reset()
        began = time.monotonic()
        shutil.copytree(tree, agent.spool, dirs_exist_ok=True)
        copied = time.monotonic() - began
        wait_all_ready(agent, wants)
        took = time.monotonic() - began
        rss = agent.rss_bytes()
        print(f"\n10,000 wants: {took:.1f} s ({copied:.1f} s of it the copying), peak RSS {rss / 1e6:.0f} MB")
        assert hub.stats()["recent"] == []
        assert rss < RSS_MAX
        wait_until(lambda: _is_idle(agent), "the agent comes to rest")
        share = _share(agent, 3.0)
        print(f"idle with 10,000 wants: {share:.2%} of a core")


def _share(agent: AgentProcess, seconds: float) -> float:
    cpu, began = agent.cpu_s(), time.monotonic()
    while time.monotonic() - began < seconds:
        time.sleep(0.1)
    return (agent.cpu_s() - cpu) / (time.monotonic() - began)


def _is_idle(agent: AgentProcess) -> bool:
    return _share(agent, 1.0) < 0.02
