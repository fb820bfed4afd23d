"""What standing wants cost: `python -m bench.standing`, or `--wants 10000,100000 --idle 60 --kind known --spread 1`.

Each row is an agent with a spool and a store of its own. Wants of the kind `known` name ten models that are in the
store, those of the kind `unknown` a model each that no catalog has. For each: seconds until every want has its final
progress file, processor time while idle, memory, `wantd status`; then a restart: seconds until the agent has gone
through every want (as it tells systemd), how many progress files it wrote meanwhile, and how long a want that is
dropped in its first second waits for `ready`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess

MODELS = [f"standing-{number}" for number in range(10)]
DEADLINE_S = 900.0
REST = 0.02  # share of a core under which an agent counts as idle
SETTLE_S = 35.0  # more than a rescan, which reads once more what the last progress files changed
HEAD_BYTES = 300  # of a progress file: its state is among the first lines
FINAL = re.compile(rb'"state": "(ready|failed)"')

COLUMNS = (
    "wants",
    "models",
    "directories",
    "all answered, s",
    "CPU for that, s",
    "idle, % of a core",
    "RSS, MB",
    "peak RSS, MB",
    "status, s",
    "restart, s",
    "CPU for that, s",
    "files written at restart",
    "fresh want, s",
)


@dataclass(frozen=True)
class Row:
    """One line of the table; names and units are those of `COLUMNS`."""

    wants: int
    kind: str
    directories: int
    answered_s: float
    answered_cpu_s: float
    idle_percent: float
    rss_mb: float
    peak_mb: float
    status_s: float
    restart_s: float
    restart_cpu_s: float
    written: int
    fresh_s: float


class Standing:
    """One agent with `count` wants of a kind, spread over `spread` directories."""

    def __init__(self, root: Path, endpoint: str, count: int, kind: str, spread: int) -> None:
        self.count, self.kind, self.spread = count, kind, spread
        catalog = root / "catalog.json"
        catalog.write_text(
            json.dumps([{"id": m, "repo": f"bench/{m}", "recommended_filename": "m.gguf"} for m in MODELS])
        )
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(root / "notify"))
        self.told.setblocking(False)
        self.agent = AgentProcess(root, endpoint, catalog__path=catalog, NOTIFY_SOCKET=root / "notify")
        self.final = 0  # wants that are ready or failed, as the agent told systemd last

    def start(self) -> None:
        """Start the agent, and forget what an earlier one told."""
        while self.hear():
            pass
        self.final = 0
        self.agent.process = None
        self.agent.start()

    def hear(self) -> bool:
        """Read one datagram of the agent, if there is one."""
        try:
            text = self.told.recv(65536).decode()
        except BlockingIOError:
            return False
        if found := re.search(r"(\d+) ready, (\d+) failed", text):
            self.final = int(found[1]) + int(found[2])
        return True

    def has_gone_through(self, wants: int) -> bool:
        """Whether so many wants are ready or failed, by what the agent tells systemd once a second."""
        while self.hear():
            pass
        return self.final >= wants

    def folders(self) -> list[Path]:
        """The directories that the wants are in."""
        return [self.agent.spool / f"team{n}" if self.spread > 1 else self.agent.spool for n in range(self.spread)]

    def drop_all(self) -> None:
        """Write the wants, as most programs do."""
        folders = self.folders()
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for number in range(self.count):
            path = f"{folders[number % self.spread]}/w{number:06d}"
            with open(f"{path}.tmp", "w", encoding="ascii") as file:
                file.write(MODELS[number % len(MODELS)] if self.kind == "known" else f"nobody/model-{number}")
            os.rename(f"{path}.tmp", f"{path}.want")

    def progress_files(self) -> Iterator[os.DirEntry[str]]:
        """Those of the standing wants."""
        for folder in self.folders():
            with os.scandir(folder) as entries:
                yield from (entry for entry in entries if re.fullmatch(r"w\d{6}\.progress", entry.name))

    def all_answered(self) -> bool:
        """Whether every want has a final progress file."""
        files = list(self.progress_files())
        return len(files) == self.count and all(_is_final(entry.path) for entry in files)

    def share(self, seconds: float) -> float:
        """The agent's share of a core over so many seconds."""
        cpu, began = self.agent.cpu_s(), time.monotonic()
        time.sleep(seconds)
        return (self.agent.cpu_s() - cpu) / (time.monotonic() - began)

    def rss_mb(self) -> float:
        """Its resident set now."""
        status = Path(f"/proc/{self.agent.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def _is_final(path: str) -> bool:
    with open(path, "rb") as file:
        return FINAL.search(file.read(HEAD_BYTES)) is not None


def measure(root: Path, endpoint: str, count: int, kind: str, spread: int, idle_s: float) -> Row:
    """One row of the table."""
    standing = Standing(root, endpoint, count, kind, spread)
    agent = standing.agent
    standing.start()
    with agent_ends(agent):
        agent.drop("seed", "\n".join(MODELS))
        agent.ready("seed")
        began = time.monotonic()
        standing.drop_all()
        wait_until(lambda: standing.has_gone_through(count + 1), "all wants are final", DEADLINE_S)
        wait_until(standing.all_answered, "all wants have progress files", DEADLINE_S)
        answered, answered_cpu = time.monotonic() - began, agent.cpu_s()
        wait_until(lambda: standing.share(2.0) < REST, "the agent comes to rest", DEADLINE_S)
        time.sleep(SETTLE_S)
        idle = standing.share(idle_s)
        began = time.monotonic()
        done = agent.wantd("status", timeout=DEADLINE_S)
        status = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        rss, peak = standing.rss_mb(), agent.rss_bytes() / 1e6

        before = {entry.path: entry.inode() for entry in standing.progress_files()}
        agent.stop()
        began = time.monotonic()
        standing.start()
        dropped = time.monotonic()
        agent.drop("fresh", MODELS[0])
        agent.ready("fresh")
        fresh = time.monotonic() - dropped
        wait_until(lambda: standing.has_gone_through(count + 2), "the restarted agent is through", DEADLINE_S)
        restart, restart_cpu = time.monotonic() - began, agent.cpu_s()
        wait_until(lambda: standing.share(2.0) < REST, "the agent comes to rest", DEADLINE_S)
        written = sum(before.get(entry.path) != entry.inode() for entry in standing.progress_files())
        first = (answered, answered_cpu, idle * 100, rss, peak, status)
        return Row(count, kind, spread, *first, restart, restart_cpu, written, fresh)


class agent_ends:
    """Stop the agent at the end; it may take some time to drain."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._agent.process and self._agent.process.poll() is None:
            self._agent.process.terminate()
            self._agent.process.wait(60)


def show(row: Row) -> str:
    """A line of the table in Markdown."""
    return "| " + " | ".join(f"{v:,.2f}" if isinstance(v, float) else f"{v}" for v in astuple(row)) + " |"


def main() -> None:
    """Measure what is asked for, and print the table line by line."""
    parser = argparse.ArgumentParser(prog="python -m bench.standing", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--wants", default="10000,100000", help="how many, with commas (10000,100000)")
    parser.add_argument("--kind", default="known,unknown", help="known: ten models in the store; unknown: one each")
    parser.add_argument("--spread", default="1,10", help="over how many directories (1,10)")
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS", help="how long to measure while idle")
    parser.add_argument("--scratch", help="where spools and stores are made (a temporary directory)")
    asked = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    arguments = ["--no-standard"]
    with tempfile.TemporaryDirectory(dir=asked.scratch, prefix="standing-") as scratch, HubProcess(*arguments) as hub:
        for model in MODELS:
            hub.commit(f"bench/{model}", {"m.gguf": model.encode() * 100})
        counts = [int(count) for count in asked.wants.split(",")]
        spreads = [int(spread) for spread in asked.spread.split(",")]
        for number, (count, kind, spread) in enumerate(product(counts, asked.kind.split(","), spreads)):
            root = Path(scratch) / f"row{number}"
            root.mkdir()
            print(show(measure(root, hub.endpoint, count, kind, spread, asked.idle)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
