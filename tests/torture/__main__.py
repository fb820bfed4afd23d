"""The long form: every fault of every family, and the table of docs/RELIABILITY.md from what was seen.

python -m tests.torture                    all, with 1,000 kills
python -m tests.torture --kills 100        the same, sooner
python -m tests.torture hub clock          only the rows whose titles hold these words; the other rows stay
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.harness import CHECKOUT
from tests.torture.cases import Case, Family
from tests.torture.families import FAMILIES
from tests.torture.lives import library, world

TABLE = CHECKOUT / "docs" / "RELIABILITY.md"
BEGIN, END = "<!-- table: made by make torture -->", "<!-- end of table -->"
HEAD = "| fault | what must hold | tried | held | not possible here | when |\n|---|---|---|---|---|---|\n"
KILLS = 1000


@dataclass
class Row:
    """What came of one family."""

    tried: int = 0
    held: int = 0
    left_out: int = 0

    def line(self, family: Family) -> str:
        today = datetime.now(UTC).date()
        numbers = f"{self.tried:,} | {self.held:,} | {self.left_out or ''}"
        return f"| {family.title} | {family.promise} | {numbers} | {today} |\n"


def run_family(family: Family, kills: int, scratch: Path, workers: int) -> Row:
    """All cases of a family, some at once where they do not disturb one another."""
    row = Row()
    cases = list(family.cases(kills))
    began = time.monotonic()
    with ThreadPoolExecutor(workers if family.together else 1) as pool:
        for number, (case, held, problem) in enumerate(pool.map(lambda case: run_case(case, scratch), cases), 1):
            if case.lacks:
                row.left_out += case.faults
                print(f"  left out: {case.name}: {case.lacks}", flush=True)
                continue
            row.tried += held if problem is None else case.faults
            row.held += held
            if problem is not None:
                print(f"  FAILED {case.name}:\n{problem}", flush=True)
            elif not family.together or number % 20 == 0:
                seconds = time.monotonic() - began
                print(
                    f"  {number} of {len(cases)} cases, {row.held:,} faults, {seconds:.0f} s: {case.name}", flush=True
                )
    return row


def run_case(case: Case, scratch: Path) -> tuple[Case, int, str | None]:
    """The case, how many faults ended as stated, and what went wrong."""
    if case.lacks:
        return case, 0, None
    root = Path(tempfile.mkdtemp(dir=scratch))
    try:
        held = case.run(root)
    except Exception:  # noqa: BLE001  whatever goes wrong in one case is a row's number, not the end of the run
        return case, 0, traceback.format_exc()
    shutil.rmtree(root, ignore_errors=True)
    return case, held, None


def write_table(lines: Iterable[str]) -> None:
    """Replace the rows that were run; the others stay as they are."""
    text = TABLE.read_text()
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    rows = {line.split("|")[1].strip(): line + "\n" for line in old.splitlines() if line.startswith("| ")}
    rows |= {line.split("|")[1].strip(): line for line in lines}
    ordered = [rows[family.title] for family in FAMILIES if family.title in rows]
    TABLE.write_text(f"{before}{BEGIN}\n{HEAD}{''.join(ordered)}{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("only", nargs="*", help="words of the families to run")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--workers", type=int, default=2, help="lives at once")
    arguments = parser.parse_args()
    chosen = [f for f in FAMILIES if not arguments.only or any(w in f.title.lower() for w in arguments.only)]
    scratch = Path(tempfile.mkdtemp(prefix="wantd-torture-"))
    failed = 0
    world()  # before there are threads
    library("crash.c")
    for family in chosen:
        print(family.title, flush=True)
        row = run_family(family, arguments.kills, scratch, arguments.workers)
        failed += row.tried - row.held
        print(f"  {row.tried:,} tried, {row.held:,} ended as stated", flush=True)
        write_table([row.line(family)])
    world().close()
    if not failed:
        shutil.rmtree(scratch, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
