"""The page: files of this package, which are read once, and the policy that keeps a browser from anything else."""

from __future__ import annotations

import os

from aiohttp import web

from agent.http.errors import SAFETY_HEADERS, not_found

DIRECTORY = os.path.join(os.path.dirname(__file__), "page")
INDEX = "index.html"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# What a want's name could try in spite of all care: no script, style, frame or connection but our own files and routes.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageFiles:
    """Handlers of the page. Raises OSError where the package is incomplete."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        for entry in os.scandir(DIRECTORY):
            if os.path.splitext(entry.name)[1] in TYPES:
                with open(entry.path, "rb") as file:
                    self._files[entry.name] = file.read()

    def table(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/", self.index, name="page"),
            web.get("/page/{name}", self.file, name="page-file"),
        ]

    async def index(self, _: web.Request) -> web.Response:
        """The document."""
        return self._response(INDEX)

    async def file(self, request: web.Request) -> web.Response:
        """What it loads."""
        return self._response(request.match_info["name"])

    def _response(self, name: str) -> web.Response:
        body = self._files.get(name)
        if body is None:
            raise not_found(f"the page has no file {name[:100]!a}", "open /")
        return web.Response(
            body=body,
            content_type=TYPES[os.path.splitext(name)[1]],
            charset="utf-8",
            headers={**SAFETY_HEADERS, "Content-Security-Policy": POLICY, "Cache-Control": "no-cache"},
        )
