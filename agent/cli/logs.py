"""The format of the agent's log: one line an event, with no variable of the program in it.

Fields for journald, colours on a terminal, plain lines with the date anywhere else.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from loguru import logger

from agent.reports import journald

if TYPE_CHECKING:
    from loguru import Record

TERMINAL = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
PLAIN = "{time:YYYY-MM-DDTHH:mm:ss.SSS!UTC}Z {level: <7} {message}"


class _Intercept(logging.Handler):
    """Records of the libraries' own logging go the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=1).log(record.levelname, "{}: {}", record.name, ascii(record.getMessage())[1:-1][:500])


def severe_enough(level: Callable[[], str]) -> Callable[[Record], bool]:
    """A filter that lets pass what is of `level()` or above; it may change."""
    return lambda record: record["level"].no >= logger.level(level()).no


def set_up(level: Callable[[], str], environ: Mapping[str, str]) -> None:
    """Log from `level()` up, which may change: to journald where standard error goes there, else to standard error."""
    severe = severe_enough(level)
    logger.remove()
    # loguru's diagnose mode prints variables of the frames in a traceback, the token among them: never on.
    if journald.is_stderr(environ):
        logger.add(journald.Journal(), level=0, filter=severe, format="{message}", backtrace=False, diagnose=False)
    else:
        face = TERMINAL if sys.stderr.isatty() else PLAIN
        logger.add(sys.stderr, level=0, filter=severe, format=face, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Intercept()], level=logging.WARNING, force=True)
