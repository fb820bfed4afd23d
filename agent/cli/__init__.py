"""The commands: the only code that prints or exits. Each is a module, imported when it is called.

A module of a command has `add_arguments(parser)`, `call(arguments)`, which gives the exit code, and `EXAMPLES` for the
end of its `--help`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from agent import __version__
from agent.errors import ConfigError, Exit, WantdError

COMMANDS = {
    "run": "run the agent in the foreground",
    "get": "request models, show their progress, print their paths",
    "wait": "wait for wants that another program writes",
    "status": "show what is wanted, moving, ready and failed",
    "models": "list the models of the catalog",
    "allow": "allow models that are not in the catalog",
    "open": "print the address of the agent's page, and open it in a browser",
    "top": "show what the agent does, live in this terminal",
    "freeze": "print a manifest that brings the same bytes to another host",
    "demo": "try everything on this machine, without a network",
    "check": "check configuration, catalog, spool, store, disk, Hub and proxy",
    "fleet": "many hosts: print nginx's configuration for the cache they share, or check it",
    "install-service": "install the systemd service: unit, users, directories, configuration",
    "uninstall-service": "remove the systemd service; models and wants stay",
    "completion": "print a completion script for a shell",
}
DESCRIPTION = "Drop NAME.want into the spool directory; the agent downloads the model; see NAME.progress."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code (`agent.errors.Exit`)."""
    words = sys.argv[1:] if argv is None else list(argv)
    wanted = next((word for word in words if word in COMMANDS), None)
    try:
        if not words:
            from agent.cli.overview import overview

            return overview()
        arguments = parser([wanted] if wanted else []).parse_args(words)
        code: int = arguments.call(arguments)
        sys.stdout.flush()
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
    except OSError as error:
        if error.filename is not None:
            raise
        # Standard output is full. What is left in its buffer would be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"wantd: cannot write to standard output: {error.strerror}", file=sys.stderr)
        return Exit.FAILURE
    return code


def parser(whole: Collection[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The command line. Only the commands in `whole` get their arguments: the others are not imported for that."""
    top = argparse.ArgumentParser(prog="wantd", description=DESCRIPTION)
    top.add_argument("--version", action="version", version=f"wantd {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--config", metavar="FILE", help="read this configuration file instead of the default ones")
        if name in whole:
            module = import_module(f"agent.cli.{name.replace('-', '_')}")
            module.add_arguments(sub)
            sub.epilog = module.EXAMPLES
            sub.set_defaults(call=module.call)
    return top
