"""The agent's page: the files of `page/`, as they are, under a policy that allows nothing but them."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from agent.http.errors import SAFETY_HEADERS, not_found

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
POLICY = (  # Content-Security-Policy, level 3: no script, style or request of anybody else, no inline script, no frames
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page; `etag` with its quotes."""

    body: bytes
    etag: str
    content_type: str


class Assets:
    """Handlers for the page. Its files are read at the first request, and kept: 100 kB."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._files: dict[str, Asset] | None = None

    def table(self) -> list[web.RouteDef]:
        """The routes."""
        return [web.get("/", self.index, name="page"), web.get("/page/{name}", self.file, name="page-file")]

    async def index(self, request: web.Request) -> web.Response:
        """The page itself."""
        return await self._send(request, INDEX)

    async def file(self, request: web.Request) -> web.Response:
        """What it needs."""
        return await self._send(request, request.match_info["name"])

    async def _send(self, request: web.Request, name: str) -> web.Response:
        if self._files is None:
            self._files = await asyncio.to_thread(_read, self._folder)
        asset = self._files.get(name)
        if asset is None:
            raise not_found(f"the page has no file {name[:100]!a}", "GET / is the page")
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": asset.etag, **SAFETY_HEADERS}
        if asset.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=asset.body, headers={"Content-Type": asset.content_type, **headers})


def _read(folder: Path) -> dict[str, Asset]:
    found = {}
    for path in folder.iterdir():
        if path.is_file():
            body = path.read_bytes()
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            kind = "text/javascript" if path.suffix == ".js" else kind  # some hosts' tables have an older name
            charset = "; charset=utf-8" if kind.startswith("text/") else ""
            found[path.name] = Asset(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', kind + charset)
    return found
