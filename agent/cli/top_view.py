"""What `wantd top` shows: documents of the agent in, something that rich draws out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.core.words import duration, size

BLOCKS = " ▁▂▃▄▅▆▇█"
NAME_WIDTH = 44  # characters of a model's name at most
AROUND = 9  # lines of a screen that are not rows of wants
TITLE_LINES = 2  # above the rows of a state
LEAST_ROWS = 2  # of each state, however low the screen is


@dataclass(frozen=True, slots=True)
class Kind:
    """States that are shown together."""

    title: str
    states: tuple[str, ...]
    style: str
    lines: int = 1  # of each want


GROUPS = (
    Kind("Moving", ("resolving", "downloading", "verifying"), "blue"),
    Kind("Failed", ("failed",), "red", lines=2),
    Kind("Waiting", ("waiting",), "yellow"),
    Kind("Queued", ("queued",), "dim"),
    Kind("Ready", ("ready",), "green"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """`/v1/status`, a page of `/v1/wants` by title of `GROUPS`, and how many lines the screen has."""

    status: dict[str, Any]
    wants: dict[str, dict[str, Any]]
    height: int
    now: datetime


def draw(picture: Picture, width: int, lost_since: datetime | None) -> RenderableType:
    """The whole screen. With `lost_since` it says that the picture is from then."""
    parts: list[RenderableType] = [_head(picture, width, lost_since)]
    room = max(picture.height - AROUND, LEAST_ROWS * len(picture.wants))
    for kind in GROUPS:
        page = picture.wants.get(kind.title)
        if page is None:
            continue
        later = [other for other in GROUPS[GROUPS.index(kind) + 1 :] if other.title in picture.wants]
        left = room - TITLE_LINES - sum(LEAST_ROWS * other.lines + TITLE_LINES for other in later)
        shown = page["wants"][: max(LEAST_ROWS, left // kind.lines)]
        room -= TITLE_LINES + len(shown) * kind.lines
        parts += [_title(kind, page["total"], len(shown)), _table(kind, shown, width)]
    if not picture.wants:
        parts.append(Text(f"\nNothing is wanted yet. Drop a file into {picture.status['spool']}\n", style="dim"))
    parts.append(_foot(picture.status, picture.now))
    return Group(*parts)


def _head(picture: Picture, width: int, lost_since: datetime | None) -> RenderableType:
    status = picture.status
    rate = status["rate_bytes_per_s"]
    agent = status["agent"]
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    figure = Text(f"{size(rate)}/s" if rate else "idle", style="bold blue" if rate else "bold dim")
    window = status["window"]
    if window and not window["max_rate"]:
        figure.append("  paused by a window", style="yellow")
    elif cap := window["max_rate"] if window else status["max_rate"]:
        figure.append(f"  capped at {size(cap)}/s", style="yellow")
    name = Text(f"wantd {agent['version']} on {clean(agent['host'])}", style="dim")
    if lost_since:
        name = Text(f"no connection to the agent since {lost_since:%H:%M:%S} UTC", style="bold red")
    line.add_row(figure, name)
    counts = Text()
    for kind in GROUPS:
        count = sum(status["counts"].get(state, 0) for state in kind.states)
        counts.append(f"{count:,} {kind.title.lower()}   ".replace(",", "\u202f"), style=kind.style if count else "dim")
    history = sparkline(status["rates"]["bytes_per_s"][-width:])
    return Group(line, *([Text(history, style="blue")] if history else []), counts)


def sparkline(values: list[float]) -> str:
    """The values as blocks, the highest of them full; nothing where all are zero."""
    highest = max(values, default=0)
    if not highest:
        return ""
    return "".join(BLOCKS[round(value / highest * (len(BLOCKS) - 1))] for value in values)


def _title(kind: Kind, total: int, shown: int) -> Text:
    more = f", {shown} shown" if shown < total else ""
    return Text(f"\n{kind.title} {total}{more}", style=f"bold {kind.style}")


def _table(kind: Kind, wants: Iterable[dict[str, Any]], width: int) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", width=min(NAME_WIDTH, width // 3))
    if kind.title == "Moving":
        table.add_column(ratio=1)
        for _ in range(4):
            table.add_column(no_wrap=True, justify="right")
    else:
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for want in wants:
        table.add_row(Text(named(want)), *_cells(kind, want))
    return table


def _cells(kind: Kind, want: dict[str, Any]) -> list[RenderableType]:
    if kind.title == "Moving":
        done, total = want["bytes_done"], want["bytes_total"]
        rate = want["rate_bytes_per_s"]
        return [
            Bar(1.0, 0.0, want["progress"], color="blue", bgcolor="bright_black"),
            Text(f"{int(want['progress'] * 100)}%"),  # 100 % is for what is ready
            Text(f"{size(done)} of {size(total)}" if total else "", style="dim"),
            Text(f"{size(rate)}/s" if rate else str(want["state"])),
            Text(f"{duration(want['eta_s'])} left" if want["eta_s"] is not None else "", style="dim"),
        ]
    if kind.title == "Failed":
        error = want["error"] or {}
        lines = [Text(clean(error.get("message")), style="red"), Text(clean(error.get("hint")), style="dim")]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return [Group(*lines)]
    if kind.title == "Waiting":
        return [Text(clean(want["waiting_text"]))]
    paths = [model["path"] for model in want["models"] if model["path"]]
    return [Text(clean(paths[0]) if paths else "", style="dim")]


def named(want: dict[str, Any]) -> str:
    """What the want is called: its model, or its file where it has several or none."""
    models = want["models"]
    return clean(models[0]["model"] if len(models) == 1 else want["path"])


def clean(text: object) -> str:
    """Text that cannot steer a terminal: what is not printable is shown by its number."""
    plain = str(text if text is not None else "")
    return plain if plain.isprintable() else "".join(c if c.isprintable() else f"‹{ord(c):04X}›" for c in plain)


def _foot(status: dict[str, Any], now: datetime) -> RenderableType:
    disk, health = status["disk"], status["health"]
    text = Text("\n")
    text.append("disk    ", style="dim")
    text.append(
        f"{size(disk['used_bytes'])} models, {size(disk['reserved_bytes'])} reserved, {size(disk['free_bytes'])} free"
    )
    if disk["quota_bytes"]:
        text.append(f", quota {size(disk['quota_bytes'])}")
    if disk["next_out"]:
        text.append(f"; next to go: {clean(disk['next_out'][0]['model'])}", style="dim")
    text.append("\nhealth  ", style="dim")
    for name in ("hub", "proxy"):
        source = health[name]
        if source:
            word = {True: "reachable", False: clean(source["why"] or "not reachable"), None: "not asked yet"}[
                source["ok"]
            ]
            text.append(f"{name} {word}  ", style="red" if source["ok"] is False else "")
    if health["last_scan"]:
        ago = (now - datetime.fromisoformat(health["last_scan"])).total_seconds()
        text.append(f"last scan {duration(max(0, ago))} ago", style="dim")
    if status["agent"]["restart_needed"]:
        text.append(
            f"\nnote    restart the agent to apply {', '.join(status['agent']['restart_needed'])}", style="yellow"
        )
    return text
