"""The commands: the only code that prints or exits. Each is a module, imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from agent import __version__
from agent.errors import ConfigError, Exit, WantdError

COMMANDS = {
    "run": "run the agent in the foreground",
    "get": "request models, show their progress, print their paths",
    "status": "show what is wanted, moving, ready and failed",
    "ls": "list the models of the store: size, last use, who keeps them",
    "rm": "remove models from the store",
    "gc": "remove what is due: unused models, what is above the quota, leavings",
    "run-with": "run a command, and keep a model in the store until it ends",
    "demo": "try everything on this machine, without a network",
    "check": "check configuration, catalog, spool, store, disk, Hub and proxy",
    "install-service": "install the systemd service: unit, users, directories, configuration",
    "uninstall-service": "remove the systemd service; models and wants stay",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code (`agent.errors.Exit`)."""
    parser = argparse.ArgumentParser(
        prog="wantd",
        description="Drop NAME.want into the spool directory; the agent downloads the model; see NAME.progress.",
    )
    parser.add_argument("--version", action="version", version=f"wantd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in (sys.argv[1:] if argv is None else argv) if word in COMMANDS), None)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--config", metavar="FILE", help="read this configuration file instead of the default ones")
        if name == wanted:
            module = import_module(f"agent.cli.{name.replace('-', '_')}")
            module.add_arguments(sub)
            sub.set_defaults(call=module.call)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.call(arguments)
    except ConfigError as error:
        for problem in error.problems:
            print(f"wantd: {problem}", file=sys.stderr)
        return Exit.CONFIG
    except WantdError as error:
        print(f"wantd: {error.message} ({error.code})\n       {error.hint}", file=sys.stderr)
        return Exit.of(error.code)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return Exit.FAILURE
    return code
