"""`wantd verify [MODEL…]`: reads every byte of the store again, and says what is not as it was published."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec
import orjson

from agent.cli.room import StoreRoom, act_as_owner
from agent.config import load, process_environment
from agent.core.words import size
from agent.disk import atomic_write
from agent.errors import Exit
from agent.store.inventory import Held
from agent.store.layout import Layout
from agent.store.stamps import Stamp, Stopped, stamp_of

AT_ONCE = 2  # files read at the same time: a hash fills a core, and a disk seldom feeds more than two
SAID_S = 1.0  # between two lines of progress, and two notes of what is done
EXAMPLES = """\
examples:
  wantd verify
  wantd verify qwen3 --json

One that was interrupted goes on where it stopped: files found right are not read
again. A damaged file of a model that is wanted is downloaded again by the agent.

exit codes: 0 all as published, 1 something is damaged, 130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to read."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="as `wantd ls` names it; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def call(arguments: argparse.Namespace) -> int:
    """Read, and say what is damaged."""
    room = StoreRoom(load(arguments.config, process_environment()))
    names = room.find(arguments.models) if arguments.models else None
    act_as_owner(room.layout.root)
    chosen = None if names is None else {room.layout.directory(name) for name in names}
    held = [
        Held(entry.directory, file.name, file.size, file.sha256)
        for entry in sorted(room.entries(), key=lambda entry: entry.directory)
        if chosen is None or entry.directory in chosen
        for file in entry.record.files
    ]
    reading = Reading(room, Notes(room.layout) if chosen is None else None)
    try:
        damaged = reading.run(held)
    except KeyboardInterrupt:
        reading.stopped.set()
        print("wantd: interrupted; call it again to go on", file=sys.stderr)
        return Exit.INTERRUPTED
    if arguments.json:
        files = [
            {"model": os.path.relpath(one.directory, room.layout.root), "file": one.name, "why": why}
            for one, why in damaged
        ]
        value = {"files": len(held), "bytes": reading.done, "skipped_bytes": reading.skipped, "damaged": files}
        sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        for one, why in damaged:
            print(f"damaged: {one.path}: {why}")
        again = f", {size(reading.skipped)} of an earlier call" if reading.skipped else ""
        print(f"{len(held)} files, {size(reading.done)} read{again}: {len(damaged) or 'none'} damaged")
    return Exit.FAILURE if damaged else Exit.OK


class Notes:
    """Which files an interrupted call found right, in the store: the stamps that they had."""

    def __init__(self, layout: Layout) -> None:
        self._path = f"{layout.locks}/.verify.json"
        self._lock = threading.Lock()
        self._written_at = 0.0
        self._right: dict[str, Stamp] = {}
        with contextlib.suppress(OSError, msgspec.DecodeError), open(self._path, "rb") as file:
            self._right = msgspec.json.decode(file.read(), type=dict[str, Stamp])

    def knows(self, path: str) -> bool:
        """Whether the file was found right and is as it was then."""
        noted = self._right.get(path)
        return noted is not None and noted == stamp_of(path)

    def note(self, path: str) -> None:
        """The file is right."""
        with self._lock:
            if stamp := stamp_of(path):
                self._right[path] = stamp
            if time.monotonic() - self._written_at > SAID_S:
                self.keep()

    def keep(self) -> None:
        """Write what is known, for the next call."""
        with contextlib.suppress(OSError):
            atomic_write(self._path, msgspec.json.encode(self._right))
        self._written_at = time.monotonic()

    def drop(self) -> None:
        """All was read: the next call begins at the beginning."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)


@dataclass(slots=True)
class Reading:
    """One pass over files of the store. `done` and `skipped` are bytes."""

    room: StoreRoom
    notes: Notes | None
    done: int = 0
    skipped: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _said_at: float = 0.0

    def run(self, held: Iterable[Held]) -> list[tuple[Held, str]]:
        """Read all of them. Returns those that are damaged, and why."""
        files = [one for one in held if not self._skip(one)]
        total = sum(one.size for one in files)
        damaged: list[tuple[Held, str]] = []
        with ThreadPoolExecutor(AT_ONCE, "verify") as threads:
            try:
                for one, why in zip(files, threads.map(lambda one: self._read(one, total), files), strict=True):
                    if why:
                        damaged.append((one, why))
            except BaseException:
                self.stopped.set()
                threads.shutdown(wait=True, cancel_futures=True)
                if self.notes:
                    self.notes.keep()
                raise
        if self.notes:
            self.notes.drop()
        return damaged

    def _skip(self, one: Held) -> bool:
        known = self.notes is not None and self.notes.knows(one.path)
        self.skipped += one.size if known else 0
        return known

    def _read(self, one: Held, total: int) -> str | None:
        before = 0

        def on_bytes(count: int) -> None:
            nonlocal before
            with self._lock:
                self.done += count - before
                before = count
                self._say(one, total)

        try:
            why = self.room.inventory.prove(one, self.stopped.is_set, on_bytes)
        except Stopped:
            return None
        if self.notes and why is None:
            self.notes.note(one.path)
        return why

    def _say(self, one: Held, total: int) -> None:
        now = time.monotonic()
        if now - self._said_at < SAID_S or not total:
            return
        self._said_at = now
        share = min(self.done / total, 1.0)
        text = f"{share:4.0%}  {size(self.done)} of {size(total)}  {one.name}"
        if sys.stderr.isatty():
            bar = "#" * int(share * 30)
            print(f"\r\x1b[K[{bar:<30}] {text}"[:100], end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
