"""What a job is: a target that somebody wants, its progress, and what it leaves with when it cannot go on now."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loguru import logger

from agent.core.job import State
from agent.core.progress import ModelProgress
from agent.core.target import Target
from agent.errors import WantdError
from agent.services.batch import Batches

if TYPE_CHECKING:
    from loguru import Logger

LOGGED_WANTS = 20  # of a job, named in each of its log lines


class NotNow(Exception):
    """The job waits for something; `waiting` is what the progress file says, `seconds` None means: until told."""

    def __init__(self, waiting: dict[str, Any], seconds: float | None) -> None:
        super().__init__(str(waiting))
        self.waiting = waiting
        self.seconds = seconds


@dataclass(eq=False, slots=True)
class Job:
    """A target that somebody wants. `priority` is the best of its wants, `notify` tells them of changes."""

    target: Target
    notify: Callable[[Job, bool], None]
    progress: ModelProgress
    priority: int = 5
    wanted_by: dict[Any, int] = field(default_factory=dict)  # who wants it, and with which priority
    task: asyncio.Task[None] | None = None
    partial_keys: set[str] = field(default_factory=set)
    disk: Batches = field(default_factory=Batches)  # for the short steps of each file

    @property
    def log(self) -> Logger:
        """The log, with the fields that the journal is searched by."""
        wants = [ticket.path for ticket in itertools.islice(self.wanted_by, LOGGED_WANTS)]
        return logger.bind(model=self.target.model, want=wants)

    def go(self, state: State, *, waiting: dict[str, Any] | None = None, error: WantdError | None = None) -> None:
        """Change state and tell."""
        self.progress.go(state, waiting=waiting, error=error)
        self.notify(self, True)
