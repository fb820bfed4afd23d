"""The log: plain lines to a pipe, colours to a terminal; one event each, and never a secret."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from tests.harness import CHECKOUT

SPEAK = """
from loguru import logger
from agent.cli.logs import set_up
set_up(lambda: "INFO", {})
logger.info("hello {}", "<red>world</red>")
secret = "hf_secret"
try:
    [][len(secret)]
except IndexError:
    logger.exception("oh")
"""


def test_a_pipe_gets_plain_lines_without_variables() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAK], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    first = done.stderr.splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    hello <red>world</red>", first)
    assert "\x1b" not in done.stderr
    assert "IndexError" in done.stderr
    assert "hf_secret" not in done.stderr


def test_a_terminal_gets_colours() -> None:
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run(
        [sys.executable, "-c", SPEAK], stderr=theirs, check=True, cwd=CHECKOUT, env={**environ, "TERM": "xterm"}
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[" in text
    assert "hello <red>world</red>" in text
