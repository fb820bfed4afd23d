"""Herds: thousands of wants, and a server that fails all of them in one way or another."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.harness import DEADLINE_S, wait_until
from tests.torture.adversary import Adversary
from tests.torture.amplification import LONG_S, PRODUCER
from tests.torture.bystander import Bystander
from tests.torture.cases import Case
from tests.torture.hub_lies import agent_for
from tests.torture.truth import Asked, Sent, answer

FEW, MANY = 300, 12_000
WATCHED_S = 20.0  # the long form looks at it for so long
LATE_S = DEADLINE_S  # another producer's model, once the server has recovered; the herd has 12,000 in front of it
CPU_SHARE = 0.8  # of a processor, at most, once all wants are known and the server still fails

FAILURES: dict[str, Callable[[Asked], Iterator[Sent]]] = {  # by row of the table
    "503 with `Retry-After: 1`": lambda _: answer(503, b"", Retry_After="1"),
    "503 without a word": lambda _: answer(503),
    "429 with `Retry-After: 1`": lambda _: answer(429, b"", Retry_After="1"),
    "404": lambda _: answer(404),
    "silence": lambda _: iter([60.0]),
    "a closed connection": lambda _: iter([]),
}
MANY_NAMES = PRODUCER.replace("file.write(content)", 'file.write(f"{content}-{number}")')


def herd(failure: Callable[[Asked], Iterator[Sent]], count: int, root: Path, *, timed: bool) -> None:
    """Every want asks for a model of its own; then the server recovers, and another producer has a want."""
    recovered = threading.Event()

    with (
        Adversary(own=lambda asked: None if recovered.is_set() else failure(asked)) as hub,
        agent_for(root, hub.hub, transfer__jobs=4, transfer__retry_min_s=1, transfer__retry_max_s=300) as agent,
        Bystander(agent, timed=timed) as bystander,
    ):
        command = [sys.executable, "-c", MANY_NAMES, str(agent.spool / "producer"), str(count), "herd/m"]
        subprocess.run(command, check=True, timeout=LONG_S)
        last = f"producer/w{count - 1:06d}"
        wait_until(lambda: agent.progress(last) is not None, "the last one has its progress file", LONG_S)
        bystander.wait_for(20)
        began, used = time.monotonic(), agent.cpu_s()
        while timed and time.monotonic() - began < WATCHED_S:
            bystander.wait_for(5)
        share = (agent.cpu_s() - used) / max(time.monotonic() - began, 1e-3)
        print(f"\n  {share:.0%} of a processor", flush=True)
        assert not timed or share < CPU_SHARE, f"{share:.0%} of a processor"
        began = time.monotonic()
        recovered.set()
        agent.drop("another/x", "good/x")
        agent.ready("another/x", deadline_s=LATE_S)
        print(f"  another's model was ready after {time.monotonic() - began:.1f} s", flush=True)


def cases(_: int) -> Iterator[Case]:
    for row, failure in FAILURES.items():
        title = f"{MANY:,} wants, and a Hub that answers with {row}"
        brief = f"{FEW} wants, and a Hub that answers with {row}"
        yield Case(brief, partial(herd, failure, FEW, timed=False), faults={title: 1})
        yield Case(title, partial(herd, failure, MANY, timed=True), brief=False)
