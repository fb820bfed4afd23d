"""What the torture chamber is made of: families of cases, each a fault that is really produced and then checked.

One definition serves both lengths: `make test` runs the brief cases through pytest, `make torture` all of them, and
writes the table of docs/RELIABILITY.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "it mounts file systems or sets limits of the kernel: run it as root"),
    "cc": (lambda: shutil.which("cc") is not None, "its library is built with a C compiler: install gcc"),
    "setpriv": (lambda: shutil.which("setpriv") is not None, "its users are real ones: install util-linux"),
    "strace": (lambda: shutil.which("strace") is not None, "strace injects the fault: install strace"),
}


class SomeBroke(AssertionError):
    """Some faults of a case did not end as stated: what was wrong, by row."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__("\n".join(problem for row in problems.values() for problem in row))
        self.problems = problems


@dataclass(frozen=True)
class Case:
    """One fault, or several that are produced together: `run` gets an empty directory, and raises AssertionError where
    a promise broke (`SomeBroke` where it knows which). `faults` has the rows of the table that the case belongs to, and
    how many faults of each it produces; left out, that is one, under the case's name. `brief` cases are in `make test`
    as well.
    """

    name: str
    run: Callable[[Path], None]
    brief: bool = True
    needs: tuple[str, ...] = ()
    faults: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> Mapping[str, int]:
        """How many faults of which row."""
        return self.faults or {self.name: 1}

    @property
    def lacks(self) -> str | None:
        """Why the case cannot run on this machine, or None."""
        return next((reason for need in self.needs for there, reason in [NEEDS[need]] if not there()), None)


@dataclass(frozen=True)
class Family:
    """A section of the table: its cases have its rows. `cases` gets the number of kills that the whole run is to make;
    those that run `together` do not disturb one another.
    """

    title: str
    promise: str
    cases: Callable[[int], Iterator[Case]]
    together: bool = False
