"""A load balancer of llmlb: its manifest is the listing, and one of several routes gives the bytes.

The routes are `{base}/registry/{id}/manifest.json`, `{base}/registry/{id}/files/{file}` (no Content-Length) and
`{base}/blob/{id}` (the one GGUF, no ranges), where base is `/api/models`, before 2026 `/v0/models`; the one that
answered last is asked first. Ids are one URL-encoded path segment in llmlb's own spelling (`core.names.store_name`):
the balancer refuses any other.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

import orjson
from cachetools import LRUCache, TTLCache
from loguru import logger

from agent.core.access import PlainHttp
from agent.core.names import SafeName, show
from agent.core.remote import Listing, Location, Query, RemoteFile
from agent.core.retry import MANIFEST_S
from agent.errors import Code, WantdError
from agent.net.budget import HostBudgets, rate_limited
from agent.net.client import Http, Response
from agent.net.redirect import host_key, next_hop, origin, same_origin
from agent.sources.breaker import Breaker
from agent.sources.hub_parse import etag_of, size_of_header
from agent.sources.llmlb_parse import Entry, Manifest, parse_manifest

GENERATIONS = ("/api/models", "/v0/models")
REMEMBERED = 256  # manifests
MAX_HOSTS = 256  # that manifests name, and that are kept in mind
HUB_HOST = "huggingface.co"  # where the URLs of most manifests lead
SHOWN = 200  # characters of the balancer's own words in a message


class LlmlbSource:
    """The balancer at `base` (no trailing slash). `key` goes to that origin, and nowhere else.

    `hub` is the Hub's endpoint: a manifest's URL that leads there is tried last, since the Hub was asked before.
    """

    name = "llmlb"

    def __init__(
        self,
        http: Http,
        budgets: HostBudgets,
        base: str,
        *,
        key: str | None = None,
        hub: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._budgets = budgets
        self._base = base
        self._key = key
        self._hubs = {HUB_HOST} | ({origin(hub).host} if hub else set())
        self._clock = clock
        self._generation = GENERATIONS[0]
        self._manifests: TTLCache[str, Manifest] = TTLCache(REMEMBERED, MANIFEST_S, timer=clock)
        self._breakers: LRUCache[str, Breaker] = LRUCache(MAX_HOSTS)  # of hosts that manifests name

    def __repr__(self) -> str:
        return f"LlmlbSource({self._base!r})"

    async def listing(self, query: Query) -> Listing:
        """The files of the manifest. Optional ones that are not there are left out. See `core.ports.Source`."""
        manifest = await self._fetch(query)
        entries = manifest.files_for(query)
        if not entries:
            raise _error(
                query,
                Code.MODEL_NOT_FOUND,
                f"the load balancer's {show(query.model, 80)} is not {query.repo} at {show(query.revision, 60)}, "
                "as far as its manifest says",
                "check the model at the load balancer, or wait for the Hub; its manifest names other files",
            )
        files = [
            RemoteFile(entry.name, entry.size, sha256=entry.sha256)
            for entry in entries
            if not entry.optional or await self._is_there(query, entry)
        ]
        return Listing(self.name, query.repo, manifest.commit(query), tuple(files))

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """The first route that gives a byte of the file. See `core.ports.Source`."""
        manifest = None if failed else self._manifests.get(query.model)
        manifest = manifest or await self._fetch(query)
        # The plan says which version it is: with its hash, any file under that name is worth a try.
        known = Query(query.repo, query.revision, query.model, query.names or (name,), query.quant, bound=True)
        entry = next((entry for entry in manifest.files_for(known) if entry.name == name), None)
        if entry is None:
            raise _error(
                query,
                Code.FILE_NOT_FOUND,
                f"the load balancer's {show(query.model, 80)} has no file {show(name)}",
                "check the model at the load balancer; its manifest names other files",
                name,
            )
        return await self._find(query, entry, only=sum(e.is_weights for e in manifest.entries) == 1)

    async def _is_there(self, query: Query, entry: Entry) -> bool:
        try:
            await self._find(query, entry, only=False)
        except WantdError as error:
            logger.debug("{} of {} is optional and left out: {}", ascii(entry.name), query.model, error.message)
            return False
        return True

    async def _find(self, query: Query, entry: Entry, *, only: bool) -> Location:
        """Ask each route for one byte; `only` says that the balancer has just one GGUF of the model."""
        refusals: list[WantdError] = []
        async for url in self._routes(query, entry, only):
            try:
                response = await (self._http.probe(url, self._auth()) if self._is_own(url) else self._elsewhere(url))
            except WantdError as error:
                if self._is_own(url):
                    raise
                refusals.append(error)
                continue
            if response.status in (200, 206, 416):
                return self._location(response, entry)
            refusals.append(self._refusal(response, query, entry.name))
        raise next((error for error in refusals if error.retryable), refusals[0])

    async def _elsewhere(self, url: str) -> Response:
        """One byte from a host that the manifest names; one that cannot be reached is left alone for a while."""
        host = origin(url).host
        breaker = self._breakers.get(host)
        if breaker is None:
            breaker = self._breakers[host] = Breaker(self._clock)
        if breaker.why and not breaker.is_due:
            raise breaker.why
        return await breaker.ask(host, lambda: self._http.probe(url))

    def _is_own(self, url: str) -> bool:
        return same_origin(url, self._base)

    async def _routes(self, query: Query, entry: Entry, only: bool) -> AsyncIterator[str]:
        """Where the bytes may be: elsewhere, at the balancer (the blob first: it has a length), at the Hub."""
        url = next_hop(f"{self._base}/", entry.url, 0) if entry.url else None
        at_hub = url is not None and origin(url).host in self._hubs
        if url and not at_hub:
            yield url
        model = quote(query.model, safe="")
        if entry.is_weights and only:
            for generation in self._ordered():
                yield f"{self._base}{generation}/blob/{model}"
        for generation in self._ordered():
            yield f"{self._base}{generation}/registry/{model}/files/{quote(entry.own, safe='')}"
        if url and at_hub:
            yield url

    def _location(self, response: Response, entry: Entry) -> Location:
        auth = self._auth() if self._is_own(response.url) else None
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        length = response.headers.get("Content-Length") if response.status == 200 else total
        return Location(
            self.name,
            PlainHttp(response.url, self._http.rule, {"Authorization": auth} if auth else {}),
            entry.sha256 or etag_of(response.headers.get("ETag")),
            size_of_header(length),
            response.status == 206,
            entry.sha256,
            self._http.unreachable,
        )

    async def _fetch(self, query: Query) -> Manifest:
        """Ask for the model's manifest, in the generation that answered last, then in the other."""
        refusals: list[WantdError] = []
        for generation in self._ordered():
            url = f"{self._base}{generation}/registry/{quote(query.model, safe='')}/manifest.json"
            response = await self._http.get(url, self._auth())
            try:
                if response.status != 200:
                    raise self._refusal(response, query)
                manifest = parse_manifest(response.json())  # an older one may response an unknown route with a page
            except WantdError as error:
                if error.retryable:
                    raise
                refusals.append(error)
                continue
            self._generation = generation
            self._manifests[query.model] = manifest
            return manifest
        # That one generation does not know the route says less than what the other answered.
        raise next((error for error in refusals if error.code is not Code.MODEL_NOT_FOUND), refusals[0])

    def _ordered(self) -> list[str]:
        return sorted(GENERATIONS, key=lambda generation: generation != self._generation)

    def _auth(self) -> str | None:
        if self._key and not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise WantdError(
                Code.UNAUTHORIZED,
                "the load balancer's key holds characters that no key has",
                "check LLM_RUNTIME_API_KEY: one word of letters and digits",
            )
        return f"Bearer {self._key}" if self._key else None

    def _refusal(self, response: Response, query: Query, file: str | None = None) -> WantdError:
        """The error for an response that is no success."""
        status, words = response.status, self._words(response)
        model = show(query.model, 80)
        wait = self._budgets.delay(host_key(response.url)) if status in (429, 503) else 0.0
        said = f"the load balancer answered {status} for {model}" + (f": {words}" if words else "")
        if status == 429:
            return rate_limited("the load balancer", max(wait, 1.0), "wait", model=query.repo, file=file)
        if status >= 500 or status == 408:
            hint = "see the load balancer's own log; wantd keeps trying"
            return _error(query, Code.PROXY_UNREACHABLE, said, hint, file, retry_after_s=wait or None)
        if status in (401, 403):
            what = "it refused the key that is set" if self._key else "it requires a key"
            return _error(query, Code.UNAUTHORIZED, said, f"set LLM_RUNTIME_API_KEY; {what}", file)
        if status in (400, 404, 405, 410):
            code = Code.FILE_NOT_FOUND if file else Code.MODEL_NOT_FOUND
            return _error(query, code, said, "register the model at the load balancer, or wait for the Hub", file)
        return _error(query, Code.HUB_PROTOCOL, said, "check that proxy.url names a load balancer of llmlb", file)

    def _words(self, response: Response) -> str:
        """The balancer's own words, `{"error": "…"}`; a key that it sends back is not shown."""
        try:
            body = orjson.loads(response.body)
        except orjson.JSONDecodeError:
            return ""
        said = body.get("error") if isinstance(body, dict) else None
        if isinstance(said, dict):
            said = said.get("message")
        if not isinstance(said, str):
            return ""
        return show(said.replace(self._key, "(key)") if self._key else said, SHOWN)


def _error(
    query: Query, code: Code, what: str, hint: str, file: str | None = None, retry_after_s: float | None = None
) -> WantdError:
    return WantdError(code, what, hint, retry_after_s=retry_after_s, model=query.repo, file=file)
