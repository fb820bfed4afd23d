"""`wantd top`: the agent's page for a terminal, live.

Events only say that something has changed; what is shown is read from the lists, a screen of each state, so that
100,000 wants cost no more than ten.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import threading
import time
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from agent.cli.face import FaceClient, connect
from agent.cli.top_view import GROUPS, Picture, draw
from agent.config import Config, load, process_environment
from agent.errors import Code, Exit, WantdError

CHANGED_S = 0.5  # at least between two looks, however much changes
UNCHANGED_S = 2.0  # at most: times and rates go on without events
RETRY_S = 1.0  # between two attempts to reach an agent that is away
UNREACHABLE = (OSError, http.client.HTTPException, ValueError)  # the last: half a document, of an agent that went away

EXAMPLES = """\
examples:
  wantd top                    until Ctrl-C
  wantd top --once             one picture, for a log or a message
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long."""
    parser.add_argument("--once", action="store_true", help="print one picture and end")


def call(arguments: argparse.Namespace) -> int:
    """Show it until Ctrl-C."""
    config = load(arguments.config, process_environment())
    console = Console()
    look = Look(config)
    try:
        picture = look.now(console.height)
    except UNREACHABLE as error:
        raise WantdError(
            Code.INTERNAL, f"{look.client.address} does not respond: {error}", "see the agent's log"
        ) from error
    if arguments.once or not console.is_terminal:
        console.print(draw(picture, console.width, None))
        return Exit.OK
    with contextlib.suppress(KeyboardInterrupt):
        _follow(look, picture, console)
    return Exit.OK


class Look:
    """Reads what is shown. Raises OSError, HTTPException or WantdError where the agent cannot be asked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.client: FaceClient = connect(config)

    def again(self) -> None:
        """Find the agent again: another process may listen elsewhere."""
        self.client = connect(self._config)

    def now(self, height: int) -> Picture:
        """The whole, with as many wants of each state as a screen of `height` lines could show."""
        status = self.client.get("/v1/status")
        wants = {}
        for group in GROUPS:
            if any(status["counts"].get(state) for state in group.states):
                states = ",".join(group.states)
                wants[group.title] = self.client.get(f"/v1/wants?state={states}&limit={max(1, min(height, 200))}")
        return Picture(status, wants, height, datetime.now(UTC))


class Watch(threading.Thread):
    """Follows the events for as long as the command runs, and sets `changed` with each."""

    def __init__(self, look: Look) -> None:
        super().__init__(daemon=True, name="events")
        self.changed = threading.Event()
        self._look = look

    def run(self) -> None:
        while True:
            with contextlib.suppress(*UNREACHABLE, WantdError):
                for _ in self._look.client.events():
                    self.changed.set()
            self.changed.set()
            time.sleep(RETRY_S)
            with contextlib.suppress(WantdError):
                self._look.again()


def _follow(look: Look, picture: Picture, console: Console) -> None:
    watch = Watch(look)
    watch.start()
    since: datetime | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                picture = look.now(console.height)
                since = None
            except (*UNREACHABLE, WantdError):
                since = since or datetime.now(UTC)
            live.update(draw(picture, console.width, since), refresh=True)
            watch.changed.wait(UNCHANGED_S)
            watch.changed.clear()
            time.sleep(CHANGED_S)
