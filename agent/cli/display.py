"""How wants go, on standard error: a live table on a terminal, lines in a log or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

from agent.cli.table import PLAIN, Glyphs, Row, table
from agent.cli.text import how_it_goes
from agent.cli.watch import Watch

REPAINT_S = 0.1  # more often is more than people see


class Display(Protocol):
    """Shows wants. `update` is called again and again with all of them."""

    def update(self, watches: Sequence[Watch]) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...


def display() -> Display:
    """The one that fits standard error."""
    return Live() if sys.stderr.isatty() else Lines()


class Lines:
    """One line for each change of state and each tenth."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int]] = {}

    def update(self, watches: Sequence[Watch]) -> None:
        for watch in watches:
            if watch.progress is None:
                continue
            key = (watch.state, int(watch.progress.get("progress", 0) * 10))
            if self._last.get(watch.path) != key:
                self._last[watch.path] = key
                self.note(f"{watch.name}: {how_it_goes(watch.progress)}")

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is held."""


class Live:
    """The table, repainted in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(stderr=True, highlight=False)
        self._glyphs = Glyphs() if (sys.stderr.encoding or "").lower().startswith("utf") else PLAIN
        self._live = RichLive(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._watches: Sequence[Watch] = ()
        self._painted = 0.0

    def update(self, watches: Sequence[Watch]) -> None:
        self._watches = watches
        if time.monotonic() - self._painted >= REPAINT_S:
            self._paint()

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Paint how it ended, and leave the table on the screen."""
        self._paint()
        self._live.stop()

    def _paint(self) -> None:
        from rich.text import Text

        self._live.start()
        rows = [Row(watch.name, watch.progress) for watch in self._watches]
        size = self._console.size
        text = Text("\n".join(table(rows, size.width, size.height, self._glyphs)), no_wrap=True, overflow="crop")
        text.highlight_regex(f"[{self._glyphs.done}]{{2,}}", "cyan")
        text.highlight_regex(r"(?<= )ready\b", "green")
        text.highlight_regex(r"(?<= )failed\b", "red")
        self._live.update(text, refresh=True)
        self._painted = time.monotonic()
