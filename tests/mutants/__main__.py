"""Do the unit tests notice small changes to the code? Of each package a sample is drawn, changed and tested.

python -m tests.mutants                            all packages, 60 changes of each
python -m tests.mutants core jobs --sample 100     other packages, other numbers
python -m tests.mutants core --module names --all  every change to agent/core/names.py
python -m tests.mutants --seed 8                   other changes; one seed draws the same ones from the same code

The exit status is 1 where fewer are noticed than are wanted. Only a package's own tests count (agent/core: tests/core).

mutmut 3.8 and cosmic-ray 8.7 were tried first. mutmut changes nothing in decorated functions (so no property), in
classes or at module level (so no constant), changes texts that nobody promises, and draws no sample. Of the 2,586
changes that cosmic-ray finds in agent/core more than a fourth are none (`X | None` in annotations, the `*` of
keyword-only parameters), each operator counts as often as it has replacements, it works in the checkout itself, draws
no sample, and comes with some forty packages.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.harness import CHECKOUT
from tests.mutants.changes import changes
from tests.mutants.known import FILE, Known, read_known, read_values
from tests.mutants.run import Copies, Mutant, UnchangedFails

WANTED = {"core": 0.9, "state": 0.8, "requests": 0.8, "jobs": 0.8, "reports": 0.8}  # of the changes to agent/NAME


def mutants_of(package: str, module: str | None = None) -> list[Mutant]:
    """Every change to a package. Raises FileNotFoundError where there is none of that name."""
    folder = CHECKOUT / "agent" / package
    paths = sorted(folder.glob(f"{module or '*'}.py"))
    if not paths:
        raise FileNotFoundError(f"{folder} has no module {module or ''}")
    found = []
    for path in paths:
        source = path.read_text(encoding="utf-8")
        found += [Mutant(str(path.relative_to(CHECKOUT)), source, change) for change in changes(source)]
    return found


def without_known(mutants: Sequence[Mutant], known: Sequence[Known]) -> tuple[list[Mutant], list[Known]]:
    """The mutants that no entry is about, and the entries that are about none of them."""
    about = {(entry.file, entry.was, entry.now): entry for entry in known}
    keys = [(mutant.path, *mutant.change.lines(mutant.source)) for mutant in mutants]
    left = [mutant for mutant, key in zip(mutants, keys, strict=True) if key not in about]
    return left, [entry for key, entry in about.items() if key not in set(keys)]


def try_package(package: str, arguments: argparse.Namespace) -> bool:
    """Whether enough is noticed; prints what is not."""
    text = FILE.read_text(encoding="utf-8")
    values = read_values(text)
    every = mutants_of(package, arguments.module)
    found = [mutant for mutant in every if not (mutant.change.of_constant and mutant.path in values)]
    files = {mutant.path for mutant in every}
    known = [entry for entry in read_known(text) if entry.file in files]
    left, stale = without_known(found, known)
    drawn = left
    if not arguments.all and len(left) > arguments.sample:
        chance = random.Random(f"{arguments.seed} {package}")
        places = sorted(chance.sample(range(len(left)), arguments.sample))
        drawn = [left[place] for place in places]
    with tempfile.TemporaryDirectory(prefix="wantd-mutants-") as scratch:
        copies = Copies(CHECKOUT, Path(scratch), f"tests/{package}", arguments.workers)
        print(
            f"agent/{package}: {len(drawn)} of {len(left)} changes, seed {arguments.seed}; "
            f"tests/{package} takes {copies.took_s:.1f} s",
            flush=True,
        )

        def seen(mutant: Mutant, noticed: bool) -> None:
            print("." if noticed else "S", end="", flush=True)

        survivors = list(copies.run(drawn, seen))
    print()
    for survivor in survivors:
        print(f"\nnot noticed: {survivor}\n{survivor.diff}")
    for path in sorted(files & set(values)):
        print(f"constants left as they are: {path} ({values[path]})")
    for entry in known:
        print(f"known to change nothing: {entry.file}: {entry.now} ({entry.why})")
    for entry in stale:
        print(f"no change fits this entry of {FILE.name} any more: {entry}")
    noticed, wanted = len(drawn) - len(survivors), math.ceil(WANTED[package] * len(drawn))
    print(f"agent/{package}: {noticed} of {len(drawn)} noticed ({noticed / len(drawn):.0%}); {wanted} are wanted\n")
    return noticed >= wanted and not stale


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(WANTED)}")
    parser.add_argument("--module", help="only this module of the packages")
    parser.add_argument("--sample", type=int, default=60, help="changes of each package")
    parser.add_argument("--all", action="store_true", help="every change")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="changes that are tried at once")
    arguments = parser.parse_args()
    if unknown := set(arguments.packages) - set(WANTED):
        parser.error(f"no wish is known for {', '.join(sorted(unknown))}")
    try:
        enough = [try_package(package, arguments) for package in arguments.packages or WANTED]
    except (UnchangedFails, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
