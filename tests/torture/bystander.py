"""Somebody else on the host while an attack lasts: how long he waits for a progress file, and what the agent takes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import AgentProcess

LATENCY_MAX_S = 1.0  # an unrelated bad want has its progress file; idle it is some milliseconds
RSS_MAX = 250_000_000  # bytes
PAUSE_S = 0.05  # between two of his wants
GIVE_UP_S = 60.0
FOLDER = "bystander"


class Bystander:
    """Drops one bad want after the other into a directory of his own, which needs no server to be answered.

    At its end the block fails where he had to wait (`timed` only: a machine that is shared proves nothing), where the
    agent took too much memory, or where something held its event loop.
    """

    def __init__(self, agent: AgentProcess, *, timed: bool, rss_max: int = RSS_MAX) -> None:
        self._agent = agent
        self._timed = timed
        self._rss_max = rss_max
        self._folder = agent.spool / FOLDER
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_again_and_again, daemon=True)
        self.latencies: list[float] = []
        self.problem: str | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o777)  # the agent may be another user
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(GIVE_UP_S + 5)
        if kind:
            return
        worst, rss = max(self.latencies, default=0.0), self._agent.rss_bytes()
        print(f"\n  latency {worst:.2f} s at most over {len(self.latencies)} wants, {rss / 1e6:.0f} MB", flush=True)
        assert self.problem is None, self.problem
        assert self.latencies, "no want of the bystander was answered"
        assert rss < self._rss_max, f"{rss} bytes of memory"
        assert not self._timed or worst < LATENCY_MAX_S, f"an unrelated want waited for {worst:.2f} s"

    def wait_for(self, more: int) -> None:
        """Until he has been answered so many times more."""
        enough = len(self.latencies) + more
        until = time.monotonic() + GIVE_UP_S
        while len(self.latencies) < enough and self.problem is None:
            assert time.monotonic() < until, "the bystander waits"
            time.sleep(0.01)

    def _ask_again_and_again(self) -> None:
        number = 0
        while not self._over.wait(PAUSE_S):
            number += 1
            if not self._ask(self._folder / f"b{number}.want"):
                self.problem = f"an unrelated want had no progress file after {GIVE_UP_S:.0f} s"
                return

    def _ask(self, want: Path) -> bool:
        answer = want.with_suffix(".progress")
        want.write_text('{"modle": "x"}')
        began = time.monotonic()
        while not answer.exists():
            if time.monotonic() - began > GIVE_UP_S:
                return False
            time.sleep(0.003)
        self.latencies.append(time.monotonic() - began)
        want.unlink()
        return True
