"""A client of the agent's HTTP face for commands: over its Unix socket, or over TCP (docs/http.md)."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from agent.config import Config
from agent.core.listen import is_loopback
from agent.errors import Code, WantdError
from agent.reports.status import agent_of
from agent.store.layout import Layout

ANSWER_S = 10.0  # for a document; the agent makes them in milliseconds
SILENCE_S = 40.0  # for an event; the agent sends a comment every 15 s
BODY_BYTES = 64 * 1024 * 1024  # far more than a page of 1,000 wants
LINE_BYTES = 16 * 1024 * 1024  # one event: a want with 50 models


class Connection(Protocol):
    """What a request goes over."""

    def request(self, method: str, url: str, body: None = None, headers: dict[str, str] = ...) -> None: ...
    def getresponse(self) -> http.client.HTTPResponse: ...
    def close(self) -> None: ...


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class FaceClient:
    """Asks one agent. `address` is as `listening` of its status has it: `unix:PATH` or `http://HOST:PORT`.

    All methods raise OSError or HTTPException where the agent cannot be reached, and WantdError where it refuses.
    """

    def __init__(self, address: str, token: str = "") -> None:
        self.address = address
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> Any:
        """The JSON document at a path."""
        connection = self._connect(ANSWER_S)
        try:
            response = self._ask(connection, path)
            return orjson.loads(response.read(BODY_BYTES))
        finally:
            connection.close()

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens from now on, until the stream ends. Begins with an empty event once the stream is there."""
        connection = self._connect(SILENCE_S)
        try:
            response = self._ask(connection, "/v1/events")
            yield {}
            while line := response.readline(LINE_BYTES):
                if line.startswith(b"data:"):
                    yield orjson.loads(line[5:])
        finally:
            connection.close()

    def _connect(self, timeout: float) -> Connection:
        if self.address.startswith("unix:"):
            return _UnixConnection(self.address.removeprefix("unix:"), timeout)
        parts = urlsplit(self.address)
        return http.client.HTTPConnection(_reachable(parts.hostname or ""), parts.port, timeout=timeout)

    def _ask(self, connection: Connection, path: str) -> http.client.HTTPResponse:
        connection.request("GET", path, headers=self._headers)
        response = connection.getresponse()
        if response.status == http.client.OK:
            return response
        raise _refusal(response)


def _refusal(response: http.client.HTTPResponse) -> WantdError:
    try:
        error = orjson.loads(response.read(BODY_BYTES))["error"]
        return WantdError(Code.INTERNAL, str(error["message"]), str(error["hint"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return WantdError(Code.INTERNAL, f"the agent sent HTTP status {response.status}", "see the agent's log")


def _reachable(host: str) -> str:
    """Where to connect for a listener: one on all addresses is on loopback too."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound


def listening(config: Config) -> list[str]:
    """Where the running agent of this spool listens. Raises WantdError where none runs, or it listens nowhere."""
    agent = agent_of(config.spool.dir, Layout(config.store.dir))
    if not agent.running or agent.said is None:
        raise WantdError(Code.INTERNAL, f"no agent serves {config.spool.dir}", "start it with `wantd run`")
    if not agent.said.listening:
        raise WantdError(Code.INTERNAL, "the agent listens nowhere", 'set http.listen, for example to "127.0.0.1:7411"')
    return agent.said.listening


def connect(config: Config) -> FaceClient:
    """A client of the running agent: over the socket where this user may, else over TCP. Raises WantdError."""
    addresses = listening(config)
    sockets = [one for one in addresses if one.startswith("unix:")]
    for address in sockets:
        if os.access(address.removeprefix("unix:"), os.R_OK | os.W_OK):
            return FaceClient(address)
    for address in addresses:
        if address not in sockets:
            return FaceClient(address, _token(config.http.token_file))
    raise WantdError(
        Code.INTERNAL,
        f"{sockets[0].removeprefix('unix:')} may not be opened by this user",
        "run it as root or as a member of the socket's group",
    )


def _token(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return next((line.strip() for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        return ""


def browser_address(addresses: list[str]) -> str | None:
    """What a browser on this host opens: a listener on loopback before others, None where there is only a socket."""
    urls = [one for one in addresses if not one.startswith("unix:")]
    ordered = sorted(urls, key=lambda url: not is_loopback(_reachable(urlsplit(url).hostname or "")))
    if not ordered:
        return None
    parts = urlsplit(ordered[0])
    host = _reachable(parts.hostname or "")
    return f"http://{f'[{host}]' if ':' in host else host}:{parts.port}/"
