"""A want as the agent knows it: what its file said, the models it asks for, and how they go.

There may be 100,000 of them that nothing happens to, so a ticket holds no container where one value will do: a want for
one plain model is its reference, and what became of that model is one job or one error.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from agent.core.progress import ModelProgress
from agent.core.states import State, combined
from agent.core.waits import Wait
from agent.core.want import Want, WantedModel
from agent.errors import WantdError
from agent.spool.files import Stamp


class Going(Protocol):
    """A model on its way: a job, which other tickets may share."""

    @property
    def progress(self) -> ModelProgress:
        """How it goes."""
        ...


Part = Going | WantdError  # what became of one model of a want; an error where no job stands for it


class Ticket:
    """One want. `stamp` and `digest` tell what its file held when it was read last.

    `error` and `waiting` are the want's own: it cannot be read, it is not time yet. `shown` and `fraction` are the
    state and the progress last written: the latter never falls within an attempt. `unwritable` says why there is no
    progress file. `gone` is final.
    """

    __slots__ = (
        "_parts",
        "_want",
        "attempt",
        "created_at",
        "digest",
        "error",
        "finished_at",
        "fraction",
        "gone",
        "path",
        "shown",
        "stamp",
        "started_at",
        "unwritable",
        "waiting",
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
        self._want: Want | str | None = None
        self._parts: Part | tuple[Part, ...] = ()
        self.error: WantdError | None = None
        self.waiting: Wait | None = None
        self.fraction = 0.0
        self.attempt = 1
        self.created_at = now
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None

    def retry(self, now: datetime) -> None:
        """The same request once more: a new attempt, with the want and its age kept."""
        want, created, attempt = self._want, self.created_at, self.attempts + 1
        self.reset(now)
        self._want, self.created_at, self.attempt = want, created, attempt

    def resume(self) -> None:
        """The same attempt, from the start: what it waited for has come, or its models have changed."""
        self.finished_at, self.fraction, self.waiting = None, 0.0, None

    @property
    def want(self) -> Want | None:
        """What its file asks for; None where it cannot be read."""
        return Want((WantedModel(self._want),)) if isinstance(self._want, str) else self._want

    @want.setter
    def want(self, want: Want | None) -> None:
        plain = want.models[0].reference if want and want.models else None
        is_plain = plain is not None and want == Want((WantedModel(plain),))
        self._want = plain if is_plain else want

    @property
    def parts(self) -> tuple[Part, ...]:
        """What became of each model, in the want's order; empty before it was looked up."""
        return self._parts if isinstance(self._parts, tuple) else (self._parts,)

    @parts.setter
    def parts(self, parts: Iterable[Part]) -> None:
        several = tuple(parts)
        self._parts = several[0] if len(several) == 1 else several

    @property
    def models(self) -> list[tuple[str, ModelProgress]]:
        """The references as the want spells them, each with its progress."""
        want, parts = self.want, self.parts
        if want is None or not parts:
            return []
        return [(model.reference, progress_of(part)) for model, part in zip(want.models, parts, strict=True)]

    @property
    def attempts(self) -> int:
        """How often it was tried: the want, or the model that was tried most often."""
        return max([self.attempt, *(part.progress.attempt for part in self.parts if not isinstance(part, WantdError))])

    @property
    def state(self) -> State:
        """The state of the want as a whole."""
        if self.error:
            return State.FAILED
        if self.waiting:
            return State.WAITING
        if not self.parts:
            return State.QUEUED
        return combined(State.FAILED if isinstance(part, WantdError) else part.progress.state for part in self.parts)


def progress_of(part: Part) -> ModelProgress:
    """How a part goes."""
    return ModelProgress.failed(part) if isinstance(part, WantdError) else part.progress
