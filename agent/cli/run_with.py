"""`wantd run-with MODEL -- COMMAND`: a lease on the model for the life of a command."""

from __future__ import annotations

import argparse
import os
import sys

from agent.cli.room import StoreRoom
from agent.config import load, process_environment
from agent.errors import Code, Exit, WantdError
from agent.store.layout import RECORD, read_record
from agent.store.room.leases import take_lease

EXAMPLES = """\
examples:
  wantd run-with qwen3 -- sh -c 'llama-server -m "$WANTD_MODEL_PATH"'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and what to run."""
    parser.add_argument("model", metavar="MODEL", help="as `wantd ls` names it, or as a want does")
    parser.add_argument(
        "argv",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="run with the model's path in WANTD_MODEL_PATH; the model is not removed before it ends",
    )


def call(arguments: argparse.Namespace) -> int:
    """Take the lease and become the command: its exit code and its signals are its own."""
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        print("wantd: run-with needs a command: wantd run-with MODEL -- COMMAND", file=sys.stderr)
        return Exit.USAGE
    room = StoreRoom(load(arguments.config, process_environment()))
    (name, *_) = room.find([arguments.model])
    directory = room.layout.directory(name)
    try:
        fd = take_lease(directory)
    except OSError as error:
        raise WantdError(
            Code.MODEL_NOT_FOUND, f"no lease on {directory}/{RECORD}: {error.strerror}", "request the model first"
        ) from None
    record = read_record(directory)
    os.set_inheritable(fd, True)  # the command has it from here on, and its children
    path = f"{directory}/{record.opens}" if record and record.opens else directory
    try:
        os.execvpe(argv[0], argv, {**os.environ, "WANTD_MODEL_PATH": path})  # noqa: S606  the user's own command
    except OSError as error:
        print(f"wantd: cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
    return 127 if not os.path.dirname(argv[0]) else 126
