"""Who may see what: tokens, gated and private repositories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from agent.embedded_hub.repo import Repo, Repos
from agent.http.hub.response import HubError, json_response, repo_not_found
from agent.http.hub.routes import CONTENT_ROUTES

# Known only to instrumented Hubs: one may read everything, the other is a valid account that was granted nothing.
TOKEN_GRANTED = "hf_embeddedHubGranted0000000000000000"
TOKEN_PLAIN = "hf_embeddedHubPlain000000000000000000"
EVERYTHING = "*"
DEFAULT_TOKENS: Mapping[str, frozenset[str]] = {TOKEN_GRANTED: frozenset({EVERYTHING}), TOKEN_PLAIN: frozenset()}


@dataclass
class ClosedRepo(Repo):
    """A gated repository that hides its list too, as the Hub did in earlier years."""


class Gate:
    """Judges requests. `tokens` maps each known token to the repositories that it was granted, `*` for all."""

    def __init__(self, repos: Repos, tokens: Mapping[str, frozenset[str]] = DEFAULT_TOKENS) -> None:
        self.repos = repos
        self.tokens = tokens

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request pass, or raise what the Hub would say. It belongs inside all other middlewares."""
        name = request.match_info.get("repo")
        if name is not None:
            content = request.match_info.route.name in CONTENT_ROUTES
            self._check(request, self.repos.find(name), content=content)
        return await handler(request)

    async def whoami(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/whoami-v2`, for the owner of a known token."""
        if self.known_token(request) is None:
            raise HubError(401, None, "Invalid username or password.")
        auth = {"type": "access_token", "accessToken": {"displayName": "embedded", "role": "read"}}
        user = {"type": "user", "id": "0" * 24, "name": "embedded", "fullname": "embedded", "isPro": False, "orgs": []}
        return json_response(user | {"auth": auth})

    def known_token(self, request: web.Request) -> str | None:
        """The request's token, None for an anonymous one. Raises HubError 401 for an unknown one."""
        token = self._token(request)
        if token is not None and token not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return token

    def _token(self, request: web.Request) -> str | None:
        authorization = request.headers.get("Authorization")
        return None if authorization is None else authorization.removeprefix("Bearer ").strip()

    def _check(self, request: web.Request, repo: Repo | None, *, content: bool) -> None:
        token = self._token(request)
        stranger = token not in self.tokens
        if repo is not None and repo.gated and stranger and not repo.private and not isinstance(repo, ClosedRepo):
            # As captured: the list is everybody's, no file is, and a wrong token is as good as none.
            if content:
                raise HubError(401, "GatedRepo", f"Access to model {repo.id} is restricted, log in to ask for it.")
            return
        token = self.known_token(request)
        granted = token is not None and bool(self.tokens[token] & {EVERYTHING, repo.id if repo else EVERYTHING})
        if repo is None or granted:
            return
        closed = isinstance(repo, ClosedRepo)
        if repo.private or (closed and token is None):
            raise repo_not_found(request)
        if repo.gated and (content or closed):
            raise HubError(403, "GatedRepo", f"Access to model {repo.id} is restricted and you are not on the list.")
