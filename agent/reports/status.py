"""What is wanted, moving, ready and failed: from the spool and the store alone, with or without a running agent.

The agent leaves one small file in the store, beside its lock on the spool: who serves the spool, which wants it could
write no progress file for, which changed settings wait for a restart. Whether it runs, the lock says, not the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import orjson
from loguru import logger

from agent import __version__
from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.core.words import timestamp
from agent.disk import atomic_write
from agent.spool.files import list_wants, read_any_progress
from agent.spool.folders import Folders
from agent.store.layout import Layout, read_record
from agent.store.lock_table import flock_holder
from agent.store.locks import process_start

UNANSWERED_MOST = 100  # wants without a progress file that the agent's file names
PROGRESS_MAX_BYTES = 32 * 1024 * 1024  # of a progress file: one of 10,000 models has some 10 MB
HEAD_BYTES = 512  # of a progress file: its state is among the first lines
LISTED_MOST = 50  # wants of each state, unless everything is asked for: a screen, and no more files read whole
ANSWER_S = 5.0  # a want without a progress file for this long has a reason that people want to know
_STATE = re.compile(rb'\A\{\s*"schema": 1,\s*"want": "(?:[^"\\]|\\.)*",\s*"state": "([a-z]+)"')


class Unanswered(msgspec.Struct, frozen=True):
    """A want without a progress file, its path as `ascii()` shows it, and why."""

    want: str
    why: str


class AgentFile(msgspec.Struct, frozen=True):
    """What an agent says of itself. `process_start` tells its process from a later one with the same id (proc(5)).

    `listening` is where its HTTP face is reached, each as `unix:PATH` or `http://HOST:PORT`.
    """

    pid: int
    process_start: int | None
    started_at: str
    host: str
    version: str
    spool: str
    config: str = ""
    restart_needed: list[str] = []
    listening: list[str] = []
    unanswered: list[Unanswered] = []


@dataclass(slots=True)
class AgentReport:
    """Keeps the agent's file true. `write` touches the disk, and only where there is something new to say."""

    layout: Layout
    spool: str
    config: str
    started_at: datetime
    restart_needed: list[str] = field(default_factory=list)
    listening: list[str] = field(default_factory=list)
    _written: AgentFile | None = None

    def write(self, unanswered: dict[str, str]) -> None:
        """`unanswered` are paths of wants and why they have no progress file."""
        first = list(unanswered.items())[:UNANSWERED_MOST]
        value = AgentFile(
            pid=os.getpid(),
            process_start=process_start(os.getpid()),
            started_at=timestamp(self.started_at),
            host=socket.gethostname(),
            version=__version__,
            spool=self.spool,
            config=self.config,
            restart_needed=self.restart_needed,
            listening=self.listening,
            unanswered=[Unanswered(ascii(path), why) for path, why in first],
        )
        path = self.layout.agent_file(self.spool)
        if value == self._written and os.path.exists(path):
            return
        try:
            atomic_write(path, msgspec.json.encode(value))
        except OSError as error:
            logger.warning("cannot write {}: {}", path, error.strerror)
        else:
            self._written = value


@dataclass(frozen=True, slots=True)
class AgentState:
    """Whether an agent serves a spool, and what its file says (of the last one, where none runs)."""

    running: bool
    said: AgentFile | None

    def to_json(self) -> dict[str, Any]:
        """As `wantd status --json` shows it."""
        said = msgspec.to_builtins(self.said) if self.said else {}
        said.pop("process_start", None)
        return {"running": self.running, **said}


def agent_of(spool: str, layout: Layout) -> AgentState:
    """Who serves the spool now."""
    said: AgentFile | None = None
    with contextlib.suppress(OSError, msgspec.DecodeError), open(layout.agent_file(spool), "rb") as file:
        said = msgspec.json.decode(file.read(), type=AgentFile)
    if flock_holder(layout.spool_lock(spool)) is not None:
        return AgentState(True, said)
    # Of an agent in another PID namespace, or on another host, the kernel's table shows nothing: its word counts.
    if said is None or not os.path.lexists(layout.spool_lock(spool)):
        return AgentState(False, said)
    elsewhere = said.host != socket.gethostname()
    return AgentState(elsewhere or process_start(said.pid) == said.process_start, said)


@dataclass(frozen=True, slots=True)
class Status:
    """`wants` are all of them, or `LISTED_MOST` of each state but `ready`, where not everything was asked for.

    `counts` is over all of them; state `unanswered` has no progress file.
    """

    agent: AgentState
    spool: str
    store: str
    counts: dict[str, int]
    wants: list[dict[str, Any]]
    models: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As `wantd status --json` prints it."""
        return {
            "agent": self.agent.to_json(),
            "spool": self.spool,
            "store": self.store,
            "counts": self.counts,
            "wants": self.wants,
            "models": self.models,
        }


def collect(spool: str, store: str, now: float, *, everything: bool = True) -> Status:
    """Look at the spool and the store. `now` is in seconds since the epoch.

    Of most wants only the first lines are read unless `everything` is asked for: of 100,000, nearly all are ready.
    """
    layout = Layout(store)
    agent = agent_of(spool, layout)
    counts: Counter[str] = Counter()
    wants = []
    with Folders(spool) as folders:
        for path in sorted(list_wants(spool)):
            state = None if everything else _state(folders, path)
            if state == "ready" or (state and counts[state] >= LISTED_MOST):
                counts[state] += 1
                continue
            want = _want(folders, path, agent, now)
            counts[str(want["state"])] += 1
            wants.append(want)
    models = sorted(_models(layout), key=lambda model: str(model["model"]))
    return Status(agent, spool, store, dict(sorted(counts.items())), wants, models)


def _models(layout: Layout) -> Iterator[dict[str, Any]]:
    for directory, _ in layout.record_places():
        if record := read_record(directory):
            yield {
                "model": record.model,
                "path": f"{directory}/{record.opens}" if record.opens else directory,
                "bytes": sum(file.size for file in record.files),
                "commit": record.commit,
                "source": record.source,
                "verified": record.verified,
            }


def _state(folders: Folders, path: str) -> str | None:
    """From the first lines of its progress file; None where they do not tell."""
    try:
        found = _STATE.match(read_any_progress(folders, path, HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None


def _want(folders: Folders, path: str, agent: AgentState, now: float) -> dict[str, Any]:
    try:
        progress = orjson.loads(read_any_progress(folders, path, PROGRESS_MAX_BYTES))
        if isinstance(progress, dict):
            return {**progress, "path": _shown(path)}
        why = "its progress file is not one of wantd's"
    except FileNotFoundError:
        why = _why_unanswered(path, agent, now)
    except (OSError, orjson.JSONDecodeError) as error:
        why = ascii(str(error))
    return {"want": _shown(path), "path": _shown(path), "state": "unanswered", "why": why}


def _shown(path: str) -> str:
    """A path that JSON and a terminal can show: names may hold any byte."""
    return path if path.isprintable() else ascii(path)[1:-1]


def _why_unanswered(path: str, agent: AgentState, now: float) -> str:
    if not agent.running:
        return "no agent serves this spool; start one with `wantd run`"
    for unanswered in agent.said.unanswered if agent.said else []:
        if unanswered.want == ascii(path):
            return f"the agent cannot write its progress file: {unanswered.why}"
    name = os.path.basename(path).removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX
    if len(os.fsencode(name)) > 255:
        return f"its name is too long: {PROGRESS_SUFFIX} does not fit behind it"
    try:
        young = now - os.lstat(path).st_mtime < ANSWER_S
    except OSError:
        return "it is gone"
    return "not answered yet" if young else "the agent may not be able to write its progress file; see the agent's log"
