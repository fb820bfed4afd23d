"""What the agent's log looks like: one line an event, on standard error, with no variable of the program in it."""

from __future__ import annotations

import logging
import sys

from loguru import logger

# loguru's diagnose mode prints variables of the frames in a traceback, the token among them: never on.
FORMAT = "<green>{time:YYYY-MM-DD HH:mm:ss.SSS}</green> <level>{level: <7}</level> {message}"


class _Intercept(logging.Handler):
    """Records of the libraries' own logging go the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=1).log(record.levelname, "{}: {}", record.name, ascii(record.getMessage())[1:-1][:500])


def set_up(level: str) -> None:
    """Log to standard error from `level` up."""
    logger.remove()
    logger.add(sys.stderr, level=level, format=FORMAT, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Intercept()], level=logging.WARNING, force=True)
