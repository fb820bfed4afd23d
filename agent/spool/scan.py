"""Looking at the whole spool: the truth about which wants there are (SPEC section 2)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.core.want import PROGRESS_SUFFIX, WANT_SUFFIX
from agent.disk import TEMP_PREFIX, remove_stale_temp
from agent.spool.files import Stamp

DEPTH = 4  # levels of subdirectories, SPEC section 2


class HasStamp(Protocol):
    """What the scan compares against: anything that remembers the stamp it saw last."""

    @property
    def stamp(self) -> Stamp | None: ...


@dataclass(slots=True)
class Found:
    """What a scan found, against what was known: paths of wants, and wants whose progress file is missing."""

    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


def is_want(root: str, path: str) -> bool:
    """Whether a path is a request of this spool: `*.want`, no dot in front, at most `DEPTH` folders down."""
    if not path.endswith(WANT_SUFFIX) or not path.startswith(root + "/"):
        return False
    parts = path[len(root) + 1 :].split("/")
    return len(parts) <= DEPTH + 1 and not any(part.startswith(".") for part in parts)


def scan(root: str, known: Mapping[str, HasStamp], silent: Collection[str] = (), *, tidy: bool = True) -> Found:
    """Look at the whole spool. `known` maps paths to what was seen last, `silent` are wants that cannot be answered.

    With `tidy`, removes progress files whose want is gone, and temporary files of agents that died. Blocks; call it
    in a thread.
    """
    found = Found()
    seen: set[str] = set()
    answers: set[str] = set()
    unknown: list[str] = []  # folders that could not be read just now: what was in them is not gone for that
    now = time.time()
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        try:
            entries = _entries(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            unknown.append(folder + "/")
            continue
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                if tidy and name.startswith(TEMP_PREFIX):
                    remove_stale_temp(folder, name, now)
            elif name.endswith(WANT_SUFFIX):
                _compare(entry, known, seen, found)
            elif name.endswith(PROGRESS_SUFFIX):
                answers.add(entry.path)
            elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, depth + 1))
    found.removed = [path for path in known if path not in seen and not path.startswith(tuple(unknown))]
    if tidy:
        _settle_answers(seen, answers, silent, known, found)
    return found


def glance(root: str, known: Mapping[str, HasStamp], most: int) -> list[str]:
    """New and changed wants, as far as they are soon found: of each directory only the first `most` are looked at.

    For the time of a flood: what the other directories hold is seen long before the flood is through.
    """
    found = Found()
    seen: set[str] = set()
    pending = [(root, 0)]
    while pending:
        folder, depth = pending.pop()
        looked = 0
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(WANT_SUFFIX):
                    looked += 1
                    if looked <= most and not name.startswith("."):
                        _compare(entry, known, seen, found)
                elif name.startswith(".") or name.endswith(PROGRESS_SUFFIX):
                    continue
                elif depth < DEPTH and entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, depth + 1))
    return found.changed


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """All of a folder or an error: a network file system may fail in the middle of a listing."""
    with os.scandir(folder) as entries:
        return list(entries)


def _compare(entry: os.DirEntry[str], known: Mapping[str, HasStamp], seen: set[str], found: Found) -> None:
    try:
        stamp = Stamp.of(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return
    except OSError:
        seen.add(entry.path)
        return
    seen.add(entry.path)
    last = known.get(entry.path)
    if last is None or last.stamp != stamp:
        found.changed.append(entry.path)


def _settle_answers(
    seen: set[str], answers: set[str], silent: Collection[str], known: Mapping[str, HasStamp], found: Found
) -> None:
    for answer in answers:
        want = answer.removesuffix(PROGRESS_SUFFIX) + WANT_SUFFIX
        if want not in seen:
            with contextlib.suppress(OSError):
                if not os.path.lexists(want):
                    os.unlink(answer)
    for path in seen:
        answer = path.removesuffix(WANT_SUFFIX) + PROGRESS_SUFFIX
        if path in known and answer not in answers and path not in silent:
            found.unanswered.append(path)
