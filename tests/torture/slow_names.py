"""Name servers that do not answer: whoever asks waits alone, and the agent stops when it is told to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.harness import AgentProcess, wait_until
from tests.torture.adversary import Adversary
from tests.torture.bystander import Bystander
from tests.torture.cases import Case
from tests.torture.hub_lies import agent_for
from tests.torture.lives import library
from tests.torture.truth import Asked, Sent, answer

STOP_S = 5.0  # the promise, from SIGTERM to the end of the process
NAMES = 40  # more than there are threads in any pool


def slow(agent: AgentProcess) -> AgentProcess:
    agent.set(LD_PRELOAD=library("names.c"), SLOW_NAMES_S=60)
    return agent


def hub_of_a_slow_name(root: Path, *, timed: bool) -> None:
    """The Hub's own name: wants wait, others are answered, and SIGTERM ends all."""
    with slow(agent_for(root / "a", "http://hub.slow")) as agent:
        with Bystander(agent, timed=timed) as bystander:
            for number in range(NAMES):
                agent.drop(f"w{number}", f"evil/w{number}")
            wait_until(lambda: (agent.progress("w0") or {}).get("state") == "resolving", "the Hub is asked")
            bystander.wait_for(10)
        stop_at_once(agent)


def to_a_slow_name(asked: Asked) -> Iterator[Sent] | None:
    """Each listing is at a host of its own."""
    return answer(302, b"", Location=f"http://{asked.repo.replace('/', '-')}.slow/x") if "w" in asked.repo else None


def redirects_to_slow_names(root: Path, *, timed: bool) -> None:
    """A Hub that sends every request on to another name: the look-ups take no thread that the spool needs."""
    with Adversary(own=to_a_slow_name) as adversary, slow(agent_for(root / "a", adversary.hub)) as agent:
        with Bystander(agent, timed=timed) as bystander:
            for number in range(NAMES):
                agent.drop(f"w{number}", f"evil/w{number}")
            wait_until(lambda: len(adversary.seen) >= NAMES // 4, "the Hub has answered some")
            bystander.wait_for(10)
        stop_at_once(agent)


def stop_at_once(agent: AgentProcess) -> None:
    began = time.monotonic()
    assert agent.stop() == 0, agent.log()[-2000:]
    took = time.monotonic() - began
    print(f"\n  stopped after {took:.1f} s", flush=True)
    assert took < STOP_S, f"stopped after {took:.1f} s"
    assert "Traceback" not in agent.log(), agent.log()[-2000:]


def cases(_: int) -> Iterator[Case]:
    for title, run in (
        ("a Hub whose name is looked up in vain", hub_of_a_slow_name),
        (f"a Hub that redirects to {NAMES} such names", redirects_to_slow_names),
    ):
        row = f"{title}; then SIGTERM"
        yield Case(title, partial(run, timed=False), needs=("cc",), faults={row: 1})
