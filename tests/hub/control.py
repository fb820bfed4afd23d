"""The control face of a Hub that runs as a process of its own, at an address of its own: JSON in and out.

| request | does |
|---|---|
| `GET /stats` | the ledger and the URLs |
| `POST /reset` | forgets the ledger |
| `GET /repos` | repositories, their refs, and their files with size, hash and kind |
| `POST /faults` `{"glob": …, "faults": {…}}` | puts a rule in force |
| `POST /clear` `{"glob": …}` or `{}` | takes one rule back, or all |
| `POST /options` `{…}` | changes options |
| `POST /restore` | takes back what `options` changed |
| `POST /expire` | makes every signed URL worthless |
| `POST /commit` `{"repo": …, "ref": …, "files": {name: base64}}` | a commit of these files; makes the repo too |
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from agent.embedded_hub.repo import Repo
from tests.hub.faults import Faults

if TYPE_CHECKING:
    from tests.hub.server import InstrumentedHub


def app(hub: InstrumentedHub) -> web.Application:
    """The face of one Hub."""

    async def handle(request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            done = _act(hub, request.match_info["what"], orjson.loads(raw) if raw else {})
        except (ValueError, TypeError, KeyError) as error:  # TypeError: an option or switch of a wrong name or type
            return web.json_response({"error": repr(error)}, status=400)
        if done is None:
            return web.json_response({"error": "no such request"}, status=404)
        return web.Response(body=orjson.dumps(done), content_type="application/json")

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{what}", handle)
    return application


def _act(hub: InstrumentedHub, what: str, values: dict[str, Any]) -> dict[str, Any] | None:
    if what == "stats":
        return {"endpoint": hub.endpoint, "cdn": hub.cdn, **hub.ledger.to_json()}
    if what == "repos":
        return {repo.id: _describe(repo) for repo in hub.repos.values()}
    if what == "commit":
        contents = {name: base64.b64decode(text) for name, text in values["files"].items()}
        repo = hub.repos.get(values["repo"]) or Repo(values["repo"])
        hub.repos.add(repo)
        return {"commit": repo.commit(contents, values.get("ref", "main"))}
    if what == "reset":
        hub.ledger.reset()
    elif what == "faults":
        hub.faults.set(values["glob"], Faults.from_json(values["faults"]))
    elif what == "clear":
        hub.faults.clear(values.get("glob"))
    elif what == "options":
        hub.configure(**values)
    elif what == "restore":
        hub.restore_options()
    elif what == "expire":
        hub.expire_urls()
    else:
        return None
    return {}


def _describe(repo: Repo) -> dict[str, Any]:
    files = {
        name: {"size": file.size, "sha256": file.sha256, "etag": file.etag, "lfs": file.lfs}
        for name, file in repo.main.items()
    }
    return {"refs": repo.refs, "gated": repo.gated, "private": repo.private, "disabled": repo.disabled, "files": files}
