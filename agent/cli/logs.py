"""The format of the agent's log: one line an event, with no variable of the program in it.

Fields for journald, colours on a terminal, plain lines with the date anywhere else; with `log.format = "json"`
one JSON object a line, whatever standard error is (docs/service.md has its keys).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING

import orjson
from loguru import logger

from agent.config import Log
from agent.core.words import timestamp
from agent.reports import journald

if TYPE_CHECKING:
    from loguru import Message, Record

TERMINAL = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message}"
PLAIN = "{time:YYYY-MM-DDTHH:mm:ss.SSS!UTC}Z {level: <7} {message}"


class _Intercept(logging.Handler):
    """Records of the libraries' own logging go the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(depth=1).log(record.levelname, "{}: {}", record.name, ascii(record.getMessage())[1:-1][:500])


def lets_pass(log: Callable[[], Log], kind: str) -> Callable[[Record], bool]:
    """A filter for the sink of one `log.format`: passes what is severe enough while that format is set."""
    return lambda record: log().format == kind and record["level"].no >= logger.level(log().level).no


def set_up(log: Callable[[], Log], environ: Mapping[str, str]) -> None:
    """Log as `log()` says, which may change: to journald where standard error goes there, else to standard error."""
    text = lets_pass(log, "text")
    logger.remove()
    logger.add(_write_json, level=0, filter=lets_pass(log, "json"), format="{message}", backtrace=False, diagnose=False)
    # loguru's diagnose mode prints variables of the frames in a traceback, the token among them: never on.
    if journald.is_stderr(environ):
        logger.add(journald.Journal(), level=0, filter=text, format="{message}", backtrace=False, diagnose=False)
    else:
        face = TERMINAL if sys.stderr.isatty() else PLAIN
        logger.add(sys.stderr, level=0, filter=text, format=face, backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_Intercept()], level=logging.WARNING, force=True)


def _write_json(message: Message) -> None:
    record, text = message.record, str(message).rstrip("\n")
    fields = {name: record["extra"][name] for name in journald.FIELDS if record["extra"].get(name) is not None}
    line = {
        "time": timestamp(record["time"].astimezone(UTC)),
        "level": record["level"].name.lower(),
        "message": record["message"],
        **fields,
        "module": record["name"],
    }
    if record["exception"]:
        line["traceback"] = text.removeprefix(record["message"]).lstrip("\n")
    sys.stderr.write(orjson.dumps(line, default=str).decode() + "\n")
    sys.stderr.flush()
