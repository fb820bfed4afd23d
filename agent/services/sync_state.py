"""Tells a load balancer what this host fetches: idle, running, success or failed, with model, file and bytes.

The note that wantd comes from has a node report so to its balancer. Nothing waits for the answer: a balancer that does
not take reports misses them, and is told again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from loguru import logger

from agent.core.job import FINAL, State
from agent.core.progress import timestamp
from agent.core.target import Target
from agent.errors import WantdError
from agent.services.job import Job

REPORT_S = 2.0  # a person who watches a dashboard sees it move
AGAIN_S = 30.0  # the same is told again after so long: the balancer may have been restarted
_MOVING = (State.DOWNLOADING, State.VERIFYING, State.RESOLVING)

Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class SyncState:
    """Looks at the jobs from time to time; `send` posts a document, None where there is nobody to tell."""

    def __init__(
        self,
        jobs: Callable[[], Iterable[Job]],
        host: str,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._host = host
        self._version = version
        self._clock = clock
        self._states: dict[Target, State] = {}
        self._last: dict[str, Any] = _document("idle")
        self._told: dict[str, Any] | None = None
        self._told_at = 0.0
        self._silent = False
        self.send: Send | None = None

    async def tell(self) -> None:
        """Say how it stands, if that is news."""
        document = self._look()
        send, now = self.send, self._clock()
        if send is None or (document == self._told and now - self._told_at < AGAIN_S):
            return
        self._told, self._told_at = document, now
        about = {"host": self._host, "agent": f"wantd {self._version}", "updated_at": timestamp(datetime.now(UTC))}
        try:
            await send(document | about)
        except WantdError as error:
            if not self._silent:
                logger.warning("the load balancer does not take the report of what is fetched: {}", error.message)
            self._silent = True
        else:
            self._silent = False

    def _look(self) -> dict[str, Any]:
        """What is moving now, else what ended last."""
        before, self._states = self._states, {}
        moving: list[Job] = []
        for job in self._jobs():
            state = job.progress.state
            self._states[job.target] = state
            if state in _MOVING:
                moving.append(job)
            elif state in FINAL and before.get(job.target) is not state and job.progress.source != "store":
                self._last = _of(job, "success" if state is State.READY else "failed")
        if moving:
            return _of(min(moving, key=lambda job: (_MOVING.index(job.progress.state), job.priority)), "running")
        return self._last if self._states else _document("idle")


def _of(job: Job, state: str) -> dict[str, Any]:
    progress = job.progress
    moving = [file for file in progress.files if file.state in _MOVING]
    return _document(
        state,
        model=job.target.id,
        file=moving[0].name if moving else None,
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        error=progress.error.to_json() if progress.error else None,
    )


def _document(state: str, **known: Any) -> dict[str, Any]:
    empty = {"model": None, "file": None, "bytes_done": 0, "bytes_total": None, "error": None}
    return {"state": state, **empty, **known}
