"""How a want goes, in words, from its progress file."""

from __future__ import annotations

import os
import socket
from typing import Any

from agent.core import waits
from agent.core.words import duration, size


def how_it_goes(answer: dict[str, Any], *, percent: bool = True) -> str:
    """One line for a progress file: state, bytes, rate and time left, or what it waits for, or why it failed."""
    state = str(answer.get("state"))
    if state == "waiting":
        return f"waiting for {waits.in_words(waits.from_json(answer.get('waiting') or {}))}"
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


def is_alive(agent: dict[str, Any]) -> bool:
    """Whether the agent that a progress file names runs; one of another host counts as alive."""
    pid = agent.get("pid")
    if not isinstance(pid, int) or agent.get("host") != socket.gethostname():
        return isinstance(pid, int)
    return os.path.exists(f"/proc/{pid}")
