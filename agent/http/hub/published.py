"""The store's models as repositories: what `HF_ENDPOINT` on this agent finds.

A repository has every commit that some published model of it has, each with the files of all models of that commit. A
branch or tag leads to the commit that was published last under its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler

from agent.config import Http
from agent.core.names import is_whole_commit
from agent.http.errors import Refusal
from agent.http.hub.content import Content
from agent.http.hub.response import ContentResponse, HubError
from agent.http.hub.routes import HubRoutes
from agent.http.models import Shelf
from agent.store.inventory import Entry


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A published file at `path`, with its size in bytes and the Hub's name for its content."""

    path: str
    size: int
    etag: str

    def open(self) -> Content | None:
        """The bytes, unless somebody has removed or changed the file."""
        try:
            there = os.stat(self.path, follow_symlinks=False).st_size == self.size
        except OSError:
            return None
        return Content(path=self.path) if there else None


@dataclass(slots=True)
class StoreRepository:
    """See `interfaces.Repository`."""

    id: str
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, StoreFile]] = field(default_factory=dict)
    private: bool = False
    gated: bool | str = False
    disabled: bool = False

    def add(self, entry: Entry) -> None:
        """One of its models; later ones win a branch."""
        record = entry.record
        files = self.commits.setdefault(record.commit, {})
        for file in record.files:
            if file.repo is None and file.commit is None:
                files[file.name] = StoreFile(f"{entry.directory}/{file.name}", file.size, file.etag or file.sha256)
        if record.revision != record.commit:
            self.refs[record.revision] = record.commit

    def find(self, revision: str) -> str | None:
        """See `interfaces.Repository`."""
        for ref in (revision, revision.removeprefix("refs/heads/"), f"refs/tags/{revision}"):
            if ref in self.refs:
                return self.refs[ref]
        return revision if revision in self.commits else None

    def files(self, commit: str) -> Mapping[str, StoreFile]:
        """See `interfaces.Repository`."""
        return dict(sorted(self.commits[commit].items()))


class PublishedModels:
    """See `interfaces.Repositories`; `refresh` before it is asked."""

    def __init__(self, shelf: Shelf, config: Callable[[], Http]) -> None:
        self._shelf = shelf
        self._config = config
        self._repos: dict[str, StoreRepository] = {}
        self._made_of: tuple[object, ...] = ()

    def find(self, name: str) -> StoreRepository | None:
        """See `interfaces.Repositories`."""
        return self._repos.get(name.lower())

    async def refresh(self) -> None:
        """Read the store again, where it may have changed."""
        entries = list((await self._shelf.entries()).values())
        gated = self._config().serve_gated
        made_of = (gated, *((entry.directory, entry.inode, entry.changed_ns) for entry in entries))
        if made_of != self._made_of:
            self._repos, self._made_of = _repositories(entries, gated), made_of

    def table(self) -> list[web.RouteDef]:
        """The routes."""
        return HubRoutes(self).table()

    @web.middleware
    async def serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every handler: before one of the Hub's the store is looked at, and its errors are as the Hub's."""
        if (request.match_info.route.name or "") not in HUB_ROUTES:
            return await handler(request)
        if self._config().hub == "off":
            raise Refusal(404, "not_found", "this agent serves no models", 'set http.hub to "store"')
        await self.refresh()
        try:
            response = await handler(request)
        except HubError as error:
            response = error.response()
        if isinstance(response, ContentResponse):
            response.compress = False  # which would hold the loop, and the network here is fast
        return response


HUB_ROUTES = frozenset({"refs", "revision", "tree", "paths-info", "info", "resolve-cache", "resolve"})


def _repositories(entries: Iterable[Entry], gated: bool) -> dict[str, StoreRepository]:
    """By name in lower case. What is not known to be public is served only where gated models are."""
    repos: dict[str, StoreRepository] = {}
    for entry in sorted(entries, key=lambda entry: entry.record.published_at):
        record = entry.record
        if is_whole_commit(record.commit) and (gated or record.restricted is False):
            repos.setdefault(record.repo.lower(), StoreRepository(record.repo)).add(entry)
    return repos
