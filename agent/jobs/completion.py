"""Models that are ready, but were planned from a cache of this host, which may lack files: which can be completed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent.core.states import State
from agent.core.target import Target
from agent.errors import WantdError
from agent.state.job import Job
from agent.store.layout import Published


class Completions:
    """`can_ask` says whether a source that knows all files of a model at a commit answers now; it raises WantdError."""

    def __init__(self, can_ask: Callable[[Target, str], Awaitable[bool]]) -> None:
        self._can_ask = can_ask
        self._commits: dict[Job, str] = {}

    def note(self, job: Job, published: Published) -> None:
        """The job's model is published."""
        if published.record.provisional:
            self._commits[job] = published.record.commit
        else:
            self.forget(job)

    def forget(self, job: Job) -> None:
        """Nothing is to be done about it any more."""
        self._commits.pop(job, None)

    async def due(self) -> list[tuple[Job, str]]:
        """Jobs whose models are to be planned again, at that commit, up to the first for which the Hub is not back.

        That one is the last to be asked for next time. What is refused for good is not asked for again.
        """
        found = []
        for job, commit in list(self._commits.items()):
            try:
                known = await self._can_ask(job.target, commit)
            except WantdError as error:
                if not error.retryable:
                    self.failed(job, error)
                    continue
                known = False
            if not known:
                if self._commits.pop(job, None):
                    self._commits[job] = commit
                break
            found.append((job, commit))
        return [(job, commit) for job, commit in found if job in self._commits and job.progress.state is State.READY]

    def failed(self, job: Job, error: WantdError) -> None:
        """It could not be completed, and stays as it is."""
        job.log.warning("{} stays as a cache of this host has it: {}", job.target.model, error.message)
        if not error.retryable:
            self.forget(job)
