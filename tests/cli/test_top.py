"""`wantd top`, `wantd open` and the client that both use, on a server with values that the test chooses."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from agent.cli.face import FaceClient, browser_address
from agent.cli.open import has_screen
from agent.cli.top_view import GROUPS, Picture, draw, sparkline
from agent.errors import WantdError
from tests.browser import scenes
from tests.browser.stub import Stub


def picture(stub: Stub, height: int = 60) -> Picture:
    client = FaceClient(stub.url.rstrip("/"))
    wants = {kind.title: client.get(f"/v1/wants?state={','.join(kind.states)}&limit=100") for kind in GROUPS}
    wants = {title: page for title, page in wants.items() if page["total"]}
    return Picture(client.get("/v1/status"), wants, height, datetime.now(UTC))


def drawn(shown: Picture, width: int = 140, lost_since: datetime | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(draw(shown, width, lost_since))
    return out.getvalue()


def test_what_moves_why_the_rest_waits_and_what_to_do_about_failures() -> None:
    with scenes.busy().serving() as stub:
        text = drawn(picture(stub))
    lines = text.splitlines()
    moving = next(line for line in lines if line.startswith("openai/gpt-oss-120b"))
    assert "63%" in moving
    assert "41.4 GB of 65.3 GB" in moving
    assert "214.0 MB/s" in moving
    assert "99%" in next(line for line in lines if "microsoft/phi-4" in line), "100 % is for what is ready"
    assert "Waits for disk space: 1.03 TB needed, 486.0 GB free." in text
    failed = next(number for number, line in enumerate(lines) if line.startswith("meta-llama/Llama-4"))
    assert "is gated" in lines[failed]
    assert "request access at" in lines[failed + 1]
    assert "capped at 500.0 MB/s" in lines[0]
    assert "next to go: tiiuae/falcon-180b" in text


def test_a_low_screen_shows_some_of_each_state_and_how_many_there_are() -> None:
    with scenes.busy().serving() as stub:
        text = drawn(picture(stub, height=30))
    assert "Ready 13, 2 shown" in text
    assert "Moving 5" in text
    assert len(text.splitlines()) <= 36


def test_a_lost_agent_is_said() -> None:
    with scenes.busy().serving() as stub:
        shown = picture(stub)
    assert "no connection to the agent since" in drawn(shown, lost_since=datetime.now(UTC))


def test_what_a_stranger_writes_does_not_steer_the_terminal() -> None:
    model = "[bold]x[/]\x1b]0;title\x07\u202e"
    with Stub([scenes.want("a.want", model, "queued")], scenes.status()).serving() as stub:
        text = drawn(picture(stub))
    assert "[bold]x[/]‹001B›]0;title‹0007›‹202E›" in text
    assert "\x1b" not in text


def test_the_line_of_rates() -> None:
    assert sparkline([0, 50, 100]) == " ▄█"
    assert sparkline([0, 0]) == ""


def test_events_are_followed() -> None:
    with scenes.idle().serving() as stub:
        events = FaceClient(stub.url.rstrip("/")).events()
        assert next(events) == {}
        stub.want(scenes.want("a.want", "org/a", "queued"))
        assert next(events)["data"]["path"] == "a.want"
        events.close()  # type: ignore[attr-defined]


def test_a_refusal_has_the_agents_words() -> None:
    with scenes.idle().serving() as stub, pytest.raises(WantdError) as raised:
        FaceClient(stub.url.rstrip("/")).get("/v1/wants/none.want")
    assert raised.value.message == "no want none.want"
    assert raised.value.hint == "look at the list"


def test_the_address_for_a_browser() -> None:
    assert browser_address(["unix:/run/wantd/wantd.sock"]) is None
    assert browser_address(["unix:/s", "http://10.0.0.1:80", "http://127.0.0.1:7411"]) == "http://127.0.0.1:7411/"
    assert browser_address(["http://0.0.0.0:7411"]) == "http://127.0.0.1:7411/"
    assert browser_address(["http://[::]:7411"]) == "http://[::1]:7411/"


def test_a_browser_is_opened_only_where_there_is_a_screen() -> None:
    assert not has_screen({"SSH_CONNECTION": "x"}, "linux")
    assert has_screen({"DISPLAY": ":0"}, "linux")
    assert has_screen({"WAYLAND_DISPLAY": "wayland-0"}, "linux")
    assert has_screen({}, "darwin")
