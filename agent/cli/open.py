"""`wantd open`: the address of the agent's page, and a browser where there is one."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping

from agent.cli.face import browser_address, listening
from agent.config import load, process_environment
from agent.errors import Code, Exit, WantdError

EXAMPLES = """\
examples:
  wantd open                   open the page, where there is a browser
  wantd open --print           print its address only
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to open it."""
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the address, open no browser")


def call(arguments: argparse.Namespace) -> int:
    """Print the address on standard output, and open it."""
    environ = process_environment()
    addresses = listening(load(arguments.config, environ))
    url = browser_address(addresses)
    if url is None:
        path = addresses[0].removeprefix("unix:")
        raise WantdError(
            Code.INTERNAL,
            f"the agent listens on {path} only, which browsers cannot open",
            f"forward a port to it: ssh -L 7411:{path} {os.uname().nodename}; or add 127.0.0.1:7411 to http.listen",
        )
    print(url)
    if has_screen(os.environ, sys.platform):
        if not arguments.only_print:
            webbrowser.open(url)
    elif "SSH_CONNECTION" in os.environ:
        port = url.rstrip("/").rpartition(":")[2]
        there = url.removeprefix("http://").rstrip("/")
        print(f"from your own machine: ssh -L {port}:{there} {os.uname().nodename}, then open {url}", file=sys.stderr)
    return Exit.OK


def has_screen(environ: Mapping[str, str], platform: str) -> bool:
    """Whether a browser has something to appear on: without one, webbrowser would start one inside this terminal."""
    return platform == "darwin" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
