"""What a want or a model waits for: one type a reason, made where the reason is known, rendered here alone.

`to_json` is `waiting` of a progress file (docs/protocol.md), `from_json` reads it back, `in_words` says it to a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from agent.core.words import size, timestamp
from agent.errors import WantdError


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock, as its file says; anything may be missing. `progress` runs from 0 to 1."""

    pid: int | None = None
    host: str | None = None
    since: str | None = None
    progress: float | None = None


class Wait(msgspec.Struct, frozen=True, tag_field="for"):
    """Base of all reasons; the tag is the value of `waiting.for`."""


class ForLock(Wait, frozen=True, tag="lock"):
    """Another process downloads the same model or file."""

    holder: Holder | None = None


class ForSlot(Wait, frozen=True, tag="slot"):
    """`transfer.jobs` downloads are running."""


class ForRetry(Wait, frozen=True, tag="retry"):
    """The last attempt failed with a retryable error; the next one begins at `until`."""

    until: datetime
    because: WantdError


class ForRateLimit(Wait, frozen=True, tag="rate_limit"):
    """A server asked for a pause until then."""

    until: datetime


class ForDisk(Wait, frozen=True, tag="disk"):
    """The disk has too little free space, in bytes."""

    need_bytes: int
    free_bytes: int


class NotBefore(Wait, frozen=True, tag="not_before"):
    """The want asks for a later time."""

    until: datetime


class ForWindow(Wait, frozen=True, tag="window"):
    """A window of `[[transfer.window]]` pauses downloads until then; None where it never ends."""

    until: datetime | None


AnyWait = ForLock | ForSlot | ForRetry | ForRateLimit | ForDisk | NotBefore | ForWindow


def to_json(wait: Wait) -> dict[str, Any]:
    """The `waiting` object of a progress file."""
    value: dict[str, Any] = msgspec.to_builtins(wait, builtin_types=(datetime,), enc_hook=_encode)
    if value.get("until"):
        value["until"] = timestamp(value["until"])
    return value


def from_json(value: Mapping[str, Any]) -> AnyWait | None:
    """The wait that a progress file tells of, or None where a later version wrote one that is unknown here."""
    try:
        wait: AnyWait = msgspec.convert(value, AnyWait, dec_hook=_decode)
    except msgspec.ValidationError:
        return None
    return wait


def in_words(wait: Wait | None) -> str:
    """What is waited for, to follow "waiting for"."""
    match wait:
        case ForLock(holder):
            holder = holder or Holder()
            done = f" ({holder.progress:.0%} done)" if holder.progress is not None else ""
            who = f"process {holder.pid} on {holder.host}" if holder.pid is not None else "another process"
            return f"{who}, which is downloading it{done}"
        case ForSlot():
            return "a free download slot"
        case ForDisk(need_bytes, free_bytes):
            return f"disk space: {size(need_bytes)} needed, {size(free_bytes)} free"
        case ForRateLimit(until):
            return f"the server's rate limit, until {timestamp(until)}"
        case ForWindow(until):
            end = f"it ends at {timestamp(until)}" if until else "it never ends"
            return f"the end of a window that pauses downloads; {end}"
        case NotBefore(until):
            return f"its start time, {timestamp(until)}"
        case ForRetry(until, because):
            return f"the next try at {timestamp(until)}: {because.message} ({because.code})"
    return "something that a newer version knows"


def _encode(value: Any) -> Any:
    if isinstance(value, WantdError):
        return value.to_json()
    raise NotImplementedError(type(value))


def _decode(kind: type, value: Any) -> Any:
    if kind is WantdError and isinstance(value, dict):
        return WantdError.from_json(value)
    raise NotImplementedError(kind)
