"""The commands: the only code that prints or exits. Each is a module, imported when it is called for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from agent import __version__
from agent.errors import ConfigError, Exit, WantdError

COMMANDS = {
    "run": "the agent, in the foreground",
    "get": "want models, watch them come, print their paths",
    "status": "what is wanted, moving, ready and failed",
    "demo": "the whole way on this machine, with no network",
    "check": "look at configuration, catalogue, spool, store, disk and Hub, and say what is wrong",
    "install-service": "make it a service of systemd: units, users, directories, configuration",
    "uninstall-service": "take the service away; models and wants stay",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code (`agent.errors.Exit`)."""
    parser = argparse.ArgumentParser(
        prog="wantd",
        description="Drop NAME.want into the spool directory; the agent brings the model and writes NAME.progress.",
    )
    parser.add_argument("--version", action="version", version=f"wantd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in (sys.argv[1:] if argv is None else argv) if word in COMMANDS), None)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--config", metavar="FILE", help="the configuration file, in place of the usual ones")
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
