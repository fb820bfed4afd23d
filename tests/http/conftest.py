"""An agent that listens, and plain requests to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.config import Config, Live, Spool, Store
from agent.core.listen import TcpAddress, UnixAddress
from agent.core.progress import AgentInfo
from agent.core.target import Target
from agent.http import server
from agent.http.reads import Facts
from agent.reports.status import agent_of
from agent.state.feed import Feed
from agent.state.job import Job
from agent.store.layout import Layout
from tests.fakes import FakeClock
from tests.harness import AgentProcess


@dataclass
class Response:
    """A response that is there completely."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a refusal."""
        return str(self.json()["error"]["code"])


class Face:
    """The HTTP face of a running agent."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        said = agent_of(str(agent.spool), Layout(str(agent.store))).said
        assert said
        self.listening = said.listening
        self.url = next(url for url in self.listening if url.startswith("http"))
        self.host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.port = int(port)

    @property
    def socket_path(self) -> str:
        return next(url for url in self.listening if url.startswith("unix:")).removeprefix("unix:")

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Response:
        """Over TCP. `_` in names of headers stands for `-`."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        found = Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        connection.close()
        return found

    def get(self, path: str) -> Any:
        """The JSON of a document."""
        response = self.ask(path)
        assert response.status == 200, response.body
        return response.json()

    def raw(self, data: bytes, timeout: float = 60) -> bytes:
        """All that comes back for some bytes, until the agent closes."""
        with socket.create_connection((self.host, self.port), timeout) as connection:
            connection.sendall(data)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            return received


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A path of a socket has 107 bytes at most, and pytest's directories are long."""
    with tempfile.TemporaryDirectory(prefix="wantd-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def face(make_agent: Callable[..., AgentProcess], short_path: Path) -> Face:
    """A running agent that listens on a socket and on a free port."""
    agent = make_agent()
    agent.set(http__listen="unix:{runtime}/wantd.sock,127.0.0.1:0", XDG_RUNTIME_DIR=short_path)
    agent.start()
    return Face(agent)


@dataclass
class Inside:
    """A face in this process, over state that the test makes."""

    feed: Feed
    clock: FakeClock
    layout: Layout
    jobs: dict[Target, Job]
    face: server.Face
    url: str


@pytest.fixture
async def inside(tmp_path: Path, short_path: Path) -> AsyncIterator[Inside]:
    feed, clock, layout = Feed(), FakeClock(), Layout(str(tmp_path / "models"))
    layout.create()
    (tmp_path / "spool").mkdir()
    jobs: dict[Target, Job] = {}
    config = Config(spool=Spool(dir=str(tmp_path / "spool")), store=Store(dir=layout.root))
    facts = Facts(
        live=Live(config),
        layout=layout,
        agent=AgentInfo(1, "host", "0"),
        started_at=clock.now(),
        jobs=jobs,
        restart_needed=list,
        scanned_at=clock.now,
        health=list,
        quotas=list,
        connections=lambda: 0,
        reserved=lambda: 0,
        there=lambda _: None,
    )
    face = server.Face(facts, feed, clock, [web.post("/v1/change", _changed), web.delete("/v1/change/{id}", _changed)])
    await face.start([TcpAddress("127.0.0.1", 0), UnixAddress(str(short_path / "inside.sock"))])
    serving = asyncio.create_task(face.serve())
    yield Inside(feed, clock, layout, jobs, face, face.listening[0])
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    await face.stop()


async def _changed(_: web.Request) -> web.Response:
    return web.Response(text="changed")
