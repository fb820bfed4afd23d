"""Status, wants, models, events of a running agent, and that its page in docs/ shows them as they are."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.http import assets, errors, guard, reads, streams
from tests.harness import CHECKOUT, wait_until
from tests.http.conftest import Face

PAGE = (CHECKOUT / "docs" / "http.md").read_text()
EXAMPLES = re.findall(r"```console\n\$ (.*)\n((?:.*\n)*?)```", PAGE)


@pytest.fixture
def filled(face: Face) -> Face:
    """With one want that is ready, and one that failed."""
    agent = face.agent
    agent.drop("qwen3", {"model": "qwen3", "labels": {"team": "search"}})
    agent.drop("failed", "no-such-model")
    agent.ready("qwen3")
    agent.failed("failed")
    wait_until(lambda: face.get("/v1/status")["counts"] == {"failed": 1, "ready": 1}, "the face knows both")
    return face


def same_shape(told: Any, shown: Any) -> bool:
    """Whether a document has the keys that an example shows, and no others unless it shows that there are some."""
    if isinstance(shown, dict):
        if not isinstance(told, dict) or not (set(shown) - {"…"} <= set(told)):
            return False
        if "…" not in shown and set(shown) != set(told):
            return False
        return all(same_shape(told[key], value) for key, value in shown.items() if key != "…")
    if isinstance(shown, list):
        return isinstance(told, list) and bool(told) >= bool(shown) and all(map(same_shape, told, shown))
    return told == shown if shown in ("ready", "qwen3", "qwen3.want") else True


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=[command for command, _ in EXAMPLES])
def test_an_example_of_the_page(filled: Face, number: int) -> None:
    command, shown = EXAMPLES[number]
    environ = {**os.environ, "WANTD": filled.url}
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=True)
    try:
        expected = json.loads(shown)
    except json.JSONDecodeError:
        assert done.stdout.strip() == shown.strip()
    else:
        told = json.loads(done.stdout)
        assert same_shape(told, expected), done.stdout
        if "error" in expected:
            assert told == expected


@pytest.mark.parametrize(
    ("language", "command"), [("python", [sys.executable, "-c"]), ("js", ["node", "--input-type=module", "-e"])]
)
def test_a_client_of_the_page(face: Face, language: str, command: list[str]) -> None:
    (code,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    environ = {**os.environ, "WANTD": face.url}
    process = subprocess.Popen([*command, code], env=environ, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: _readers(face) or process.poll() is not None, "the client reads")
    face.agent.drop("qwen3")
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == "qwen3.want ready"


def _readers(face: Face) -> bool:
    """Whether a client reads events."""
    return bool(face.get("/v1/status")["readers"])


def test_every_code_of_a_refusal_is_on_the_page() -> None:
    listed = set(re.findall(r"`(\w+)`", PAGE.partition("| status | `code` |")[2].partition("\n\n")[0]))
    sources = "".join(Path(str(module.__file__)).read_text() for module in (errors, guard, reads, streams))
    raised = set(re.findall(r'Refusal\(\s*\d{3},\s*"(\w+)"', sources)) | set(re.findall(r'4\d\d: "(\w+)"', sources))
    assert listed == raised


def test_a_reader_of_events_sees_a_want_come_and_go(face: Face) -> None:
    since = face.get("/v1/status")["event"]
    face.agent.drop("qwen3")
    face.agent.ready("qwen3")
    os.unlink(face.agent.spool / "qwen3.want")
    events = read_events(face, since, lambda event: event["type"] == "want_gone")
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    of_want = [event["data"] for event in events if event["type"] == "want"]
    assert {want["path"] for want in of_want} == {"qwen3.want"}
    assert of_want[-1]["state"] == "ready"
    assert [event["data"] for event in events if event["type"] == "model"] == [{"model": "qwen3", "what": "published"}]
    again = read_events(face, events[0]["id"], lambda event: event["type"] == "want_gone")
    assert again == events[1:]


def read_events(face: Face, since: int, until: Any) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection(face.host, face.port, timeout=60)
    connection.request("GET", f"/v1/events?since={since}")
    response = connection.getresponse()
    events: list[dict[str, Any]] = []
    while not events or not until(events[-1]):
        line = response.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            events.append(json.loads(line[6:]))
    connection.close()
    return events


async def test_the_same_comes_over_a_websocket(face: Face) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{face.url}/v1/ws") as socket:
        face.agent.drop("qwen3")
        async for message in socket:
            event = message.json()
            if event["type"] == "want" and event["data"]["state"] == "ready":
                break
        since = face.get("/v1/status")["event"]
    assert event["id"] <= since
    async with session.__class__() as other, other.ws_connect(f"{face.url}/v1/ws?since={event['id'] - 1}") as socket:
        assert (await socket.receive_json()) == event


def test_an_event_of_another_run_gives_a_reset(face: Face) -> None:
    before = face.get("/v1/status")["event"]
    face.agent.stop()
    face.agent.start()
    face = Face(face.agent)
    (event,) = read_events(face, before, lambda event: True)
    assert (event["type"], event["data"]) == ("reset", {})
    assert event["id"] == face.get("/v1/status")["event"]


def test_readers_are_told_that_the_agent_stops(face: Face) -> None:
    since = face.get("/v1/status")["event"]
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.extend(read_events(face, since, lambda e: e["type"] == "agent")))
    reader.start()
    wait_until(lambda: _readers(face), "it reads")
    assert face.agent.stop() == 0
    reader.join(60)
    assert found[-1]["data"]["what"] == "stop"
    assert not os.path.exists(face.socket_path)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/wants?limit=0", "/v1/wants?limit=1001", "/v1/wants?limit=x", "/v1/models?limit=-1", "/v1/wants?label=x"),
        *(f"/v1/wants?q={'x' * 201}", "/v1/events?since=x", "/v1/ws?since=-1"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(face: Face, path: str) -> None:
    refused = face.ask(path)
    assert (refused.status, refused.code) == (400, "bad_request")


def test_a_port_that_is_taken_is_said_and_gone_on_without(face: Face) -> None:
    second = face.agent.__class__(face.agent.root.parent / "second", face.agent.environ["HF_ENDPOINT"])
    second.set(http__listen=f"127.0.0.1:{face.port},127.0.0.1:0,unix:{face.socket_path}")
    with second:
        assert f"not listening on {face.url}: another program listens there" in second.log()
        assert f"not listening on unix:{face.socket_path}: another program listens there" in second.log()
        other = Face(second)
        assert other.get("/v1/status")["agent"]["listening"] == [other.url]
        assert face.get("/v1/status")["agent"]["pid"] == face.agent.pid


def test_a_socket_that_a_kill_left_is_taken_over(face: Face) -> None:
    face.agent.kill()
    assert os.path.exists(face.socket_path)
    face.agent.start()
    assert Face(face.agent).socket_path == face.socket_path


def test_without_addresses_no_socket_is_opened(face: Face) -> None:
    agent = face.agent
    agent.stop()
    agent.set(http__listen="")
    agent.start()
    inodes = {os.readlink(f"/proc/{agent.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{agent.pid}/fd")}
    tables = [Path(f"/proc/{agent.pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    assert [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes] == []
    assert face.socket_path not in Path("/proc/net/unix").read_text()


def test_what_serves_http_is_imported_only_where_it_is_needed() -> None:
    code = "import sys, agent.app; print([name for name in sys.modules if name[:11] in ('agent.http.', 'aiohttp.web')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout == "[]\n"


def test_the_page_comes_with_its_files_under_a_strict_policy(face: Face) -> None:
    page = face.ask("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', page.body.decode())
    assert named
    modules = [f"page/{path.name}" for path in assets.FOLDER.glob("*.js")]
    for path in ("", *named, *modules):
        answer = face.ask(f"/{path}")
        assert answer.status == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert path.endswith(".js") == (answer.headers["content-type"] == "text/javascript; charset=utf-8")
        again = face.ask(f"/{path}", If_None_Match=answer.headers["etag"])
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", answer.headers["etag"])


@pytest.mark.parametrize("name", ["..%2fserver.py", "../server.py", "%2e%2e/server.py", "nothing.js", "%00", "a%2fb"])
def test_the_page_has_no_files_but_its_own(face: Face, name: str) -> None:
    assert face.ask(f"/page/{name}").code in ("not_found", "bad_request")
