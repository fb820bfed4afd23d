"""`wantd status`: what moves, waits and failed, and how much is ready."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import time
from collections import Counter

import orjson

from agent.cli.text import how_it_goes
from agent.config import Config, load, process_environment
from agent.core.words import shorten, size
from agent.errors import Exit
from agent.reports.status import Status, collect

NAME_MAX = 50  # columns
WATCH_S = 1.0  # between two looks of --watch
EXAMPLES = """\
examples:
  wantd status                 what moves, waits and failed
  wantd status --watch         the same, until Ctrl-C
  wantd status --json | jq .counts

exit codes: 0 fine, 3 no agent serves the spool, 4 a want has failed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, with every want")
    parser.add_argument("--all", action="store_true", help="list the wants that are ready as well")
    parser.add_argument("--watch", action="store_true", help="look again each second, until Ctrl-C")


def call(arguments: argparse.Namespace) -> int:
    """Look and print. Returns 0, 3 without an agent, 4 where a want has failed."""
    config = load(arguments.config, process_environment())
    everything = arguments.json or arguments.all
    if arguments.watch and not arguments.json:
        return _watch(config, everything)
    status = _collect(config, everything)
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(status.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        # A pipe gets whole lines: it may be a search.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(lines(status, everything, width)))
    return exit_code(status)


def exit_code(status: Status) -> int:
    """What a script wants to know first."""
    if not status.agent.running:
        return Exit.NO_AGENT
    return Exit.SOME_FAILED if status.counts.get("failed") else Exit.OK


def lines(status: Status, everything: bool, width: int | None) -> list[str]:
    """The report; each line at most `width` columns less one, where that is given."""
    agent, said = status.agent, status.agent.said
    running = "running" if agent.running else "not running"
    if agent.running and said:
        running += f" (pid {said.pid}, version {said.version})"
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items()) or "no wants"
    total = sum(model["bytes"] for model in status.models)
    models = "1 model" if len(status.models) == 1 else f"{len(status.models)} models"
    shown = [
        f"agent   {running}",
        f"spool   {status.spool}: {counts}",
        f"store   {status.store}: {models}, {size(total)}",
    ]
    if agent.running and said and said.restart_needed:
        shown.append(f"note    restart the agent to apply {', '.join(said.restart_needed)}")
    head = len(shown)
    most = NAME_MAX if width is None else max(min(NAME_MAX, width // 3), 8)
    column = min(max([len(str(want["want"])) for want in status.wants], default=0), most)
    for want in status.wants:
        text = str(want["why"]) if want["state"] == "unanswered" else how_it_goes(want)
        if want["state"] not in ("ready", "failed", "unanswered") and not agent.running:
            text += " (when the agent stopped)"
        paths = [model["path"] for model in want.get("models", []) if model.get("path")]
        if want["state"] == "ready" and paths:
            text += f"  {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        name = str(want["want"])
        shown.append(f"  {name if width is None else shorten(name, column):<{column}}  {text}")
    listed = Counter(str(want["state"]) for want in status.wants)
    left = [f"{count - listed[state]} {state}" for state, count in status.counts.items() if count > listed[state]]
    if left:
        shown.append(f"  not shown: {', '.join(left)}; list them with --all")
    if width is None:
        return shown
    indents = [" " * 8] * head + [" " * (column + 4)] * len(status.wants) + [" " * 4]
    return [part for line, indent in zip(shown, indents, strict=False) for part in _wrapped(line, width - 1, indent)]


def _wrapped(line: str, width: int, indent: str) -> list[str]:
    """A line in as many as it takes: what is waited for and what failed is read to its end."""
    return [line] if len(line) <= width else textwrap.wrap(line, width, subsequent_indent=indent, drop_whitespace=True)


def _collect(config: Config, everything: bool) -> Status:
    return collect(config.spool.dir, config.store.dir, time.time(), everything=everything)


def _watch(config: Config, everything: bool) -> int:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    status = _collect(config, everything)
    console = Console(highlight=False)
    try:
        with Live(
            console=console, auto_refresh=False, vertical_overflow="ellipsis", screen=console.is_terminal
        ) as live:
            while True:
                text = "\n".join(lines(status, everything, console.size.width))
                live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)
                time.sleep(WATCH_S)
                status = _collect(config, everything)
    except KeyboardInterrupt:
        return exit_code(status)
