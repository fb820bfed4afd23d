"""The embedded Hub with tokens, faults, a ledger and a control face around its handlers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agent.embedded_hub.rate_limits import RateLimits
from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub
from agent.embedded_hub.storage import MAX_PLAIN_BYTES, URL_LIFETIME_S, Signer, storage_id, stored
from agent.http.hub.content import Content
from agent.http.hub.interfaces import Repository
from agent.http.hub.response import ContentResponse, error_responses
from agent.http.hub.routes import PAGE_SIZE
from tests.hub import control
from tests.hub.access import DEFAULT_TOKENS, Gate
from tests.hub.faults import FaultBoard
from tests.hub.ledger import Ledger

UNLIMITED = 1_000_000


@dataclass
class Options:
    """What can be chosen when a Hub starts, and, but for ports, changed while it runs."""

    port: int = 0  # 0: any free one
    cdn_port: int = 0
    cdn_base: str | None = None  # another server's URL that serves `/{repo}/{file}` in the storage's place
    # Who gets weight files from the Hub's own address, without a redirect and without `X-Linked-Etag`, under the
    # storage's ETag of 64 hex digits that is not the SHA-256: as tokens do at times, and all clients of some caches.
    direct: Literal["never", "token", "always"] = "never"
    page_size: int = PAGE_SIZE  # entries of one page of a tree
    url_lifetime_s: float = URL_LIFETIME_S  # of signed URLs; 0 makes them born expired
    api_quota: int = UNLIMITED  # requests of one client in a window
    resolve_quota: int = UNLIMITED
    window_s: float = 300.0
    max_plain_bytes: int = MAX_PLAIN_BYTES
    tokens: Mapping[str, frozenset[str]] = field(default_factory=lambda: dict(DEFAULT_TOKENS))


class InstrumentedHub(EmbeddedHub):
    """`async with InstrumentedHub(standard_repos(), page_size=50) as hub: … hub.endpoint …`

    `faults`, `ledger` and `repos` may be used at any time, options are changed with `configure`.
    """

    def __init__(self, repos: Iterable[Repo] = (), **options: Any) -> None:
        self.options = self._at_start = Options(**options)
        super().__init__(repos, port=self.options.port, cdn_port=self.options.cdn_port)
        self.faults = FaultBoard()
        self.ledger = Ledger()
        self.gate = Gate(self.repos)
        self.control = ""
        self._apply(vars(self.options).keys())

    async def start(self) -> None:
        """Listen. `control` is the URL of the control face."""
        await super().start()
        self.control = f"http://127.0.0.1:{await self._listen(control.app(self), 0)}"

    def configure(self, **changes: Any) -> None:
        """Change options of the running Hub. Raises TypeError for one that does not exist."""
        self.options = Options(**(vars(self.options) | changes))
        self._apply(changes.keys())

    def restore_options(self) -> None:
        """Take back what `configure` changed."""
        self.configure(**vars(self._at_start))

    def _apply(self, changed: Iterable[str]) -> None:
        options = self.options
        self.routes.page_size = options.page_size
        self.routes.locate = self.storage.locate if options.cdn_base is None else self._elsewhere
        self.storage.signer.lifetime_s = options.url_lifetime_s
        self.storage.max_plain_bytes = options.max_plain_bytes
        self.gate.tokens = options.tokens
        if {"api_quota", "resolve_quota", "window_s"}.intersection(changed):
            self.limits = RateLimits(options.api_quota, options.resolve_quota, options.window_s)

    def expire_urls(self) -> None:
        """Make every signed URL given out so far worthless."""
        self.storage.signer = Signer(self.options.url_lifetime_s)

    def hub_app(self) -> web.Application:
        """The Hub's routes, and `whoami`."""
        app = super().hub_app()
        app.router.add_get("/api/whoami-v2", self.gate.whoami)
        return app

    def hub_middlewares(self) -> list[Middleware]:
        """The ledger sees what goes out; faults spoil what the Hub wanted to say, errors too."""
        return [
            self.ledger.recording("hub", self._file_of),
            self.announce,
            self.faults.spoiling("hub"),
            error_responses,
            self.gate.guard,
            self._without_redirect,
            self._with_xet_hashes,
        ]

    def cdn_middlewares(self) -> list[Middleware]:
        """The same for the storage, which knows no tokens and announces nothing."""
        return [self.ledger.recording("cdn", self._file_of), self.faults.spoiling("cdn"), error_responses]

    def _file_of(self, request: web.Request) -> tuple[str, str] | None:
        repo, file = request.match_info.get("repo"), request.match_info.get("file")
        return (repo, file) if repo and file else None

    def _elsewhere(self, repo: Repository, _: str, name: str) -> str:
        base = self.options.cdn_base or self.cdn
        return f"{base.rstrip('/')}/{repo.id}/{quote(name)}"

    @web.middleware
    async def _without_redirect(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if request.match_info.route.name != "resolve" or response.status != 302:
            return response
        who = self.options.direct
        if who == "never" or (who == "token" and self.gate.known_token(request) is None):
            return response
        commit, name = response.headers["X-Repo-Commit"], request.match_info["file"]
        content = stored(self.repos[request.match_info["repo"]].files(commit)[name], name)
        assert content is not None
        content.headers["X-Repo-Commit"] = commit
        return content

    @web.middleware
    async def _with_xet_hashes(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The Hub's trees say of each weight file that it is in Xet storage too."""
        response = await handler(request)
        if request.match_info.route.name in ("tree", "paths-info") and isinstance(response, ContentResponse):
            entries = orjson.loads(response.content.data or b"[]")
            for entry in entries:
                if "lfs" in entry:
                    entry["xetHash"] = storage_id(entry["lfs"]["oid"])
            response.content = Content(orjson.dumps(entries))
            response.span = (0, response.content.size)
        return response
