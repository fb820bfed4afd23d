"""A browser for the tests of the page. Script errors and breaches of the content policy fail each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.browser.chromium import launch
from tests.browser.stub import Stub

WATCH = """
window.breaches = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.breaches.push(event.violatedDirective + " " + event.blockedURI));
"""
WIDE = {"width": 1440, "height": 1000}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of 1440 by 1000 pixels. A response that did not come is not its fault; all else on the console is."""
    context = browser.new_context(viewport=WIDE, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_init_script(WATCH)
    page = context.new_page()
    wrong: list[str] = []

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            wrong.append(message.text)

    page.on("console", console)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    yield page
    assert page.evaluate("window.breaches") == []
    context.close()
    assert wrong == []


@pytest.fixture
def show(page: Page) -> Iterator[Callable[..., Page]]:
    """Open the page on a stub, and wait until it shows what that has."""

    def opened(stub: Stub, address: str = "") -> Page:
        stubs.enter_context(stub.serving())
        page.goto(stub.url + address)
        page.wait_for_selector("#link[data-link=live]")
        page.wait_for_selector(".row, #empty:not([hidden])")
        return page

    with ExitStack() as stubs:
        yield opened
