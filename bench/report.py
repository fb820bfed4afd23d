"""Medians and ratios, as a table for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from bench.cases import GIB
from bench.kill import MORE_MAX, Killed
from bench.measure import Usage
from bench.runner import OURS, Measured

RSS_MAX = 150_000_000  # bytes; memory stays flat however large a model is
MIB = 1024**2


def ratio_lines(all_measured: Sequence[Measured]) -> list[str]:
    """The contract's table: the ratio to hold and the one that was measured."""
    lines = ["| case | against | ratio to hold | ratio | |", "|---|---|---|---|---|"]
    for measured in all_measured:
        for rival in measured.case.rivals:
            if rival.tool not in measured.usages:
                continue
            ratio = _wall(measured.usages[OURS]) / _wall(measured.usages[rival.tool])
            held = "held" if ratio <= rival.ratio else "**missed**"
            lines.append(f"| {measured.case.title} | {_NAMES[rival.tool]} | {rival.ratio:g} | {ratio:.3f} | {held} |")
    return lines


_NAMES = {OURS: "wantd", "hf": "`hf download`", "aria2": "`aria2c -x16 -s16 -k1M`, SHA-256", "curl": "`curl`"}


def case_lines(measured: Measured) -> list[str]:
    """One case in full: medians, and from where to where the wall times went."""
    total = measured.case.repos[0].bytes_total
    lines = [
        f"### {measured.case.title}",
        "",
        f"Served by {measured.case.face.value}; {total:,} bytes; {len(measured.usages[OURS])} runs each.",
        "",
        "| tool | wall, s | min to max | CPU, s | CPU, s per GiB | peak RSS, MiB | bytes sent |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, usages in measured.usages.items():
        walls = [usage.wall_s for usage in usages]
        digits = 3 if max(walls) < 2 else 2
        cpu = median(usage.cpu_s for usage in usages)
        sent = median(usage.sent_bytes for usage in usages)
        per_gib = f"{cpu / (total / GIB):.2f}" if total > GIB / 16 else "-"
        lines.append(
            f"| {name} | {median(walls):.{digits}f} | {min(walls):.{digits}f} to {max(walls):.{digits}f} | {cpu:.2f} "
            f"| {per_gib} | {max(usage.rss_bytes for usage in usages) / MIB:.0f} | {sent / total:.4f} x size |"
        )
    return [*lines, ""]


def kill_lines(killed: Killed) -> list[str]:
    """The case of the killed agent."""
    held = "held" if killed.right and killed.more <= MORE_MAX else "**missed**"
    return [
        f"### `kill -9`, {killed.kills} times in one download of {killed.size:,} bytes",
        "",
        "Served by http, 10 MB/s a connection.",
        "",
        f"{killed.sent:,} bytes taken by clients' kernels: {killed.more:.2%} more than the file has (to hold: "
        f"{MORE_MAX:.0%}); the hash at the end is {'right' if killed.right else 'WRONG'}: {held}.",
        "",
    ]


def memory_line(all_measured: Sequence[Measured]) -> str:
    """The most memory that ours used in any run."""
    peak = max(usage.rss_bytes for measured in all_measured for usage in measured.usages[OURS])
    held = "held" if peak <= RSS_MAX else "**missed**"
    return f"Peak RSS of wantd in all of them: {peak / 1e6:.0f} MB (to hold: {RSS_MAX / 1e6:.0f} MB): {held}."


def machine_lines() -> list[str]:
    """The machine's shape, without its name."""
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    kernel = platform.release().split("-")[0]
    return [
        f"- {datetime.now(UTC):%Y-%m-%d}",
        f"- {os.cpu_count()} cores ({_processor()}), {memory / GIB:.0f} GiB of memory, Linux {kernel}",
    ]


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        names = (line.split(":")[1].strip() for line in file if line.startswith("model name"))
        return next(names, platform.machine())


def _wall(usages: Sequence[Usage]) -> float:
    return median(usage.wall_s for usage in usages)
