"""What crashes and cancelled wants leave behind, and taking it away under the lock that guards it."""

from __future__ import annotations

import contextlib
import os
import shutil

from agent.core.retention import Leftover
from agent.errors import WantdError
from agent.store.inventory import Inventory
from agent.store.layout import STAGE, Layout
from agent.store.locks import Locks


def leftovers(layout: Layout) -> list[Leftover]:
    """All partials with the time of their last change, in seconds since the epoch."""
    found: dict[str, list[tuple[str, float]]] = {}
    with contextlib.suppress(OSError), os.scandir(layout.partial) as entries:
        for entry in entries:
            if not entry.name.startswith(STAGE) and entry.is_file(follow_symlinks=False):
                key = entry.name.partition(".")[0]
                found.setdefault(key, []).append((entry.path, entry.stat(follow_symlinks=False).st_mtime))
    return [
        Leftover(key, tuple(path for path, _ in files), max(changed for _, changed in files))
        for key, files in found.items()
    ]


def remove(leftover: Leftover, layout: Layout, locks: Locks) -> bool:
    """Remove a partial unless somebody is at it now. True when it is gone."""
    try:
        lock = locks.try_acquire(layout.file_lock(leftover.key))
    except WantdError:
        return False
    if lock is None:
        return False
    try:
        for path in leftover.paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except OSError:
        return False
    finally:
        lock.release()
    return True


def forget(key: str, layout: Layout, locks: Locks) -> None:
    """Remove the partial of a file that has just been published.

    A hard link to it goes without the lock, which would cost more than everything else for a small file: whoever is
    at it in this moment finds the bytes in the store. Any other partial may be half of what another job is writing.
    """
    paths = (layout.part(key), layout.journal(key))
    if _links(paths[0]) > 1:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
    else:
        remove(Leftover(key, paths, 0.0), layout, locks)


def debris(layout: Layout, inventory: Inventory) -> list[Leftover]:
    """What is of no use however young it is, for `remove` to take away under the partial's lock.

    Temporary files of agents that died while they wrote one; and partials whose bytes are published, left by agents
    that died between the two: they are links to the published file, or have the hash of one.
    """
    found = []
    staging = any(name.startswith(STAGE) for name in _names(layout.partial))  # those are linked to partials as well
    there = leftovers(layout)
    if there:
        inventory.refresh()
    for leftover in there:
        part = layout.part(leftover.key)
        temporary = tuple(path for path in leftover.paths if path.endswith(".tmp"))
        published = not staging and (_links(part) > 1 or inventory.find(leftover.key) is not None)
        paths = leftover.paths if published else temporary
        if paths:
            found.append(Leftover(leftover.key, paths, leftover.changed_at))
    return found


def remove_stages(layout: Layout, locks: Locks) -> None:
    """Remove stages of agents that died: those whose model nobody has locked."""
    stages = [(f"{layout.locks}/{model}.lock", f"{layout.partial}/{name}") for name, model in _staged(layout)]
    stages += [(layout.model_lock(name), path) for name, path in layout.near_stages()]
    for lock_path, path in stages:
        with contextlib.suppress(WantdError):
            if lock := locks.try_acquire(lock_path):
                try:
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    lock.release()


def _staged(layout: Layout) -> list[tuple[str, str]]:
    """The stages beside the partials, each with its model's name as the lock's has it."""
    names = [name for name in _names(layout.partial) if name.startswith(STAGE)]
    return [(name, name.removeprefix(STAGE).rpartition("~")[0]) for name in names]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _links(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_nlink
    except OSError:
        return 0
