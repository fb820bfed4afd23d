"""The states of a model on its way, and which may follow which (docs/architecture.md draws them)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class State(StrEnum):
    """Only `ready` and `failed` are final."""

    QUEUED = "queued"
    RESOLVING = "resolving"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    READY = "ready"
    FAILED = "failed"


FINAL = frozenset({State.READY, State.FAILED})

# `queued` after a final state is a new attempt: the want was touched, or its model has gone from the store.
LEGAL: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RESOLVING, State.WAITING, State.READY, State.FAILED}),
    State.RESOLVING: frozenset({State.WAITING, State.DOWNLOADING, State.VERIFYING, State.READY, State.FAILED}),
    State.WAITING: frozenset(set(State) - {State.VERIFYING}),
    State.DOWNLOADING: frozenset({State.WAITING, State.VERIFYING, State.READY, State.FAILED}),
    State.VERIFYING: frozenset({State.DOWNLOADING, State.WAITING, State.READY, State.FAILED}),
    State.READY: frozenset({State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
}

# What a want of several models shows while they are in different states: the one that moves most.
_MOST_MOVING = (State.DOWNLOADING, State.VERIFYING, State.RESOLVING, State.WAITING, State.QUEUED)


def move(old: State, new: State) -> State:
    """The new state. Raises ValueError for a move that the table does not know; staying is always legal."""
    if new is not old and new not in LEGAL[old]:
        raise ValueError(f"no model goes from {old} to {new}")
    return new


def combined(states: Iterable[State]) -> State:
    """The state of a want from those of its models; final only when every one is."""
    present = set(states)
    for state in _MOST_MOVING:
        if state in present:
            return state
    return State.FAILED if State.FAILED in present else State.READY
