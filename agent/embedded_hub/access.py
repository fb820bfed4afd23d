"""Who may see what, and how often: tokens, gated and private repositories, rate limits, signed URLs."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from agent.embedded_hub.answer import HubError
from agent.embedded_hub.repo import Repo

# Known only to embedded Hubs: one may read everything, the other is a valid account that was granted nothing.
TOKEN_GRANTED = "hf_embeddedHubGranted0000000000000000"  # noqa: S105
TOKEN_PLAIN = "hf_embeddedHubPlain000000000000000000"  # noqa: S105
EVERYTHING = "*"
DEFAULT_TOKENS: Mapping[str, frozenset[str]] = {TOKEN_GRANTED: frozenset({EVERYTHING}), TOKEN_PLAIN: frozenset()}


class Gate:
    """Judges a request's token. `tokens` maps each known one to the repositories it was granted, `*` for all."""

    def __init__(self, tokens: Mapping[str, frozenset[str]]) -> None:
        self.tokens = tokens

    def token(self, authorization: str | None) -> str | None:
        """The request's token, None for an anonymous one. Raises 401 for one that nobody was given."""
        if authorization is None:
            return None
        token = authorization.removeprefix("Bearer ").strip()
        if token not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return token

    def check(self, repo: Repo | None, token: str | None, *, content: bool) -> Repo:
        """Let the request pass to the repository, or raise what the Hub would say.

        `content` tells a request for bytes from one for metadata, which even a gated repository shows.
        """
        granted = token is not None and bool(self.tokens[token] & {EVERYTHING, repo.id if repo else EVERYTHING})
        if repo is None or (repo.private and not granted):
            raise missing(token)
        if repo.disabled:
            raise HubError(403, None, "Access to this resource is disabled.")
        if repo.gated and not granted and (content or not repo.open_listing):
            if token is None and not repo.open_listing:
                raise missing(token)
            raise _gated(repo, token)
        return repo


def missing(token: str | None) -> HubError:
    """No such repository, or none that this token may know of."""
    if token is None:
        return HubError(401, "RepoNotFound", "Invalid username or password.", {"WWW-Authenticate": "Bearer"})
    return HubError(404, "RepoNotFound", "Repository not found")


def _gated(repo: Repo, token: str | None) -> HubError:
    if token is None:
        return HubError(401, "GatedRepo", f"Access to model {repo.id} is restricted, log in to ask for it.")
    return HubError(403, "GatedRepo", f"Access to model {repo.id} is restricted and you are not on the list.")


class Budget:
    """A fixed window of requests for each client, one for the API and one for `resolve`."""

    def __init__(self, api: int, resolvers: int, window_s: float) -> None:
        self.quotas = {"api": api, "resolvers": resolvers}
        self.window_s = window_s
        self._used: dict[tuple[str, str], tuple[float, int]] = {}  # window's begin, requests in it

    def take(self, kind: str, client: str) -> tuple[bool, dict[str, str]]:
        """Count one request: whether it may pass, and the headers that tell the client how it stands."""
        now = time.monotonic()
        begun, used = self._used.get((kind, client), (now, 0))
        if now - begun >= self.window_s:
            begun, used = now, 0
        quota = self.quotas[kind]
        allowed = used < quota
        self._used[kind, client] = (begun, used + 1)
        left = max(0.0, begun + self.window_s - now)
        headers = {
            "RateLimit": f'"{kind}";r={max(0, quota - used - 1)};t={math.ceil(left)}',
            "RateLimit-Policy": f'"fixed window";"{kind}";q={quota};w={math.ceil(self.window_s)}',
        }
        if not allowed:
            headers["Retry-After"] = str(max(1, math.ceil(left)))
        return allowed, headers


class Signer:
    """Signs the CDN's URLs so that they expire, as CloudFront's do."""

    def __init__(self, lifetime_s: float) -> None:
        self.lifetime_s = lifetime_s
        self._key = secrets.token_bytes(16)

    def expire_all(self) -> None:
        """Make every URL signed so far worthless."""
        self._key = secrets.token_bytes(16)

    def sign(self, path: str) -> str:
        """The query that lets `path` pass for `lifetime_s` seconds, rounded up to whole ones."""
        expires = str(math.ceil(time.time() + self.lifetime_s) if self.lifetime_s > 0 else 0)
        return urlencode({"Expires": expires, "Signature": self._signature(path, expires), "Key-Pair-Id": "EMBEDDED"})

    def holds(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether the query is this path's and has not expired."""
        expires = query.get("Expires", "")
        right = hmac.compare_digest(self._signature(path, expires).encode(), query.get("Signature", "").encode())
        return right and expires.isdigit() and time.time() < int(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._key, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()
