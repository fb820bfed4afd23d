"""`wantd rm MODEL…`: removes models that nothing wants or leases."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

import orjson

from agent.cli.room import StoreRoom
from agent.config import load, process_environment
from agent.core.names import StoreName
from agent.core.words import size
from agent.errors import Exit, WantdError
from agent.store.room.leases import Leased

EXAMPLES = """\
examples:
  wantd rm qwen3
  wantd rm qwen3:Q8_0 org/name

exit codes: 0 removed, 1 one that is wanted or leased stays, 14 not in the store
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to remove."""
    parser.add_argument("models", nargs="+", metavar="MODEL", help="as `wantd ls` names it, or as a want does")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def call(arguments: argparse.Namespace) -> int:
    """Remove each; one that has to stay does not keep the others."""
    room = StoreRoom(load(arguments.config, process_environment()))
    names = room.find(arguments.models)
    remover = room.remover()
    results: list[dict[str, Any]] = []
    for name in names:
        try:
            wants = room.census().models[name].wanted_by
            results.append(_stays(name, wants) if wants else {"state": "removed", **asdict(remover.remove(name))})
        except (KeyError, Leased, WantdError) as error:
            results.append(_failed(name, error))
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    for result in results:
        _say(result, quiet=arguments.json)
    return Exit.OK if all(result["state"] == "removed" for result in results) else Exit.FAILURE


def _stays(name: StoreName, wants: tuple[str, ...]) -> dict[str, Any]:
    return {
        "state": "refused",
        "name": name,
        "wanted_by": wants,
        "why": f"wanted by {', '.join(wants[:5])}" + (f" and {len(wants) - 5} more" if len(wants) > 5 else ""),
        "hint": "remove these wants first",
    }


def _failed(name: StoreName, error: Exception) -> dict[str, Any]:
    if isinstance(error, Leased):
        return {
            "state": "refused",
            "name": name,
            "leased_by": error.pids,
            "why": str(error),
            "hint": "wait until that process ends, or end it",
        }
    if isinstance(error, WantdError):
        return {"state": "failed", "name": name, "why": error.message, "hint": error.hint}
    return {"state": "failed", "name": name, "why": "it is gone already", "hint": "`wantd ls` lists what is there"}


def _say(result: dict[str, Any], *, quiet: bool) -> None:
    if result["state"] != "removed":
        print(f"wantd: {result['name']} stays: {result['why']}\n       {result['hint']}", file=sys.stderr)
    elif not quiet:
        held = result["held_bytes"]
        later = f", {size(held)} more when the programs that have it open end" if held else ""
        print(f"{result['name']}: removed, {size(result['freed_bytes'])} freed{later}")
