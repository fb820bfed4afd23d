"""Debian's Chromium under Playwright: PyPI has the driver, Debian the browser."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import Browser, Playwright


def launch(playwright: Playwright) -> Browser:
    """A headless browser. Root has no user namespaces for Chromium's sandbox in a container, so it goes without."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "install Debian's chromium"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=path, args=[*sandbox, "--disable-dev-shm-usage"])
