"""What is said of one want: the same values in its progress file and over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.core.progress import WHOLE, AgentInfo, Cut, WantInfo, describe
from agent.core.states import FINAL
from agent.state.ticket import Ticket


def want_document(ticket: Ticket, agent: AgentInfo, now: datetime, cut: Cut = WHOLE) -> tuple[dict[str, Any], float]:
    """The content of its progress file (docs/protocol.md), and its `progress`. Notes when it was seen to be final."""
    state = ticket.state
    if state in FINAL and ticket.finished_at is None:
        ticket.finished_at = now
    info = WantInfo(
        name=ticket.path.rpartition("/")[2],
        attempt=ticket.attempts,
        created_at=ticket.created_at,
        started_at=ticket.started_at,
        finished_at=ticket.finished_at,
        labels=dict(ticket.want.labels) if ticket.want else {},
    )
    return describe(
        info,
        ticket.models,
        agent,
        now,
        least=ticket.fraction,
        error=ticket.error,
        waiting=ticket.waiting,
        cut=cut,
    )
