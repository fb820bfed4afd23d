"""kill -9 in each state, then a start: everything wanted becomes ready, and hardly a byte comes twice."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.ranges import granule_for
from agent.errors import Code, Exit
from tests.harness import AgentProcess, clean_environment, wait_until
from tests.hub.process import HubProcess

REPO = "bartowski/Qwen_Qwen3-0.6B-GGUF"
FILE = "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
CONNECTIONS = 4


def stage_exists(agent: AgentProcess) -> bool:
    return any(name.startswith("stage-") for name in os.listdir(agent.store / ".partial"))


def in_state(*states: str) -> Callable[[AgentProcess], Any]:
    return lambda agent: (agent.progress("qwen3") or {}).get("state") in states


def moving(agent: AgentProcess) -> bool:
    return ((agent.progress("qwen3") or {}).get("bytes_done") or 0) > 1_000_000


MOMENTS: dict[str, tuple[dict[str, dict[str, Any]], Callable[[AgentProcess], Any]]] = {
    "resolving": ({"hub/api/models/*": {"latency_s": 30}}, in_state("resolving")),
    "beginning": ({"cdn/*": {"latency_s": 30}}, in_state("downloading")),
    "downloading": ({"cdn/*": {"max_rate": 1_000_000}}, moving),
    "verifying": ({}, in_state("verifying", "ready")),
    "publishing": ({}, stage_exists),
    "published": ({}, lambda agent: (agent.store / "qwen3").exists()),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_agent_goes_on_where_it_was(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, moment: str
) -> None:
    faults, reached = MOMENTS[moment]
    for glob, switches in faults.items():
        hub.fault(glob, **switches)
    agent = make_agent(transfer__connections=CONNECTIONS)
    agent.start()
    agent.drop("qwen3", "qwen3")
    wait_until(lambda: reached(agent), moment)
    agent.kill()
    for path in (agent.store / "qwen3").glob("*.gguf"):
        assert path.stat().st_size == size_of(hub), "whole, or not there at all"
    hub.clear_faults()
    agent.start()
    path = agent.ready("qwen3")  # where the killed one had said so already, the new one has nothing to add
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == hub.repos()[REPO]["files"][FILE]["sha256"]
    sent = hub.stats()["bytes_sent"].get(f"{REPO}/{FILE}", 0)
    # What a killed connection had in the kernel's buffers was sent, but never read: the Hub counts it all the same.
    in_buffers = 4_000_000
    assert sent <= size_of(hub) + CONNECTIONS * granule_for(size_of(hub)) + in_buffers
    wait_until(lambda: not locks_left(agent), "what the killed one left behind is cleared")


def locks_left(agent: AgentProcess) -> list[str]:
    return [name for name in os.listdir(agent.store / ".locks") if not name.startswith((".agent", ".spool"))]


def size_of(hub: HubProcess) -> int:
    size: int = hub.repos()[REPO]["files"][FILE]["size"]
    return size


def test_a_stopped_agent_ends_soon_and_its_download_goes_on_at_the_next_start(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    hub.fault("cdn/*", max_rate=1_000_000)
    agent = make_agent(transfer__connections=CONNECTIONS)
    agent.start()
    agent.drop("qwen3", "qwen3")
    wait_until(lambda: moving(agent), "bytes have come")
    assert agent.stop() == 0
    hub.clear_faults()
    agent.start()
    agent.ready("qwen3")
    assert hub.stats()["bytes_sent"][f"{REPO}/{FILE}"] < 2 * size_of(hub)


HOLDER = """
import sys, time
from agent.store.locks import Locks
locks = Locks()
lock = locks.try_acquire(sys.argv[1])
lock.progress = 0.25
lock.beat()
print("held", flush=True)
for number in range(int(sys.argv[2])):
    time.sleep(0.1)
    lock.progress = 0.25 + number / 1000
    lock.beat()
time.sleep(1000)
"""


@contextlib.contextmanager
def hold(agent: AgentProcess, beats: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the model's lock, and shows life for `beats` tenths of a second."""
    (agent.store / ".locks").mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(agent.store / ".locks" / "qwen3.lock"), str(beats)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
    )
    with holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def test_a_lock_file_that_a_killed_agent_left_delays_nobody(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    with hold(agent, 0):
        pass
    assert (agent.store / ".locks" / "qwen3.lock").exists()
    with agent:
        agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")


def test_a_live_holder_is_waited_for_and_shown_and_never_robbed(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent(locks__wait_timeout_s=2)
    with hold(agent, 10_000) as holder, agent:
        agent.drop("qwen3", "qwen3")
        answer = agent.wait("qwen3", "waiting")
        assert answer["waiting"]["for"] == "lock"
        assert answer["waiting"]["holder"]["pid"] == holder.pid
        first = answer["waiting"]["holder"]["progress"]
        # It shows life for longer than the time-out: it is still waited for, and its progress is seen to move.
        wait_until(lambda: holder_progress(agent) > first + 0.025, "the holder's progress moves")
        assert agent.wait("qwen3", "waiting")["waiting"]["for"] == "lock"
        assert not (agent.store / "qwen3").exists()
        holder.kill()
        holder.wait()
        agent.ready("qwen3")


def holder_progress(agent: AgentProcess) -> float:
    waiting = (agent.progress("qwen3") or {}).get("waiting") or {}
    value: float = (waiting.get("holder") or {}).get("progress") or 0.0
    return value


def test_a_holder_without_a_sign_of_life_leads_to_lock_timeout(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent(locks__wait_timeout_s=1, transfer__retry_min_s=0.2)
    with hold(agent, 0) as holder, agent:
        agent.drop("qwen3", "qwen3")
        answer = wait_until(
            lambda: (answer := agent.progress("qwen3")) and (answer["waiting"] or {}).get("for") == "retry" and answer,
            "lock_timeout",
        )
        because = answer["waiting"]["because"]
        assert because["code"] == "lock_timeout"
        assert because["retryable"]
        assert str(holder.pid) in because["message"]
        holder.kill()
        holder.wait()
        agent.ready("qwen3")


def test_two_agents_of_which_one_is_stopped_do_not_wait_for_ever(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    hub.fault("cdn/*", max_rate=100_000)
    store = tmp_path / "store"
    first = make_agent("first", store=store)
    second = make_agent("second", store=store, locks__wait_timeout_s=1, locks__heartbeat_s=0.2)
    first.start()
    first.drop("qwen3", "qwen3")
    first.wait("qwen3", "downloading")
    second.start()
    second.drop("qwen3", "qwen3")
    assert second.wait("qwen3", "waiting")["waiting"]["holder"]["pid"] == first.pid
    assert first.process
    first.process.send_signal(signal.SIGSTOP)
    answer = wait_until(
        lambda: (a := second.progress("qwen3")) and (a["waiting"] or {}).get("for") == "retry" and a, "lock_timeout"
    )
    assert str(first.pid) in answer["waiting"]["because"]["message"]
    first.process.send_signal(signal.SIGCONT)
    hub.clear_faults()
    assert first.ready("qwen3") == second.ready("qwen3")


def test_a_second_agent_for_one_spool_is_refused(agent: AgentProcess) -> None:
    refused = agent.wantd("run")
    assert refused.returncode == Exit.of(Code.SPOOL_IN_USE)
    assert f"another agent already serves {agent.spool}: process {agent.pid} on " in refused.stderr
    assert "None" not in refused.stderr
    assert str(agent.pid) in refused.stderr


def test_nobody_who_may_only_read_can_keep_the_agent_out(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    (agent.store / ".locks").mkdir(parents=True)
    held = [os.open(folder, os.O_RDONLY) for folder in (agent.spool, agent.store, agent.store / ".locks")]
    try:
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        with agent:
            agent.drop("qwen3", "qwen3")
            agent.ready("qwen3")
            [guard] = (agent.store / ".locks").glob(".spool-*.lock")
            assert guard.stat().st_mode & 0o077 == 0
    finally:
        for fd in held:
            os.close(fd)
