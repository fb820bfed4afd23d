"""`wantd ls`: the models of the store, what each takes, when it was last used, and who keeps it there."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

import orjson

from agent.cli.room import StoreRoom
from agent.config import load, process_environment
from agent.core.words import duration, size
from agent.errors import Exit
from agent.reports.stored import StoredModel, stored

EXAMPLES = """\
examples:
  wantd ls
  wantd ls --json | jq -r '.models[] | select(.goes) | .name'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to show it."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def call(arguments: argparse.Namespace) -> int:
    """Look and print."""
    room = StoreRoom(load(arguments.config, process_environment()))
    counted, now = room.census(), room.now()
    models = stored(room.layout, room.inventory.entries(), counted, now)
    total = sum(counted.sizes.values())
    if arguments.json:
        value = {"store": room.layout.root, "bytes": total, "models": [model.to_json() for model in models]}
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return Exit.OK
    width = max([len(model.name) for model in models], default=5)
    print(f"{'MODEL':<{width}}  {'SIZE':>9}  {'FREES':>9}  {'LAST USED':>12}  KEPT BY")
    for model in models:
        used = _ago(model, now)
        print(
            f"{model.name:<{width}}  {size(model.bytes):>9}  {size(model.frees_bytes):>9}  {used:>12}  {_kept(model)}"
        )
    print(f"{len(models)} models, {size(total)} on the disk, in {room.layout.root}")
    return Exit.OK


def _ago(model: StoredModel, now: float) -> str:
    if model.wanted_by or model.leased or model.in_use:
        return "now"
    if model.last_used is None:
        return "never"
    seconds = now - datetime.fromisoformat(model.last_used).timestamp()
    return f"{seconds / 86400:.0f} days ago" if seconds > 2 * 86400 else f"{duration(max(seconds, 0))}"


def _kept(model: StoredModel) -> str:
    reasons = [path.rpartition("/")[2] for path in model.wanted_by[:3]]
    if len(model.wanted_by) > 3:
        reasons.append(f"{len(model.wanted_by) - 3} more wants")
    reasons += ["a lease"] if model.leased else []
    reasons += ["a program that has it open"] if model.in_use else []
    return ", ".join(reasons) or "-"
