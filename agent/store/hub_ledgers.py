"""Where the ledgers of the view are kept: in the store, and as copies in the view itself.

STORE/.view/models--org--name.json              counts
HUB/.locks/.wantd-<store>/models--org--name.json   the copy, for when somebody has removed the whole store

Without the copies, the view's hard links would keep the bytes of a removed store on the disk, and no agent would know
them for its own. `.locks` is a directory of the Hub's own tools, in which they look for no models; `<store>` is the
start of the SHA-256 of the store's path, so that two stores may share a view. A copy is read only where the store has
no ledger; others may have written it, so that one which names anything outside its folder is nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import msgspec

from agent.disk import Sync, atomic_write, remove_stale_temps
from agent.store.hub_layout import Ledger, may_be_true
from agent.store.layout import Layout, short
from agent.store.openat import Folder
from agent.store.publish import Modes

MAX_BYTES = 64 * 1024 * 1024
_LOCKS = ".locks"


class Ledgers:
    """The ledgers of one store, whose view is at `root` (empty: none). Methods touch the disk."""

    def __init__(self, root: str, layout: Layout, modes: Modes) -> None:
        self._root = root
        self._layout = layout
        self._modes = modes
        self._copies = [_LOCKS, f".wantd-{short(layout.root)}"]

    def folders(self) -> set[str]:
        """The folders of the view that have a ledger."""
        remove_stale_temps(self._layout.view, time.time())
        names: list[str] = []
        with contextlib.suppress(OSError):
            names += os.listdir(self._layout.view)
        with self._in_view(self._root) as copies:
            there = copies.names() if copies else None
        if there == []:  # one who was killed before this
            self._prune(self._root)
        names += [name for name in there or [] if name.startswith("models--")]
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def read(self, folder: str) -> Ledger:
        """The ledger of a folder; an empty one where there is none that can be read."""
        with contextlib.suppress(OSError, msgspec.DecodeError), open(self._path(folder), "rb") as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=Ledger)
        with self._in_view(self._root) as copies, contextlib.suppress(msgspec.DecodeError):
            if data := copies.read(f"{folder}.json", MAX_BYTES) if copies else None:
                ledger = msgspec.json.decode(data, type=Ledger)
                ledger.hub = self._root  # it is about what is beside it
                if may_be_true(folder, ledger):
                    return ledger
        return Ledger(self._root)

    def write(self, folder: str, ledger: Ledger) -> None:
        """Replace the ledger, and its copy where the view can have one. Raises OSError."""
        data = msgspec.json.encode(ledger)
        os.makedirs(self._layout.view, self._modes.folder, exist_ok=True)
        atomic_write(self._path(folder), data, mode=self._modes.file, sync=Sync.FILE)
        self._copy(folder, ledger, data)

    def copy(self, folder: str, ledger: Ledger) -> None:
        """See that the copy is there: readers may remove all of a view."""
        self._copy(folder, ledger, msgspec.json.encode(ledger))

    def _copy(self, folder: str, ledger: Ledger, data: bytes) -> None:
        with self._in_view(ledger.hub, make=ledger.hub == self._root) as copies:
            if copies:
                copies.put_file(f"{folder}.json", data, self._modes.file)

    def remove(self, folder: str, hub: str) -> None:
        """The folder has nothing of wantd's any more in the view at `hub`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(folder))
        with self._in_view(hub) as copies:
            if copies:
                copies.remove(f"{folder}.json")
                copies.remove_temps()  # of one who was killed; the view's lock keeps others off
        self._prune(hub)

    def _prune(self, hub: str) -> None:
        """Remove the directory of the copies, if it is empty."""
        with contextlib.suppress(OSError), Folder.top(hub, self._modes.folder) as top:
            top.prune(list(self._copies))

    def _path(self, folder: str) -> str:
        return f"{self._layout.view}/{folder}.json"

    @contextlib.contextmanager
    def _in_view(self, hub: str, *, make: bool = False) -> Iterator[Folder | None]:
        """The directory of the copies. What the view refuses is let go: the ledger in the store counts."""
        with contextlib.suppress(OSError):
            if hub and make:
                os.makedirs(hub, self._modes.folder, exist_ok=True)
            if hub:
                with Folder.top(hub, self._modes.folder) as top, top.below(self._copies, make=make) as copies:
                    yield copies
                    return
        yield None
