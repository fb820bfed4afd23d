"""Which models the wants of a spool name, by a look at the spool alone: for commands, and for the spools of others.

The agent of a spool knows better and faster. A store may serve several agents though, each with a spool of its own, and
a want pins its model whether or not its agent runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable

import msgspec

from agent.core.catalog import Catalog
from agent.core.target import make_target
from agent.core.want import WantedModel
from agent.errors import WantdError
from agent.requests.read import Reader
from agent.spool.files import list_wants
from agent.store.layout import Layout

Postponed = list[tuple[str, list[WantedModel]]]
Wants = dict[str, tuple[str, ...]]


class _Said(msgspec.Struct):
    """Of an agent's file (`reports.status.AgentFile`), what is of interest here."""

    spool: str


def spools(layout: Layout) -> list[str]:
    """The spools whose agents use the store, or did: each left a file in it."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(layout.locks)):
            if name.startswith(".agent-") and name.endswith(".json"):
                with contextlib.suppress(OSError, msgspec.DecodeError), open(f"{layout.locks}/{name}", "rb") as file:
                    found.append(msgspec.json.decode(file.read(), type=_Said).spool)
    return found


def wanted(spools: Iterable[str], catalog: Catalog) -> Wants:
    """The wants in these spools, as paths, by the names of the models (directories below the store) that they name.

    What cannot be read or names no model wants nothing. Blocks on the disk.
    """
    found: Wants = {}
    for spool in dict.fromkeys(spools):
        read, paths = Reader(spool), [(path, True) for path in list_wants(spool)]
        while paths:
            seen = read(paths)
            for look in seen:
                add(found, look.path, look.want.models if look.want else (), catalog)
            paths = paths[max(len(seen), 1) :]
    return found


def add(found: Wants, path: str, models: Iterable[WantedModel], catalog: Catalog) -> None:
    """Note what one want names."""
    for model in models:
        with contextlib.suppress(WantdError):
            name = make_target(catalog, "any", model).name
            found[name] = (*found.get(name, ()), path)


def others(
    layout: Layout, spool: str, catalog: Callable[[], Catalog], waiting: Callable[[], Postponed]
) -> Callable[[], Wants]:
    """For the agent of `spool`: the wants that are none of its jobs. `waiting` gives those whose time has not come."""

    def look() -> Wants:
        found = wanted((other for other in spools(layout) if other != spool), catalog())
        for path, models in waiting():
            add(found, path, models, catalog())
        return found

    return look
