"""The page of a real agent, in a real browser."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.harness import AgentProcess

EVIL = "<script>alert(1)</script>"
PATIENT_MS = 60_000  # for what a busy machine does later than others
SLOW_BYTES_PER_S = 1_500_000  # the model has 6 MB: some seconds, to be watched

expect.set_options(timeout=PATIENT_MS)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def watched(make_agent: Callable[..., AgentProcess]) -> Callable[..., tuple[AgentProcess, str]]:
    """Starts an agent that listens on a port of its own, and gives the address of its page."""

    def start(**settings: Any) -> tuple[AgentProcess, str]:
        port = free_port()
        agent = make_agent(http__listen=f"127.0.0.1:{port}", **settings)
        agent.start()
        return agent, f"http://127.0.0.1:{port}/"

    return start


Watched = Callable[..., tuple[AgentProcess, str]]


def opened(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#link")).to_have_text("live")
    page.evaluate("window.same = true")  # gone after a reload


def row(page: Page, group: str, text: str) -> Any:
    return page.locator(f".group.{group} .row", has_text=text)


def test_a_want_appears_without_a_reload_its_bar_moves_and_it_becomes_ready(page: Page, watched: Watched) -> None:
    agent, url = watched(transfer__max_rate=SLOW_BYTES_PER_S)
    opened(page, url)
    expect(page.locator("#empty")).to_contain_text(f"touch {agent.spool}")
    page.evaluate(
        """() => {
          window.shares = [];
          new MutationObserver(() => {
            const bar = document.querySelector(".group.moving .bar");
            const share = Number(bar?.getAttribute("aria-valuenow") ?? 0);
            if (share > (window.shares.at(-1) ?? 0)) window.shares.push(share);
          }).observe(document.querySelector("#list"), { subtree: true, childList: true, attributes: true });
        }"""
    )
    agent.drop("team/first", {"model": "qwen3", "labels": {"team": "search"}, "priority": 2})
    moving = row(page, "moving", "qwen3")
    expect(moving).to_contain_text("team/first.want")
    expect(moving).to_contain_text("priority 2")
    expect(moving).to_contain_text("team=search")
    ready = row(page, "ready", "qwen3")
    expect(ready).to_contain_text(agent.ready("team/first"))
    assert len(page.evaluate("window.shares")) >= 3, "the bar moved step by step"
    expect(page.locator(".chip.ready .many")).to_have_text("1")
    assert page.evaluate("window.same")
    agent.spool.joinpath("team", "first.want").unlink()
    expect(page.locator(".row")).to_have_count(0)


def test_a_file_that_is_on_its_way_has_a_map_of_what_is_there(page: Page, watched: Watched) -> None:
    agent, url = watched(transfer__max_rate=SLOW_BYTES_PER_S // 3)
    opened(page, url)
    agent.drop("first", "qwen3")
    row(page, "moving", "qwen3").locator(".name").click()
    ranges = page.locator(".detail .ranges")
    expect(ranges.locator("path")).to_have_attribute("d", re.compile(r"^M0\.00 0h\d+"))
    expect(page.locator(".detail")).to_contain_text("Repository")


def test_the_page_says_that_the_agent_was_killed_and_goes_on_with_the_next(page: Page, watched: Watched) -> None:
    agent, url = watched()
    agent.drop("first", "qwen3")
    agent.ready("first")
    opened(page, url)
    expect(row(page, "ready", "qwen3")).to_be_visible()
    agent.kill()
    expect(page.locator("#link")).to_have_text("lost")
    expect(page.locator("#lost")).to_contain_text("No connection to the agent")
    expect(row(page, "ready", "qwen3")).to_be_visible()
    agent.drop("while-away", "no-such-model")
    agent.start()
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#lost")).to_be_hidden()
    expect(row(page, "failed", "no-such-model")).to_be_visible()
    agent.drop("second", "no-other-model")
    expect(row(page, "failed", "no-other-model")).to_be_visible()
    assert page.evaluate("window.same")


def test_a_failed_want_shows_what_happened_and_what_to_do(page: Page, watched: Watched) -> None:
    agent, url = watched()
    opened(page, url)
    agent.drop("wrong", "qwen33")
    error = agent.failed("wrong")
    failed = row(page, "failed", "qwen33")
    expect(failed.locator(".message")).to_have_text(error["message"])
    expect(failed.locator(".hint")).to_have_text(error["hint"])
    expect(failed.locator(".code")).to_have_text("model_not_supported")


def test_why_a_want_waits_is_a_sentence(page: Page, watched: Watched) -> None:
    agent, url = watched()
    opened(page, url)
    agent.drop("later", {"model": "qwen3", "not_before": "2999-01-01T00:00:00Z"})
    expect(row(page, "waiting", "later").locator(".why")).to_contain_text("Starts at 2999-01-01")


def test_labels_and_names_of_strangers_harm_nothing(page: Page, watched: Watched) -> None:
    agent, url = watched()
    opened(page, url)
    agent.drop("a\"'<img src=x onerror=alert(1)>\u202egnp", {"model": "qwen3", "labels": {EVIL: EVIL}})
    agent.drop("b", f"{EVIL}\u202e")
    ready = row(page, "ready", "qwen3")
    expect(ready.locator(".tag")).to_have_text(f"{EVIL}={EVIL}")
    expect(ready.locator(".path")).to_contain_text("<img src=x onerror=alert(1)>")
    assert "\u202e" not in page.locator("main").inner_text()
    expect(row(page, "failed", EVIL)).to_be_visible()
    page.locator("#label").select_option(f"{EVIL}={EVIL}")
    expect(page.locator(".row")).to_have_count(1)
    ready.locator(".name").click()
    expect(page.locator(".detail")).to_contain_text("File in the spool")
    expect(page.locator(".detail .path-box")).to_contain_text(".gguf")
    assert page.locator("script").count() == 1  # the fixture adds: no breach of the policy, no dialog, no error


def test_with_a_token_the_page_asks_for_it(page: Page, watched: Watched, tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("let-me-in\n")
    agent, url = watched(http__token_file=token)
    agent.drop("wrong", "no-such-model")
    page.goto(url)
    page.locator("#ask-token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    page.locator("#ask-token").fill("let-me-in")
    page.get_by_role("button", name="Open").click()
    expect(row(page, "failed", "no-such-model")).to_be_visible()


def test_the_commands_know_where_the_agent_listens(watched: Watched) -> None:
    agent, url = watched()
    agent.drop("wrong", "no-such-model")
    agent.failed("wrong")
    shown = agent.wantd("open", "--print")
    assert shown.stdout == f"{url}\n"
    top = agent.wantd("top", "--once")
    assert top.returncode == 0, top.stderr
    assert "Failed 1" in top.stdout
    assert "no-such-model" in top.stdout
    agent.stop()
    for command in ("open", "top"):
        refused = agent.wantd(command)
        assert refused.returncode != 0
        assert "no agent serves" in refused.stderr
