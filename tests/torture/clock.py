"""Clocks that jump: every job of the scheduler goes on within two of its intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.torture.cases import Case
from tests.torture.lives import library, world

INTERVAL_S = 4.0
LATE_S = 2 * INTERVAL_S  # the promise: no job stands still for longer
SLACK_S = 2.0  # for a loaded machine: only a stop is to be found, not a late thread
HOUR_S = 3600
STEPS = {"the clock is set an hour forward": 1, "the clock is set an hour back": 1}


def hub() -> HubProcess:
    return world().hub


def stepped(step_s: int, *, timed: bool) -> Callable[[Path], None]:
    """The clock is set by `step_s` while everything is quiet, and back again."""

    def run(root: Path) -> None:
        offset = root / "offset"
        offset.write_text("0".ljust(31))
        agent = AgentProcess(
            root / "a",
            hub().endpoint,
            catalog__path=root / "catalog.json",
            scheduler__rescan_s=INTERVAL_S,
            scheduler__reap_s=INTERVAL_S,
            locks__heartbeat_s=INTERVAL_S,
            transfer__retry_min_s=INTERVAL_S,
            transfer__retry_max_s=INTERVAL_S + 0.5,
            LD_PRELOAD=library("clock.c"),
            CLOCK_OFFSET_FILE=offset,
        )
        catalog = json.loads(world().catalog.read_text())
        (root / "catalog.json").write_text(json.dumps(catalog))
        hub().fault("cdn/*torture/twin-a/*", stall_after=100_000)
        hub().fault("hub/api/models/torture/nest/*", status=503)
        try:
            with agent:
                agent.drop("ready", "gpt-oss-20b")
                agent.ready("ready")
                agent.drop("moving", "qwen3")
                agent.wait("moving", "downloading")
                agent.drop("retried", "nest")
                agent.wait("retried", "waiting")
                for number, by in enumerate((step_s, 0)):
                    with offset.open("r+") as file:  # in place: it is mapped
                        file.write(str(by).ljust(31))
                    all_jobs_run(agent, root, catalog, number, timed=timed)
        finally:
            hub().clear_faults()

    return run


def all_jobs_run(agent: AgentProcess, root: Path, catalog: list[Any], number: int, *, timed: bool) -> None:
    """Each job of the scheduler leaves something that can be seen."""
    began = time.monotonic()
    stale = agent.store / ".locks" / f"stale{number}.lock"
    stale.write_text("{}")
    answer = agent.spool / "ready.progress"
    answer.unlink()
    lock = agent.store / ".locks" / "qwen3.lock"
    beat = json.loads(lock.read_bytes())["heartbeat_at"]
    tries = retries(agent)
    (root / "catalog.json").write_text(json.dumps([*catalog, {"id": f"new{number}", "repo": "openai/gpt-oss-20b"}]))
    agent.drop(f"new{number}", f"new{number}")
    jobs: dict[str, Callable[[], Any]] = {
        "stale locks are reaped": lambda: not stale.exists(),
        "the spool is scanned": answer.exists,
        "locks have a heartbeat": lambda: json.loads(lock.read_bytes())["heartbeat_at"] != beat,
        "what waits is tried again": lambda: retries(agent) > tries,
        "the catalog is read": lambda: (agent.progress(f"new{number}") or {}).get("state") == "ready",
    }
    for what, done in jobs.items():
        try:
            wait_until(done, f"{what} after a step of the clock")
        except AssertionError as error:
            raise AssertionError(f"{error}; the log ends:\n{agent.log()[-3000:]}") from None
        took = time.monotonic() - began
        assert not timed or took < LATE_S + SLACK_S, f"{what} only after {took:.1f} s, two intervals are {LATE_S:.0f} s"


def retries(agent: AgentProcess) -> int:
    """How often the Hub has refused the model that it refuses just now."""
    return agent.log().count("nest: the Hub answered 503")


def cases(_: int) -> Iterator[Case]:
    yield Case("an hour forward and back", stepped(HOUR_S, timed=True), brief=False, needs=("cc",), faults=STEPS)
    yield Case("an hour back and forward", stepped(-HOUR_S, timed=True), brief=False, needs=("cc",), faults=STEPS)
    yield Case("an hour back, untimed", stepped(-HOUR_S, timed=False), needs=("cc",), faults=STEPS)
