"""What happens once and has no state of its own, for `Feed.changed`: readers that do not know it pass it over."""

from __future__ import annotations

from typing import Literal

import msgspec


class ModelNews(msgspec.Struct, frozen=True):
    """A model of the store, by the reference of its record: a source brought it, or it was removed."""

    model: str
    what: Literal["published", "evicted", "removed"]
    source: str = ""  # of a published one, as its record says


class AgentNews(msgspec.Struct, frozen=True):
    """The agent itself: it serves, it has read its configuration again, it stops."""

    what: Literal["start", "reload", "stop"]
