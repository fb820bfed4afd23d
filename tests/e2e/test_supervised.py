"""A whole agent tells its service manager how it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.harness import AgentProcess, wait_until
from tests.manager import Manager


def test_the_agent_tells_it_all(make_agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    manager = Manager(address)
    agent = make_agent(NOTIFY_SOCKET=address, WATCHDOG_USEC="3000000")
    agent.start()
    agent.ready(agent.drop("qwen3").stem)
    agent.drop("nonsense", "no such model")
    told: list[str] = []
    wait_until(lambda: told.extend(manager.next()) or "STATUS=0 moving, 1 ready, 1 failed" in told, "the counts")
    assert told[0] == "READY=1"
    assert "WATCHDOG=1" in told
    agent.stop()
    wait_until(lambda: told.extend(manager.next()) or "STOPPING=1" in told, "that it stops")
    manager.close()
