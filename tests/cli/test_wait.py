"""`wantd wait`: for wants that others write, whether they, or the agent, are there yet or not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from agent.cli.wait import want_path
from agent.errors import Code, Exit
from tests.harness import AgentProcess


def test_it_waits_for_the_want_and_for_the_agent(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    command = [sys.executable, "-m", "agent", "wait", "team/mine"]
    with subprocess.Popen(command, env=agent.environ, stdout=subprocess.PIPE, text=True) as waiting:
        agent.drop("team/mine", "qwen3")
        with agent:
            out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == Exit.OK
    assert out == f"{agent.store}/qwen3/Qwen_Qwen3-0.6B-Q4_K_M.gguf\n"


def test_it_ends_with_the_error_of_the_want_and_leaves_it(agent: AgentProcess) -> None:
    path = agent.drop("bad", "qwen33")
    agent.failed("bad")
    done = agent.wantd("wait", "bad.want")
    assert done.returncode == Exit.of(Code.MODEL_NOT_SUPPORTED)
    assert "did you mean qwen3" in done.stderr
    assert path.exists()


def test_after_the_timeout_it_says_what_is_missing(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    agent.drop("there", "qwen3")
    done = agent.wantd("wait", "there", "nowhere", "--timeout", "0.2")
    assert done.returncode == Exit.FAILURE
    assert f"there is no {agent.spool}/nowhere.want" in done.stderr
    assert "there: not ready within 0.2 s: no agent has answered it yet" in done.stderr


def test_a_want_is_named_in_any_way() -> None:
    for name in ("a/b", "a/b.want", "a/b.progress", "/spool/a/b.want"):
        assert want_path("/spool", name) == "/spool/a/b.want"
