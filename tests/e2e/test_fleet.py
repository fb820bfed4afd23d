"""A door that behaves as Dragonfly's registry mirror is documented to: GET comes from the peers, HEAD goes to the Hub.

https://d7y.io/docs/advanced-guides/; its pieces carry no hash that a client could rely on, and the id of a task is the
URL, so that whoever asks gets the bytes: it must be asked for public models alone, and never with a token.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.harness import AgentProcess, clean_environment
from tests.hub.access import TOKEN_GRANTED
from tests.hub.process import HubProcess

GGUF_BYTES = 3_000_000
GATED = "wantd/gated"


class Door(ThreadingHTTPServer):
    """Serves what the Hub serves to strangers. `poison` changes the first byte of every file."""

    daemon_threads = True

    def __init__(self, hub: HubProcess) -> None:
        super().__init__(("127.0.0.1", 0), _Peer)
        self.hub = hub
        self.poison = False
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Peer(BaseHTTPRequestHandler):
    server: Door
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._note()
        self.send_response(302)
        self.send_header("Location", f"{self.server.hub.endpoint}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self._note()
        body = self.server.files.get(self.path)
        if body is None:
            with urllib.request.urlopen(f"{self.server.hub.endpoint}{self.path}") as response:
                body = self.server.files[self.path] = response.read()
        if self.server.poison:
            body = b"!" + body[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), int(wanted[2] or len(body) - 1) + 1) if wanted else (0, len(body))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{min(end, len(body)) - 1}/{len(body)}")
        part = body[start:end]
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Dragonfly-Task-Id", "0" * 64)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def _note(self) -> None:
        self.server.asked.append((self.command, self.path))
        if token := self.headers.get("Authorization"):
            self.server.tokens.append(token)

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def hub() -> Iterator[HubProcess]:
    with HubProcess("--gguf-size", str(GGUF_BYTES)) as process:
        yield process


@pytest.fixture
def door(hub: HubProcess) -> Iterator[Door]:
    with Door(hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def agent(hub: HubProcess, door: Door, tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(
        tmp_path, hub.endpoint, fleet__url=door.url, policy__allow="any", adopt__caches="none", HF_TOKEN=TOKEN_GRANTED
    ) as process:
        yield process


def test_the_bytes_come_from_the_door_with_get_alone(agent: AgentProcess, hub: HubProcess, door: Door) -> None:
    agent.drop("one", "qwen3")
    agent.ready("one")
    model = (agent.progress("one") or {})["models"][0]
    assert (model["source"], model["files"][0]["source"]) == ("fleet", "fleet")
    assert {method for method, _ in door.asked} == {"GET"}
    assert all(f"/resolve/{model['commit']}/" in path for _, path in door.asked)
    assert hub.stats()["requests"].get("resolve", 0) <= len(door.files), "what the door itself asked the Hub for"


def test_what_a_token_opens_is_not_asked_for_there(agent: AgentProcess, door: Door) -> None:
    agent.drop("gated", GATED)
    agent.drop("one", "qwen3")
    agent.ready("gated")
    agent.ready("one")
    assert door.tokens == []
    assert not [path for _, path in door.asked if GATED in path]


def test_wrong_bytes_are_published_nowhere(agent: AgentProcess, hub: HubProcess, door: Door) -> None:
    door.poison = True
    agent.drop("one", "qwen3")
    path = Path(agent.ready("one"))
    assert path.read_bytes()[:4] == b"GGUF"
    assert "from the Hub, not from the fleet" in agent.log()


def test_a_host_without_a_fleet_loads_nothing_of_it() -> None:
    code = "import sys, agent.app; sys.exit(any(name.split('.')[0] == 'redis' for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=False)
    assert done.returncode == 0
