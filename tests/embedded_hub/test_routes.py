"""The routes serve anything that says what it holds, as a store could: one host, files on disk, no redirect."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.http.hub.content import Content
from agent.http.hub.response import error_responses
from agent.http.hub.routes import HubRoutes

COMMIT = "c" * 40
WEIGHTS = bytes(range(256)) * 50


@dataclass(frozen=True)
class Published:
    """A file of a store: size and hash are in a record, the bytes may be gone."""

    size: int
    etag: str
    path: Path

    def open(self) -> Content | None:
        return Content(path=str(self.path)) if self.path.exists() else None


@dataclass(frozen=True)
class Model:
    id: str
    held: Mapping[str, Published]
    private: bool = False
    gated: bool | str = False
    disabled: bool = False
    refs: Mapping[str, str] = field(default_factory=lambda: {"main": COMMIT})

    def find(self, revision: str) -> str | None:
        return COMMIT if revision in ("main", COMMIT) else None

    def files(self, commit: str) -> Mapping[str, Published]:
        return self.held if commit == COMMIT else {}


class Store:
    def __init__(self, model: Model) -> None:
        self.model = model

    def find(self, name: str) -> Model | None:
        return self.model if name.lower() == self.model.id.lower() else None


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "model.gguf").write_bytes(WEIGHTS)
    (tmp_path / "README.md").write_bytes(b"hello")
    model = Model(
        "org/model",
        {
            "model.gguf": Published(len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest(), tmp_path / "model.gguf"),
            "README.md": Published(5, hashlib.sha1(b"blob 5\0hello").hexdigest(), tmp_path / "README.md"),
            "gone.gguf": Published(5, "a" * 64, tmp_path / "gone.gguf"),
        },
    )
    app = web.Application(middlewares=[error_responses])
    app.add_routes(HubRoutes(Store(model)).table())
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.mark.parametrize("name", ["model.gguf", "README.md"])
async def test_a_file_is_served_with_its_hash_and_in_ranges(
    endpoint: str, http: aiohttp.ClientSession, name: str
) -> None:
    data = WEIGHTS if name == "model.gguf" else b"hello"
    url = f"{endpoint}/org/model/resolve/main/{name}"
    async with http.head(url, allow_redirects=False) as response:
        assert response.headers["X-Repo-Commit"] == COMMIT
        assert response.headers["X-Linked-Size"] == str(len(data))
        linked = response.headers["X-Linked-Etag"]
    async with http.get(url) as response:
        assert (response.status, await response.read()) == (200, data)
        assert response.headers["ETag"] == linked
    async with http.get(url, headers={"Range": "bytes=1-3"}) as response:
        assert (response.status, await response.read()) == (206, data[1:4])


async def test_a_listing_needs_no_bytes(endpoint: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{endpoint}/api/models/org/model?blobs=true") as response:
        document = await response.json()
    assert document["sha"] == COMMIT
    assert {file["rfilename"] for file in document["siblings"]} == {"model.gguf", "README.md", "gone.gguf"}
    async with http.get(f"{endpoint}/api/models/org/model/tree/main") as response:
        assert "xetHash" not in await response.text(), "there is no Xet storage here to read from"


async def test_a_file_whose_bytes_are_gone_is_not_found(endpoint: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{endpoint}/org/model/resolve/main/gone.gguf") as response:
        assert (response.status, response.headers["X-Error-Code"]) == (404, "EntryNotFound")
