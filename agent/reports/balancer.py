"""Tells a load balancer what this host downloads: idle, running, success or failed, with model, file and bytes.

The document is the sync state that a node of llmlb reports to its balancer. Nothing waits for the response: a balancer
that does not take a report misses it, and is told again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from loguru import logger

from agent.clock import Clock
from agent.core.retry import BALANCER_AGAIN_S
from agent.core.states import FINAL, State
from agent.core.target import Target
from agent.core.words import timestamp
from agent.errors import WantdError
from agent.state.job import Job

_MOVING = (State.DOWNLOADING, State.VERIFYING, State.RESOLVING)

Send = Callable[[Mapping[str, Any]], Awaitable[bool]]


class BalancerReports:
    """Looks at the jobs from time to time. `send` posts a document, where there is a balancer to tell."""

    def __init__(
        self,
        jobs: Callable[[], Iterable[Job]],
        host: str,
        version: str,
        clock: Clock,
        send: Send,
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
        self._send = send

    async def tell(self) -> None:
        """Say how it stands, if that is news."""
        document = self._look()
        now = self._clock.monotonic()
        if document == self._told and now - self._told_at < BALANCER_AGAIN_S:
            return
        self._told, self._told_at = document, now
        about = {"host": self._host, "agent": f"wantd {self._version}", "updated_at": timestamp(self._clock.now())}
        try:
            await self._send(document | about)
        except WantdError as error:
            if not self._silent:
                logger.warning("the load balancer did not accept a report: {}", error.message)
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
