"""The long form: every fault of every family, and the table of docs/RELIABILITY.md from what was seen.

python -m tests.torture                    all, with 1,280 kills
python -m tests.torture --kills 100        the same, sooner
python -m tests.torture hub clock          only the families whose titles hold these words; the others' rows stay
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.harness import CHECKOUT
from tests.torture.cases import Case, Family, SomeBroke
from tests.torture.families import FAMILIES
from tests.torture.lives import library, world

TABLE = CHECKOUT / "docs" / "RELIABILITY.md"
BEGIN, END = "<!-- table: made by make torture -->\n", "<!-- end of table -->"
HEAD = "| fault | tried | held | not possible here |\n|---|---|---|---|\n"
KILLS = 1280  # so many that every call of a life has its turn


@dataclass
class Tally:
    """What came of one family: numbers of faults, by row."""

    tried: Counter[str] = field(default_factory=Counter)
    broke: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, case: Case, problems: Counter[str]) -> None:
        """One case that was tried, or left out, where the machine lacks something for it."""
        if case.lacks:
            self.left_out.update(case.rows)
            print(f"  left out: {case.name}: {case.lacks}", flush=True)
            return
        self.tried.update(case.rows)
        self.broke.update(problems)

    def section(self, family: Family, rows: list[str]) -> str:
        """The family's part of the table."""
        tried, held = self.tried.total(), self.tried.total() - self.broke.total()
        text = f"### {family.title}: {held:,} of {tried:,}\n\n{family.promise[0].upper()}{family.promise[1:]}. "
        text += f"Run on {datetime.now(UTC).date()}.\n\n{HEAD}"
        for row in rows:
            held = self.tried[row] - self.broke[row]
            text += f"| {row} | {self.tried[row]:,} | {held:,} | {self.left_out[row] or ''} |\n"
        return text + "\n"


def run_family(family: Family, kills: int, scratch: Path, workers: int) -> tuple[Tally, str]:
    """All cases of a family, some at once where they do not disturb one another, and their part of the table."""
    tally = Tally()
    cases = list(family.cases(kills))
    began = time.monotonic()
    with ThreadPoolExecutor(workers if family.together else 1) as pool:
        for number, (case, problems) in enumerate(pool.map(lambda case: run_case(case, scratch), cases), 1):
            tally.add(case, problems)
            if problems or not family.together or number % 20 == 0:
                seconds = time.monotonic() - began
                print(f"  {number} of {len(cases)} cases, {seconds:.0f} s: {case.name}", flush=True)
    rows = dict.fromkeys(row for case in cases for row in case.rows)
    return tally, tally.section(family, list(rows))


def run_case(case: Case, scratch: Path) -> tuple[Case, Counter[str]]:
    """The case, and how many faults did not end as stated, by row."""
    if case.lacks:
        return case, Counter()
    root = Path(tempfile.mkdtemp(dir=scratch))
    try:
        case.run(root)
    except SomeBroke as broke:
        print(f"  FAILED {case.name}:\n{broke}", flush=True)
        return case, Counter({row: len(problems) for row, problems in broke.problems.items()})
    except Exception:  # noqa: BLE001  whatever goes wrong in one case is a row's number, not the end of the run
        print(f"  FAILED {case.name}:\n{traceback.format_exc()}", flush=True)
        return case, Counter(case.rows)
    shutil.rmtree(root, ignore_errors=True)
    return case, Counter()


def write_table(section: str, family: Family) -> None:
    """Replace the family's part; the others stay as they are."""
    text = TABLE.read_text()
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    sections = {part.partition(":")[0]: f"### {part}" for part in re.split(r"^### ", old, flags=re.MULTILINE)[1:]}
    sections[family.title] = section
    ordered = [sections[known.title] for known in FAMILIES if known.title in sections]
    TABLE.write_text(f"{before}{BEGIN}\n{''.join(ordered)}{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("only", nargs="*", help="words of the families to run")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--workers", type=int, default=2, help="lives at once")
    arguments = parser.parse_args()
    chosen = [f for f in FAMILIES if not arguments.only or any(w in f.title.lower() for w in arguments.only)]
    scratch = Path(tempfile.mkdtemp(prefix="wantd-torture-"))
    broke = 0
    world()  # before there are threads
    library("crash.c")
    for family in chosen:
        print(family.title, flush=True)
        tally, section = run_family(family, arguments.kills, scratch, arguments.workers)
        broke += tally.broke.total()
        print(f"  {tally.tried.total():,} tried, {tally.broke.total():,} did not end as stated", flush=True)
        write_table(section, family)
    world().close()
    if not broke:
        shutil.rmtree(scratch, ignore_errors=True)
    return 1 if broke else 0


if __name__ == "__main__":
    sys.exit(main())
