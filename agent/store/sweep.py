"""Removing what crashes and cancelled wants leave behind, under the lock that guards it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

from agent.core.retention import Leftover
from agent.disk import STALE_S, TEMP_PREFIX, remove_stale_temps
from agent.errors import WantdError
from agent.store.inventory import Inventory
from agent.store.layout import STAGE, UNFINISHED, Layout
from agent.store.locks import Locks


def leftovers(layout: Layout) -> list[Leftover]:
    """All partials, with the time of their last change in seconds since the epoch."""
    found: dict[str, list[tuple[str, float]]] = {}
    with contextlib.suppress(OSError), os.scandir(layout.partial) as entries:
        for entry in entries:
            if not entry.name.startswith((STAGE, TEMP_PREFIX)) and entry.is_file(follow_symlinks=False):
                key = entry.name.partition(".")[0]
                found.setdefault(key, []).append((entry.path, entry.stat(follow_symlinks=False).st_mtime))
    return [
        Leftover(key, tuple(path for path, _ in files), max(changed for _, changed in files))
        for key, files in found.items()
    ]


def remove(leftover: Leftover, layout: Layout, locks: Locks) -> bool:
    """Remove a partial, unless somebody is writing it. True when it is gone."""
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

    One that is a hard link to the published file goes without the lock, which would cost more than the rest of the
    work for a small file: a job that needs the bytes finds them in the store. Any other may be half of what another
    job is writing.
    """
    paths = (layout.part(key), layout.journal(key))
    if _links(paths[0]) > 1:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
    else:
        remove(Leftover(key, paths, 0.0), layout, locks)


def debris(layout: Layout, inventory: Inventory) -> list[Leftover]:
    """Partials that are of no use however young they are, for `remove` to take away under their locks.

    Their bytes are published: they are links to a published file, or have the hash of one. Agents leave them that die
    between publishing a model and forgetting its partials.
    """
    if any(name.startswith(STAGE) for name in _names(layout.partial)):
        return []  # the files of a stage are links to partials as well
    partials = leftovers(layout)
    if partials:
        inventory.refresh()
    return [left for left in partials if _links(layout.part(left.key)) > 1 or inventory.find(left.key) is not None]


def remove_unfinished(layout: Layout, locks: Locks) -> None:
    """Remove what agents that died were writing: stages whose model nobody has locked, and temporary files."""
    for folder in (layout.partial, layout.locks):
        remove_stale_temps(folder, time.time())
    stages = [(f"{layout.locks}/{model}.lock", f"{layout.partial}/{name}") for name, model in _staged(layout)]
    near = (
        stage for stage in layout.near_stages() if not stage[1].endswith(UNFINISHED)
    )  # `room.removal` finishes those
    stages += [(layout.model_lock(name), path) for name, path in near]
    for lock_path, path in stages:
        with contextlib.suppress(WantdError):
            if lock := locks.try_acquire(lock_path):
                try:
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    lock.release()


def remove_stale_stamps(layout: Layout) -> None:
    """Remove stamps of models that are gone, and temporary files beside them."""
    remove_stale_temps(layout.stamps, time.time())
    models = {layout.stamps_in(directory) for directory, _ in layout.record_places(linked=True)}
    for path in {f"{layout.stamps}/{name}" for name in _names(layout.stamps)} - models:
        with contextlib.suppress(OSError):
            # One that is young may be of a model that is being published.
            if path.endswith(".json") and time.time() - os.stat(path).st_mtime > STALE_S:
                os.unlink(path)


def _staged(layout: Layout) -> list[tuple[str, str]]:
    """The stages beside the partials, each with the name of its model's lock."""
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
