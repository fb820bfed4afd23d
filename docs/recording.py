"""`make recording`: runs `wantd get` on a terminal and draws what it shows as docs/get.svg, which README.md has.

A real run: a shell on a pseudo-terminal, an agent, the embedded Hub on loopback with a limit on the rate. The picture
holds one frame for each change of the screen, moved past by CSS.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from html import escape
from pathlib import Path

import pyte

from agent.embedded_hub.demo import demo_hub

CHECKOUT = Path(__file__).parent.parent
ROOT = "/tmp/wantd-demo"  # in the picture, so it is short
COLUMNS, LINES = 80, 11
FRAME_S = 0.2  # the picture grows with each frame
HOLD_S = 5.0  # how long the last frame stays
GGUF_BYTES = 120_000_000
MAX_RATE = "20MB"
COMMANDS = ("wantd get qwen3", "ls ~/.llmlb/models/qwen3", "wantd status")
TITLE = "wantd get qwen3 in a terminal: a bar with rate and time left, then the path of the model"
CELL_W, CELL_H, PAD = 8.4, 18, 14
COLORS = {"cyan": "#39c5cf", "green": "#56d364", "red": "#ff7b72"}

Frame = tuple[tuple[tuple[str, str], ...], ...]  # of each line its runs: colour, text


def record() -> list[tuple[float, Frame]]:
    """Each screen, with the second at which it was seen first."""
    shutil.rmtree(ROOT, ignore_errors=True)
    os.makedirs(f"{ROOT}/.llmlb/spool")
    with demo_hub(GGUF_BYTES, ROOT) as hub:
        environ = {
            "HOME": ROOT,
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
            "HF_ENDPOINT": hub.endpoint,
            "WANTD_TRANSFER__MAX_RATE": MAX_RATE,
            "PYTHONUTF8": "1",
        }
        with subprocess.Popen(["wantd", "run"], env=environ, stderr=subprocess.DEVNULL) as agent:
            try:
                return _type(environ)
            finally:
                agent.terminate()


def _type(environ: dict[str, str]) -> list[tuple[float, Frame]]:
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (LINES, COLUMNS))
    shell = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "bash", "--norc", "--noprofile"],
        env={**environ, "TERM": "xterm-256color", "PS1": "$ ", "BASH_SILENCE_DEPRECATION_WARNING": "1"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    frames: list[tuple[float, Frame]] = []
    began = time.monotonic()

    def watch(until: float, *, prompt: bool) -> None:
        """Feed the screen until a time, or until there is a new prompt."""
        next_frame = time.monotonic()
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.05)[0]:
                stream.feed(os.read(ours, 65536))
            done = prompt and screen.buffer[screen.cursor.y][0].data == "$" and screen.cursor.x == 2
            if time.monotonic() >= next_frame or done:
                next_frame = time.monotonic() + FRAME_S
                frame = _frame(screen)
                if not frames or frames[-1][1] != frame:
                    frames.append((time.monotonic() - began, frame))
            if done:
                return

    watch(time.monotonic() + 10, prompt=True)
    for command in COMMANDS:
        for character in command:
            os.write(ours, character.encode())
            watch(time.monotonic() + 0.06, prompt=False)
        os.write(ours, b"\n")
        watch(time.monotonic() + 0.3, prompt=False)
        watch(time.monotonic() + 60, prompt=True)
        watch(time.monotonic() + 0.8, prompt=False)
    os.write(ours, b"\x04")
    shell.wait()
    return frames


def _frame(screen: pyte.Screen) -> Frame:
    lines = []
    for y in range(LINES):
        runs: list[tuple[str, str]] = []
        for x in range(COLUMNS):
            cell = screen.buffer[y][x]
            if runs and runs[-1][0] == cell.fg:
                runs[-1] = (cell.fg, runs[-1][1] + cell.data)
            else:
                runs.append((cell.fg, cell.data))
        while runs and not runs[-1][1].strip():
            runs.pop()
        if runs:
            runs[-1] = (runs[-1][0], runs[-1][1].rstrip())
        lines.append(tuple(runs))
    return tuple(lines)


def draw(frames: list[tuple[float, Frame]]) -> str:
    """The frames one below the other, and an animation that shows one at a time."""
    width, height = COLUMNS * CELL_W + 2 * PAD, LINES * CELL_H + 2 * PAD
    first = frames[0][0]
    total = frames[-1][0] - first + HOLD_S
    steps = [f"{(at - first) / total * 100:.2f}%{{transform:translateY({-number * height}px)}}"
             for number, (at, _) in enumerate(frames)]  # fmt: skip
    last = f"transform:translateY({-(len(frames) - 1) * height}px)"
    style = (
        f"text{{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#e6edf3;white-space:pre}}"
        f"#film{{animation:film {total:.1f}s steps(1,end) infinite}}"
        f"@keyframes film{{{''.join(steps)}100%{{{last}}}}}"
        f"@media (prefers-reduced-motion:reduce){{#film{{animation:none;{last}}}}}"
    )
    body = "".join(_draw(frame, number * height) for number, (_, frame) in enumerate(frames))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img" aria-labelledby="t">\n'
        f'<title id="t">{TITLE}</title>\n'
        f"<style>{style}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n'
        f'<g id="film">\n{body}</g>\n</svg>\n'
    )


def _draw(frame: Frame, top: float) -> str:
    lines = []
    for number, runs in enumerate(frame):
        spans, column = [], 0
        for color, text in runs:
            fill = f' fill="{COLORS[color]}"' if color in COLORS else ""
            if text.strip():
                spans.append(f'<tspan x="{PAD + column * CELL_W:.1f}"{fill}>{escape(text)}</tspan>')
            column += len(text)
        if spans:
            y = top + PAD + (number + 0.8) * CELL_H
            lines.append(f'<text y="{y:.1f}" xml:space="preserve">{"".join(spans)}</text>\n')
    return "".join(lines)


def main() -> None:
    """Record and write."""
    (CHECKOUT / "docs" / "get.svg").write_text(draw(record()), encoding="utf-8")
    shutil.rmtree(ROOT, ignore_errors=True)


if __name__ == "__main__":
    main()
