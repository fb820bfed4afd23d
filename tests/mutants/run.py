"""Runs the unit tests of a package on changed copies of the checkout, several at once. The checkout stays as it is."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.changes import Change
from tests.mutants.plugin import MODULE

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "node_modules")
MEMORY_KIB = 4 * 1024 * 1024  # a change that makes a list grow without end must not take the machine with it
SLOWER = 3.0  # a change that makes the tests this much slower than they are is noticed, too
PATIENCE_S = 10.0  # and this much on top, for a machine with other work


class UnchangedFails(Exception):
    """The tests do not pass on the code as it is."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change to the module at `path` (relative to the checkout), whose text is `source`."""

    path: str
    source: str
    change: Change

    def __str__(self) -> str:
        return f"{self.path}:{self.change.line}"

    @property
    def diff(self) -> str:
        return self.change.diff(self.source, self.path)


class Copies:
    """Copies of a checkout in which the tests of one package run, one at a time in each."""

    def __init__(self, checkout: Path, scratch: Path, tests: str, count: int) -> None:
        self._tests = tests
        first = scratch / "copy0"
        shutil.copytree(checkout, first, ignore=LEFT_OUT)
        began = time.monotonic()
        code, output = self._pytest(first, "", timeout_s=600, write_bytecode=True)
        if code != 0:
            raise UnchangedFails(f"{tests} on the unchanged code: exit status {code}\n{output[-4000:]}")
        self.took_s = time.monotonic() - began
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._free.put(first)
        for number in range(1, count):  # with the bytecode that the first one has now
            self._free.put(Path(shutil.copytree(first, scratch / f"copy{number}")))
        self._count = count

    def run(self, mutants: Iterable[Mutant], seen: Callable[[Mutant, bool], None]) -> Iterator[Mutant]:
        """Those that no test notices, in order; `seen` is told of each as it is done."""

        def noticed(mutant: Mutant) -> tuple[Mutant, bool]:
            result = self._noticed(mutant)
            seen(mutant, result)
            return mutant, result

        with ThreadPoolExecutor(self._count) as pool:
            for mutant, result in pool.map(noticed, mutants):
                if not result:
                    yield mutant

    def _noticed(self, mutant: Mutant) -> bool:
        copy = self._free.get()
        path = copy / mutant.path
        before = path.stat()
        try:
            path.write_text(mutant.change.apply(mutant.source), encoding="utf-8")
            # Bytecode is told from its source by the source's time and size: this one is nobody's.
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**10))
            code, _ = self._pytest(copy, path.stem, timeout_s=SLOWER * self.took_s + PATIENCE_S)
        finally:
            path.write_text(mutant.source, encoding="utf-8")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            self._free.put(copy)
        return code != 0

    def _pytest(self, copy: Path, module: str, *, timeout_s: float, write_bytecode: bool = False) -> tuple[int, str]:
        """Its exit status (-9 when its time was up) and what it said."""
        environ = {**os.environ, "PYTHONPATH": str(copy), MODULE: module, "TMPDIR": _made(copy.parent / "tmp")}
        environ["PYTHONDONTWRITEBYTECODE"] = "" if write_bytecode else "1"
        pytest = [sys.executable, "-m", "pytest", "-x", "-p", "tests.mutants.plugin", "-p", "no:cacheprovider"]
        command = ["sh", "-c", f'ulimit -v {MEMORY_KIB}; exec "$@"', "sh", *pytest, self._tests]
        with subprocess.Popen(
            command, cwd=copy, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            try:
                output, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
        return process.returncode, output.decode(errors="replace")


def _made(path: Path) -> str:
    path.mkdir(exist_ok=True)
    return str(path)
