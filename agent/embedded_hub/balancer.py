"""The embedded load balancer: llmlb's model registry as HUB.md describes it, in both generations of its routes.

    GET  {generation}/models/registry/{id}/manifest.json      what there is of a model
    GET  {generation}/models/registry/{id}/files/{name}       its bytes, without a length
    GET  /v0/models/blob/{id}                                  the GGUF, with its length
    POST {generation}/models/sync-state                        what a host fetches (wantd's own report)

It is no more lenient than the true one: ids are one URL-encoded segment, upper case and `:` are answered with 400, a
missing key with 401, HEAD with 405, and Range is ignored. Faults are matched against `llmlb/{path}`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from agent.embedded_hub.answer import Answer, HubError, json_answer, send
from agent.embedded_hub.faults import FaultBoard
from agent.embedded_hub.ledger import Ledger, Seen, token_hash
from agent.embedded_hub.repo import HubFile

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
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", self.options.port, backlog=1024, reuse_address=True)
        await site.start()
        self.options.port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.options.port}"

    async def stop(self) -> None:
        """Close the listener and every connection; answers under way are cut."""
        await self._stack.aclose()

    async def __aenter__(self) -> EmbeddedBalancer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        segments = [unquote(part) for part in request.raw_path.partition("?")[0].lstrip("/").split("/")]
        authorization = request.headers.get("Authorization")
        token = token_hash(authorization) if authorization else None
        seen = Seen("llmlb", request.method, request.raw_path, request.host, request.headers.get("Range"), token)
        self.ledger.recent.append(seen)
        self.seen_headers.append(dict(request.headers))
        faults = self.faults.take("llmlb/" + "/".join(segments))
        await asyncio.sleep(faults.latency_s)
        try:
            if faults.status is not None:
                raise _refused(faults.status, "the embedded balancer was told to answer so", faults.retry_after)
            answer = await self._answer(request, segments)
        except HubError as error:
            answer = error.answer
        return await send(request, answer, faults, self.ledger, seen)

    async def _answer(self, request: web.Request, segments: list[str]) -> Answer:
        if len(segments) < 3 or segments[0] not in self.options.generations or segments[1] != "models":
            raise _refused(404, "Not found")
        if self.options.key is not None and request.headers.get("Authorization") != f"Bearer {self.options.key}":
            raise _refused(401, "Missing or invalid API key")
        if request.method == "POST" and segments[2:] == ["sync-state"]:
            self.reports.append(await request.json())
            return json_answer({})
        if request.method != "GET":
            raise _refused(405, "Method not allowed")
        return self._get(segments[0], segments[2:])

    def _get(self, generation: str, rest: list[str]) -> Answer:
        match rest:
            case ["registry", model, "manifest.json"]:
                return json_answer(self._model(model).manifest(old=self.options.old_shape))
            case ["registry", model, "files", name] if self.options.serves_bytes:
                return self._bytes(self._model(model), name, unsized=True)
            case ["blob", model] if self.options.serves_bytes and generation == "v0":
                found = self._model(model)
                gguf = next((name for name in found.files if name.endswith(".gguf")), "")
                return self._bytes(found, gguf, unsized=False)
        raise _refused(404, "Not found")

    def _model(self, model: str) -> BalancedModel:
        if not _ID.match(model) or ".." in model:
            raise _refused(400, f"Invalid model name: {model}")
        if model not in self.models:
            raise _refused(404, f"Model {model} is not registered")
        return self.models[model]

    def _bytes(self, model: BalancedModel, name: str, *, unsized: bool) -> Answer:
        if name not in model.files:
            raise _refused(404, f"File {name} not found")
        headers = {"Content-Type": "application/octet-stream"}
        return Answer(200, headers, model.files[name], (model.id, name), unsized=unsized)


def hub_url(endpoint: str, repo: str, name: str, revision: str = "main") -> str:
    """Where a manifest says that a file comes from."""
    return f"{endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(name)}"


def _refused(status: int, words: str, retry_after: str | None = None) -> HubError:
    """The balancer's refusals: a status and `{"error": "…"}`."""
    error = HubError(status, None, words)
    error.answer = json_answer({"error": words}, status, {"Retry-After": retry_after} if retry_after else None)
    return error
