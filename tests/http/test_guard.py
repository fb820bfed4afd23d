"""Who may ask for what: names and origins, the token, and who changes something."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from agent.http.guard import READING, READING_POSTS, TokenFile, is_ours, may_change
from tests.http.conftest import Face, Inside

Asks = Callable[..., Awaitable[tuple[int, dict[str, object]]]]


async def ask(inside: Inside, method: str, path: str, **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, inside.url + path, headers=named) as response,
    ):
        code = (await response.json())["error"]["code"] if response.status >= 400 else ""
        return response.status, code


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7411", "127.0.0.1.evil.example", "192.168.0.1", "[::1"])
async def test_a_foreign_host_is_refused(inside: Inside, host: str) -> None:
    assert await ask(inside, "GET", "/v1/status", Host=host) == (403, "foreign_host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:7411", "LOCALHOST:80", socket.gethostname()])
async def test_a_host_of_its_own_is_served(inside: Inside, host: str) -> None:
    assert await ask(inside, "GET", "/v1/status", Host=host) == (200, "")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost:7411"},
        {"Origin": "http://localhost:3000"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
    ],
)
async def test_pages_of_others_are_refused(inside: Inside, headers: dict[str, str]) -> None:
    for path in ("/v1/status", "/v1/events", "/v1/ws", "/-/ready"):
        assert await ask(inside, "GET", path, Host="localhost:7411", **headers) == (403, "foreign_origin")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:7411"},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
    ],
)
async def test_the_agents_own_page_is_served(inside: Inside, headers: dict[str, str]) -> None:
    assert await ask(inside, "GET", "/v1/status", Host="localhost:7411", **headers) == (200, "")


async def test_no_route_changes_anything_over_tcp(inside: Inside) -> None:
    changing = [
        (route.method, route.resource.canonical.replace("{id}", "x"))
        for route in inside.face.app.router.routes()
        if route.method not in READING and route.name not in READING_POSTS and route.resource
    ]
    assert len(changing) >= 2
    for method, path in changing:
        assert await ask(inside, method, path) == (403, "tcp_only_reads")
        assert await ask(inside, method, path, Host="evil.example") == (403, "foreign_host")


async def _over_the_socket(inside: Inside, user: int | None) -> str:
    """What `POST /v1/change` answers another process, run as that user (None: as this one)."""
    path = inside.face.listening[1].removeprefix("unix:")
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.sendall(b'POST /v1/change HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(s.makefile('rb').read().decode())\n"
    )
    command = [sys.executable, "-I", "-c", script, path]
    if user is not None:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


async def test_over_the_socket_the_agents_user_may_change_something(inside: Inside) -> None:
    answer = await _over_the_socket(inside, None)
    assert answer.startswith("HTTP/1.1 200")
    assert answer.endswith("changed\n")


def test_who_may_change_something() -> None:
    assert is_ours(0, {0}, 998, 998)
    assert is_ours(998, {100}, 998, 998)
    assert is_ours(1000, {1000, 998}, 998, 998)
    assert not is_ours(1000, {1000, 0}, 998, 998)
    assert not is_ours(1000, {0}, 0, 0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert may_change(ours)


async def test_a_token_is_compared_whole_and_read_from_the_file_that_counts_now(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = TokenFile(lambda: str(path))
    assert not await token.accepts("Bearer ")
    path.write_text("\n  secret \nmore\n")
    token = TokenFile(lambda: str(path))
    assert await token.accepts("Bearer secret")
    assert await token.accepts("bearer secret")
    for wrong in ("", "secret", "Bearer", "Bearer secre", "Bearer secret\n more", "Basic secret", "Bearer sécret"):
        assert not await token.accepts(wrong)
    assert await TokenFile(lambda: "").accepts("")


def test_with_a_token_only_health_is_told_without_and_the_socket_needs_none(face: Face) -> None:
    agent = face.agent
    agent.stop()
    (agent.root / "token").write_text("secret")
    agent.set(http__token_file=agent.root / "token")
    agent.start()
    face = Face(agent)
    refused = face.ask("/v1/status")
    assert (refused.status, refused.code, refused.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    assert face.ask("/v1/status", Authorization="Bearer secret").status == 200
    assert face.ask("/-/ready").status == 200
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(face.socket_path)
        connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200")
    assert "secret" not in agent.log()
    assert os.stat(face.socket_path).st_mode & 0o777 == 0o666
