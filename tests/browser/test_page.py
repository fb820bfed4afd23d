"""The page in a real browser, on a server whose values the tests choose."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser import scenes
from tests.browser.stub import Stub
from tests.harness import wait_until

Show = Callable[..., Page]
MANY = 10_000


def rows(page: Page, group: str = "") -> list[str]:
    """The names of the rows that are in the document."""
    return page.locator(f".group{group and '.' + group} .row .name").all_inner_texts()


def detail() -> tuple[Stub, str]:
    stub, path = scenes.in_detail()
    return stub, f"#want={path}"


STATES: dict[str, Callable[[], tuple[Stub, str]]] = {
    "idle": lambda: (scenes.idle(), ""),
    "busy": lambda: (scenes.busy(), ""),
    "failures": lambda: (scenes.failures(), ""),
    "detail": detail,
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("state", list(STATES))
def test_axe_finds_nothing(show: Show, page: Page, state: str, width: int, scheme: Any) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    stub, address = STATES[state]()
    show(stub, address)
    if address:
        page.wait_for_selector(".detail .file")
    if width < 1000 and not address:
        page.locator("#disk summary").click()
        page.locator("#health summary").click()
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"


def test_ten_thousand_wants_are_a_hundred_rows(show: Show) -> None:
    wants = [scenes.want(f"many/{number:05}.want", f"org/model-{number:05}", "ready", 10**9) for number in range(MANY)]
    stub = Stub(wants, scenes.status())
    page = show(stub)
    expect(page.locator(".chip.ready .many")).to_have_text("10\u202f000")
    assert len(rows(page)) < 60
    assert len(stub.asked) < 20
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.get_by_text("org/model-09999", exact=True).wait_for()
    assert len(rows(page)) < 60
    last = page.locator(".row", has_text="org/model-09999")
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == "10000"
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    page.get_by_text("org/model-05000", exact=True).wait_for()
    assert not any("limit=10000" in asked for asked in stub.asked)


def test_events_move_wants_without_a_reload(show: Show) -> None:
    stub = Stub([scenes.want("b.want", "org/b", "ready", 100)], scenes.status())
    page = show(stub)
    stub.want(scenes.want("a.want", "org/a", "queued"))
    page.locator(".group.queued", has_text="org/a").wait_for()
    stub.want(scenes.want("a.want", "org/a", "downloading", 1000, done=0.25, rate=50))
    row = page.locator(".group.moving .row", has_text="org/a")
    expect(row.locator(".share")).to_have_text("25\u00a0%")
    stub.want(scenes.want("a.want", "org/a", "downloading", 1000, done=0.75, rate=50))
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "75")
    stub.want(scenes.want("a.want", "org/a", "ready", 1000))
    page.locator(".group.ready .row", has_text="org/a").wait_for()
    assert rows(page) == ["org/a", "org/b"]
    stub.gone("a.want")
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".chip.all .many")).to_have_text("1")


def test_a_want_that_was_not_read_yet_is_counted_and_read_when_somebody_scrolls_there(show: Show) -> None:
    wants = [scenes.want(f"{number:05}.want", f"org/model-{number:05}", "ready", 1) for number in range(300)]
    stub = Stub(wants, scenes.status())
    page = show(stub)
    stub.want(scenes.want("zz.want", "org/the-last", "ready", 1))
    expect(page.locator(".group.ready .count")).to_have_text("301")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.get_by_text("org/the-last", exact=True).wait_for()


def test_search_label_and_state_are_asked_of_the_agent_and_kept_in_the_address(show: Show) -> None:
    stub = scenes.busy()
    page = show(stub)
    page.keyboard.press("/")
    page.keyboard.type("embed")
    expect(page).to_have_url(re.compile("q=embed"))
    expect(page.locator(".row")).to_have_count(3)
    page.locator(".chip.waiting").click()
    expect(page.locator(".row")).to_have_count(1)
    page.reload()
    expect(page.locator(".row")).to_have_count(1)
    assert page.locator("#search").input_value() == "embed"
    page.locator(".chip.all").click()
    page.locator("#search").fill("")
    page.locator("#label").select_option("team=vision")
    wait_until(lambda: any("label=team%3Dvision" in asked for asked in stub.asked), "the label is asked for")
    expect(page.locator(".group.moving .row")).to_have_count(1)
    page.locator("#search").fill("no such model")
    expect(page.locator("#empty")).to_contain_text("No want matches")


def test_why_each_waits_and_what_to_do_about_failures(show: Show) -> None:
    stub = scenes.busy()
    page = show(stub)
    waiting = [want for want in stub.wants.values() if want["state"] == "waiting"]
    assert len(waiting) == 6
    for want in waiting:
        page.locator(".group.waiting").get_by_text(want["waiting_text"], exact=True).wait_for()
    show(scenes.failures())
    for want in scenes.failed_wants():
        for text in (want["error"]["message"], want["error"]["hint"], want["error"]["code"]):
            page.locator(".group.failed").get_by_text(text, exact=True).wait_for()


def test_one_want_in_detail_with_the_keyboard_alone(show: Show) -> None:
    stub, path = scenes.in_detail()
    page = show(stub)
    page.locator(".name", has_text="Qwen/Qwen3-30B").focus()
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="openai/gpt-oss-120b")
    dialog.wait_for()
    assert path in page.evaluate("decodeURIComponent(location.hash)")
    ranges = dialog.locator(".ranges").first
    assert "is there, in 4\u00a0ranges" in str(ranges.get_attribute("aria-label"))
    assert str(ranges.locator("path").get_attribute("d")).count("M") == 4
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.textContent") == "openai/gpt-oss-120b"
    assert "want=" not in page.url


def test_the_path_is_copied(show: Show) -> None:
    page = show(scenes.busy(), "#state=ready")
    page.get_by_role("button", name="Copy the path of Qwen/Qwen3-0.6B").click()
    expect(page.get_by_role("button", name="Copy the path of Qwen/Qwen3-0.6B")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "/var/lib/wantd/models/qwen/qwen3-0.6b"


def test_what_a_stranger_writes_is_text(show: Show) -> None:
    evil = "<script>alert(1)</script>"
    hostile = scenes.want(
        "a\"'<img src=x onerror=alert(1)>\u202egnp.want",
        f"{evil}\u202e/\u2066x\u200b\n\u0007",
        "failed",
        labels={evil: "\"'><svg onload=alert(1)>"},
        error=scenes.error("internal", evil, "<a href=javascript:alert(1)>here</a>"),
        waiting_text=evil,
    )
    ready = scenes.want("__proto__.want", "constructor", "ready", 5)
    ready["models"][0]["path"] = "/m/\u202e<b>x"
    status = scenes.status(labels={evil: ["\"'><svg onload=alert(1)>"], "__proto__": ["x"]})
    status["agent"]["host"] = evil
    stub = Stub([hostile, ready], status)
    page = show(stub)
    row = page.locator(".row.failed")
    expect(row.locator(".name")).to_have_text(f"{evil}‹202E›/‹2066›x‹200B›‹000A›‹0007›")
    expect(row.locator(".hint")).to_have_text("<a href=javascript:alert(1)>here</a>")
    expect(row.locator(".tag")).to_contain_text(evil)
    row.locator(".name").click()
    expect(page.locator(".detail .message")).to_have_text(evil)
    assert page.locator("script").count() == 1
    assert page.locator("main img, main a[href^=javascript], .detail img, .detail script").count() == 0


def test_it_says_that_the_agent_is_lost_and_goes_on_with_its_successor(page: Page) -> None:
    first = Stub([scenes.want("a.want", "org/a", "queued")], scenes.status())
    with first.serving():
        page.goto(first.url)
        page.wait_for_selector(".row")
        first.want(scenes.want("a.want", "org/a", "ready", 100))
        page.wait_for_selector(".row.ready")
    page.locator("#lost", has_text="No connection to the agent").wait_for()
    expect(page.locator("#link")).to_have_text("lost")
    assert rows(page) == ["org/a"]
    successor = scenes.status()
    successor["agent"] = {**successor["agent"], "pid": 9999, "started_at": scenes.when(0)}
    second = Stub([scenes.want("b.want", "org/b", "ready", 100)], successor)
    with second.serving(port=int(first.url.rsplit(":", 1)[1].rstrip("/"))):
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#lost")).to_be_hidden()
        page.get_by_text("org/b", exact=True).wait_for()
        assert rows(page) == ["org/b"]
        assert "/v1/events?since=1001" in second.asked


def test_a_first_day_says_what_to_do(show: Show) -> None:
    page = show(scenes.idle())
    expect(page.locator("#empty")).to_contain_text("touch /var/spool/wantd/Qwen--Qwen3-0.6B.want")
    expect(page.locator("#rate")).to_have_text("Idle")
