"""The log: plain lines to a pipe, colours to a terminal; one event each, and never a secret."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

from tests.harness import CHECKOUT

SPEAK = """
import sys
from loguru import logger
from agent.cli.logs import set_up
from agent.config import Log
set_up(lambda: Log(format=sys.argv[1]), {})
logger.bind(model="qwen3", code=None).info("hello {}", "<red>world</red>")
secret = "hf_secret"
try:
    [][len(secret)]
except IndexError:
    logger.exception("oh")
"""


def test_a_pipe_gets_plain_lines_without_variables() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SPEAK, "text"], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    first = done.stderr.splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    hello <red>world</red>", first)
    assert "\x1b" not in done.stderr
    assert "IndexError" in done.stderr
    assert "hf_secret" not in done.stderr


def test_a_terminal_gets_colours() -> None:
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    subprocess.run(
        [sys.executable, "-c", SPEAK, "text"], stderr=theirs, check=True, cwd=CHECKOUT, env={**environ, "TERM": "xterm"}
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[" in text
    assert "hello <red>world</red>" in text


def test_json_has_one_object_a_line_with_the_fields_of_the_journal() -> None:
    command = [sys.executable, "-c", SPEAK, "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    hello, oh = [json.loads(line) for line in done.stderr.splitlines()]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", hello.pop("time"))
    assert hello == {"level": "info", "message": "hello <red>world</red>", "model": "qwen3", "module": "__main__"}
    assert (oh["level"], oh["message"]) == ("error", "oh")
    assert oh["traceback"].startswith("Traceback")
    assert oh["traceback"].endswith("IndexError: list index out of range")
    assert "hf_secret" not in done.stderr
