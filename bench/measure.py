"""What a command costs: wall time, processor time, peak resident set. All from the kernel's own counters."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SAMPLE_S = 0.02  # seconds between looks at the peak memory; only what comes in the last of them is missed


class CommandError(Exception):
    """A measured command failed: its measurement would mean nothing."""


@dataclass(frozen=True)
class Usage:
    """Seconds of wall time, seconds of processor time (user and system, children included), bytes of peak memory."""

    wall_s: float
    cpu_s: float
    rss_bytes: int
    sent_bytes: int = 0


def run(command: Sequence[str], environ: Mapping[str, str], cwd: str, log_path: str) -> Usage:
    """Run the command to its end; its output goes to `log_path`. Raises CommandError when it fails.

    The peak is read from `VmHWM` and not from `wait4`: what that reports for a child begins with its parent's peak.
    """
    with open(log_path, "wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        rss = _watch(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        with open(log_path, encoding="utf-8", errors="replace") as log_text:
            tail = log_text.read()[-2000:]
        raise CommandError(f"{os.path.basename(command[0])} ended with {process.returncode}:\n{tail}")
    return Usage(wall, used.ru_utime + used.ru_stime, rss)


def _watch(pid: int) -> int:
    """The process's peak memory, in bytes; returns when it has ended."""
    peak = 0
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while not poll.poll(SAMPLE_S * 1000):
            peak = max(peak, peak_bytes(pid))
    finally:
        os.close(fd)
    return peak


def peak_bytes(pid: int) -> int:
    """`VmHWM` of a live process; 0 for one that has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            line = next((line for line in file if line.startswith("VmHWM:")), "")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(line.split()[1]) * 1024 if line else 0


def cpu_seconds(pid: int) -> float:
    """Processor time of a live process so far, with that of its ended children (proc(5): utime to cstime)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    ticks: int = sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
