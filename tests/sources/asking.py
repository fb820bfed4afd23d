"""Questions to sources, in short."""

from __future__ import annotations

from typing import Any

from agent.core.access import PlainHttp
from agent.core.names import RepoId, store_name
from agent.core.remote import Location, Query


def ask(repo: str, revision: str = "main", model: str | None = None, **more: Any) -> Query:
    """A query for a repository; a load balancer knows it by `model`, or by the repository's own name."""
    return Query(RepoId(repo), revision, store_name(model or repo), **more)


def http_of(location: Location) -> PlainHttp:
    """The plain HTTP that the location is read by."""
    assert isinstance(location.access, PlainHttp)
    return location.access
