"""A server with the routes that the page uses and values that a test chooses: a real agent has some for moments only.

It runs in a thread of its own. `Stub.want` and `Stub.gone` change what it shows and tell its readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

PAGE = Path(__file__).parents[2] / "agent" / "http" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# As strict as the agent's own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Stub:
    """The wants by path, and the rest of `/v1/status`. Change `status` only while nothing asks, or from the thread."""

    def __init__(
        self, wants: list[dict[str, Any]], status: dict[str, Any], details: dict[str, Any] | None = None
    ) -> None:
        self.wants = {want["path"]: want for want in wants}
        self.status = status
        self.details = details or {}
        self.asked: list[str] = []  # every request of the page, its path and query
        self.url = ""
        self._readers: set[asyncio.Queue[bytes]] = set()
        self._last = 1000
        self._loop = asyncio.new_event_loop()

    @contextlib.contextmanager
    def serving(self, port: int = 0) -> Iterator[Stub]:
        """Serve on loopback until the block ends; `url` says where."""
        ready = threading.Event()
        thread = threading.Thread(target=self._run, args=(port, ready), daemon=True)
        thread.start()
        assert ready.wait(20)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(20)

    def want(self, want: dict[str, Any]) -> None:
        """A want is new, or has changed."""
        self.wants[want["path"]] = want
        self._tell("want", want)

    def gone(self, path: str) -> None:
        """A want was removed."""
        self.wants.pop(path, None)
        self._tell("want_gone", {"path": path})

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._publish, kind, data)

    def _publish(self, kind: str, data: dict[str, Any]) -> None:
        self._last += 1
        event = {"id": self._last, "time": data.get("updated_at"), "type": kind, "data": data}
        text = f"id: {self._last}\nevent: {kind}\ndata: {json.dumps(event)}\n\n".encode()
        for reader in self._readers:
            reader.put_nowait(text)

    def _run(self, port: int, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(port, ready))
        self._loop.close()

    async def _serve(self, port: int, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/page/{name}", self._page)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/wants", self._list)
        app.router.add_get("/v1/wants/{path:.+}", self._one)
        app.router.add_get("/v1/events", self._events)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        path = PAGE / request.match_info.get("name", "index.html")
        headers = {"Content-Security-Policy": POLICY}
        return web.Response(text=path.read_text(), content_type=TYPES[path.suffix], charset="utf-8", headers=headers)

    async def _status(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        counts = Counter(want["state"] for want in self.wants.values())
        rate = sum(want.get("rate_bytes_per_s") or 0 for want in self.wants.values())
        return web.json_response({"counts": counts, "rate_bytes_per_s": rate, "event": self._last, **self.status})

    async def _list(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        states = request.query.get("state", "").split(",")
        q = request.query.get("q", "").lower()
        name, _, value = request.query.get("label", "").partition("=")
        found = [
            want
            for path, want in sorted(self.wants.items())
            if want["state"] in states
            and (not name or want["labels"].get(name) == value)
            and (q in path.lower() or any(q in str(model["model"]).lower() for model in want["models"]))
        ]
        after = request.query.get("after", "")
        left = [want for want in found if want["path"] > after] if after else found
        limit = int(request.query["limit"])
        more = len(left) > limit
        return web.json_response(
            {"wants": left[:limit], "total": len(found), "next": left[limit - 1]["path"] if more else None}
        )

    async def _one(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        want = self.details.get(path) or self.wants.get(path)
        if want is None:
            error = {"code": "not_found", "message": f"no want {path}", "hint": "look at the list"}
            return web.json_response({"error": error}, status=404)
        return web.json_response(want)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._readers.add(queue)
        try:
            await response.write(b": hello\n\n")
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await response.write(await asyncio.wait_for(queue.get(), 0.1))
        finally:
            self._readers.discard(queue)
        return response
