"""The table of `wantd get` on a terminal: one row of fixed columns for each want, reasons to wait below.

Pure: progress files and the size of the terminal in, lines out.

    bartowski/Qwen_…Q4_K_M   ━━━━━━━─────────  42%  118.3 MB/s  2 s left
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.core import waits
from agent.core.words import duration, shorten, size

NAME_MAX = 40  # columns; longer names do not read better
NARROW = 60  # columns: below, there is room for name, percent and state alone
SHOWN_NOTES = 4
# When there are more rows than lines: what is on its way first.
ORDER = ("downloading", "verifying", "resolving", "waiting", "failed", "queued", "ready")


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What bars are made of, and what stands for a part that was cut out."""

    done: str = "━"
    left: str = "─"
    cut: str = "…"


PLAIN = Glyphs("#", "-", "...")  # for terminals without UTF-8


@dataclass(frozen=True, slots=True)
class Row:
    """A want: its name, and its progress file, None before there is one."""

    name: str
    progress: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths in characters; 0 leaves a column out."""

    name: int
    bar: int
    bytes: int
    eta: int

    @staticmethod
    def of(width: int, names: Sequence[str]) -> _Columns:
        """For a terminal: its last column stays empty, so that nothing wraps."""
        bar, total, eta = (0, 0, 0) if width < NARROW else (8, 0, 16) if width < 80 else (16, 0, 16)
        if width >= 100:
            bar, total = 20, 19
        fixed = sum(column + 1 for column in (bar, 4, total, 10, eta) if column)
        longest = max((len(name) for name in names), default=0)
        return _Columns(max(min(width - 1 - fixed, NAME_MAX, longest), 4), bar, total, eta)


def table(rows: Sequence[Row], width: int, height: int, glyphs: Glyphs = Glyphs()) -> list[str]:
    """The lines for a terminal of `width` columns and `height` lines; none is longer, and there are fewer."""
    columns = _Columns.of(width, [row.name for row in rows])
    notes = [line for note in _notes(rows) for line in textwrap.wrap(note, width - 1, subsequent_indent="  ")]
    room = max(height - 2, 1)
    notes = notes[: max(room - len(rows), room // 3)]
    room = max(room - len(notes), 1)
    shown, hidden = list(rows), []
    if len(rows) > room:
        ranked = sorted(rows, key=lambda row: ORDER.index(_state(row)) if _state(row) in ORDER else len(ORDER))
        kept = {id(row) for row in ranked[: room - 1]}  # two rows may be equal
        shown, hidden = [row for row in rows if id(row) in kept], ranked[room - 1 :]
    lines = [_line(row, columns, glyphs) for row in shown]
    if hidden:
        counts = ", ".join(f"{count} {state}" for state, count in Counter(map(_state, hidden)).items())
        lines.append(shorten(f"and {len(hidden)} more: {counts}", width - 1, glyphs.cut))
    return [*lines, *notes]


def _state(row: Row) -> str:
    return str((row.progress or {}).get("state", "queued"))


def _line(row: Row, columns: _Columns, glyphs: Glyphs) -> str:
    progress, state = row.progress or {}, _state(row)
    fraction = min(max(float(progress.get("progress") or 0.0), 0.0), 1.0)
    rate, eta = progress.get("rate_bytes_per_s"), progress.get("eta_s")
    cells = [f"{shorten(row.name, columns.name, glyphs.cut):<{columns.name}}"]
    if columns.bar:
        done = int(columns.bar * fraction)  # full only when all is there
        cells.append(glyphs.done * done + glyphs.left * (columns.bar - done))
    cells.append(f"{int(fraction * 100):>3}%")
    if columns.bytes:
        total = progress.get("bytes_total")
        share = f"{size(progress.get('bytes_done'))} / {size(total)}" if total else ""
        cells.append(f"{share:>{columns.bytes}}")
    speed = f"{size(rate)}/s" if state == "downloading" and rate else state
    cells.append(f"{speed:<10.10}")
    if columns.eta:
        left = f"{duration(eta)} left" if eta is not None and state in ("downloading", "verifying") else "-"
        cells.append(f"{left:>{columns.eta}.{columns.eta}}")
    return " ".join(cells).rstrip()


def _notes(rows: Sequence[Row]) -> list[str]:
    """Why rows wait, each reason once. For a free slot the word in the row is enough."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if _state(row) != "waiting":
            continue
        wait = waits.from_json((row.progress or {}).get("waiting") or {})
        if not isinstance(wait, waits.ForSlot):
            names.setdefault(waits.in_words(wait), []).append(row.name)
    notes = [
        f"{who[0]}{f' and {len(who) - 1} more' if who[1:] else ''}: waiting for {reason}"
        for reason, who in names.items()
    ]
    more = len(notes) - SHOWN_NOTES
    return [*notes[:SHOWN_NOTES], f"and {more} more reasons to wait"] if more > 1 else notes
