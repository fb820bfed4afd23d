"""What the agent's log looks like: one line an event, with no variable of the program in it.

Three faces of one log: fields for journald, colours on a terminal, plain lines with the date to anything else.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from loguru import logger

from agent.cli import journal

TERMINAL = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
PLAIN = "{time:YYYY-MM-DDTHH:mm:ss.SSS!UTC}Z {level: <7} {message}"


class _Intercept(logging.Handler):
    """Records of the libraries' own logging go the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=1).log(record.levelname, "{}: {}", record.name, ascii(record.getMessage())[1:-1][:500])


def set_up(level: str, environ: Mapping[str, str]) -> None:
    """Log from `level` up: to journald where standard error goes there, else to standard error."""
    logger.remove()
    # loguru's diagnose mode prints variables of the frames in a traceback, the token among them: never on.
    if journal.is_stderr(environ):
        logger.add(journal.Journal(), level=level, format="{message}", backtrace=False, diagnose=False)
    else:
        face = TERMINAL if sys.stderr.isatty() else PLAIN
        logger.add(sys.stderr, level=level, format=face, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Intercept()], level=logging.WARNING, force=True)
