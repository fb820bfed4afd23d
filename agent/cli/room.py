"""The store as the commands see it that list and remove models: under the store's locks, with or without an agent.

A running agent notices what is removed. It is asked instead where it can be reached (`cli.agent_socket`): it knows of
wants that come in the same moment.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Sequence

from loguru import logger

from agent.config import Config, catalog_path
from agent.core.catalog import Catalog, parse_catalog
from agent.core.names import StoreName, show
from agent.core.retention import Census
from agent.core.target import make_target
from agent.core.want import WantedModel
from agent.errors import Code, WantdError
from agent.requests.wanted import spools, wanted
from agent.store.hub_view import HubView
from agent.store.inventory import Entry, Inventory
from agent.store.layout import Layout
from agent.store.locks import Locks
from agent.store.publish import Modes
from agent.store.room import census
from agent.store.room.removal import Remover
from agent.store.space import Space


class StoreRoom:
    """One store, looked at by a command."""

    def __init__(self, config: Config) -> None:
        logger.remove()
        logger.add(sys.stderr, level="WARNING", format="wantd: {message}", backtrace=False, diagnose=False)
        self.config = config
        self.layout = Layout(config.store.dir)
        self.inventory = Inventory(self.layout)
        self.catalog = _catalog(config)
        self.locks = Locks()
        self._modes = Modes.current()

    def entries(self) -> list[Entry]:
        """The models that are there now."""
        self.inventory.refresh()
        return self.inventory.entries()

    def census(self) -> Census:
        """What they take, and who wants them: the wants of every spool whose agent uses the store."""
        wants = wanted([self.config.spool.dir, *spools(self.layout)], self.catalog)
        return census.take(self.layout, self.config.store.hub_cache, self.entries(), wants)

    def find(self, models: Sequence[str]) -> list[StoreName]:
        """The directories of the models that a person names, by reference or by directory.

        Raises `model_not_found` for one that is not in the store.
        """
        entries = {os.path.relpath(entry.directory, self.layout.root) for entry in self.entries()}
        found: dict[StoreName, None] = {}
        for model in models:
            name = next((name for name in (model, self._by_reference(model)) if name in entries), None)
            if name is None:
                raise WantdError(
                    Code.MODEL_NOT_FOUND, f"{show(model)} is not in the store", "`wantd ls` lists what is there"
                )
            found[StoreName(name)] = None
        return list(found)

    def remover(self) -> Remover:
        """For who may change the store. Raises `store_unwritable`."""
        act_as_owner(self.layout.root)
        return Remover(self.layout, self.locks, self.inventory, self.view())

    def view(self) -> HubView:
        """The store's view."""
        return HubView(self.config.store.hub_cache, self.layout, self.inventory, self._modes)

    def space(self) -> Space:
        """The disk and the quota."""
        store = self.config.store
        return Space(self.layout.root, lambda: store.min_free_bytes, max_bytes=lambda: store.max_bytes)

    def now(self) -> float:
        """Unix time, in seconds."""
        return time.time()

    def _by_reference(self, model: str) -> str:
        try:
            return make_target(self.catalog, "any", WantedModel(model)).name
        except WantdError:
            return ""


def act_as_owner(root: str) -> None:
    """Go on as the user that the store belongs to, the agent's: what root creates there the agent could not change.

    Raises `store_unwritable` for any other user than that and root.
    """
    try:
        info = os.stat(root)
    except FileNotFoundError:
        raise WantdError(
            Code.STORE_UNWRITABLE, f"there is no store at {root}", "set store.dir, or WANTD_STORE__DIR"
        ) from None
    if os.geteuid() == info.st_uid:
        return
    try:
        owner, home = pwd.getpwuid(info.st_uid).pw_name, pwd.getpwuid(info.st_uid).pw_dir
    except KeyError:
        owner, home = str(info.st_uid), "/"
    if os.geteuid() != 0:
        raise WantdError(
            Code.STORE_UNWRITABLE,
            f"the store {root} belongs to the user {owner}",
            f"run it as {owner} or root: sudo wantd …",
        )
    os.initgroups(owner, info.st_gid) if owner != str(info.st_uid) else os.setgroups([])
    os.setresgid(info.st_gid, info.st_gid, info.st_gid)
    os.setresuid(info.st_uid, info.st_uid, info.st_uid)
    os.environ["HOME"] = home


def _catalog(config: Config) -> Catalog:
    """The catalog in force; an empty one where it cannot be read."""
    path = catalog_path(config)
    try:
        with open(path, "rb") as file:
            return parse_catalog(file.read())
    except (OSError, ValueError) as error:
        logger.warning("cannot use the catalog {}: {}", path, str(error)[:200])
        return Catalog()
