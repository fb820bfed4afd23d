"""The agent's own documents: status, wants, models, health."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from agent.config import Live
from agent.core.progress import AgentInfo, encode
from agent.core.target import Target
from agent.core.windows import in_force
from agent.core.words import timestamp
from agent.http.errors import bad_request, not_found, raw_json
from agent.http.models import Shelf, model_document, wanted_by
from agent.http.publisher import AT_ONCE, SHORT, Cut, Publisher
from agent.http.rates import STEP_S
from agent.http.wants import Filter, positive
from agent.net.budget import Quota
from agent.sources.chain import SourceHealth
from agent.state.job import Job
from agent.store.layout import Layout

LIMIT, LIMIT_MOST = 100, 1000  # wants or models of one page of a list
MODELS_MOST = 500  # of one want, in its own document
FILES_MOST = 1000  # of each model there, where it has few of them
FEW_MODELS = 5
RANGES_MOST = 2000  # of one file; a file has at most 16,384 granules
LABELS_MOST = 10  # in one filter
TEXT_MOST = 200  # characters to search for


@dataclass(frozen=True, slots=True)
class Facts:
    """What documents are made of. Functions give the value of now, and none of them touches the disk."""

    live: Live
    layout: Layout
    agent: AgentInfo
    started_at: datetime
    jobs: Mapping[Target, Job]
    restart_needed: Callable[[], list[str]]
    scanned_at: Callable[[], datetime | None]
    health: Callable[[], list[SourceHealth]]
    quotas: Callable[[], list[tuple[str, Quota]]]
    connections: Callable[[], int]
    reserved: Callable[[], int]
    there: Callable[[str], list[tuple[int, int]] | None]
    received: Callable[[], Mapping[str, int]]
    dropped: Callable[[], Mapping[str, int]]
    responses: Callable[[], Mapping[tuple[str, int], int]]


class Reads:
    """Handlers that change nothing."""

    def __init__(self, facts: Facts, publisher: Publisher, shelf: Shelf, listening: Callable[[], list[str]]) -> None:
        self._facts = facts
        self._publisher = publisher
        self._shelf = shelf
        self._listening = listening

    def table(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/-/healthy", self.healthy, name="healthy"),
            web.get("/-/ready", self.ready, name="ready"),
            web.get("/v1/status", self.status, name="status"),
            web.get("/v1/wants", self.wants, name="wants"),
            web.get("/v1/wants/{path:.+}", self.want, name="want"),
            web.get("/v1/models", self.models, name="models"),
            web.get("/v1/models/{id:.+}", self.model, name="model"),
        ]

    async def healthy(self, _: web.Request) -> web.Response:
        """Whether spool and store can be used."""
        return _line(await asyncio.to_thread(self._unusable))

    async def ready(self, _: web.Request) -> web.Response:
        """The same, and whether what stood in the spool at the start is known."""
        why = await asyncio.to_thread(self._unusable)
        if not why and self._facts.scanned_at() is None:
            why = "the first scan of the spool is not done"
        return _line(why)

    def _unusable(self) -> str | None:
        """Why the spool or the store cannot be used. Touches the disk."""
        spool = self._facts.live.config.spool.dir
        if not os.access(spool, os.R_OK | os.X_OK):
            return f"the spool {spool} cannot be read"
        if not os.access(self._facts.layout.partial, os.W_OK | os.X_OK):
            return f"the store {self._facts.layout.root} cannot be written"
        return None

    async def status(self, _: web.Request) -> web.Response:
        """What goes on, in one document."""
        facts, wants = self._facts, self._publisher.wants
        event = self._publisher.position()  # before anything is looked at: what changes meanwhile is told as an event
        scanned, jobs = facts.scanned_at(), list(facts.jobs.values())
        document = {
            "agent": {
                "running": True,
                "pid": facts.agent.pid,
                "started_at": timestamp(facts.started_at),
                "host": facts.agent.host,
                "version": facts.agent.version,
                "restart_needed": facts.restart_needed(),
                "listening": self._listening(),
            },
            "spool": facts.live.config.spool.dir,
            "store": facts.layout.root,
            "wants": len(wants),
            "counts": positive(wants.counts),
            "waiting": positive(wants.waiting),
            "labels": wants.labels(),
            "rate_bytes_per_s": round(sum(job.progress.rate for job in jobs)),
            "rates": {"step_s": STEP_S, "bytes_per_s": self._publisher.recent_rates()},
            "max_rate": facts.live.config.transfer.max_rate,
            "window": self._window(),
            "connections": facts.connections(),
            "readers": self._publisher.readers,
            "disk": await self._disk(),
            "health": {**self._health(), "last_scan": timestamp(scanned) if scanned else None},
            "event": event,
        }
        return raw_json(encode(document))

    def _window(self) -> dict[str, Any] | None:
        """The window that is open, which rules instead of `max_rate`."""
        cap = in_force(self._facts.live.config.transfer.window, datetime.now(UTC))
        if cap.max_rate is None:
            return None
        return {"max_rate": cap.max_rate, "until": timestamp(cap.until) if cap.until else None}

    async def _disk(self) -> dict[str, Any]:
        use = await self._shelf.use()
        try:
            disk = await asyncio.to_thread(os.statvfs, self._facts.layout.root)
            free = disk.f_frsize * disk.f_bavail
        except OSError:
            free = 0
        return {
            "used_bytes": use.published + use.partial,
            "reserved_bytes": self._facts.reserved(),
            "free_bytes": free,
            "min_free_bytes": self._facts.live.config.store.min_free_bytes,
            "quota_bytes": self._facts.live.config.store.max_bytes,
            "next_out": [],
        }

    def _health(self) -> dict[str, Any]:
        config = self._facts.live.config
        known = {"hub" if one.name == "hub" else "proxy": one for one in self._facts.health()[:2]}
        return {
            "hub": _source(config.hub.endpoint, known.get("hub")),
            "proxy": _source(config.proxy.url, known.get("proxy")) if config.proxy.url else None,
            "rate_limits": [
                {"host": host, "bucket": quota.name, "remaining": quota.remaining, "reset_s": round(quota.reset_s)}
                for host, quota in self._facts.quotas()
            ],
        }

    async def wants(self, request: web.Request) -> web.Response:
        """One page of the wants that pass a filter."""
        event = self._publisher.position()
        page = await self._publisher.wants.page(_filter(request), request.query.get("after", ""), _limit(request))
        parts = []
        for number, ticket in enumerate(page.tickets, 1):
            parts.append(encode(self._publisher.document(ticket, SHORT)))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        rest = encode({"total": page.total, "next": page.next, "event": event})
        return raw_json(b'{"wants":[' + b",".join(parts) + b"]," + rest[1:])

    async def want(self, request: web.Request) -> web.Response:
        """One want, with the files of its models and which bytes of them are there."""
        path = request.match_info["path"]
        ticket = self._publisher.wants.find(path)
        if ticket is None:
            raise not_found(f"no want {path[:200]!a}", "GET /v1/wants lists them; the path is relative to the spool")
        few = len(ticket.parts) <= FEW_MODELS
        document = self._publisher.document(ticket, Cut(MODELS_MOST, FILES_MOST if few else SHORT.files))
        for model in document["models"]:
            for file in model["files"]:
                if file["state"] == "downloading" and file["sha256"]:
                    there = self._facts.there(self._facts.layout.part(file["sha256"]))
                    file["ranges"] = there[:RANGES_MOST] if there is not None else []
        return raw_json(encode(document))

    async def models(self, request: web.Request) -> web.Response:
        """One page of the published models, ordered by name."""
        after, limit = request.query.get("after", ""), _limit(request)
        entries = await self._shelf.entries()
        names = [name for name in entries if name > after]
        wants = wanted_by(self._facts.jobs, f"{self._facts.live.config.spool.dir}/")
        listed = [model_document(name, entries[name], wants.get(name, ())) for name in names[:limit]]
        following = names[limit - 1] if len(names) > limit else None
        return raw_json(encode({"models": listed, "total": len(entries), "next": following}))

    async def model(self, request: web.Request) -> web.Response:
        """One published model, with its files."""
        found = await self._shelf.find(request.match_info["id"])
        if found is None:
            raise not_found(f"no model {request.match_info['id'][:200]!a}", "GET /v1/models lists them")
        name, entry = found
        wants = wanted_by(self._facts.jobs, f"{self._facts.live.config.spool.dir}/")
        return raw_json(encode(model_document(name, entry, wants.get(name, ()), files=True)))


def _source(endpoint: str, health: SourceHealth | None) -> dict[str, Any]:
    return {"endpoint": endpoint, "ok": health.ok if health else None, "why": health.why if health else None}


def _line(why: str | None) -> web.Response:
    return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200, headers={"Cache-Control": "no-store"})


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(LIMIT))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= LIMIT_MOST):
        raise bad_request(f"limit is a number from 1 to {LIMIT_MOST}")
    return int(text)


def _filter(request: web.Request) -> Filter:
    states = {state for text in request.query.getall("state", []) for state in text.split(",") if state}
    labels = [text.partition("=") for text in request.query.getall("label", [])]
    if not all(equals for _, equals, _ in labels) or len(labels) > LABELS_MOST:
        raise bad_request(f"label is key=value, at most {LABELS_MOST} of them")
    text = request.query.get("q", "")
    if len(text) > TEXT_MOST:
        raise bad_request(f"q is longer than {TEXT_MOST} characters")
    return Filter(frozenset(states), frozenset((key, value) for key, _, value in labels), text.casefold())
