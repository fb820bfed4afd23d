"""`wantd wait NAME…`: waits for wants that somebody else writes, in init containers and units."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

from agent.cli.arguments import not_empty, seconds
from agent.cli.display import Display, display
from agent.cli.watch import Watch, conclude
from agent.config import load, process_environment
from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.errors import Exit

POLL_S = 0.1  # a stat of one small file
SILENCE_S = 10.0  # then what is missing is said
EXAMPLES = """\
examples:
  wantd wait qwen3                      qwen3.want in the spool
  wantd wait team/model --timeout 600   team/model.want, for ten minutes
  ExecStartPre=wantd wait qwen3         in a unit of systemd

exit codes: 0 ready, 1 not ready within --timeout, else as `wantd get`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to wait for."""
    parser.add_argument(
        "names", nargs="+", type=not_empty, metavar="NAME", help="a want of the spool, with or without .want"
    )
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="stop waiting after this time")


def call(arguments: argparse.Namespace) -> int:
    """Wait until each is ready or failed. Neither the wants nor the agent need to be there yet."""
    config = load(arguments.config, process_environment())
    watches = [Watch(name, want_path(config.spool.dir, name)) for name in dict.fromkeys(arguments.names)]
    screen = display()
    try:
        _follow(watches, screen, arguments.timeout)
    finally:
        screen.close()
    if all(watch.final for watch in watches):
        return conclude(watches)
    conclude([watch for watch in watches if watch.final])
    for watch in watches:
        if not watch.final:
            screen.note(f"{watch.name}: not ready within {arguments.timeout:g} s: {missing(watch)}")
    return Exit.FAILURE


def want_path(spool: str, name: str) -> str:
    """The path of a want: a name in the spool, or a path."""
    stem = name.removesuffix(PROGRESS_SUFFIX).removesuffix(WANT_SUFFIX)
    return os.path.join(spool, stem + WANT_SUFFIX)


def missing(watch: Watch) -> str:
    """What has not happened yet."""
    if not os.path.lexists(watch.path):
        return f"there is no {watch.path}"
    return "no agent has answered it yet; see `wantd status`" if watch.progress is None else watch.state


def _follow(watches: Sequence[Watch], screen: Display, timeout: float | None) -> None:
    began, complained = time.monotonic(), False
    while True:
        for watch in watches:
            watch.look()
        screen.update(watches)
        waited = time.monotonic() - began
        if all(watch.final for watch in watches) or (timeout is not None and waited > timeout):
            return
        if waited > SILENCE_S and not complained:
            complained = True
            for watch in watches:
                if watch.progress is None:
                    screen.note(f"{watch.name}: still waiting: {missing(watch)}")
        time.sleep(POLL_S)
