"""Tells systemd how the agent is, and feeds its watchdog from the event loop, so that a wedged loop is noticed.

The protocol is one datagram of `NAME=value` lines, sd_notify(3); outside of systemd nothing is sent. Written here, not
taken from PyPI: `sdnotify` has had no release since 2017 and no types, systemd-python and cysystemd need a compiler
and libsystemd's headers on every host, and none of them feeds a watchdog.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping

from loguru import logger

from agent.core.retry import SYSTEMD_S
from agent.core.states import FINAL, State

FEEDS = 3  # feeds in a watchdog's time: one may be late, one lost
SEND_S = 1.0  # systemd's queue is short, and it is sometimes busy for an instant


class Supervisor:
    """The service manager that started this process, if one did. All calls come from the event loop."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._watchdog_s = watchdog_s
        self._told = ""
        self.note = ""  # what `systemctl status` shows beside the counts

    @staticmethod
    def of(environ: Mapping[str, str]) -> Supervisor:
        """From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, sd_watchdog_enabled(3)."""
        address = environ.get("NOTIFY_SOCKET", "")
        microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return Supervisor(address if address[:1] in ("/", "@") else None, int(microseconds) / 1e6 if watched else None)

    def ready(self) -> None:
        """The agent serves: at the start, and again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` must follow. Fit for Type=notify-reload too."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The agent drains."""
        self.note = "stopping"
        self._send("STOPPING=1")

    def failed(self, why: str) -> None:
        """The agent ends, or does not start, for a reason that a person has to know."""
        self._send(f"STATUS={_line(why)}")

    async def serve(self, status: Callable[[], str]) -> None:
        """Feed the watchdog and keep STATUS true, until cancelled."""
        if self._address is None:
            return
        pause = min(SYSTEMD_S, self._watchdog_s / FEEDS) if self._watchdog_s else SYSTEMD_S
        while True:
            text = _line("; ".join(part for part in (status(), self.note) if part))
            lines = [f"STATUS={text}"] if text != self._told else []
            if self._watchdog_s:
                lines.append("WATCHDOG=1")
            if lines and self._send(*lines):
                self._told = text
            await asyncio.sleep(pause)

    def _send(self, *lines: str) -> bool:
        if self._address is None:
            return True
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_S)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            logger.warning("cannot tell systemd {}: {}", lines[0], error.strerror or "its queue is full")
            return False
        return True


def counts_in_words(counts: Counter[State]) -> str:
    """How many wants move, wait, are ready and failed."""
    moving = sum(count for state, count in counts.items() if state not in (*FINAL, State.WAITING))
    waiting = f"{counts[State.WAITING]} waiting, " if counts[State.WAITING] else ""
    return f"{moving} moving, {waiting}{counts[State.READY]} ready, {counts[State.FAILED]} failed"


def _line(text: str) -> str:
    return " ".join(text.split())
