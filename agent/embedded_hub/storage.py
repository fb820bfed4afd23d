"""The storage host that weight files are redirected to, with URLs that expire.

As the Hub's: `https://cas-bridge.xethub.hf.co/xet-bridge-us/…` behind CloudFront, signed with a custom policy
(https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-creating-signed-url-custom-policy.html).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote, urlencode

import orjson
from aiohttp import web

from agent.http.hub.interfaces import Repositories, Repository, RepositoryFile
from agent.http.hub.response import ContentResponse, HubError
from agent.http.hub.routes import REPO, file_headers

MAX_PLAIN_BYTES = 50 * 10**9  # the Hub's storage refuses to send more than this without Range
URL_LIFETIME_S = 3600.0  # X-Amz-Expires of the Hub's URLs
_PREFIX = "/xet-bridge-us"


class Signer:
    """Signs paths for `lifetime_s` seconds, 0 for URLs that are born expired."""

    def __init__(self, lifetime_s: float = URL_LIFETIME_S) -> None:
        self.lifetime_s = lifetime_s
        self._key = secrets.token_bytes(16)

    def sign(self, path: str) -> str:
        """The query that opens `path`."""
        expires = int(time.time() + self.lifetime_s)
        until = {"DateLessThan": {"AWS:EpochTime": expires}}
        policy = orjson.dumps({"Statement": [{"Resource": path, "Condition": until}]})
        return urlencode(
            {
                "X-Amz-Expires": int(self.lifetime_s),
                "Policy": base64.urlsafe_b64encode(policy).decode(),
                "Signature": self._signature(policy),
                "Key-Pair-Id": "EMBEDDED",
            }
        )

    def allows(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether the query was made here for this path and has not expired."""
        try:
            policy = base64.urlsafe_b64decode(query.get("Policy", ""))
        except (binascii.Error, ValueError):
            return False
        if not hmac.compare_digest(self._signature(policy).encode(), query.get("Signature", "").encode()):
            return False
        [statement] = orjson.loads(policy)["Statement"]
        expires: int = statement["Condition"]["DateLessThan"]["AWS:EpochTime"]
        return bool(statement["Resource"] == path) and time.time() < expires

    def _signature(self, policy: bytes) -> str:
        return hmac.new(self._key, policy, hashlib.sha256).hexdigest()


class Storage:
    """Serves what the Hub redirects to. `base` is the URL of the listener that serves it."""

    def __init__(self, repos: Repositories, signer: Signer, max_plain_bytes: int = MAX_PLAIN_BYTES) -> None:
        self.repos = repos
        self.signer = signer
        self.max_plain_bytes = max_plain_bytes
        self.base = ""

    def locate(self, repo: Repository, commit: str, name: str) -> str:
        """A URL that gives the file's bytes until it expires. See `routes.Locate`."""
        path = f"{_PREFIX}/{repo.id}/{commit}/{name}"
        return f"{self.base}{quote(path)}?{self.signer.sign(path)}"

    def table(self) -> list[web.RouteDef]:
        """The routes for an application's router."""
        return [web.get(f"{_PREFIX}/{REPO}/{{commit:[0-9a-f]{{40}}}}/{{file:.+}}", self.serve)]

    async def serve(self, request: web.Request) -> ContentResponse:
        """A file's bytes for those whose URL is signed, and who do not send a token as well."""
        if "Authorization" in request.headers:
            raise HubError(400, None, "Only one auth mechanism allowed")
        if not self.signer.allows(request.path, request.query):
            raise HubError(403, None, "Access denied: the URL is not signed, or it has expired")
        repo = self.repos.find(request.match_info["repo"])
        commit, name = repo.find(request.match_info["commit"]) if repo else None, request.match_info["file"]
        file = repo.files(commit).get(name) if repo and commit else None
        response = stored(file, name) if file else None
        if response is None:
            raise HubError(404, None, "NoSuchKey")
        if "Range" not in request.headers and response.content.size > self.max_plain_bytes:
            raise HubError(400, None, "The object is too large to be sent without Range")
        return response


def stored(file: RepositoryFile, name: str) -> ContentResponse | None:
    """A file's bytes as the storage sends them: its ETag is an id of its own. None where they are not there."""
    content = file.open()
    if content is None:
        return None
    return ContentResponse(content, headers=file_headers(name, f'"{storage_id(file.etag)}"'), ranged=True)


def storage_id(sha256: str) -> str:
    """What the storage calls a file: like a Xet hash 64 hex digits, and not the SHA-256 of the content."""
    return hashlib.sha256(b"xet " + sha256.encode()).hexdigest()
