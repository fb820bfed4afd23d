"""`wantd status` tells the truth about the agent: after a restart, after a kill, from any user's point of view."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.errors import Exit
from tests.harness import AgentProcess


def status(agent: AgentProcess) -> dict[str, Any]:
    done = agent.wantd("status", "--json")
    assert done.returncode in (Exit.OK, Exit.NO_AGENT, Exit.SOME_FAILED), done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_it_says_running_after_a_restart_and_after_a_kill(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    assert status(agent)["agent"] == {"running": False}
    agent.start()
    for end in (agent.stop, agent.kill):
        said = status(agent)["agent"]
        assert (said["running"], said["pid"]) == (True, agent.pid)
        assert f"agent   running (pid {agent.pid}, version" in agent.wantd("status").stdout
        end()
        assert status(agent)["agent"]["running"] is False
        assert "agent   not running" in agent.wantd("status").stdout
        agent.start()
    assert status(agent)["agent"]["pid"] == agent.pid


def test_times_are_times(agent: AgentProcess) -> None:
    said = status(agent)["agent"]
    age = datetime.now(UTC) - datetime.fromisoformat(said["started_at"])
    assert timedelta(0) < age < timedelta(minutes=5)
    assert "process_start" not in said
    assert "started" not in said


def test_ready_wants_are_counted_and_listed_only_when_asked_for(agent: AgentProcess) -> None:
    agent.drop("qwen3")
    agent.drop("wrong", "no-such-model")
    path = agent.ready("qwen3")
    agent.failed("wrong")
    short, long = agent.wantd("status").stdout, agent.wantd("status", "--all").stdout
    assert "1 failed, 1 ready" in short
    assert "wrong.want" in short
    assert path not in short
    assert "1 ready; list them with --all" in short
    assert path in long
    assert [want["want"] for want in status(agent)["wants"]] == ["qwen3.want", "wrong.want"]
