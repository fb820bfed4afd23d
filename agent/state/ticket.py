"""A want as the agent knows it: what its file said, the models it asks for, and how they go."""

from __future__ import annotations

from datetime import datetime

from agent.core.progress import ModelProgress, want_state
from agent.core.states import State
from agent.core.waits import Wait
from agent.core.want import Want
from agent.errors import WantdError
from agent.spool.files import Stamp


class Ticket:
    """One want. `stamp` and `digest` tell what its file held when it was read last.

    `models` are the references as the want spells them, each with its progress, which the job behind it shares with
    every other want for that model. `error` and `waiting` are the want's own: it cannot be read, it is not time yet.
    `shown` and `fraction` are the state and the progress last written: the latter never falls within an attempt.
    `unwritable` says why there is no progress file. `gone` is final.
    """

    __slots__ = (
        "attempt",
        "created_at",
        "digest",
        "error",
        "finished_at",
        "fraction",
        "gone",
        "models",
        "path",
        "shown",
        "stamp",
        "started_at",
        "unwritable",
        "waiting",
        "want",
    )

    def __init__(self, path: str, now: datetime) -> None:
        self.path = path
        self.stamp: Stamp | None = None
        self.digest: bytes | None = None
        self.gone = False
        self.shown: State | None = None
        self.unwritable: str | None = None
        self.reset(now)

    def reset(self, now: datetime) -> None:
        """A new request under the same name."""
        self.want: Want | None = None
        self.models: list[tuple[str, ModelProgress]] = []
        self.error: WantdError | None = None
        self.waiting: Wait | None = None
        self.fraction = 0.0
        self.attempt = 1
        self.created_at = now
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None

    def retry(self, now: datetime) -> None:
        """The same request once more: a new attempt, with the want and its age kept."""
        want, created, attempt = self.want, self.created_at, self.attempts + 1
        self.reset(now)
        self.want, self.created_at, self.attempt = want, created, attempt

    def resume(self) -> None:
        """The same attempt, from the start: what it waited for has come, or its models have changed."""
        self.finished_at, self.fraction, self.waiting = None, 0.0, None

    @property
    def attempts(self) -> int:
        """How often it was tried: the want, or the model that was tried most often."""
        return max([self.attempt, *(model.attempt for _, model in self.models)])

    @property
    def state(self) -> State:
        """The state of the want as a whole."""
        if self.waiting and not self.error:
            return State.WAITING
        return want_state([model for _, model in self.models], self.error)
