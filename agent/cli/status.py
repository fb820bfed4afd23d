"""`wantd status`: what moves, waits and failed, and how much is ready."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import orjson

from agent.cli.text import how_it_goes
from agent.config import load, process_environment
from agent.core.words import size
from agent.errors import Exit
from agent.reports.status import Status, collect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, with every want")
    parser.add_argument("--all", action="store_true", help="list the wants that are ready as well")


def call(arguments: argparse.Namespace) -> int:
    """Look and print."""
    config = load(arguments.config, process_environment())
    everything = arguments.json or arguments.all
    status = collect(config.spool.dir, config.store.dir, time.time(), everything=everything)
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(status.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        _print(status, everything)
    return Exit.OK


def _print(status: Status, everything: bool) -> None:
    agent, said = status.agent, status.agent.said
    running = "running" if agent.running else "not running"
    if agent.running and said:
        running += f" (pid {said.pid}, version {said.version})"
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items()) or "no wants"
    print(f"agent   {running}")
    print(f"spool   {status.spool}: {counts}")
    total = sum(model["bytes"] for model in status.models)
    print(f"store   {status.store}: {len(status.models)} models, {size(total)}")
    if agent.running and said and said.restart_needed:
        print(f"note    restart the agent to apply {', '.join(said.restart_needed)}")
    width = min(max([len(str(want["want"])) for want in status.wants], default=0), 50)
    for want in status.wants:
        text = str(want["why"]) if want["state"] == "unanswered" else how_it_goes(want)
        if want["state"] not in ("ready", "failed", "unanswered") and not agent.running:
            text += " (when the agent stopped)"
        paths = [model["path"] for model in want.get("models", []) if model.get("path")]
        if want["state"] == "ready" and paths:
            text += f"  {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        print(f"  {want['want']!s:<{width}}  {text}")
    listed = Counter(str(want["state"]) for want in status.wants)
    left = [f"{count - listed[state]} {state}" for state, count in status.counts.items() if count > listed[state]]
    if left:
        print(f"  not shown: {', '.join(left)}; list them with --all")
