"""`wantd` alone: what goes on here, and what it can do."""

from __future__ import annotations

import shutil
import sys
import time

from agent import __version__
from agent.cli import COMMANDS
from agent.cli.status import lines
from agent.config import load, process_environment
from agent.errors import ConfigError, Exit
from agent.reports.status import collect

FIRST = """\
  wantd get qwen3          request a model, see its progress, get its path
  wantd models coder       search the catalog
  wantd COMMAND --help     options and examples of a command"""


def overview() -> int:
    """Print it. Returns 0; a broken configuration is told, and is no error here."""
    print(f"wantd {__version__}: downloads models for this host\n")
    try:
        config = load(None, process_environment())
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        status = collect(config.spool.dir, config.store.dir, time.time(), everything=False)
        print("\n".join(lines(status, False, width)))
        if not status.agent.running:
            print("\nstart the agent: `wantd run`, or as a service: `wantd install-service`; to try it: `wantd demo`")
    except ConfigError as error:
        for problem in error.problems:
            print(f"configuration: {problem}")
    column = max(map(len, COMMANDS))
    print(f"\n{FIRST}\n\ncommands:")
    for name, text in COMMANDS.items():
        print(f"  {name:<{column}}  {text}")
    return Exit.OK
