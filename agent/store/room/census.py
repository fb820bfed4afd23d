"""What the store holds, as far as room goes: sizes on disk, who shares what, last uses, leases. Reads, changes nothing.

A model is used while it is wanted or leased, which its mark (`.wantd.used`) remembers, and when its weights are read,
which the file system remembers: the newest access time of its large files. With `noatime` only the first counts.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.core.remote import SMALL_MAX
from agent.core.retention import Census, Inode, Stored
from agent.store.hub_layout import BLOBS
from agent.store.inventory import Entry
from agent.store.layout import LLMLB_GGUF, MANIFEST, RECORD, USED, Layout
from agent.store.lock_table import flocks
from agent.store.room.leases import is_open

OWN_FILES = (LLMLB_GGUF, MANIFEST, RECORD, USED)  # of a model, beside the files of its record
OWN_NAMES = (f"/{RECORD}", f"/{USED}", f"/{MANIFEST}")
OPEN_LOOKS = 64  # large files of one model that are looked at for readers


@dataclass(slots=True)
class _Count:
    sizes: dict[Inode, int] = field(default_factory=dict)
    links: dict[Inode, int] = field(default_factory=dict)
    accounted: Counter[Inode] = field(default_factory=Counter)

    def add(self, info: os.stat_result) -> Inode:
        inode = info.st_dev, info.st_ino
        self.sizes[inode], self.links[inode] = info.st_blocks * 512, info.st_nlink
        self.accounted[inode] += 1
        return inode


def take(layout: Layout, hub: str, entries: Sequence[Entry], wanted: Mapping[str, tuple[str, ...]]) -> Census:
    """A census of the published `entries`. `hub` is the view's root, empty for none.

    `wanted` are the paths of wants by the names of the models (directories below the store) that they ask for. Blocks
    on the disk: a stat for each file of the store and each blob of the view. What cannot be looked at is left out.
    """
    count, leased = _Count(), flocks()
    models: dict[str, Stored] = {}
    for entry in entries:
        name = os.path.relpath(entry.directory, layout.root)
        found = list(_files(entry))
        inodes = frozenset(count.add(info) for _, info in found)
        wanted_by = wanted.get(name, ())
        is_leased = any((info.st_dev, info.st_ino) in leased for path, info in found if path.endswith(f"/{RECORD}"))
        weights = _weights(found)
        in_use = not (wanted_by or is_leased) and any(is_open(path) for path, _ in weights[:OPEN_LOOKS])
        models[name] = Stored(name, inodes, _last_used(found, weights), wanted_by, is_leased, in_use)
    for info in (*_stats(layout.partial), *_blobs(hub)):
        if (info.st_dev, info.st_ino) in count.sizes:
            count.add(info)
    elsewhere = frozenset(inode for inode, links in count.links.items() if links > count.accounted[inode])
    return Census(models, count.sizes, elsewhere)


def used_bytes(layout: Layout) -> int:
    """What models and partials take on the disk, in bytes, each inode once: as `du` counts files.

    A partial counts with its whole length from its first byte on. Partials are looked at first: a file that is
    published meanwhile is seen in one place or in both, never in none.
    """
    seen: dict[Inode, int] = {}
    for info in _stats(layout.partial):
        seen[info.st_dev, info.st_ino] = max(info.st_blocks * 512, info.st_size)
    for info in _walk(layout.root):
        seen.setdefault((info.st_dev, info.st_ino), info.st_blocks * 512)
    return sum(seen.values())


def _files(entry: Entry) -> Iterator[tuple[str, os.stat_result]]:
    for name in dict.fromkeys([*(file.name for file in entry.record.files), *OWN_FILES]):
        path = f"{entry.directory}/{name}"
        with contextlib.suppress(OSError):
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode):
                yield path, info


def _weights(found: Sequence[tuple[str, os.stat_result]]) -> list[tuple[str, os.stat_result]]:
    """The large files, all files of a model that has none; never wantd's own, which it reads itself."""
    theirs = [(path, info) for path, info in found if not path.endswith(OWN_NAMES)]
    return [(path, info) for path, info in theirs if info.st_size > SMALL_MAX] or theirs


def _last_used(found: Sequence[tuple[str, os.stat_result]], weights: Sequence[tuple[str, os.stat_result]]) -> float:
    marks = [info.st_mtime for path, info in found if path.endswith((f"/{USED}", f"/{RECORD}"))]
    return max([*marks, *(info.st_atime for _, info in weights)], default=0.0)


def _stats(folder: str) -> Iterator[os.stat_result]:
    """The regular files in a directory."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False)


def _blobs(hub: str) -> Iterator[os.stat_result]:
    """The blobs of the view."""
    if not hub:
        return
    with contextlib.suppress(OSError), os.scandir(hub) as repos:
        for repo in repos:
            yield from _stats(f"{repo.path}/{BLOBS}")


def _walk(root: str) -> Iterator[os.stat_result]:
    pending = [root]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if folder != root or not entry.name.startswith("."):
                            pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.stat(follow_symlinks=False)
