"""Floods, a queue of the kernel that runs over, and no inotify at all: no want is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.torture.cases import Case
from tests.torture.lives import world

PRODUCERS = 8
FLOOD = 100_000
RSS_MAX = 450_000_000  # bytes: 100,000 wants and answers are known by heart, 4 kB each at most
QUEUE_LIMIT = "/proc/sys/fs/inotify/max_queued_events"
NEVER_S = 3600  # interval of a rescan that is not to help

PRODUCER = """
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    path = f"{folder}/w{number:06d}"
    with open(path + ".tmp", "w") as file:
        file.write("nest")
    os.rename(path + ".tmp", path + ".want")
"""


def hub() -> HubProcess:
    return world().hub


def agent_in(root: Path, **more: Any) -> AgentProcess:
    return AgentProcess(root, hub().endpoint, catalog__path=world().catalog, **more)


def unanswered(spool: Path, *, state: bytes = b'"ready"') -> int:
    """How many wants have no answer with that state."""
    missing = 0
    for folder, _, names in os.walk(spool):
        answers = {name for name in names if name.endswith(".progress")}
        for name in names:
            if name.endswith(".want"):
                answer = name.removesuffix(".want") + ".progress"
                missing += answer not in answers or state not in _first_lines(f"{folder}/{answer}")
    return missing


def _first_lines(path: str) -> bytes:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(200)
    return b""


def flood(count: int) -> Callable[[Path], None]:
    """`count` wants in one burst, from eight processes."""

    def run(root: Path) -> None:
        with agent_in(root / "a") as agent:
            agent.drop("first", "nest")
            agent.ready("first")
            producers = []
            for number in range(PRODUCERS):
                folder = agent.spool / f"producer{number}"
                folder.mkdir()
                arguments = [sys.executable, "-c", PRODUCER, str(folder), str(count // PRODUCERS)]
                producers.append(subprocess.Popen(arguments))
            assert [producer.wait() for producer in producers] == [0] * PRODUCERS
            wait_until(lambda: unanswered(agent.spool) == 0, f"{count} wants are ready", 60 + count / 200)
            assert agent.rss_bytes() < RSS_MAX, agent.rss_bytes()

    return run


def overflow(root: Path) -> None:
    """The kernel drops events while the agent stands still: the scan finds what they would have told."""
    with open(QUEUE_LIMIT, encoding="ascii") as file:
        events = int(file.read())
    with agent_in(root / "a", scheduler__rescan_s=NEVER_S) as agent:
        agent.drop("first", "nest")
        agent.ready("first")
        os.kill(agent.pid, signal.SIGSTOP)
        # The limit is the whole machine's: a smaller one would reach the agents of other tests, so this queue is filled
        # as it is. Each of these files is at least two events, created and closed, and no request.
        for number in range(events // 2 + 1):
            (agent.spool / f".noise{number}").touch()
        for number in range(500):
            agent.drop(f"w{number}", "nest")
        os.kill(agent.pid, signal.SIGCONT)
        wait_until(lambda: unanswered(agent.spool) == 0, "every want is ready")
        assert "overflow" in agent.log().lower(), "the queue did run over"


class _Stopper:
    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent

    def close(self) -> None:
        self._agent.__exit__()


def no_inotify(root: Path) -> None:
    """No inotify instance is left (EMFILE): the spool is polled, and the log says so."""
    agent = agent_in(root / "a", spool__poll_interval_s=0.2, scheduler__rescan_s=NEVER_S)
    # A user namespace has a limit of its own: the rest of the machine keeps its instances.
    script = 'echo 0 > /proc/sys/user/max_inotify_instances; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-m", "agent", "run"]
    with agent.log_path.open("ab") as log:
        agent.process = subprocess.Popen(command, env=agent.environ, stdout=log, stderr=log, cwd=agent.root)
    with contextlib.closing(_Stopper(agent)):
        for number in range(20):
            agent.drop(f"w{number}", "nest")
        wait_until(lambda: unanswered(agent.spool) == 0, "every want is ready")
        assert "with inotify" in agent.log(), agent.log()
        (agent.spool / "w0.want").unlink()
        wait_until(lambda: not (agent.spool / "w0.progress").exists(), "a removal is seen")


def cases(_: int) -> Iterator[Case]:
    yield Case("2,000 wants from 8 processes", flood(2000), faults={"a burst of 2,000 wants from 8 processes": 2000})
    row = f"a burst of {FLOOD:,} wants from 8 processes"
    yield Case("100,000 wants from 8 processes", flood(FLOOD), brief=False, faults={row: FLOOD})
    yield Case("the queue of inotify runs over", overflow)
    yield Case("no inotify instance is left (EMFILE)", no_inotify, needs=("root",))
