"""`wantd run`: the agent, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

from loguru import logger

from agent.app import App
from agent.cli.logs import set_up
from agent.config import Live, Log, file_to_write, load, process_environment
from agent.core.retry import LEFT_S
from agent.errors import ConfigError, Exit, WantdError
from agent.loop import run, threads_left, turns_of
from agent.reports import journald
from agent.reports.systemd import Supervisor

EXAMPLES = """\
examples:
  wantd run                                   the configuration of this host
  wantd run --config ./config.toml            another one
  WANTD_TRANSFER__MAX_RATE=50MB wantd run     each key has a variable
  kill -HUP PID                               reload; downloads continue
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments but the common ones."""


def call(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    faulthandler.enable()  # a wedged agent is ended with SIGABRT: the log then says where, without any variable
    environ = process_environment()
    supervisor = Supervisor.of(environ)
    try:
        live = Live(load(arguments.config, environ), file_to_write(arguments.config, environ))
        set_up(lambda: live.config.log, environ)
        # A want's writer may come while the agent holds its read lease for an instant: the kernel then sends SIGIO.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        gc.freeze()  # what is there by now stays: it need not be gone through by each collection
        run(_serve(arguments, live, supervisor), turns_of(environ))
    except (ConfigError, WantdError) as error:
        supervisor.failed(f"not running: {error}")
        if not journald.is_stderr(environ):
            raise
        return _say_why(error, environ)
    _leave_threads()
    return Exit.OK


def _leave_threads() -> None:
    """End the process here if a thread hangs, in a look-up in DNS or on a disk: the interpreter would wait for it."""
    until = time.monotonic() + LEFT_S
    while left := threads_left():
        if time.monotonic() > until:
            logger.warning("not waiting for {} threads that hang", len(left))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(Exit.OK)
        time.sleep(0.01)


def _say_why(error: ConfigError | WantdError, environ: Mapping[str, str]) -> int:
    """The reason in the journal, as what it is: an error, with its code."""
    set_up(Log, environ)
    if isinstance(error, ConfigError):
        for problem in error.problems:
            logger.bind(code="config").critical("{}", problem)
        return Exit.CONFIG
    logger.bind(code=error.code.value).critical("{} ({}): {}", error.message, error.code, error.hint)
    return Exit.of(error.code)


async def _serve(arguments: argparse.Namespace, live: Live, supervisor: Supervisor) -> None:
    environ = process_environment()
    app = App(live, environ, lambda: load(arguments.config, environ), supervisor)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        _on_signal(loop, number, app.stopping.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(app.reload(), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    _on_signal(loop, signal.SIGHUP, reload)
    await app.run()


def _on_signal(loop: asyncio.AbstractEventLoop, number: int, call: Callable[[], object]) -> None:
    """As `loop.add_signal_handler`, which loses a signal that comes while the loop's pipe is full of wake-ups."""

    def handle(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(call)

    signal.signal(number, handle)
