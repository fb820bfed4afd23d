"""`wantd status`: what is wanted, moving, ready and failed, from the spool and the store alone."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections import Counter
from typing import Any

import orjson

from agent.cli.text import how_it_goes, is_alive, size
from agent.config import Config, load, process_environment
from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.errors import Exit
from agent.spool.files import progress_path
from agent.spool.scan import scan
from agent.store.layout import Layout, read_record
from agent.store.locks import process_start

ANSWER_S = 5.0  # a want without an answer for this long has a reason that people want to know


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def call(arguments: argparse.Namespace) -> int:
    """Look and print."""
    config = load(arguments.config, process_environment())
    status = collect(config)
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(status, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return Exit.OK
    _print(status)
    return Exit.OK


def collect(config: Config) -> dict[str, Any]:
    """Everything there is to say, as `--json` prints it."""
    layout = Layout(config.store.dir)
    agent = agent_of(config.spool.dir, layout)
    wants = [_want(path, agent) for path in _want_paths(config.spool.dir)]
    models = []
    for directory, _ in layout.record_places():
        if record := read_record(directory):
            models.append(
                {
                    "model": record.model,
                    "path": f"{directory}/{record.opens}" if record.opens else directory,
                    "bytes": sum(file.size for file in record.files),
                    "commit": record.commit,
                    "source": record.source,
                    "verified": record.verified,
                }
            )
    counts = Counter(str(want["state"]) for want in wants)
    return {
        "agent": agent,
        "spool": config.spool.dir,
        "store": config.store.dir,
        "counts": dict(sorted(counts.items())),
        "wants": wants,
        "models": sorted(models, key=lambda model: str(model["model"])),
    }


def agent_of(spool: str, layout: Layout) -> dict[str, Any]:
    """Who serves the spool, and whether it still runs."""
    try:
        with open(layout.agent_file(spool), "rb") as file:
            said = orjson.loads(file.read())
    except (OSError, orjson.JSONDecodeError):
        return {"running": False}
    if not isinstance(said, dict) or not isinstance(said.get("pid"), int):
        return {"running": False}
    here = said.get("host") == socket.gethostname()
    return {"running": not here or process_start(said["pid"]) == said.get("started"), **said}


def _want_paths(spool: str) -> list[str]:
    return sorted(scan(spool, {}, tidy=False).changed)


def _want(path: str, agent: dict[str, Any]) -> dict[str, Any]:
    try:
        with open(progress_path(path), "rb") as file:
            answer = orjson.loads(file.read())
    except FileNotFoundError:
        return {"want": _shown(path), "path": _shown(path), "state": "unanswered", "why": _why(path, agent)}
    except (OSError, orjson.JSONDecodeError) as error:
        return {"want": _shown(path), "path": _shown(path), "state": "unanswered", "why": ascii(str(error))}
    return {**answer, "path": _shown(path)}


def _shown(path: str) -> str:
    """A path that JSON and a terminal can show: names may hold any byte."""
    return path if path.isprintable() else ascii(path)[1:-1]


def _why(path: str, agent: dict[str, Any]) -> str:
    if not agent.get("running"):
        return "no agent serves this spool; start one with `wantd run`"
    for unanswered in agent.get("unanswered", []):
        if unanswered.get("want") == ascii(path):
            return f"the agent cannot write beside it: {unanswered.get('why')}"
    name = os.path.basename(path).removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX
    if len(os.fsencode(name)) > 255:
        return f"its name is too long: {PROGRESS_SUFFIX} does not fit behind it"
    try:
        young = time.time() - os.lstat(path).st_mtime < ANSWER_S
    except OSError:
        return "it is gone"
    return "the agent has not got to it yet" if young else "the agent may not be able to write beside it; see its log"


def _print(status: dict[str, Any]) -> None:
    agent = status["agent"]
    running = f"runs (pid {agent.get('pid')}, version {agent.get('version')})" if agent["running"] else "does not run"
    counts = ", ".join(f"{count} {state}" for state, count in status["counts"].items()) or "none"
    print(f"agent   {running}")
    print(f"spool   {status['spool']}: {counts}")
    total = sum(model["bytes"] for model in status["models"])
    print(f"store   {status['store']}: {len(status['models'])} models, {size(total)}")
    width = min(max([len(str(want["want"])) for want in status["wants"]], default=0), 50)
    for want in status["wants"]:
        text = want["why"] if want["state"] == "unanswered" else how_it_goes(want)
        if want["state"] not in ("ready", "failed", "unanswered") and not is_alive(want.get("agent") or {}):
            text += " (when its agent stopped)"
        paths = [model["path"] for model in want.get("models", []) if model.get("path")]
        if want["state"] == "ready" and paths:
            text += f"  {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
        print(f"  {want['want']:<{width}}  {text}")
