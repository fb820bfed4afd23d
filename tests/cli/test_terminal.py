"""`wantd get` on a real terminal, as an emulator shows it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pyte

from agent.errors import Exit
from tests.harness import AgentProcess
from tests.hub.process import HubProcess

COLUMNS, LINES = 80, 24


class Terminal:
    """A command on a terminal of its own. `screen` is what a person sees."""

    def __init__(self, agent: AgentProcess, *arguments: str) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (LINES, COLUMNS))
        environ = {**agent.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "env", "--default-signal=INT", sys.executable, "-m", "agent", *arguments],
            env=environ,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def until(self, condition: Callable[[str], bool], deadline_s: float = 60) -> str:
        """Read until the screen's text fulfils the condition, or the command has ended."""
        deadline = time.monotonic() + deadline_s
        while not condition(self.text) and time.monotonic() < deadline:
            try:
                self._stream.feed(os.read(self._ours, 65536))
            except OSError:  # EIO: the last process of the terminal has ended
                return self.text
        return self.text

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def end(self) -> int:
        self.until(lambda _: False)
        os.close(self._ours)
        return self.process.wait(10)


def test_ctrl_c_leaves_each_row_once(agent: AgentProcess, hub: HubProcess) -> None:
    hub.fault("cdn/*", max_rate=100_000)
    terminal = Terminal(agent, "get", "qwen3", "gemma3")
    terminal.until(lambda text: "MB/s" in text or "kB/s" in text)
    terminal.press(b"\x03")
    assert terminal.end() == Exit.INTERRUPTED
    rows = terminal.text.splitlines()
    assert len([row for row in rows if row.startswith("qwen3 ")]) == 1, terminal.text
    assert len([row for row in rows if row.startswith("gemma3 ")]) == 1, terminal.text
    assert [row for row in rows if "still wanted" in row]


def test_errors_stand_below_the_table_and_the_path_last_of_all(agent: AgentProcess) -> None:
    terminal = Terminal(agent, "get", "qwen33", "qwen3")
    terminal.end()
    rows = terminal.text.splitlines()
    table = [at for at, row in enumerate(rows) if "%" in row]
    assert len(table) == 2, terminal.text
    error = next(at for at, row in enumerate(rows) if "(model_not_supported)" in row)
    assert error > max(table)
    assert rows[table[0]].split()[2:4] == ["0%", "failed"], terminal.text
    assert rows[table[1]].split()[2:4] == ["100%", "ready"], terminal.text


def test_status_watches_until_ctrl_c(agent: AgentProcess) -> None:
    terminal = Terminal(agent, "status", "--watch")
    terminal.until(lambda text: "no wants" in text)
    agent.drop("qwen3", "qwen3")
    terminal.until(lambda text: "1 ready" in text)
    assert "1 ready" in terminal.text
    terminal.press(b"\x03")
    assert terminal.end() == Exit.OK
