"""The progress of a want in words, from its progress file."""

from __future__ import annotations

from typing import Any

from agent.core import waits
from agent.core.words import duration, size


def how_it_goes(progress: dict[str, Any], *, percent: bool = True) -> str:
    """One line for a progress file: state, bytes, rate and time left, or what it waits for, or why it failed."""
    state = str(progress.get("state"))
    if state == "waiting":
        return f"waiting for {waits.in_words(waits.from_json(progress.get('waiting') or {}))}"
    if state == "failed" and progress.get("error"):
        return f"failed: {progress['error'].get('message')} ({progress['error'].get('code')})"
    if state not in ("downloading", "verifying"):
        return state
    done, total = progress.get("bytes_done"), progress.get("bytes_total")
    share = f"{progress.get('progress', 0):.0%}, " if percent else ""
    text = f"{state} {share}{size(done)} of {size(total)}"
    if progress.get("rate_bytes_per_s"):
        text += f", {size(progress['rate_bytes_per_s'])}/s, {duration(progress.get('eta_s'))} left"
    return text
