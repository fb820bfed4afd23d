"""What the torture chamber is made of: families of cases, each a fault that is really produced and then checked.

One definition serves both lengths: `make test` runs the brief cases through pytest, `make torture` all of them, and
writes the table of docs/RELIABILITY.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "it mounts file systems or sets limits of the kernel: run it as root"),
    "cc": (lambda: shutil.which("cc") is not None, "its library is built with a C compiler: install gcc"),
    "strace": (lambda: shutil.which("strace") is not None, "strace injects the fault: install strace"),
}


@dataclass(frozen=True)
class Case:
    """One fault, or a row of them: `run` gets an empty directory, raises AssertionError where a promise broke, and
    gives the number of faults that it produced. `brief` cases are in `make test` as well.
    """

    name: str
    run: Callable[[Path], int]
    brief: bool = True
    needs: tuple[str, ...] = ()
    faults: int = 1  # how many `run` tries: what counts as failed where it raises

    @property
    def lacks(self) -> str | None:
        """Why the case cannot run on this machine, or None."""
        return next((reason for need in self.needs for there, reason in [NEEDS[need]] if not there()), None)


@dataclass(frozen=True)
class Family:
    """A row of the table. `cases` gets the number of kills that the whole run is to make; those that run `together` do
    not disturb one another.
    """

    title: str
    promise: str
    cases: Callable[[int], Iterator[Case]]
    together: bool = False
