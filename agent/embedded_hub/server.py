"""The embedded Hub: two listeners on loopback, `http://127.0.0.1:PORT` as the Hub and `http://localhost:PORT2` as the
CDN that its redirects go to, so that a client meets two hosts as it does in the world.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import orjson
from aiohttp import web

from agent.embedded_hub import api, control
from agent.embedded_hub.access import DEFAULT_TOKENS, Budget, Gate, Signer, missing
from agent.embedded_hub.answer import Answer, HubError, redirect, send
from agent.embedded_hub.faults import FaultBoard, Faults
from agent.embedded_hub.ledger import Ledger, Seen, token_hash
from agent.embedded_hub.repo import HubFile, Repo

AFTER_REPO = frozenset({"revision", "tree", "paths-info", "refs", "resolve"})  # what may follow a repository's name
MAX_PLAIN_BYTES = 50 * 10**9  # the Hub refuses to send more than this without Range


@dataclass
class Options:
    """What can be chosen when a Hub starts, and, but for hosts and ports, changed while it runs."""

    port: int = 0  # 0: any free one
    cdn_port: int = 0
    cdn_base: str | None = None  # another server's URL that serves `/{repo}/{file}` in the CDN's place
    page_size: int = 1000  # entries of one page of a tree
    url_lifetime_s: float = 3600.0  # of signed URLs; 0 makes them born expired
    api_quota: int = 1_000_000  # requests of one client in a window
    resolve_quota: int = 1_000_000
    window_s: float = 300.0
    max_plain_bytes: int = MAX_PLAIN_BYTES
    tokens: Mapping[str, frozenset[str]] = field(default_factory=lambda: dict(DEFAULT_TOKENS))


class EmbeddedHub:
    """`hub = EmbeddedHub(standard_repos(), page_size=50); await hub.start(); … hub.endpoint …; await hub.stop()`.

    Also an async context manager. `faults`, `ledger`, `options` and `repos` may be used at any time.
    """

    def __init__(self, repos: Iterable[Repo] = (), **options: Any) -> None:
        self.options = Options(**options)
        self.repos: dict[str, Repo] = {}
        self._names: dict[str, str] = {}  # former names, and all names in lower case -> the true one
        for repo in repos:
            self.add(repo)
        self.faults = FaultBoard()
        self.ledger = Ledger()
        self.gate = Gate(self.options.tokens)
        self.signer = Signer(self.options.url_lifetime_s)
        self.endpoint = self.cdn = ""
        self._stack = AsyncExitStack()
        self.configure()

    def add(self, repo: Repo) -> None:
        """Serve a repository, in place of one with the same name."""
        self.repos[repo.id] = repo
        for name in (repo.id, *repo.former_ids):
            self._names[name.lower()] = repo.id

    def configure(self, **changes: Any) -> None:
        """Change options of the running Hub. Raises TypeError for one that does not exist."""
        self.options = Options(**(vars(self.options) | changes))
        self.signer.lifetime_s = self.options.url_lifetime_s
        if not changes or changes.keys() & {"api_quota", "resolve_quota", "window_s"}:
            self.budget = Budget(self.options.api_quota, self.options.resolve_quota, self.options.window_s)

    async def start(self) -> None:
        """Listen. Afterwards `endpoint` and `cdn` are the URLs, without a trailing slash."""
        port = await self._listen(self._hub, self.options.port)
        cdn_port = await self._listen(self._cdn, self.options.cdn_port)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.cdn = (self.options.cdn_base or f"http://localhost:{cdn_port}").rstrip("/")

    async def stop(self) -> None:
        """Close listeners and connections; answers under way are cut."""
        await self._stack.aclose()

    async def __aenter__(self) -> EmbeddedHub:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _listen(self, handler: Any, port: int) -> int:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{anything:.*}", handler)
        # A handler ends with its client, so that a stalled answer is not held for ever; nobody waits for it at the end.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.01)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        bound: int = runner.addresses[0][1]
        return bound

    async def _hub(self, request: web.Request) -> web.StreamResponse:
        segments = _segments(request)
        if segments[:2] == ["-", "control"]:
            return await control.handle(self, request, segments[2:])
        seen = self._note(request, "hub")
        faults = self.faults.take("hub/" + "/".join(segments))
        await asyncio.sleep(faults.latency_s)
        is_api = segments[0] == "api" and segments[:2] != ["api", "resolve-cache"]
        allowed, limits = self.budget.take("api" if is_api else "resolvers", seen.token_sha256 or "anonymous")
        if faults.status is not None:
            answer = _ordered(faults).answer
        elif not allowed:
            answer = HubError(429, None, "You have reached the rate limit of this Hub.").answer
        else:
            answer = await self._route(request, segments)
        answer.headers = {**limits, **answer.headers, "X-Request-Id": f"Root={uuid4()}"}
        return await send(request, answer, faults, self.ledger, seen)

    async def _cdn(self, request: web.Request) -> web.StreamResponse:
        segments = _segments(request)
        seen = self._note(request, "cdn")
        faults = self.faults.take("cdn/" + "/".join(segments))
        await asyncio.sleep(faults.latency_s)
        if faults.status is not None:
            answer = _ordered(faults).answer
        else:
            try:
                answer = self._cdn_file(request, segments)
            except HubError as error:
                answer = error.answer
        return await send(request, answer, faults, self.ledger, seen)

    def _note(self, request: web.Request, listener: str) -> Seen:
        authorization = request.headers.get("Authorization")
        token = token_hash(authorization) if authorization is not None else None
        path = request.raw_path.partition("?")[0]  # the query may be a signature
        seen = Seen(listener, request.method, path, request.host, request.headers.get("Range"), token)
        self.ledger.note(seen)
        return seen

    async def _route(self, request: web.Request, segments: list[str]) -> Answer:
        try:
            return await self._hub_answer(request, segments)
        except HubError as error:
            return error.answer

    async def _hub_answer(self, request: web.Request, segments: list[str]) -> Answer:
        token = self.gate.token(request.headers.get("Authorization"))
        if segments == ["api", "whoami-v2"]:
            if token is None:
                raise HubError(401, None, "Invalid username or password.")
            return api.whoami("embedded")
        if segments[:3] == ["api", "resolve-cache", "models"] and len(segments) > 3:
            repo, rest = self._repo(request, segments[3:], token, before="api/resolve-cache/models/", content=True)
            return self._plain_file(repo, rest[0] if rest else "", "/".join(rest[1:]))
        if segments[:2] == ["api", "models"] and len(segments) > 2:
            repo, rest = self._repo(request, segments[2:], token, before="api/models/", content=False)
            return await self._metadata(request, repo, rest)
        if "resolve" in segments[1:3]:
            repo, rest = self._repo(request, segments, token, before="", content=True)
            revision, rest = _revision(rest[1:])
            return self._resolve(repo, revision, "/".join(rest))
        raise missing(token)

    def _repo(
        self, request: web.Request, segments: list[str], token: str | None, *, before: str, content: bool
    ) -> tuple[Repo, list[str]]:
        """The repository that the path names, and what follows. A former or ill-spelt name is redirected."""
        short = len(segments) == 1 or segments[1] in AFTER_REPO or segments[0] in self.repos
        count = 1 if short else 2
        asked = "/".join(segments[:count])
        true_id = self._names.get(asked.lower())
        repo = self.gate.check(self.repos.get(true_id or ""), token, content=content)
        if repo.id != asked:
            tail = request.raw_path[1 + len(before) :].split("/", count)[count:]
            raise _Moved(f"/{before}{repo.id}" + "".join(f"/{part}" for part in tail))
        return repo, segments[count:]

    async def _metadata(self, request: web.Request, repo: Repo, rest: list[str]) -> Answer:
        what, rest = (rest[0], rest[1:]) if rest else ("revision", [])
        query = request.query
        if what == "refs":
            return api.refs(repo)
        revision, rest = _revision(rest) if rest else ("main", [])
        if request.method == "POST" and what == "paths-info":
            paths, expand = await _read_paths(request)
            return api.paths_info(repo, api.commit_of(repo, revision), paths, expand=expand)
        commit = api.commit_of(repo, revision)
        if what == "revision":
            return api.info(repo, commit, blobs=query.get("blobs", "").lower() in ("true", "1"))
        if what == "tree":
            path = "/".join(rest).strip("/")
            return api.tree(repo, commit, revision, path, query, self.options.page_size, self.endpoint)
        raise HubError(404, None, "Sorry, we can't find the page you are looking for.")

    def _file(self, repo: Repo, revision: str, name: str) -> tuple[str, HubFile]:
        commit = api.commit_of(repo, revision)
        if name not in repo.commits[commit]:
            raise api.entry_not_found(commit)
        return commit, repo.commits[commit][name]

    def _resolve(self, repo: Repo, revision: str, name: str) -> Answer:
        commit, file = self._file(repo, revision, name)
        etag = f'"{file.etag(name)}"'
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(file.size), "X-Linked-Etag": etag}
        if not file.is_lfs(name):
            where = f"/api/resolve-cache/models/{repo.id}/{commit}/{quote(name)}"
            return redirect(307, f"{where}?etag={quote(etag)}", headers)
        if self.options.cdn_base:
            return redirect(302, f"{self.cdn}/{repo.id}/{quote(name)}", headers)
        path = f"/{repo.id}/{file.sha256}/{quote(name)}"
        return redirect(302, f"{self.cdn}{path}?{self.signer.sign(unquote(path))}", headers)

    def _plain_file(self, repo: Repo, commit: str, name: str) -> Answer:
        commit, file = self._file(repo, commit, name)
        headers = {
            "ETag": f'"{file.etag(name)}"',
            "X-Repo-Commit": commit,
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}; filename=\"{_ascii(name)}\";",
        }
        return Answer(200, headers, file, (repo.id, name), ranged=True, compress=True)

    def _cdn_file(self, request: web.Request, segments: list[str]) -> Answer:
        if "Authorization" in request.headers:
            raise HubError(400, None, "Only one auth mechanism allowed")
        if not self.signer.holds("/" + "/".join(segments), request.query):
            raise HubError(403, None, "Access denied: the URL is not signed, or it has expired")
        count = 1 if segments[0] in self.repos else 2
        repo = self.repos.get("/".join(segments[:count]))
        sha256, name = segments[count], "/".join(segments[count + 1 :])
        held = [files[name] for files in repo.commits.values() if name in files] if repo else []
        file = next((file for file in held if file.sha256 == sha256), None)
        if repo is None or file is None:
            raise HubError(404, None, "NoSuchKey")
        if "Range" not in request.headers and file.size > self.options.max_plain_bytes:
            raise HubError(400, None, "The object is too large to be sent without Range")
        headers = {
            "ETag": f'"{sha256[::-1][:32]}"',  # a CDN's ETag has nothing to do with the content's hash
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{_ascii(name)}";',
        }
        return Answer(200, headers, file, (repo.id, name), ranged=True)


class _Moved(HubError):
    """The repository has another name now."""

    def __init__(self, location: str) -> None:
        super().__init__(307, None, "moved")
        self.answer = redirect(307, location)


def _ordered(faults: Faults) -> HubError:
    """The answer that a fault orders in place of the true one."""
    status = faults.status or 500
    headers = {"Retry-After": faults.retry_after} if faults.retry_after is not None else {}
    return HubError(status, None, f"The embedded Hub was told to answer {status}", headers)


def _segments(request: web.Request) -> list[str]:
    """The path's parts; a quoted slash stays inside its part."""
    return [unquote(part) for part in request.raw_path.partition("?")[0].lstrip("/").split("/")]


def _revision(rest: list[str]) -> tuple[str, list[str]]:
    """The revision at the head of `rest`, also an unquoted `refs/pr/1`, and what follows."""
    count = 3 if rest[:1] == ["refs"] else 1
    return "/".join(rest[:count]), rest[count:]


async def _read_paths(request: web.Request) -> tuple[list[str], bool]:
    if request.content_type == "application/json":
        try:
            document = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise HubError(400, None, "The body is not a JSON object")
        paths, expand = document.get("paths", []), document.get("expand", False)
        return [paths] if isinstance(paths, str) else list(paths), bool(expand)
    form = await request.post()
    return [str(path) for path in form.getall("paths", [])], str(form.get("expand", "")).lower() in ("true", "1")


def _ascii(name: str) -> str:
    return name.rpartition("/")[2].encode("ascii", "replace").decode().replace('"', "_")
