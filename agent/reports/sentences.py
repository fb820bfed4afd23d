"""Why a want waits, as a sentence: what has to happen before it goes on, with the values that matter."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.core.waits import (
    ForDisk,
    ForLock,
    ForQuota,
    ForRateLimit,
    ForRetry,
    ForSlot,
    ForWindow,
    Holder,
    NotBefore,
    Wait,
)
from agent.core.words import size


def waiting_text(wait: Wait) -> str:
    """One sentence for people. Times are absolute: the sentence may be read a while after it was written."""
    match wait:
        case ForLock(holder):
            return _lock(holder or Holder())
        case ForSlot():
            return "Waits for a free download slot: as many models are being downloaded as transfer.jobs allows."
        case ForDisk(need_bytes, free_bytes):
            return f"Waits for disk space: {size(need_bytes)} needed, {size(free_bytes)} free."
        case ForQuota(need_bytes, free_bytes):
            return (
                f"Waits for room in the store: {size(need_bytes)} needed, {size(free_bytes)} left of store.max_bytes."
            )
        case ForRateLimit(until):
            return f"The server limits the rate of requests; continuing {_at(until)}."
        case ForWindow(until):
            end = f"; continuing {_at(until)}" if until else ", without an end"
            return f"Paused by a window of the configuration{end}."
        case NotBefore(until):
            return f"Starts {_at(until)}, as the want asks."
        case ForRetry(until, because):
            return f"Tries again {_at(until)}: {because.message}."
    return f"Waits ({type(wait).__struct_config__.tag})."


def _lock(holder: Holder) -> str:
    who = f"process {holder.pid} on {holder.host}" if holder.pid is not None else "another process"
    done = f" ({holder.progress:.0%} done)" if holder.progress is not None else ""
    return f"Waits for {who}, which is downloading it{done}."


def _at(until: datetime) -> str:
    return f"at {until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
