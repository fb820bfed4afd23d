"""`python -m bench`: ours and the peers, side by side on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack

from bench import install, report
from bench.cases import FULL, GIB, SHORT, Case, cases
from bench.kill import Killed
from bench.runner import Bench, Measured, toolbox
from bench.servers import Nginx
from bench.tools import ROOT

RESULTS = f"{ROOT}/bench/RESULTS.md"
KILL = "kill"
MEMORY_SPARE = 10 * GIB  # what must be left beside the served files, for the page cache of what is written

METHOD = """\
## What is measured

- **Ours**: `wantd get MODEL` as a whole command, from its start to its end, with an agent running (`wantd run`, all
  settings the defaults but `policy.allow`). Verified by SHA-256, synced to the disk and published. CPU seconds and peak
  RSS are those of the agent and of the command together (the larger, for RSS). A fresh agent for each run.
- **The tiny model**: from the rename of the want to the moment at which a reader sees `ready`, in a fresh agent.
- **`hf download`**: the whole command, fresh cache, plain HTTP (Xet off), no bars, no telemetry, no look for updates,
  8 workers (of 4, 8, 16 and 32 none was quicker here). It verifies and syncs nothing.
- **`aria2c`**: the whole command, `-x16 -s16 -k1M --file-allocation=none`, with the SHA-256 checked, straight from
  nginx without the Hub's redirect. **`curl`**: the same to a file, unverified.
- One nginx serves all of them from memory (the files lie in a tmpfs), the embedded Hub redirects to it; server and
  clients share the cores. Everybody writes to the same disk, into an empty directory. Between runs what was written is
  removed and the disk synced. Ours and theirs run in turn, the order changes from round to round.
- **Caps** are per TCP connection: a relay before nginx lets the kernel pace each one (`SO_MAX_PACING_RATE`).
  nginx's `limit_rate` counts by request, and gives each the first second free: with it, short ranges are hardly capped.
- **Latency**: the embedded Hub waits 50 ms before each answer, nginx asks (`auth_request`) a server that does.
- **Bytes sent** are nginx's `body_bytes_sent`. The count of the killed agent is TCP's: what the client's kernel has
  acknowledged, headers with it; nginx would count what was still in its own kernel's buffers.
"""


def main() -> None:
    """Parse, install, run, report."""
    names = [case.name for case in cases(FULL)] + [KILL]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, FULL.rounds_max + 1), metavar="N")
    parser.add_argument("--short", action="store_true", help="tiny files: is everything right? Its times mean nothing")
    parser.add_argument("--data", help="directory for the served files (memory, where it has room)")
    parser.add_argument("--work", help="directory to download into (a temporary one)")
    arguments = parser.parse_args()
    scale = SHORT if arguments.short else FULL
    peers = install.present() if arguments.short else install.install()
    wanted = [case for case in cases(scale) if not arguments.only or case.name in arguments.only]
    killing = not arguments.only or KILL in arguments.only
    rounds = 1 if arguments.short else arguments.rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers end and files go
    with ExitStack() as stack:
        data = arguments.data or _temporary(stack, _data_place())
        work = arguments.work or _temporary(stack, None)
        nginx = stack.enter_context(Nginx(f"{work}/nginx", data))
        bench = Bench(scale, data, f"{work}", nginx, toolbox(peers), _say)
        all_measured, killed = _run(bench, wanted, rounds, killing)
    text = "\n".join(_results(all_measured, killed, rounds, install.versions(peers)))
    print(text)
    if not arguments.short and not arguments.only:
        with open(RESULTS, "w", encoding="utf-8") as file:
            file.write(text)


def _run(bench: Bench, wanted: list[Case], rounds: int, killing: bool) -> tuple[list[Measured], Killed | None]:
    began = time.monotonic()
    killed = None
    if killing:
        _say(KILL)
        killed = bench.kill(seed=int(time.time()))
        _say(f"  {killed}")
    all_measured = []
    for number, case in enumerate(wanted):
        bench.drop_files(wanted[number:])
        _say(f"{case.name}: {case.title}, after {time.monotonic() - began:.0f} s")
        all_measured.append(bench.run(case, rounds))
    return all_measured, killed


def _results(all_measured: list[Measured], killed: Killed | None, rounds: int, versions: list[str]) -> list[str]:
    lines = ["# Side by side", "", "Made by `make bench`; do not edit.", "", *report.machine_lines()]
    lines += [f"- {', '.join(versions)}", f"- `python -m bench --rounds {rounds}`", ""]
    if all_measured:
        lines += ["## Ratios of wall time, ours to theirs, of medians", "", *report.ratio_lines(all_measured), ""]
        lines += [report.memory_line(all_measured), ""]
    lines += ["## Case by case", ""]
    if killed:
        lines += report.kill_lines(killed)
    for measured in all_measured:
        lines += report.case_lines(measured)
    return [*lines, METHOD]


def _temporary(stack: ExitStack, parent: str | None) -> str:
    directory = tempfile.mkdtemp(prefix="wantd-bench-", dir=parent)
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    os.chmod(directory, 0o755)
    return directory


def _data_place() -> str | None:
    """Memory, where it has room for the largest case's files beside all that is written."""
    try:
        status = os.statvfs("/dev/shm")
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except OSError:
        return None
    need = 4 * GIB
    fits = status.f_bavail * status.f_frsize > need and available > need + MEMORY_SPARE
    return "/dev/shm" if fits else None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
