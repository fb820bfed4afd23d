"""The embedded load balancer: llmlb's model registry, in both generations of its routes.

    GET  /{generation}/models/registry/{id}/manifest.json      what there is of a model
    GET  /{generation}/models/registry/{id}/files/{name}       its bytes, without a length
    GET  /v0/models/blob/{id}                                  the GGUF, with its length
    POST /{generation}/models/sync-state                       what a host fetches (wantd's own report)

It is no more lenient than the true one: ids are one URL-encoded segment, upper case and `:` are answered with 400, a
missing key with 401, HEAD with 405, and Range is ignored. Faults are matched against `llmlb/{path}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from agent.embedded_hub.repo import HubFile
from agent.http.hub.response import ContentResponse, HubError, json_response
from tests.hub.faults import FaultBoard
from tests.hub.ledger import Ledger

GENERATIONS = ("api", "v0")
_ID = re.compile(r"[a-z0-9][a-z0-9._/-]*\Z")


@dataclass
class BalancedModel:
    """A model as the balancer has it: files by the balancer's own names.

    `urls` maps names to where the manifest says that they come from, `extra` to further keys of their entries
    (`priority`, `runtimes`, `optional`, `digest`). A file that is listed and not held has an entry in `extra` alone.
    """

    id: str
    files: Mapping[str, HubFile]
    format: str = "gguf"
    quantization: str | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def manifest(self, *, old: bool) -> dict[str, Any]:
        """`manifest.json`; older balancers answer `files` only."""
        names = [*self.files, *(name for name in self.extra if name not in self.files)]
        entries = [
            {"name": name, **({"url": self.urls[name]} if name in self.urls else {}), **self.extra.get(name, {})}
            for name in names
        ]
        return (
            {"files": entries} if old else {"format": self.format, "quantization": self.quantization, "files": entries}
        )


@dataclass
class Options:
    """What kind of balancer it is. `serves_bytes` False: a newer one, which has manifests only."""

    port: int = 0  # 0: any free one
    generations: tuple[str, ...] = GENERATIONS
    old_shape: bool = False
    serves_bytes: bool = True
    key: str | None = None


class EmbeddedBalancer:
    """`async with EmbeddedBalancer(models) as balancer: … balancer.url …`. `models` may change at any time."""

    def __init__(self, models: Iterable[BalancedModel] = (), **options: Any) -> None:
        self.options = Options(**options)
        self.models = {model.id: model for model in models}
        self.faults = FaultBoard()
        self.ledger = Ledger()
        self.seen_headers: list[dict[str, str]] = []
        self.reports: list[dict[str, Any]] = []
        self.url = ""
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Listen; at the same port again where it has listened before."""
        runner = web.AppRunner(self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", self.options.port, backlog=1024, reuse_address=True)
        await site.start()
        self.options.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.options.port}"

    async def stop(self) -> None:
        """Close the listener and every connection; responses under way are cut."""
        await self._stack.aclose()

    async def __aenter__(self) -> EmbeddedBalancer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _app(self) -> web.Application:
        recording = self.ledger.recording("llmlb", self._file_of)
        app = web.Application(middlewares=[recording, self._see, self.faults.spoiling("llmlb"), self._admit])
        registry = "/{generation}/models/registry/{model}"
        app.add_routes(
            [
                web.get(f"{registry}/manifest.json", self._manifest, allow_head=False),
                web.get(f"{registry}/files/{{file}}", self._file, allow_head=False),
                web.get("/{generation:v0}/models/blob/{model}", self._blob, allow_head=False),
                web.post("/{generation}/models/sync-state", self._report),
            ]
        )
        return app

    @web.middleware
    async def _see(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.seen_headers.append(dict(request.headers))
        return await handler(request)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Hold to generation and key, and word refusals as the balancer does: a status and `{"error": "…"}`."""
        key = self.options.key
        if not request.path.startswith(tuple(f"/{generation}/models/" for generation in self.options.generations)):
            return json_response({"error": "Not found"}, 404)
        if key is not None and request.headers.get("Authorization") != f"Bearer {key}":
            return json_response({"error": "Missing or invalid API key"}, 401)
        try:
            return await handler(request)
        except HubError as error:
            return json_response({"error": str(error)}, error.status)
        except web.HTTPException as error:
            return json_response({"error": error.reason}, error.status)

    async def _report(self, request: web.Request) -> ContentResponse:
        self.reports.append(await request.json())
        return json_response({})

    async def _manifest(self, request: web.Request) -> ContentResponse:
        return json_response(self._model(request).manifest(old=self.options.old_shape))

    async def _file(self, request: web.Request) -> ContentResponse:
        response = self._bytes(self._model(request), request.match_info["file"])
        response.fit(request)
        response.content_length = None
        return response

    async def _blob(self, request: web.Request) -> ContentResponse:
        model = self._model(request)
        return self._bytes(model, _gguf_of(model))

    def _model(self, request: web.Request) -> BalancedModel:
        model = request.match_info["model"]
        if not _ID.match(model) or ".." in model:
            raise HubError(400, None, f"Invalid model name: {model}")
        if model not in self.models:
            raise HubError(404, None, f"Model {model} is not registered")
        return self.models[model]

    def _file_of(self, request: web.Request) -> tuple[str, str] | None:
        """A file, or the GGUF where a blob is asked for."""
        model = self.models.get(request.match_info.get("model", ""))
        if model is None or request.path.endswith("/manifest.json"):
            return None
        return model.id, request.match_info.get("file") or _gguf_of(model)

    def _bytes(self, model: BalancedModel, name: str) -> ContentResponse:
        if not self.options.serves_bytes or name not in model.files:
            raise HubError(404, None, f"File {name} not found")
        return ContentResponse(model.files[name])


def _gguf_of(model: BalancedModel) -> str:
    return next((name for name in model.files if name.endswith(".gguf")), "")


def hub_url(endpoint: str, repo: str, name: str, revision: str = "main") -> str:
    """Where a manifest says that a file comes from."""
    return f"{endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(name)}"
