"""`wantd run`: the agent, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal

from agent.app import App
from agent.cli.logs import set_up
from agent.config import load, process_environment
from agent.errors import Exit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments but the common ones."""


def call(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    environ = process_environment()
    config = load(arguments.config, environ)
    set_up(config.log.level)
    # A want's writer may come while the agent holds its read lease for an instant: the kernel then sends SIGIO.
    signal.signal(signal.SIGIO, signal.SIG_IGN)

    async def serve() -> None:
        app = App(config, environ, lambda: load(arguments.config, environ))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, app.stopping.set)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = asyncio.create_task(app.reload(), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        await app.run()

    asyncio.run(serve())
    return Exit.OK
