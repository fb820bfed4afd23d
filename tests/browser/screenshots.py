"""`make screenshots`: the page in four states, light and dark, wide and narrow, into docs/screenshots/.

The values are made up (tests/browser/scenes.py), so that the pictures change only when the page does. The page's first
choice of fonts is in Debian's fonts-inter and fonts-jetbrains-mono; pngquant makes the files small.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser import scenes
from tests.browser.chromium import launch
from tests.browser.stub import Stub
from tests.harness import CHECKOUT

INTO = CHECKOUT / "docs" / "screenshots"
SIZES = {"1440": (1440, 1000), "390": (390, 844)}
SCHEMES = ("light", "dark")


def shoot(browser: Browser, name: str, stub: Stub, address: str, into: Path) -> None:
    """All pictures of one state."""
    with stub.serving():
        for width, (w, h) in SIZES.items():
            for scheme in SCHEMES:
                context = browser.new_context(
                    viewport={"width": w, "height": h},
                    is_mobile=w < 600,
                    has_touch=w < 600,
                    color_scheme=scheme,
                    reduced_motion="reduce",
                    timezone_id="UTC",
                )
                page = context.new_page()
                page.goto(stub.url + address)
                page.wait_for_selector("#link[data-link=live]")
                page.wait_for_selector(".row, #empty:not([hidden])")
                if address:
                    page.wait_for_selector(".detail .file")
                page.evaluate("document.fonts.ready")
                page.screenshot(path=into / f"{name}-{width}-{scheme}.png")
                context.close()


def main(into: Path = INTO) -> int:
    into.mkdir(parents=True, exist_ok=True)
    detail, path = scenes.in_detail()
    states = [
        ("idle", scenes.idle(), ""),
        ("busy", scenes.busy(), ""),
        ("failures", scenes.failures(), ""),
        ("detail", detail, f"#want={path}"),
    ]
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name, stub, address in states:
            shoot(browser, name, stub, address, into)
        browser.close()
    pictures = sorted(into.glob("*.png"))
    subprocess.run(
        [
            "pngquant",
            "--force",
            "--skip-if-larger",
            "--ext",
            ".png",
            "--quality",
            "70-95",
            "--speed",
            "1",
            "--strip",
            *map(str, pictures),
        ],
        check=False,
    )
    total = sum(picture.stat().st_size for picture in pictures)
    print(f"{len(pictures)} pictures, {total / 1000:.0f} kB, in {into}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
