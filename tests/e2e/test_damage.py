"""A published file that was overwritten in place: never linked, never called ready, mended when it is wanted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess

GGUF = "bartowski/Qwen_Qwen3-0.6B-GGUF"
FILE = "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
SAME = {"model": "qwen3", "files": ["*Q4_K_M.gguf"]}  # the same file, in a directory of its own


def damage(path: str, *, keep_mtime: bool = False) -> None:
    """4 KiB in the middle are others; the size is the same."""
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        file.write(os.urandom(4096))
    if keep_mtime:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def right(path: str, hub: HubProcess) -> bool:
    found: bool = hashlib.sha256(Path(path).read_bytes()).hexdigest() == hub.repos()[GGUF]["files"][FILE]["sha256"]
    return found


@pytest.mark.parametrize("keep_mtime", [False, True])
def test_damage_is_not_linked_into_another_model(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, keep_mtime: bool
) -> None:
    with make_agent() as agent:
        agent.drop("one", "qwen3")
        one = agent.ready("one")
        (agent.spool / "one.want").unlink()
        damage(one, keep_mtime=keep_mtime)
        hub.reset()
        agent.drop("two", SAME)
        two = agent.ready("two")
        assert right(two, hub)
        assert not os.path.samefile(one, two)
        assert hub.stats()["bytes_sent"][f"{GGUF}/{FILE}"] >= os.path.getsize(two)
        assert "damaged in the store" in agent.log()
        agent.drop("again", "qwen3")
        assert right(agent.ready("again"), hub), "what is ready again is right again"


def test_damage_to_a_wanted_model_is_mended_by_the_next_rescan(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    with make_agent(scheduler__rescan_s=0.5) as agent:
        agent.drop("x", "qwen3")
        path = agent.ready("x")
        damage(path)
        wait_until(lambda: right(path, hub), "the right bytes are back")
        agent.ready("x")


def test_changed_times_alone_need_no_hub_and_damage_is_not_ready_without_one(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    agent = make_agent()
    with agent:
        agent.drop("x", "qwen3")
        path = agent.ready("x")
    os.utime(path)
    agent.set(hub__offline="true")
    hub.reset()
    with agent:
        agent.drop("y", "qwen3")
        assert agent.ready("y") == path
    damage(path)
    with agent:
        agent.drop("z", "qwen3")
        wait_until(lambda: "damaged in the store" in agent.log(), "it is hashed")
        answer = agent.wait("z", "waiting", "failed")
        assert answer["models"][0]["path"] is None
    assert hub.stats()["bytes_sent"] == {}
    agent.set(hub__offline="false")
    with agent:
        wait_until(lambda: (agent.progress("z") or {})["state"] == "ready", "it is fetched")
        assert right(path, hub)


def test_what_version_010_published_is_hashed_before_it_is_linked(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    agent = make_agent()
    with agent:
        agent.drop("one", "qwen3")
        one = agent.ready("one")
    for stamps in (agent.store / ".stamps").iterdir():
        stamps.unlink()
    hub.reset()
    with agent:
        agent.drop("two", SAME)
        assert os.path.samefile(one, agent.ready("two"))
        assert hub.stats()["bytes_sent"] == {}
        record = json.loads((Path(agent.ready("two")).parent / ".wantd.json").read_bytes())
        assert record["files"][0]["source"] == "store"
