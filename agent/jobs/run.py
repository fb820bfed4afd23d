"""One run of a job: what belongs to it and to no other run of the same job."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.core.waits import Wait
from agent.jobs.disk import Batches
from agent.state.job import Job
from agent.store.locks import Lock
from agent.store.publish import Stage


class NotNow(Exception):
    """The run ends because the job has to wait, for what `wait` says, until somebody starts it again."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(str(wait))
        self.wait = wait


@dataclass(eq=False, slots=True)
class Run:
    """`lock` is the model's, held from the plan to the publication; `stage` is where the model is put together.

    `disk` does the short steps of each file off the event loop. With `commit`, the run completes a model that was
    planned from a listing that may have lacked files: what is planned now, at that commit, takes the place of it.
    """

    job: Job
    disk: Batches = field(default_factory=Batches)
    lock: Lock | None = None
    stage: Stage | None = None
    commit: str | None = None
