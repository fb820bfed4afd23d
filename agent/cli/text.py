"""Words and numbers for people: sizes, rates, times, and how a want goes, from its progress file."""

from __future__ import annotations

import os
import socket
from typing import Any


def size(count: float | None) -> str:
    """Bytes in decimal units, as disks and the Hub count them."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration(seconds: float | None) -> str:
    """A time left, short."""
    if seconds is None:
        return "?"
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def how_it_goes(answer: dict[str, Any], *, percent: bool = True) -> str:
    """One line for a progress file: state, bytes, rate and time left, or what it waits for, or why it failed."""
    state = str(answer.get("state"))
    if state == "waiting":
        return f"waiting for {waiting_text(answer.get('waiting') or {})}"
    if state == "failed" and answer.get("error"):
        return f"failed: {answer['error'].get('message')} ({answer['error'].get('code')})"
    if state not in ("downloading", "verifying"):
        return state
    done, total = answer.get("bytes_done"), answer.get("bytes_total")
    share = f"{answer.get('progress', 0):.0%}, " if percent else ""
    text = f"{state} {share}{size(done)} of {size(total)}"
    if answer.get("rate_bytes_per_s"):
        text += f", {size(answer['rate_bytes_per_s'])}/s, {duration(answer.get('eta_s'))} left"
    return text


def waiting_text(waiting: dict[str, Any]) -> str:
    """What a want waits for, in words."""
    match waiting.get("for"):
        case "lock":
            holder = waiting.get("holder") or {}
            done = f" ({holder['progress']:.0%} done)" if isinstance(holder.get("progress"), float) else ""
            return f"process {holder.get('pid')} on {holder.get('host')}, which is bringing it{done}"
        case "slot":
            return "a free download slot"
        case "disk":
            return f"disk space: {size(waiting.get('need_bytes'))} needed, {size(waiting.get('free_bytes'))} free"
        case "rate_limit":
            return f"the server's rate limit, until {waiting.get('until')}"
        case "not_before":
            return f"its time, {waiting.get('until')}"
        case "retry":
            because = waiting.get("because") or {}
            return f"the next try at {waiting.get('until')}: {because.get('message')} ({because.get('code')})"
    return "something"


def is_alive(agent: dict[str, Any]) -> bool:
    """Whether the agent that a progress file names runs; one of another host counts as alive."""
    pid = agent.get("pid")
    if not isinstance(pid, int) or agent.get("host") != socket.gethostname():
        return isinstance(pid, int)
    return os.path.exists(f"/proc/{pid}")
